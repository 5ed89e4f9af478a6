"""Frozen processes: a suspended virtual machine, a paused container, heavy swapping.

A frozen process keeps its sockets and its memory. Meanwhile its leases expire and another worker takes over its
attempts. When it resumes, it must not send a delivery that it no longer holds, nor overwrite the new result.
"""

from __future__ import annotations

import random
import time

import pytest

from bridge.store.claim import LEASE
from tests.faults.harness import (
    Deployment,
    Process,
    Report,
    call_events,
    event_body,
    slow_providers,
    wait_for,
)

PAST_THE_LEASE = LEASE.total_seconds() + 5


def _freeze_during_attempts(deployment: Deployment, process: Process) -> None:
    """Freeze `process` while it has running attempts, so that another worker has to take them over."""
    wait_for(
        lambda: deployment.running_attempts(process) >= 3,
        20, "a process with running attempts", deployment.states, every=0.01,
    )  # fmt: skip
    process.freeze()


def _assert_all_succeeded(
    deployment: Deployment, scenario: str, seconds: float, report: Report, note: str = ""
) -> None:
    outcome = deployment.outcome(scenario, seconds, note)
    report(outcome)
    assert deployment.lost_events() == []
    assert deployment.duplicates() == []
    assert set(deployment.states()) == {"succeeded"}
    assert deployment.sandbox.slack.messages == []


def test_briefly_frozen_process_resumes(deployment: Deployment, report: Report) -> None:
    process = deployment.start().ready()
    with slow_providers(deployment.sandbox, 0.3):
        deployment.heppu.send(call_events(30), per_second=30)
        _freeze_during_attempts(deployment, process)
        time.sleep(3)
        process.unfreeze()
        deployment.heppu.wait()
        _assert_all_succeeded(deployment, "frozen for 3 s", deployment.wait_until_final(30), report)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_single_process_frozen_past_its_lease_sends_nothing_twice(
    deployment: Deployment, report: Report
) -> None:
    """It finds its own leases expired. The provider has responded meanwhile; the responses wait in the sockets."""
    process = deployment.start().ready()
    with slow_providers(deployment.sandbox, 0.5):
        deployment.heppu.send(call_events(60), per_second=60)
        _freeze_during_attempts(deployment, process)
        time.sleep(PAST_THE_LEASE)
        process.unfreeze()
        deployment.heppu.wait()
        _assert_all_succeeded(deployment, "frozen past the lease", deployment.wait_until_final(60), report)


@pytest.mark.faults
@pytest.mark.postgres
@pytest.mark.timeout(400)
def test_process_frozen_until_takeover_sends_nothing_twice(
    postgres_deployment: Deployment, report: Report
) -> None:
    """Three rounds: one of two workers freezes, the other takes over, and the first resumes in the meantime."""
    deployment = postgres_deployment
    processes = [deployment.start().ready(), deployment.start("worker").ready()]
    with slow_providers(deployment.sandbox, 0.5):
        for frozen in (processes[0], processes[1], processes[0]):
            deployment.heppu.send(call_events(40), per_second=40)
            _freeze_during_attempts(deployment, frozen)
            time.sleep(PAST_THE_LEASE)
            frozen.unfreeze()
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(90)
    taken_over = deployment.taken_over_attempts()
    _assert_all_succeeded(
        deployment, "frozen, taken over", seconds, report, f"{taken_over} attempts taken over"
    )
    assert taken_over > 0


@pytest.mark.faults
@pytest.mark.postgres
@pytest.mark.timeout(200)
def test_process_frozen_in_transaction_does_not_block_others(
    postgres_deployment: Deployment, report: Report
) -> None:
    """Frozen between two statements of a claim, it locks the row of its connection; the others must continue."""
    deployment = postgres_deployment
    frozen = deployment.start("worker").ready()
    deployment.start().ready()
    _freeze_in_a_claim(deployment, frozen)
    start = time.monotonic()
    busy, completed = event_body("call.busy"), event_body("call.completed")
    deployment.heppu.send([busy, completed])
    wait_for(
        lambda: deployment.text_messages()[busy["metadata"]["contactPhone"]]
        and deployment.call_records()[completed["conversationId"]],
        60, "the events received while a worker is frozen", deployment.states,
    )  # fmt: skip
    waited = time.monotonic() - start
    frozen.unfreeze()
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(90)
    _assert_all_succeeded(deployment, "frozen in a claim", seconds, report, f"others waited {waited:.1f} s")
    assert waited < 15


def _freeze_in_a_claim(deployment: Deployment, process: Process) -> None:
    """Freeze `process` at random moments until it locks the row of a connection."""
    lock_holders = """
        SELECT DISTINCT a.pid FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
        WHERE a.datname = current_database() AND a.state = 'idle in transaction'
        AND l.relation = 'connections'::regclass AND l.mode = 'RowShareLock'
    """
    rng = random.Random(4)
    for _ in range(300):
        deployment.heppu.send(call_events(2))
        time.sleep(rng.uniform(0.01, 0.05))
        process.freeze()
        time.sleep(0.05)
        first = set(deployment.query(lock_holders))
        time.sleep(0.15)
        if first & set(deployment.query(lock_holders)):
            return
        process.unfreeze()
    pytest.skip("the process was never frozen in the middle of a claim")
