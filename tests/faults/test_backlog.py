"""A backlog of 100,000 pending deliveries must not slow the service down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from sqlalchemy import inspect

from tests.faults.harness import Deployment, Outcome, Process, Report, event_body, wait_for

WAITING = 100_000
IDLE_SECONDS = 5.0
RULES = """\
version: 1
messaging:
  quiet_hours: none
  caps: {sms: 1000 per 24h}
rules:
  - name: text
    when: call.busy
    do:
      - use: twilio.send_sms
        with: {body: "We tried to reach you."}
  - name: text-later
    when: call.failed
    do:
      - use: twilio.send_sms
        delay: 6h
        with: {body: "We tried to reach you."}
  - name: log
    when: call.completed
    do:
      - use: hubspot.log_call
"""


@dataclass(frozen=True)
class Cost:
    """The resources of an idle service, and its latency for a new event."""

    cpu: float
    """Fraction of one core."""
    memory: int
    """Bytes."""
    text_latency: float
    """Seconds from an event to its text message; the best of ten, because other processes use the machine too."""
    record_latency: float
    """The same for a call record over another connection."""


def _measure(deployment: Deployment, process: Process, *, texts: bool = True) -> Cost:
    """Measure the service. With `texts=False`, only the other connection is timed, because that of texts is paused."""
    text_latency = (
        _latency(deployment, "call.busy", lambda: deployment.sandbox.twilio.messages) if texts else 0.0
    )
    record_latency = _latency(deployment, "call.completed", lambda: deployment.sandbox.hubspot.calls)
    time.sleep(3)
    used, start = process.cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    cpu = (process.cpu_seconds() - used) / (time.monotonic() - start)
    return Cost(cpu, process.memory_bytes(), text_latency, record_latency)


def _latency(deployment: Deployment, event_type: str, side_effects: Callable[[], Sequence[object]]) -> float:
    latencies = []
    for _ in range(10):
        count, start = len(side_effects()), time.monotonic()
        deployment.heppu.send([event_body(event_type)])
        wait_for(
            lambda count=count: len(side_effects()) > count,  # type: ignore[misc]
            20, event_type, deployment.states, every=0.002,
        )  # fmt: skip
        latencies.append(time.monotonic() - start)
        time.sleep(0.3)
    return min(latencies)


def _multiply(deployment: Deployment, count: int) -> None:
    """Copy the one pending delivery `count` times, each with its own recipient."""
    unique_values = {
        "id": "'dlv_more_' || n",
        "idempotency_key": "'more ' || n",
        "concurrency_key": "'twilio|more ' || n",
        "recipient": "'+1' || (3000000000 + n)",
        "contact": "'+1' || (3000000000 + n)",
        "run_at": "run_at + n",
    }
    names = [column["name"] for column in inspect(deployment.store.engine).get_columns("deliveries")]
    values = ", ".join(unique_values.get(name, name) for name in names)
    insert = f"INSERT INTO deliveries ({', '.join(names)})"
    numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)"
    deployment.change(
        f"{insert} {numbers} SELECT {values} FROM deliveries, numbers WHERE state = 'pending'", count=count
    )


@pytest.mark.faults
@pytest.mark.alone
@pytest.mark.timeout(400)
def test_pending_deliveries_do_not_slow_the_worker(deployment: Deployment, report: Report) -> None:
    """First they wait for their time, then all are due on a connection that an operator paused."""
    (deployment.folder / "rules.yaml").write_text(RULES, "utf-8")
    process = deployment.start().ready()
    deployment.heppu.send([event_body("call.failed")])
    wait_for(lambda: deployment.states()["pending"] == 1, 10, "the pending delivery", deployment.states)
    empty = _measure(deployment, process)
    _multiply(deployment, WAITING)
    waiting = _measure(deployment, process)
    assert deployment.run_command("pause", "twilio").returncode == 0
    deployment.change("UPDATE deliveries SET run_at = 0 WHERE state = 'pending'")
    deployment.sandbox.clear_requests()
    paused = _measure(deployment, process, texts=False)
    assert deployment.states()["pending"] > WAITING
    for name, cost in (("waiting", waiting), ("due, paused", paused)):
        note = (
            f"idle {cost.cpu:.1%} of a core (empty: {empty.cpu:.1%}), {(cost.memory - empty.memory) / 1e6:+.1f} MB, "
            f"text {cost.text_latency * 1000:.0f} ms ({empty.text_latency * 1000:.0f}), "
            f"record {cost.record_latency * 1000:.0f} ms ({empty.record_latency * 1000:.0f})"
        )
        report(Outcome(f"100,000 {name}", deployment.database_kind, WAITING, 0, 0, 0, 0, 0.0, note))
    for cost in (waiting, paused):
        assert cost.cpu < empty.cpu + 0.01
        assert cost.memory < empty.memory + 20_000_000
        assert cost.text_latency < 2 * empty.text_latency + 0.05
        assert cost.record_latency < 2 * empty.record_latency + 0.05
