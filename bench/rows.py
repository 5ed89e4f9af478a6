"""What is measured: a row of the table for each figure and database."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.databases import Engine, Store
from bench.load import Load, load, write_bodies
from bench.servers import RULES, bridge_server, wait_for_worker
from bridge.sandbox import start_sandbox
from tests.faults.harness import Deployment, calls, kill_at_random, slow

BAR_RECEIPTS: Final = 0.3
BAR_P99: Final = 6.0
BAR_DELIVERIES: Final = 0.5
BAR_SECONDS: Final = 90
"""From the last kill until everything is final."""


@dataclass(frozen=True)
class Row:
    """One figure."""

    what: str
    value: str
    baseline: str
    ratio: str
    bar: str
    fine: bool
    advisory: bool = False
    """Above its bar it is worth a look, and fails nothing."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    seconds: float
    tries: int
    kills: int


def throughput(engine: Engine, baseline: str, folder: Path, size: Size) -> list[Row]:
    """What a service takes in while it routes and works, and how it drains a backlog; each try on a new database.

    Each try measures its own baselines first, so that a machine whose speed drifts moves both alike. `baseline` is the
    address of the server that only checks the HMAC.
    """
    floors, one_rows, taken, drained = [], [], [], []
    for _ in range(size.tries):
        floor = load(baseline, write_bodies(folder / "bodies", 5000), size.seconds)
        floors.append(floor)
        one_rows.append(engine.one_row_transactions())
        with engine.new() as url:
            store = Store(url)
            with bridge_server(folder, url) as address:
                taken.append(_receive(address, store, folder, floor, size.seconds))
                store.wait_until_sent()
            drained.append(_drain(url, store, folder, floor, size.seconds))
    return [
        row(
            f"{engine.name}: durable receipts/s",
            [item.rate for item in taken], [item.rate for item in floors], at_least=BAR_RECEIPTS,
        ),
        row(
            f"{engine.name}: p99 of the answer, ms",
            [item.p99_ms for item in taken], [item.p99_ms for item in floors], at_most=BAR_P99,
        ),
        row(f"{engine.name}: deliveries/s of a backlog", drained, one_rows, at_least=BAR_DELIVERIES),
    ]  # fmt: skip


def _receive(address: str, store: Store, folder: Path, floor: Load, seconds: float) -> Load:
    """Load a server with distinct events, all of which it has to take."""
    before = store.events()
    found = load(address, write_bodies(folder / "bodies", int(floor.rate * seconds * 1.2) + 1000), seconds)
    stored = store.events() - before
    if found.refused or stored < found.rate * seconds * 0.95:
        raise SystemExit(f"{found.refused} refused, {stored} stored of about {found.rate * seconds:.0f}")
    return found


def _drain(url: str, store: Store, folder: Path, floor: Load, seconds: float) -> float:
    """Deliveries a second of a backlog, from the first event routed to the last delivery finished."""
    (before,) = store.row("SELECT max(created_at) FROM deliveries")
    drain(url, store, folder, lambda address: _receive(address, store, folder, floor, seconds))
    sent, microseconds = store.row(
        "SELECT count(*), max(finished_at) - min(created_at) FROM deliveries"
        f" WHERE created_at > {before} AND state = 'succeeded'"
    )
    return int(sent) / (float(microseconds) / 1e6)


def drain(
    url: str,
    store: Store,
    folder: Path,
    fill: Callable[[str], object],
    rules: str = RULES,
    **partners: str,
) -> None:
    """Let a service route, claim, attempt and write down what `fill` sent to one that only receives.

    The backlog is laid aside until the whole service runs, so that neither its start nor a head start of the router
    counts.
    """
    with bridge_server(folder, url, "--no-worker") as address:
        fill(address)
    store.change("UPDATE events SET routed_at = -1 WHERE routed_at IS NULL")
    with bridge_server(folder, url, rules=rules, **partners) as address:
        wait_for_worker(address)
        store.change("UPDATE events SET routed_at = NULL WHERE routed_at = -1")
        store.wait_until_sent()


def kills(engine: Engine, folder: Path, size: Size) -> Row:
    """Kill processes of a service at random under load, and count at the partners."""
    place = folder / f"kills-{engine.name}"
    place.mkdir()
    with engine.new() as url, start_sandbox() as sandbox, Deployment(place, url, sandbox) as deployment:
        for _ in range(1 if deployment.kind == "SQLite" else 2):
            deployment.start().ready()
        with slow(sandbox, 0.2):
            deployment.heppu.send(calls(12 * size.kills), per_second=9)
            kill_at_random(deployment, size.kills, seed=2)
            deployment.heppu.wait(120)
            seconds = deployment.wait_until_final(BAR_SECONDS + 30)
        lost, doubled = len(deployment.lost()), len(deployment.doubled())
        review = deployment.states()["needs_review"]
    return Row(
        f"{engine.name}: {size.kills} kills: lost / doubled / in review; until all is final",
        f"{lost} / {doubled} / {review}; {seconds:.0f} s", "", "", f"0 / 0 / 0; <= {BAR_SECONDS} s",
        lost == doubled == review == 0 and seconds <= BAR_SECONDS,
    )  # fmt: skip


def row(
    what: str,
    values: Sequence[float],
    baselines: Sequence[float],
    *,
    at_least: float = 0.0,
    at_most: float | None = None,
) -> Row:
    """The ratio of the medians, held against its bar."""
    value, baseline = statistics.median(values), statistics.median(baselines)
    ratio = value / baseline
    bar = f">= {at_least:g}" if at_most is None else f"<= {at_most:g}"
    fine = ratio >= at_least if at_most is None else ratio <= at_most
    return Row(what, f"{value:,.0f}", f"{baseline:,.0f}", f"{ratio:.2f}", bar, fine)
