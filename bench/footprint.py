"""Footprint of an idle service that uses all connectors: start time, CPU and memory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from bench.databases import Engine
from bench.providers import slow_sandbox
from bench.rows import Row
from bench.servers import bridge_server, wait_for_worker

TARGET_START, TARGET_CPU, TARGET_MEMORY = 0.8, 0.2, 120.0
"""Seconds; percent of one CPU; MB."""
IDLE_SECONDS: Final = 30.0
SHIPPED_RULES: Final = Path(__file__).resolve().parents[1] / "rules.yaml"


def footprint(engine: Engine, folder: Path) -> list[Row]:
    """Measure both processes with the shipped rules, which use every connector except `http`. Needs Linux' /proc."""
    if not Path("/proc/self/smaps_rollup").exists():
        return []
    with slow_sandbox() as environ, engine.new() as url:
        started_at = time.perf_counter()
        with bridge_server(folder, url, rules=SHIPPED_RULES.read_text(), **environ) as address:
            start_seconds = time.perf_counter() - started_at
            wait_for_worker(address)
            time.sleep(3)  # until the work after the start is done
            processes = sorted(descendants(os.getpid(), " serve"))  # the worker is a fork of the server
            before = sum(map(_cpu_seconds, processes))
            time.sleep(IDLE_SECONDS)
            cpu = (sum(map(_cpu_seconds, processes)) - before) / IDLE_SECONDS * 100
            memory = [proportional_megabytes(process) for process in processes]
    return [
        _advisory_row(f"{engine.name}: start to ready, s", start_seconds, TARGET_START, ".1f"),
        _advisory_row(f"{engine.name}: idle, % of one CPU", cpu, TARGET_CPU, ".2f"),
        _advisory_row(
            f"{engine.name}: memory of both processes ({' + '.join(f'{each:.0f}' for each in memory)}), MB",
            sum(memory),
            TARGET_MEMORY,
            ".0f",
        ),
    ]


def _advisory_row(label: str, value: float, target: float, format_spec: str) -> Row:
    return Row(label, f"{value:{format_spec}}", "", "", f"<= {target:g}", value <= target, advisory=True)


def descendants(root: int, *patterns: str) -> list[int]:
    """Return the descendants of `root` whose command contains one of the patterns."""
    matching, todo = [], [root]
    while todo:
        parent = todo.pop()
        for task in Path(f"/proc/{parent}/task").iterdir():
            todo += [int(child) for child in (task / "children").read_text().split()]
        command = Path(f"/proc/{parent}/cmdline").read_text().replace("\0", " ")
        if parent != root and any(pattern in command for pattern in patterns):
            matching.append(parent)
    return matching


def _cpu_seconds(process: int) -> float:
    """Return what the scheduler has counted, in nanoseconds: an idle service uses less than the ticks of `stat`."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def proportional_megabytes(process: int) -> float:
    """Return the proportional set size: memory shared by several processes is divided among them."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
