"""Benchmarks of several processes on one PostgreSQL.

Workers: deliveries per second while the provider's latency is the limit. Receivers on one port: events stored per
second while one interpreter is the limit.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Final

from bench.databases import BridgeDatabase, Engine
from bench.load import CONNECTIONS, load, write_bodies
from bench.rows import Row, Size
from bench.servers import RULES, bridge_server, cpu_seconds, run_receivers, run_workers

WORKERS: Final = (1, 2, 4)
LATENCY_RULES: Final = RULES.replace("idle.do_nothing", "idle.wait")
"""The action takes 50 ms; a worker has 16 threads for it, so it can do 320 per second."""
BACKLOG: Final = 1_600
"""Deliveries per worker: five seconds."""
TARGETS: Final = {2: 1.9, 4: 3.6}
"""Times the deliveries of one worker."""
FLOOR: Final = 0.6
MAX_RATE: Final = 8_000
"""Distinct events to send per second: more than two receivers store."""
TARGET_RECEIVERS: Final = 1.6
"""Times the events of one receiver. It takes three cores: the load and PostgreSQL need one."""


def scale_out(engine: Engine, folder: Path) -> list[Row]:
    """Measure a backlog with one, two and four workers, in the middle of it, while all of them have work."""
    rates = {number: _rate(engine, folder, number) for number in WORKERS}
    return [
        Row(
            f"{engine.name}: deliveries/s at 50 ms, 16 threads each, {number} workers; one", f"{rates[number]:,.0f}",
            f"{rates[1]:,.0f}", f"{(ratio := rates[number] / rates[1]):.2f}", f">= {target:g}",
            ratio >= target, ratio >= FLOOR * number,
        )
        for number, target in TARGETS.items()
    ]  # fmt: skip


def receivers(engine: Engine, folder: Path, size: Size) -> Row:
    """Measure the events that one receiver and two receivers on one port store, and their CPU time per event."""
    runs: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(size.runs):
        for number, results in runs.items():
            results.append(_receive(engine, folder, number, size.seconds))
    rates, cpu = (
        {number: statistics.median(result[index] for result in results) for number, results in runs.items()}
        for index in range(2)
    )
    return Row(
        f"{engine.name}: events stored/s, and CPU per event, 2 receivers on one port; one",
        f"{rates[2]:,.0f}, {cpu[2]:.0f} µs", f"{rates[1]:,.0f}, {cpu[1]:.0f} µs",
        f"{(ratio := rates[2] / rates[1]):.2f}", f">= {TARGET_RECEIVERS:g}",
        ratio >= TARGET_RECEIVERS, advisory=True,
    )  # fmt: skip


def _receive(engine: Engine, folder: Path, number: int, seconds: float) -> tuple[float, float]:
    """Return the events stored per second, and the microseconds of CPU time per event in the receivers."""
    with engine.new() as url, run_receivers(folder, url, number) as (address, own_urls):
        bodies = write_bodies(folder / "bodies", int(MAX_RATE * seconds))
        before = sum(map(cpu_seconds, own_urls))
        load(address, bodies, seconds)
        used, stored = sum(map(cpu_seconds, own_urls)) - before, BridgeDatabase(url).events()
    return stored / seconds, used * 1e6 / stored


def _rate(engine: Engine, folder: Path, workers: int) -> float:
    with engine.new() as url:
        database = BridgeDatabase(url)
        with bridge_server(folder, url, "--no-worker", rules=LATENCY_RULES) as address:
            bodies = write_bodies(folder / "bodies", BACKLOG * workers + CONNECTIONS)
            seconds = 2.0
            while database.events() < BACKLOG * workers:
                load(address, bodies, seconds)  # an event that is sent again is not stored again
                seconds *= 2
        # Hidden from the workers until all of them have started.
        database.change("UPDATE events SET routed_at = -1 WHERE routed_at IS NULL")
        with run_workers(folder, url, workers, LATENCY_RULES):
            database.change("UPDATE events SET routed_at = NULL WHERE routed_at = -1")
            database.wait_until_final()
        finished = [
            int(microseconds)
            for (microseconds,) in database.rows(
                "SELECT finished_at FROM deliveries WHERE state = 'succeeded' ORDER BY finished_at"
            )
        ]
    first, last = len(finished) // 5, len(finished) * 4 // 5
    return (last - first) / ((finished[last] - finished[first]) / 1e6)
