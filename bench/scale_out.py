"""Benchmark of several workers on one PostgreSQL: deliveries per second while the provider's latency is the limit."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.databases import BridgeDatabase, Engine
from bench.load import CONNECTIONS, load, write_bodies
from bench.rows import Row
from bench.servers import RULES, bridge_server, run_workers

WORKERS: Final = (1, 2, 4)
LATENCY_RULES: Final = RULES.replace("idle.do_nothing", "idle.wait")
"""The action takes 50 ms; a worker has 16 threads for it, so it can do 320 per second."""
BACKLOG: Final = 1_600
"""Deliveries per worker: five seconds."""
TARGETS: Final = {2: 1.9, 4: 3.6}
"""Times the deliveries of one worker."""
FLOOR: Final = 0.6


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
