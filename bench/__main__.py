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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from bench.load import CONNECTIONS, Load, load, write_bodies
from bench.servers import baseline_server, bridge_server, postgres

BAR_RECEIPTS = 0.3
BAR_P99 = 6.0
BAR_DELIVERIES = 0.5
BACKLOG_SECONDS = 2.0
"""How long events come in whose deliveries are timed from the first receipt to the last effect."""


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


def receipts(url: str, bodies: Path, seconds: float, tries: int) -> Load:
    """The median of several short loads."""
    found = [load(url, bodies, seconds) for _ in range(tries)]
    return sorted(found, key=lambda item: item.rate)[len(found) // 2]


class Store:
    """As much of a database as counting needs, whichever it is."""

    def __init__(self, url: str) -> None:
        self._url = url

    def count(self, query: str) -> int:
        """The one number that `query` gives."""
        if self._url.startswith("sqlite"):
            with sqlite3.connect(self._url.removeprefix("sqlite:///")) as connection:
                found = connection.execute(query).fetchone()
            connection.close()
        else:
            with psycopg.connect(self._url) as other:
                found = other.execute(query).fetchone()
        return int(found[0]) if found else 0


def wait_until_sent(store: Store, since: float) -> float:
    """Seconds from `since` until nothing is unrouted or unfinished."""
    waiting = (
        "SELECT (SELECT count(*) FROM events WHERE routed_at IS NULL)"
        " + (SELECT count(*) FROM deliveries WHERE state IN ('pending', 'sending', 'retrying'))"
    )
    while store.count(waiting):
        time.sleep(0.1)
        if time.perf_counter() - since > 300:
            raise SystemExit("the backlog does not drain")
    return time.perf_counter() - since


def measure(
    name: str, url: str, floor: Load, one_row: float, folder: Path, seconds: float, tries: int
) -> list[Row]:
    """The figures of one database."""
    store = Store(url)
    with bridge_server(folder, url) as address:
        seen = []
        for number in range(tries):
            bodies = write_bodies(folder / f"bodies{number}", int(floor.rate * seconds * 1.2) + 1000)
            before = store.count("SELECT count(*) FROM events")
            found = load(address, bodies, seconds)
            stored = store.count("SELECT count(*) FROM events") - before
            if found.refused or stored < found.rate * seconds * 0.95:
                raise SystemExit(
                    f"{found.refused} refused, {stored} stored of about {found.rate * seconds:.0f}"
                )
            seen.append(found)
            wait_until_sent(store, time.perf_counter())
        rate = statistics.median(item.rate for item in seen)
        p99 = statistics.median(item.p99_ms for item in seen)
        bodies = write_bodies(folder / "backlog", int(floor.rate * BACKLOG_SECONDS * 1.2) + 1000)
        before = store.count("SELECT count(*) FROM deliveries WHERE state = 'sent'")
        earlier = store.count("SELECT max(received_at) FROM events")
        load(address, bodies, BACKLOG_SECONDS)
        wait_until_sent(store, time.perf_counter())
        sent = store.count("SELECT count(*) FROM deliveries WHERE state = 'sent'") - before
        first = store.count(f"SELECT min(received_at) FROM events WHERE received_at > {earlier}")
        last = store.count("SELECT max(finished_at) FROM deliveries")
    deliveries = sent / ((last - first) / 1e6)  # instants are kept in microseconds
    return [
        _row(f"{name}: durable receipts/s", rate, floor.rate, BAR_RECEIPTS, at_least=True),
        _row(f"{name}: p99 of the answer, ms", p99, floor.p99_ms, BAR_P99, at_least=False),
        _row(f"{name}: deliveries/s, whole path", deliveries, one_row, BAR_DELIVERIES, at_least=True),
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
            place = folder / "sqlite"
            place.mkdir()
            one_row = sqlite_baseline(place)
            database = f"sqlite:///{place}/bridge.db"
            rows += measure("SQLite", database, floor, one_row, place, asked.seconds, asked.tries)
        if asked.only != "sqlite":
            with postgres() as url:
                one_row = postgres_baseline(url)
                rows += measure("PostgreSQL", url, floor, one_row, folder / "pg", asked.seconds, asked.tries)
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
