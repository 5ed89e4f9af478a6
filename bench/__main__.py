"""Run the benchmarks and hold their ratios against the bars; exit 1 when one is missed.

Every figure is a ratio to a baseline measured in the same run on the same machine: the same server that only checks
the HMAC, and one-row transactions of the same database. Absolute numbers are for scale only.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from rich.console import Console
from rich.table import Table

from bench.load import CONNECTIONS, Load, load, write_bodies
from bench.servers import baseline_server, bridge_server, postgres

BAR_RECEIPTS = 0.3
BAR_P99 = 6.0
BAR_DELIVERIES = 0.5


@dataclass(frozen=True)
class Row:
    """One figure."""

    what: str
    value: str
    baseline: str
    ratio: float
    bar: str
    fine: bool


def one_row_transactions(begin: Callable[[], None], seconds: float = 3.0) -> float:
    """How many one-row transactions a second a database takes from one connection."""
    count = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin()
        count += 1
    return count / seconds


def sqlite_baseline(folder: Path) -> float:
    """One-row transactions on SQLite with the bridge's own durability."""
    connection = sqlite3.connect(folder / "baseline.db", isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (v TEXT)")

    def one() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO t VALUES ('x')")
        connection.execute("COMMIT")

    try:
        return one_row_transactions(one)
    finally:
        connection.close()


def postgres_baseline(url: str) -> float:
    """One-row transactions on PostgreSQL."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (v TEXT)")

        def one() -> None:
            with connection.transaction():
                connection.execute("INSERT INTO t VALUES ('x')")

        return one_row_transactions(one)


@contextmanager
def new_sqlite(folder: Path) -> Iterator[str]:
    """An empty database in this folder."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        yield f"sqlite:///{place}/bridge.db"


@contextmanager
def new_postgres(url: str) -> Iterator[str]:
    """An empty database on this server; gone afterwards, so that nothing is tidied up in it during the next try."""
    name = f"bench_{uuid4().hex[:8]}"
    head, _, query = url.partition("?")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield f"{head.rsplit('/', 1)[0]}/{name}?{query}"
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        connection.execute("CHECKPOINT")


def receipts(url: str, bodies: Path, seconds: float, tries: int) -> Load:
    """The median of several short loads."""
    found = [load(url, bodies, seconds) for _ in range(tries)]
    return sorted(found, key=lambda item: item.rate)[len(found) // 2]


class Store:
    """As much of a database as measuring needs, whichever it is."""

    def __init__(self, url: str) -> None:
        self._url = url

    def row(self, query: str) -> tuple[Any, ...]:
        """The one row that `query` gives."""
        if self._url.startswith("sqlite"):
            with closing(sqlite3.connect(self._url.removeprefix("sqlite:///"))) as connection:
                found = connection.execute(query).fetchone()
        else:
            with psycopg.connect(self._url) as other:
                found = other.execute(query).fetchone()
        return tuple(found or ())

    def events(self) -> int:
        """How many events are stored."""
        return int(self.row("SELECT count(*) FROM events")[0])

    def wait_until_sent(self) -> None:
        """Return once nothing is unrouted or unfinished."""
        waiting = (
            "SELECT (SELECT count(*) FROM events WHERE routed_at IS NULL)"
            " + (SELECT count(*) FROM deliveries WHERE state IN ('pending', 'sending', 'retrying'))"
        )
        end = time.perf_counter() + 300
        while self.row(waiting)[0]:
            time.sleep(0.25)
            if time.perf_counter() > end:
                raise SystemExit("the backlog does not drain")


def receive(address: str, store: Store, bodies: Path, floor: Load, seconds: float) -> Load:
    """Load a server with distinct events, all of which it has to take."""
    before = store.events()
    found = load(address, write_bodies(bodies, int(floor.rate * seconds * 1.2) + 1000), seconds)
    stored = store.events() - before
    if found.refused or stored < found.rate * seconds * 0.95:
        raise SystemExit(f"{found.refused} refused, {stored} stored of about {found.rate * seconds:.0f}")
    return found


def measure(
    name: str,
    new_database: Callable[[], AbstractContextManager[str]],
    floor: Load,
    one_row: float,
    folder: Path,
    seconds: float,
    tries: int,
) -> list[Row]:
    """The figures of one database: what it takes in while it routes and works, and how a backlog drains."""
    taken, drained = [], []
    for _ in range(tries):
        with new_database() as url:
            store = Store(url)
            with bridge_server(folder, url) as address:
                taken.append(receive(address, store, folder / "bodies", floor, seconds))
                store.wait_until_sent()
            with bridge_server(folder, url, "--no-work") as address:
                receive(address, store, folder / "bodies", floor, seconds)
            (before,) = store.row("SELECT max(created_at) FROM deliveries")
            with bridge_server(folder, url):
                store.wait_until_sent()
            sent, microseconds = store.row(
                "SELECT count(*), max(finished_at) - min(finished_at) FROM deliveries"
                f" WHERE created_at > {before} AND state = 'sent'"
            )
            drained.append(int(sent) / (float(microseconds) / 1e6))
    rate = statistics.median(item.rate for item in taken)
    p99 = statistics.median(item.p99_ms for item in taken)
    deliveries = statistics.median(drained)
    return [
        _row(f"{name}: durable receipts/s", rate, floor.rate, BAR_RECEIPTS, at_least=True),
        _row(f"{name}: p99 of the answer, ms", p99, floor.p99_ms, BAR_P99, at_least=False),
        _row(f"{name}: deliveries/s of a backlog", deliveries, one_row, BAR_DELIVERIES, at_least=True),
    ]


def _row(what: str, value: float, baseline: float, bar: float, *, at_least: bool) -> Row:
    ratio = value / baseline
    fine = ratio >= bar if at_least else ratio <= bar
    return Row(
        what, f"{value:,.0f}", f"{baseline:,.0f}", ratio, f"{'>=' if at_least else '<='} {bar:g}", fine
    )


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one load")
    parser.add_argument("--tries", type=int, default=3, help="loads per figure; the median counts")
    parser.add_argument("--only", choices=["sqlite", "postgres"])
    asked = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as temporary:
        folder = Path(temporary)
        bodies = write_bodies(folder / "bodies", 5000)
        with baseline_server() as url:
            floor = receipts(url, bodies, asked.seconds, asked.tries)
        if asked.only != "postgres":
            one_row = sqlite_baseline(folder)
            rows += measure(
                "SQLite", lambda: new_sqlite(folder), floor, one_row, folder, asked.seconds, asked.tries
            )
        if asked.only != "sqlite":
            with postgres() as url:
                one_row = postgres_baseline(url)
                rows += measure(
                    "PostgreSQL",
                    lambda: new_postgres(url),
                    floor,
                    one_row,
                    folder,
                    asked.seconds,
                    asked.tries,
                )
    _print(rows, floor)
    return 0 if all(row.fine for row in rows) else 1


def _print(rows: list[Row], floor: Load) -> None:
    table = Table(
        title=f"{CONNECTIONS} connections, load from {floor.tool}, fsync on; baseline of the same run"
    )
    for column in ("what", "bridge", "baseline", "ratio", "bar", ""):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        verdict = "[green]ok[/]" if row.fine else "[red]missed[/]"
        table.add_row(row.what, row.value, row.baseline, f"{row.ratio:.2f}", row.bar, verdict)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
