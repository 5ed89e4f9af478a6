"""What a service costs while nothing happens, with all connectors in use: start, processor, memory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from bench.databases import Engine
from bench.providers import slow_sandbox
from bench.rows import Row
from bench.servers import bridge_server, wait_for_worker

BAR_START, BAR_CPU, BAR_MEMORY = 2.0, 1.0, 150.0
"""Seconds; % of a processor; MB."""
WATCHED: Final = 10.0
SHIPPED_RULES: Final = Path(__file__).resolve().parents[1] / "rules.yaml"


def footprint(engine: Engine, folder: Path) -> list[Row]:
    """The shipped rules, which use every connector but `http`; of both processes together. Needs Linux' /proc."""
    if not Path("/proc/self/smaps_rollup").exists():
        return []
    with slow_sandbox() as environ, engine.new() as url:
        begun = time.perf_counter()
        with bridge_server(folder, url, rules=SHIPPED_RULES.read_text(), **environ) as address:
            start = time.perf_counter() - begun
            wait_for_worker(address)
            time.sleep(3)  # what a start leaves to do
            processes = _descendants(os.getpid(), "bridge.cli.worker_process", " serve")
            before = sum(map(_cpu_seconds, processes))
            time.sleep(WATCHED)
            cpu = (sum(map(_cpu_seconds, processes)) - before) / WATCHED * 100
            memory = sum(map(_own_megabytes, processes))
    return [
        _advice(f"{engine.name}: start to ready, s", start, BAR_START, ".1f"),
        _advice(f"{engine.name}: idle, % of one processor", cpu, BAR_CPU, ".1f"),
        _advice(f"{engine.name}: memory of both processes, MB", memory, BAR_MEMORY, ".0f"),
    ]


def _advice(what: str, value: float, bar: float, form: str) -> Row:
    return Row(what, f"{value:{form}}", "", "", f"<= {bar:g}", value <= bar, advisory=True)


def _descendants(root: int, *words: str) -> list[int]:
    """The processes below `root` whose command has one of `words`."""
    found, todo = [], [root]
    while todo:
        parent = todo.pop()
        for task in Path(f"/proc/{parent}/task").iterdir():
            todo += [int(child) for child in (task / "children").read_text().split()]
        command = Path(f"/proc/{parent}/cmdline").read_text().replace("\0", " ")
        if parent != root and any(word in command for word in words):
            found.append(parent)
    return found


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _own_megabytes(process: int) -> float:
    """Its share of memory: what several processes use is parted among them."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
