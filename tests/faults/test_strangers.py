"""Reception while strangers misuse the open port: half-sent requests, floods of unsigned requests."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO
from urllib.parse import urlsplit

import pytest

from tests.faults.harness import ROOT, Deployment, Process, Report, event_body

HALF_SENT = 1000
LARGE_BODIES = 800
FILES = 1024
"""`ulimit -n`, as systemd sets it."""
REFUSED_PER_SECOND = 3000
EVENTS = 300


@contextmanager
def strangers(kind: str, process: Process, number: int) -> Iterator[IO[str]]:
    """Run strangers, and yield what they print."""
    port = urlsplit(process.url or "").port
    command = [sys.executable, "-m", "tests.faults.strangers", kind, str(port), str(number)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stdout.readline(), "the strangers did not reach their full strength"
        yield running.stdout
        running.stdin.close()
        running.stdout.read()


def latencies(deployment: Deployment, process: Process) -> list[float]:
    """Send events, 50 per second, each on its own connection. Return the seconds that each response took, sorted."""
    seconds = []
    for _ in range(EVENTS):
        start = time.perf_counter()
        assert deployment.heppu.post(process.url or "", event_body("call.completed"))
        seconds.append(time.perf_counter() - start)
        time.sleep(max(0.0, 0.02 - seconds[-1]))
    return sorted(seconds)


def metric(process: Process, name: str) -> float:
    """Return the sum of a metric over all labels."""
    values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", process.metrics(), re.MULTILINE)
    return sum(float(value) for value in values)


@pytest.mark.faults
@pytest.mark.alone
def test_events_are_answered_while_strangers_hold_half_sent_requests(
    deployment: Deployment, report: Report
) -> None:
    process = deployment.start(files=FILES).ready()
    latencies(deployment, process)
    before = latencies(deployment, process)[int(EVENTS * 0.99)]
    with strangers("hold", process, HALF_SENT):
        seconds = latencies(deployment, process)
        open_connections = metric(process, "bridge_open_connections")
    p99 = seconds[int(len(seconds) * 0.99)]
    note = (
        f"{HALF_SENT} half-sent, {open_connections:.0f} open, p99 {before * 1000:.0f} -> {p99 * 1000:.0f} ms"
    )
    report(deployment.outcome("requests held half-sent", deployment.wait_until_final(60), note))
    assert p99 < max(0.2, 3 * before), "on a busy machine, events take long without strangers too"
    assert 500 < open_connections < FILES
    assert metric(process, "bridge_rejected_requests_total") > 100
    rejected = [entry for entry in process.log if entry.get("event") == "request rejected"]
    assert 0 < len(rejected) < 300
    assert all(entry["peer"] == "127.0.0.1" for entry in rejected)
    assert deployment.lost_events() == []


@pytest.mark.faults
@pytest.mark.alone
def test_memory_is_bounded_while_strangers_send_large_bodies(deployment: Deployment, report: Report) -> None:
    process = deployment.start().ready()
    latencies(deployment, process)
    before = process.memory_bytes()
    with strangers("fill", process, LARGE_BODIES):
        seconds = latencies(deployment, process)
        growth = (process.memory_bytes() - before) / 1024 / 1024
    p99 = seconds[int(len(seconds) * 0.99)]
    note = f"{LARGE_BODIES} bodies of 1 MiB, {growth:.0f} MiB more, p99 {p99 * 1000:.0f} ms"
    report(deployment.outcome("large bodies that do not end", deployment.wait_until_final(60), note))
    assert growth < 256
    assert deployment.heppu.responses.keys() == {200}
    assert deployment.lost_events() == []


@pytest.mark.faults
@pytest.mark.alone
def test_events_are_answered_during_a_flood_of_unsigned_requests(
    deployment: Deployment, report: Report
) -> None:
    process = deployment.start().ready()
    latencies(deployment, process)
    before = statistics.median(latencies(deployment, process))
    with strangers("flood", process, REFUSED_PER_SECOND) as printed:
        start, refused = time.monotonic(), metric(process, "bridge_rejected_requests_total")
        during = statistics.median(latencies(deployment, process))
        rate = (metric(process, "bridge_rejected_requests_total") - refused) / (time.monotonic() - start)
        assert printed.readline()
    note = f"{rate:.0f} refused/s, median {before * 1000:.1f} -> {during * 1000:.1f} ms"
    report(deployment.outcome("flood of unsigned requests", deployment.wait_until_final(60), note))
    assert rate > 0.8 * REFUSED_PER_SECOND
    assert during < 3 * before
    lines = [entry for entry in process.log if "rejected" in str(entry.get("event"))]
    assert len(lines) < 100
    assert deployment.lost_events() == []
