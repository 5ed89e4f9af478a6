"""Throughput and kill benchmarks: one row of the table per figure and database.

Each figure has a target, which the design sets, and a floor: half of what was measured last. A missed target is shown;
only a figure below its floor fails the run, so that a run in CI notices a change for the worse.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.databases import BridgeDatabase, Engine
from bench.load import LoadResult, load, write_bodies
from bench.servers import RULES, bridge_server, wait_for_worker
from bridge.sandbox import start_sandbox
from tests.faults.harness import Deployment, call_events, kill_randomly, slow_providers

TARGET_EVENTS, FLOOR_EVENTS = 0.5, 0.13
TARGET_P99, FLOOR_P99 = 2.0, 12.0
TARGET_DELIVERIES: Final = {"SQLite": 1.0, "PostgreSQL": 1.5}
FLOOR_DELIVERIES: Final = 0.11
"""The floors are half of the worst ratios of 2026-11-28, because the baselines swing by a factor of two."""
TARGET_SECONDS: Final = 90
"""Seconds from the last kill until every delivery is final."""


@dataclass(frozen=True)
class Row:
    """One figure."""

    label: str
    value: str
    baseline: str
    ratio: str
    target: str
    passed: bool
    advisory: bool = False
    """A missed target is shown but does not fail the run: the figure is above its floor, or has no baseline."""


@dataclass(frozen=True)
class Size:
    """The extent of the measurements."""

    seconds: float
    runs: int
    kills: int


def throughput(engine: Engine, baseline: str, folder: Path, size: Size) -> list[Row]:
    """Measure how fast a service stores events while it works, and how fast it drains a backlog.

    Each run uses a new database and measures its own baselines first, so that a change in the machine's speed affects
    both. `baseline` is the URL of the server that only checks the HMAC.
    """
    baselines, transactions, ingests, drains = [], [], [], []
    for _ in range(size.runs):
        baseline_load = load(baseline, write_bodies(folder / "bodies", 5000), size.seconds)
        baselines.append(baseline_load)
        transactions.append(engine.one_row_transactions())
        with engine.new() as url:
            database = BridgeDatabase(url)
            with bridge_server(folder, url) as address:
                ingests.append(_ingest(address, database, folder, baseline_load, size.seconds))
                database.wait_until_final()
            drains.append(receive_and_drain(url, folder, baseline_load, size.seconds)[1])
    return [
        row(
            f"{engine.name}: events stored/s",
            [item.rate for item in ingests], [item.rate for item in baselines],
            at_least=TARGET_EVENTS, floor=FLOOR_EVENTS,
        ),
        row(
            f"{engine.name}: p99 of the response, ms",
            [item.p99_ms for item in ingests], [item.p99_ms for item in baselines],
            at_most=TARGET_P99, floor=FLOOR_P99,
        ),
        row(
            f"{engine.name}: deliveries/s of a backlog", drains, transactions,
            at_least=TARGET_DELIVERIES[engine.name], floor=FLOOR_DELIVERIES,
        ),
    ]  # fmt: skip


def _ingest(
    address: str, database: BridgeDatabase, folder: Path, baseline_load: LoadResult, seconds: float
) -> LoadResult:
    """Send distinct events to a server, which has to store all of them."""
    before = database.events()
    result = load(
        address, write_bodies(folder / "bodies", int(baseline_load.rate * seconds * 1.2) + 1000), seconds
    )
    stored = database.events() - before
    if result.rejected or stored < result.rate * seconds * 0.95:
        raise SystemExit(f"{result.rejected} rejected, {stored} stored of about {result.rate * seconds:.0f}")
    return result


def receive_and_drain(
    url: str, folder: Path, baseline_load: LoadResult, seconds: float, **environ: str
) -> tuple[float, float]:
    """Return the events stored per second without a worker, and the deliveries per second of this backlog.

    The deliveries count from the first routed event to the last finished delivery.
    """
    database = BridgeDatabase(url)
    (before,) = database.row("SELECT max(created_at) FROM deliveries")
    stored = []

    def receive(address: str) -> None:
        stored.append(_ingest(address, database, folder, baseline_load, seconds))

    drain(url, database, folder, receive, **environ)
    sent, microseconds = database.row(
        "SELECT count(*), max(finished_at) - min(created_at) FROM deliveries"
        f" WHERE created_at > {before} AND state = 'succeeded'"
    )
    return stored[0].rate, int(sent) / (float(microseconds) / 1e6)


def drain(
    url: str,
    database: BridgeDatabase,
    folder: Path,
    fill: Callable[[str], object],
    rules: str = RULES,
    **connector_environ: str,
) -> None:
    """Process the events that `fill` sent to a server without a worker.

    The backlog is hidden from the router until the whole service runs, so that neither its start nor a head start of
    the router counts.
    """
    with bridge_server(folder, url, "--no-worker") as address:
        fill(address)
    database.change("UPDATE events SET routed_at = -1 WHERE routed_at IS NULL")
    with bridge_server(folder, url, rules=rules, **connector_environ) as address:
        wait_for_worker(address)
        database.change("UPDATE events SET routed_at = NULL WHERE routed_at = -1")
        database.wait_until_final()


def kills(engine: Engine, folder: Path, size: Size) -> Row:
    """Kill processes of a service at random under load, and count the side effects at the providers."""
    kills_folder = folder / f"kills-{engine.name}"
    kills_folder.mkdir()
    with (
        engine.new() as url,
        start_sandbox() as sandbox,
        Deployment(kills_folder, url, sandbox) as deployment,
    ):
        for _ in range(1 if deployment.database_kind == "SQLite" else 2):
            deployment.start().ready()
        with slow_providers(sandbox, 0.2):
            deployment.heppu.send(call_events(12 * size.kills), per_second=9)
            kill_randomly(deployment, size.kills, seed=2)
            deployment.heppu.wait(120)
            seconds = deployment.wait_until_final(TARGET_SECONDS + 30)
        lost, duplicated = len(deployment.lost_events()), len(deployment.duplicates())
        review = deployment.states()["needs_review"]
    return Row(
        f"{engine.name}: {size.kills} kills: lost / duplicated / in review; time until final",
        f"{lost} / {duplicated} / {review}; {seconds:.0f} s", "", "", f"0 / 0 / 0; <= {TARGET_SECONDS} s",
        lost == duplicated == review == 0 and seconds <= TARGET_SECONDS,
    )  # fmt: skip


def row(
    label: str,
    values: Sequence[float],
    baselines: Sequence[float],
    *,
    at_least: float = 0.0,
    at_most: float | None = None,
    floor: float | None = None,
    format_spec: str = ",.0f",
) -> Row:
    """Build a row that compares the ratio of the medians with its target, and with its floor. None: it has none."""
    value, baseline = statistics.median(values), statistics.median(baselines)
    ratio = value / baseline
    target = f">= {at_least:g}" if at_most is None else f"<= {at_most:g}"
    passed = ratio >= at_least if at_most is None else ratio <= at_most
    is_above_floor = floor is None or (ratio >= floor if at_most is None else ratio <= floor)
    return Row(
        label, f"{value:{format_spec}}", f"{baseline:{format_spec}}", f"{ratio:.2f}", target, passed, is_above_floor
    )  # fmt: skip
