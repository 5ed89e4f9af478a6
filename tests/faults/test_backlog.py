"""A hundred thousand deliveries that wait: they must cost nothing but their rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import inspect

from tests.faults.harness import Deployment, Outcome, Process, happening, wait_for

Report = Callable[[Outcome], None]

WAITING = 100_000
IDLE_SECONDS = 10.0
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
    """What a service that has nothing to do costs, and how quick it is when something comes."""

    cpu: float
    """Of one core."""
    memory: int
    """Bytes."""
    text: float
    """Seconds from an event to its text, the best of ten: what else the machine does is not ours."""
    record: float
    """The same for another connection."""


def _measure(deployment: Deployment, process: Process, *, texts: bool = True) -> Cost:
    """`texts=False`: their connection is paused, so only the other one can be timed."""
    text = _latency(deployment, "call.busy", lambda: deployment.sandbox.twilio.messages) if texts else 0.0
    record = _latency(deployment, "call.completed", lambda: deployment.sandbox.hubspot.calls)
    time.sleep(3)
    used, begin = process.cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    cpu = (process.cpu_seconds() - used) / (time.monotonic() - begin)
    return Cost(cpu, process.memory(), text, record)


def _latency(deployment: Deployment, name: str, reached: Callable[[], list[object]]) -> float:
    waits = []
    for _ in range(10):
        count, begin = len(reached()), time.monotonic()
        deployment.heppu.send([happening(name)])
        wait_for(lambda count=count: len(reached()) > count, 20, name, deployment.states, every=0.002)  # type: ignore[misc]
        waits.append(time.monotonic() - begin)
        time.sleep(0.3)
    return min(waits)


def _multiply(deployment: Deployment, count: int) -> None:
    """Make `count` more of the one delivery that waits, each of a person of its own."""
    own = {
        "id": "'dlv_more_' || n",
        "idempotency_key": "'more ' || n",
        "concurrency_key": "'twilio|more ' || n",
        "recipient": "'+1' || (3000000000 + n)",
        "contact": "'+1' || (3000000000 + n)",
        "run_at": "run_at + n",
    }
    names = [column["name"] for column in inspect(deployment.store.engine).get_columns("deliveries")]
    values = ", ".join(own.get(name, name) for name in names)
    insert = f"INSERT INTO deliveries ({', '.join(names)})"
    numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)"
    deployment.change(
        f"{insert} {numbers} SELECT {values} FROM deliveries, numbers WHERE state = 'pending'", count=count
    )


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_what_waits_costs_nothing(deployment: Deployment, report: Report) -> None:
    """Waiting for their time, and then, all due, for a connection that a person paused."""
    (deployment.folder / "rules.yaml").write_text(RULES, "utf-8")
    process = deployment.start().ready()
    deployment.heppu.send([happening("call.failed")])
    wait_for(lambda: deployment.states()["pending"] == 1, 10, "the delivery that waits", deployment.states)
    empty = _measure(deployment, process)
    _multiply(deployment, WAITING)
    waiting = _measure(deployment, process)
    assert deployment.bridge("pause", "twilio").returncode == 0
    deployment.change("UPDATE deliveries SET run_at = 0 WHERE state = 'pending'")
    deployment.sandbox.clear_requests()
    paused = _measure(deployment, process, texts=False)
    assert deployment.states()["pending"] > WAITING
    for name, cost in (("waiting", waiting), ("due, paused", paused)):
        note = (
            f"idle {cost.cpu:.1%} of a core (empty: {empty.cpu:.1%}), {(cost.memory - empty.memory) / 1e6:+.1f} MB, "
            f"text {cost.text * 1000:.0f} ms ({empty.text * 1000:.0f}), "
            f"record {cost.record * 1000:.0f} ms ({empty.record * 1000:.0f})"
        )
        report(Outcome(f"100,000 {name}", deployment.kind, WAITING, 0, 0, 0, 0, 0.0, note))
    for cost in (waiting, paused):
        assert cost.cpu < empty.cpu + 0.01
        assert cost.memory < empty.memory + 20_000_000
        assert cost.text < 2 * empty.text + 0.05
        assert cost.record < 2 * empty.record + 0.05
