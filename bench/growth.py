"""Benchmark of growth: the same work on a database with many stored events and on one with few, alternately.

The few are as many as fill every page and list, so that both show as many rows. Events stored, deliveries, pages, lists
and commands are ratios of speed, so that 1 means that a database does not get slower as it grows. Pruning and erasing
are measured against fixed bars, because on a small database there is nothing to do.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import Connection

from bench.databases import BridgeDatabase, Engine
from bench.load import load, write_bodies
from bench.rows import Row, Size, receive_and_drain, row
from bench.servers import ADMIN_TOKEN, BRIDGE, RULES, bridge_environment, bridge_server
from bench.stored_events import DAYS, Storage, fill, phone_of, produce
from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.retention import EMPTY, prune_batch

FEW: Final = 5_000
TARGET: Final = 0.9
"""Speed with many stored events against few."""
FLOOR: Final = 0.5
TARGET_PRUNED, TARGET_WRITE_MS = 5_000.0, 100.0
TARGET_BYTES: Final = 3 * 1024
REQUESTS: Final = 11
"""Requests of each page, commands count a third."""
PRUNE_SECONDS: Final = 5.0
_KEEP: Final = {"BRIDGE_RETENTION": f"{4 * DAYS}d"}
"""Settings of the services: they prune nothing, because pruning is measured on its own."""

PAGES: Final = (
    "/", "/events", "/events?type=call.failed", "/events?since=7d", "/events/{event}", "/deliveries",
    "/deliveries?state=failed", "/deliveries?state=cancelled", "/deliveries?rule=failed-calls",
    "/deliveries?connection=idle&state=pending", "/deliveries/{delivery}", "/search?q={phone}", "/contacts", "/review",
    "/rules", "/rules/do-nothing", "/connections", "/connections/idle", "/status",
)  # fmt: skip
LISTS: Final = (
    "/api/overview?span=7d", "/api/stats", "/api/status", "/api/events?limit=100",
    "/api/events?type=chat.resolved&limit=100", "/api/events?type=no.such-type", "/api/events?since=30d&limit=100",
    "/api/events/{event}", "/api/deliveries?limit=100", "/api/deliveries?state=failed&limit=100",
    "/api/deliveries?rule=chats&limit=100", "/api/deliveries?connection=idle&limit=100",
    "/api/deliveries/{delivery}", "/api/search?q={phone}", "/api/connections", "/metrics",
)  # fmt: skip
COMMANDS: Final = (("events",), ("deliveries",), ("show", "{event}"))


@dataclass
class _Stored:
    """A database with stored events, and what was measured on it: the figure and the values of all rounds."""

    url: str
    folder: Path
    storage: Storage
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def examples(self) -> dict[str, str]:
        """Return the values of the placeholders in paths and commands: one of the newest events."""
        event, delivery = BridgeDatabase(self.url).row(
            "SELECT event_id, id FROM deliveries WHERE state = 'succeeded' ORDER BY created_at DESC LIMIT 1"
        )
        return {"event": event, "delivery": delivery, "phone": "0000000"}


def growth(engine: Engine, baseline: str, folder: Path, sizes: Sequence[int], size: Size) -> list[Row]:
    """Measure an engine with each of these numbers of stored events against few."""
    with ExitStack() as stack:
        few, *many = (stack.enter_context(_stored(engine, folder, count)) for count in (FEW, *sizes))
        databases = [few, *many]
        _measure_pages(databases)
        _measure_commands(databases)
        baseline_load = load(baseline, write_bodies(folder / "bodies", 5000), size.seconds)
        for _ in range(size.runs):
            for stored in databases:
                received, delivered = receive_and_drain(
                    stored.url, stored.folder, baseline_load, size.seconds, **_KEEP
                )
                stored.values["events stored/s"].append(received)
                stored.values["deliveries/s of a backlog"].append(delivered)
        rows: list[Row] = []
        for stored in many:
            rows += _rows(f"{engine.name}, {stored.storage.events:,} events", stored, few)
            rows += _upkeep(f"{engine.name}, {stored.storage.events:,} events", stored)
        return rows


@contextmanager
def _stored(engine: Engine, folder: Path, count: int) -> Iterator[_Stored]:
    own = folder / f"{engine.name}-{count}"
    with engine.new() as url:
        produce(own, url)
        yield _Stored(url, own, fill(url, count))


def _measure_pages(databases: Sequence[_Stored]) -> None:
    with ExitStack() as stack:
        requests = []
        for stored in databases:
            address = stack.enter_context(bridge_server(stored.folder, stored.url, "--no-worker", **_KEEP))
            authorization = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
            client = httpx.Client(base_url=address, headers=authorization, timeout=120, follow_redirects=True)
            requests.append((stored, stack.enter_context(client), stored.examples()))
        for path in (*PAGES, *LISTS):
            for _ in range(REQUESTS):
                for stored, client, examples in requests:
                    started_at = time.perf_counter()
                    client.get(path.format(**examples)).raise_for_status()
                    stored.values[path].append((time.perf_counter() - started_at) * 1000)


def _measure_commands(databases: Sequence[_Stored]) -> None:
    for command in COMMANDS:
        for _ in range(REQUESTS // 3):
            for stored in databases:
                words = [word.format(**stored.examples()) for word in command]
                environ = os.environ | bridge_environment(stored.folder, stored.url)
                started_at = time.perf_counter()
                subprocess.run([BRIDGE, *words], env=environ, check=True, capture_output=True)
                stored.values[f"bridge {command[0]}"].append((time.perf_counter() - started_at) * 1000)


def _rows(label: str, stored: _Stored, few: _Stored) -> Iterator[Row]:
    for figure in ("events stored/s", "deliveries/s of a backlog"):
        yield row(
            f"{label}: {figure}", stored.values[figure], few.values[figure], at_least=TARGET, floor=FLOOR
        )
    commands = [f"bridge {command[0]}" for command in COMMANDS]
    for name, paths in (("dashboard", PAGES), ("API", LISTS), ("command line", commands)):
        medians = {
            path: (statistics.median(stored.values[path]), statistics.median(few.values[path]))
            for path in paths
        }
        yield _time_row(
            f"{label}: {name}, all {len(paths)}, ms", *map(sum, zip(*medians.values(), strict=True))
        )
        worst = max(medians, key=lambda path: medians[path][0] / medians[path][1])
        grown = _time_row(f"{label}: {name}, the one that grew most, {worst}, ms", *medians[worst])
        yield replace(grown, advisory=True)  # of so many, one is slower by chance


def _time_row(label: str, milliseconds: float, baseline: float) -> Row:
    ratio = baseline / milliseconds
    return Row(
        label, f"{milliseconds:,.0f}", f"{baseline:,.0f}", f"{ratio:.2f}", f">= {TARGET:g}", ratio >= TARGET,
        ratio >= FLOOR,
    )  # fmt: skip


class _TimedDatabase(Database):
    """A database that remembers how long its write transactions last."""

    longest_write = 0.0

    @contextmanager
    def write(self, *args: Any, **options: Any) -> Iterator[Connection]:
        """See `Database`."""
        started_at = time.perf_counter()
        with super().write(*args, **options) as conn:
            yield conn
        self.longest_write = max(self.longest_write, time.perf_counter() - started_at)


def _upkeep(label: str, stored: _Stored) -> Iterator[Row]:
    """Weigh the database, prune for some seconds, and erase a contact."""
    yield _bar(
        f"{label}: bytes per event and its deliveries, bodies kept",
        stored.storage.bytes_per_event,
        f"<= {TARGET_BYTES:,}",
        stored.storage.bytes_per_event <= TARGET_BYTES,
    )
    database = _TimedDatabase(stored.url)
    rules = load_or_raise(RULES, path="rules.yaml", registry=Registry([stored.folder / "connectors"]))
    pruned, started_at = EMPTY, time.perf_counter()
    while time.perf_counter() < started_at + PRUNE_SECONDS:
        if (batch := prune_batch(database, timedelta(days=DAYS // 3), rules)) == EMPTY:
            break
        pruned += batch
    per_second = (pruned.events + pruned.deliveries) / (time.perf_counter() - started_at)
    yield _bar(f"{label}: pruned rows/s", per_second, f">= {TARGET_PRUNED:,.0f}", per_second >= TARGET_PRUNED)
    yield _write_bar(f"{label}: longest write while pruning, ms", database)
    database.longest_write = 0.0
    started_at = time.perf_counter()
    erased = erase(database, "bench", phone_of(7), ())
    seconds = time.perf_counter() - started_at
    yield _write_bar(
        f"{label}: longest write while {erased.events} events of a contact are erased, in {seconds:.1f} s; ms",
        database,
    )
    database.close()


def _write_bar(label: str, database: _TimedDatabase) -> Row:
    milliseconds = database.longest_write * 1000
    return _bar(label, milliseconds, f"<= {TARGET_WRITE_MS:g}", milliseconds <= TARGET_WRITE_MS)


def _bar(label: str, value: float, target: str, passed: bool) -> Row:
    return Row(label, f"{value:,.0f}", "", "", target, passed, advisory=True)
