"""Benchmark of claims: 10,000 due deliveries alone, among those that wait for tomorrow, and half of them on one key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, Final

from bench.databases import Engine
from bench.rows import Row, row
from bridge.ids import new_id
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.store.results import record_results
from bridge.store.schema import deliveries
from tests.integration.engine import Engine as Stages

DUE: Final = 10_000
SLOTS: Final = 64
"""Calls that one claim may start."""
ROUNDS: Final = 15
CLAIMED: Final = 300
"""Deliveries per round; in all rounds together fewer than those without the common key."""
_EVENTS: Final = 100


def claims(engine: Engine, waiting: int) -> list[Row]:
    """Measure claims in this process, without attempts; their results are recorded between them."""
    with ExitStack() as stack:
        alone, among, crowded = (
            stack.enter_context(_due(engine, later, keyed))
            for later, keyed in ((0, False), (waiting, False), (0, True))
        )
        rates: dict[int, list[float]] = {id(alone): [], id(among): [], id(crowded): []}
        for _ in range(ROUNDS):
            for stages in (alone, among, crowded):
                rates[id(stages)].append(_claim_rate(stages, CLAIMED))
    label = f"{engine.name}: claims/s of {DUE:,} due deliveries"
    return [
        row(f"{label} among {waiting:,} that wait for tomorrow; alone", rates[id(among)], rates[id(alone)],
            at_least=0.95, floor=0.6),
        row(f"{label}, half of them on one concurrency key; all on their own", rates[id(crowded)], rates[id(alone)],
            at_least=0.8, floor=0.3),
    ]  # fmt: skip


@contextmanager
def _due(engine: Engine, waiting: int, keyed: bool) -> Iterator[Stages]:
    """Yield the stages of a worker on a new database with due deliveries, and some that wait for tomorrow."""
    with engine.new() as url:
        database = Database(url)
        upgrade(database)
        stages = Stages(database, slots=SLOTS)
        events, now = [stages.event() for _ in range(_EVENTS)], database.clock.now()
        bases = [stages.delivery_row("post", event) for event in events]

        def row_of(number: int) -> dict[str, Any]:
            created_at = now + timedelta(microseconds=number - DUE)
            return bases[number % _EVENTS] | {
                "id": new_id("dlv"), "idempotency_key": f"post {number}", "created_at": created_at,
                "concurrency_key": "desk|common" if keyed and number % 2 else f"desk|{number}",
                "run_at": created_at if number < DUE else now + timedelta(days=1),
            }  # fmt: skip

        try:
            for start in range(0, DUE + waiting, 10_000):
                rows = [row_of(number) for number in range(start, min(start + 10_000, DUE + waiting))]
                with database.write() as conn:
                    conn.execute(deliveries.insert(), rows)
            yield stages
        finally:
            database.close()


def _claim_rate(stages: Stages, count: int) -> float:
    """Claim at least `count` deliveries; return how many per second of claiming."""
    claimed, seconds = 0, 0.0
    while claimed < count:
        started_at = time.perf_counter()
        calls = stages.claim()
        seconds += time.perf_counter() - started_at
        if not calls:
            raise SystemExit("no delivery was claimed, although some are due")
        claimed += sum(map(len, calls))
        record_results(stages.database, [result for call in calls for result in stages.attempt(call)])
    return claimed / seconds
