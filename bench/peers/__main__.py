"""Measure the bridge and its peers in one run: accepted requests, jobs, memory, and what is lost by `kill -9`.

Every peer is loaded like the bridge and next to the server that only checks the HMAC; ratios count, rates are for
scale. A peer that is not installed is left out, with a line that says so. Needs Linux' /proc.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from bench.databases import BridgeDatabase, Postgres, Sqlite
from bench.load import CONNECTIONS, LoadResult, load, load_generator, write_bodies
from bench.peers import MARK_SIZE
from bench.peers.processes import Process, TooSlow, memory_of, wait_until
from bench.scale_out import LATENCY_RULES
from bench.servers import (
    BRIDGE,
    SECRET,
    baseline_server,
    bridge_environment,
    free_port,
    post,
    postgres,
    wait_for_worker,
)

ROOT = Path(__file__).resolve().parents[2]
IN_HAND = 40
"""Jobs of 50 ms, in the middle of which the worker is killed."""
JOB_SECONDS = 0.05
SETTLED = 10.0
"""Seconds without another job done, after which the rest counts as not done. A lease of the bridge lasts 30 s."""


@dataclass
class Result:
    """Measurements of one system, one entry per run."""

    name: str
    ratios: list[float] = field(default_factory=list)
    """Accepted requests per second, against the HMAC-only server right before."""
    p99_ms: list[float] = field(default_factory=list)
    jobs: list[float] = field(default_factory=list)
    """Jobs per second while a backlog is worked off, with its first and last tenth left out."""
    memory: list[float] = field(default_factory=list)
    """MB of all processes, without PostgreSQL."""
    lost: list[str] = field(default_factory=list)
    """Accepted events that were never done after `kill -9` of the receiver right after the last answer."""
    undone: list[str] = field(default_factory=list)
    """Jobs that were not done `SETTLED` seconds after `kill -9` of a worker in the middle of them."""


@dataclass(frozen=True)
class Peer:
    """A peer that was found on this machine."""

    name: str
    module: str
    store: str
    """`redis`, `redis synced` (its append-only file is synced at each write) or `postgres`."""
    prepare: tuple[str, ...] = ()
    """Arguments of Python that create the tables; the URL of the store follows."""


PEERS = (
    Peer("Starlette + Redis list", "redis_list", "redis"),
    Peer("the same, synced at each write", "redis_list", "redis synced"),
    Peer("arq, synced at each write", "arq_queue", "redis synced"),
    Peer("Procrastinate", "procrastinate_queue", "postgres"),
    Peer("DBOS", "dbos_queue", "postgres", ("-c", "import sys, dbos; dbos.DBOS.migrate(sys.argv[1])")),
)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="Python of the environment with the peers")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds of each load run")
    parser.add_argument("--runs", type=int, default=3, help="runs per system; the median counts")
    parser.add_argument("--only", default="", help="only systems whose name contains this text")
    args = parser.parse_args()
    peers = [peer for peer in PEERS if _is_installed(peer, args.python)]
    with (
        tempfile.TemporaryDirectory(prefix="bridge-peers-") as folder,
        postgres() as server,
        baseline_server() as baseline,
    ):
        bench = _Bench(Path(folder), server, baseline, args.python, args.seconds)
        systems: dict[str, Callable[[Result], None]] = {
            "bridge, SQLite": lambda result: bench.bridge(result, Sqlite(Path(folder)).new),
            "bridge, PostgreSQL": lambda result: bench.bridge(result, Postgres(server).new),
        } | {peer.name: lambda result, peer=peer: bench.peer(result, peer) for peer in peers}
        systems = {name: measure for name, measure in systems.items() if args.only in name}
        results = {name: Result(name) for name in systems}
        for _ in range(args.runs):
            for name, measure in systems.items():
                try:
                    measure(results[name])
                except TooSlow as error:
                    print(f"{name}: {error}", file=sys.stderr)
    _print(list(results.values()))


def _is_installed(peer: Peer, python: str) -> bool:
    if peer.store.startswith("redis") and not shutil.which("redis-server"):
        print(f"{peer.name}: left out, because redis-server is not installed", file=sys.stderr)
        return False
    environ = os.environ | {
        "PEER_STORE_URL": "redis://127.0.0.1:1",
        "PEER_SECRET": "",
        "PEER_DONE_FILE": os.devnull,
    }
    command = [python, "-c", f"import bench.peers.{peer.module}"]
    if subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, check=False).returncode:
        print(f"{peer.name}: left out, because it is not installed for {python}", file=sys.stderr)
        return False
    return True


class _Bench:
    def __init__(self, folder: Path, postgres_url: str, baseline: str, python: str, seconds: float) -> None:
        self._folder, self._postgres, self._baseline = folder, postgres_url, baseline
        self._python, self._seconds = python, seconds

    def peer(self, result: Result, peer: Peer) -> None:
        """Measure one peer once."""
        with tempfile.TemporaryDirectory(dir=self._folder) as folder, ExitStack() as stack:
            done = Path(folder, "done")
            done.touch()
            store, redis = stack.enter_context(self._store(peer, Path(folder)))
            if peer.prepare:
                subprocess.run([self._python, *peer.prepare, store], check=True, capture_output=True)
            environ = {"PEER_STORE_URL": store, "PEER_SECRET": SECRET, "PEER_DONE_FILE": str(done)}
            module, port = f"bench.peers.{peer.module}", free_port()
            options = ["--port", str(port), "--no-access-log", "--log-level", "error"]
            receive = Process([self._python, "-m", "uvicorn", f"{module}:app", *options], environ, ROOT)
            worker = Process([self._python, "-m", module], environ, ROOT)
            slow_environ = environ | {"PEER_JOB_SECONDS": str(JOB_SECONDS)}
            slow_worker = Process([self._python, "-m", module], slow_environ, ROOT)
            for process in (receive, worker, slow_worker):
                stack.callback(process.kill)
            receive.start(f"http://127.0.0.1:{port}/")
            accepted = self._accept(result, f"http://127.0.0.1:{port}")
            worker.start()
            result.jobs.append(_rate(lambda: _jobs_in(done), accepted))
            result.memory.append(memory_of([receive, worker, *redis]))
            worker.kill()
            before = _jobs_in(done)
            accepted = self._accept(None, f"http://127.0.0.1:{port}")
            for process in (receive, *redis):
                process.kill()
            for process in redis:
                process.start()
                time.sleep(1)
            worker.start()
            kept = _settled(lambda: _jobs_in(done)) - before
            result.lost.append(f"{max(0, accepted - kept)} of {accepted}")
            worker.kill()
            before = len(_events_in(done))
            receive.start(f"http://127.0.0.1:{port}/")
            self._send(f"http://127.0.0.1:{port}")
            slow_worker.start()
            wait_until(lambda: len(_events_in(done)) >= before + IN_HAND // 4, 60)
            slow_worker.kill()
            worker.start()
            _settled(lambda: _jobs_in(done))
            result.undone.append(f"{before + IN_HAND - len(_events_in(done))} of {IN_HAND}")

    def bridge(self, result: Result, new_database: Callable[[], AbstractContextManager[str]]) -> None:
        """Measure the bridge once."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name, new_database() as url:
            folder, port = Path(name), free_port()
            environ = bridge_environment(folder, url) | {"BRIDGE_PORT": str(port)}
            database, address = BridgeDatabase(url), f"http://127.0.0.1:{port}"
            receive = Process([BRIDGE, "serve", "--no-worker"], environ, folder)
            service = Process([BRIDGE, "serve"], environ, folder)
            slow_environ = bridge_environment(folder / "slow", url, LATENCY_RULES) | {
                "BRIDGE_PORT": str(port)
            }
            slow_service = Process([BRIDGE, "serve"], slow_environ, folder)
            try:
                receive.start(f"{address}/healthz")
                accepted = self._accept(result, address)
                receive.kill()
                database.change("UPDATE events SET routed_at = -1 WHERE routed_at IS NULL")
                service.start(f"{address}/healthz")
                wait_for_worker(address)
                database.change("UPDATE events SET routed_at = NULL WHERE routed_at = -1")
                result.jobs.append(_rate(lambda: _succeeded(database), accepted))
                result.memory.append(memory_of([service]))
                service.kill()
                before = _succeeded(database)
                receive.start(f"{address}/healthz")
                accepted = self._accept(None, address)
                receive.kill()
                service.start(f"{address}/healthz")
                wait_for_worker(address)
                database.wait_until_final()
                kept = _succeeded(database) - before
                result.lost.append(f"{max(0, accepted - kept)} of {accepted}")
                service.kill()
                before = _succeeded(database)
                slow_service.start(f"{address}/healthz")
                wait_for_worker(address)
                self._send(address)
                wait_until(lambda: _succeeded(database) >= before + IN_HAND // 4, 60)
                slow_service.kill()
                slow_service.start(f"{address}/healthz")
                database.wait_until_final()
                result.undone.append(f"{before + IN_HAND - _succeeded(database)} of {IN_HAND}")
            finally:
                for process in (receive, service, slow_service):
                    process.kill()

    def _send(self, address: str) -> None:
        """Send the events of the jobs in the middle of which the worker is killed."""
        with httpx.Client(base_url=address, timeout=30) as heppu:
            for line in write_bodies(self._folder / "bodies", IN_HAND).open():
                post(heppu, line)

    def _accept(self, result: Result | None, address: str) -> int:
        """Load a server after the baseline; return the number of accepted events."""
        bodies = self._folder / "bodies"
        baseline = load(self._baseline, write_bodies(bodies, 5000), self._seconds if result else 1)
        seconds = self._seconds if result else 1
        accepted: LoadResult = load(
            address, write_bodies(bodies, int(baseline.rate * seconds * 1.2) + 1000), seconds
        )
        if result is not None:
            result.ratios.append(accepted.rate / baseline.rate)
            result.p99_ms.append(accepted.p99_ms)
        return int(accepted.rate * seconds) - accepted.rejected

    @contextmanager
    def _store(self, peer: Peer, folder: Path) -> Iterator[tuple[str, list[Process]]]:
        if peer.store == "postgres":
            with Postgres(self._postgres).new() as url:
                yield url, []
            return
        port = free_port()
        synced = ["--appendonly", "yes", "--appendfsync", "always"] if peer.store == "redis synced" else []
        command = ["redis-server", "--port", str(port), "--dir", str(folder), *synced]
        redis = Process(command, {}, folder)
        redis.start()
        time.sleep(1)
        try:
            yield f"redis://127.0.0.1:{port}", [redis]
        finally:
            redis.kill()


def _jobs_in(done: Path) -> int:
    return done.stat().st_size // MARK_SIZE


def _events_in(done: Path) -> set[bytes]:
    """Return the events whose jobs were done, once each: a job that was done twice does not make up for another."""
    marks = done.read_bytes()
    return {marks[start : start + MARK_SIZE] for start in range(0, len(marks), MARK_SIZE)}


def _succeeded(database: BridgeDatabase) -> int:
    return int(database.row("SELECT count(*) FROM deliveries WHERE state = 'succeeded'")[0])


def _rate(done: Callable[[], int], expected: int) -> float:
    """Return the jobs per second between a tenth and nine tenths of the expected ones."""
    times = []
    for share in (0.1, 0.9):
        wait_until(lambda share=share: done() >= share * expected, 300)
        times.append((time.perf_counter(), done()))
    (start, first), (end, last) = times
    _settled(done)
    return (last - first) / max(end - start, 0.02)


def _settled(done: Callable[[], int]) -> int:
    """Return the number of jobs done once it has not changed for a while."""
    number, since = done(), time.perf_counter()
    while time.perf_counter() - since < SETTLED:
        time.sleep(0.1)
        if (current := done()) != number:
            number, since = current, time.perf_counter()
    return number


def _print(results: list[Result]) -> None:
    title = (
        f"{CONNECTIONS} connections, load from {load_generator()}; medians of {len(results[0].ratios)} runs"
    )
    table = Table(
        "system", "accepted / HMAC-only", "p99 ms", "jobs/s", "memory MB", "lost by kill -9",
        "not done after kill -9 of the worker", title=title,
    )  # fmt: skip
    for item in results:
        numbers = [
            f"{statistics.median(values):{spec}}" if values else "not done"
            for values, spec in (
                (item.ratios, ".2f"),
                (item.p99_ms, ".0f"),
                (item.jobs, ",.0f"),
                (item.memory, ".0f"),
            )
        ]
        table.add_row(item.name, *numbers, "; ".join(item.lost), "; ".join(item.undone))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    main()
