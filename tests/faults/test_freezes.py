"""Processes that freeze: a suspended virtual machine, a paused container, a long swap.

A frozen process keeps its sockets and its memory. While it is away its leases run out and somebody else concludes what
it had under way; when it wakes it must send nothing that is no longer its own, and record nothing over its successor.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from bridge.store.claim import LEASE
from tests.faults.harness import Deployment, Outcome, Process, calls, happening, slow, wait_for

Report = Callable[[Outcome], None]

PAST_THE_LEASE = LEASE.total_seconds() + 5


def _freeze_at_work(deployment: Deployment, process: Process) -> None:
    """Freeze `process` while it has attempts under way, so that somebody else has to conclude them."""
    wait_for(
        lambda: deployment.attempts_of(process) >= 3,
        20, "a process to have attempts under way", deployment.states, every=0.01,
    )  # fmt: skip
    process.freeze()


def _judge(deployment: Deployment, scenario: str, seconds: float, report: Report, note: str = "") -> None:
    outcome = deployment.outcome(scenario, seconds, note)
    report(outcome)
    assert deployment.lost() == []
    assert deployment.doubled() == []
    assert set(deployment.states()) == {"succeeded"}
    assert deployment.sandbox.slack.messages == []


def test_a_process_that_was_frozen_for_a_moment_goes_on(deployment: Deployment, report: Report) -> None:
    process = deployment.start().ready()
    with slow(deployment.sandbox, 0.3):
        deployment.heppu.send(calls(30), per_second=30)
        _freeze_at_work(deployment, process)
        time.sleep(3)
        process.wake()
        deployment.heppu.wait()
        _judge(deployment, "frozen for 3 s", deployment.wait_until_final(30), report)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_process_that_wakes_after_its_lease_sends_nothing_twice(
    deployment: Deployment, report: Report
) -> None:
    """Alone: it finds its own leases run out. The partner answered meanwhile; the answers wait in the sockets."""
    process = deployment.start().ready()
    with slow(deployment.sandbox, 0.5):
        deployment.heppu.send(calls(60), per_second=60)
        _freeze_at_work(deployment, process)
        time.sleep(PAST_THE_LEASE)
        process.wake()
        deployment.heppu.wait()
        _judge(deployment, "frozen past the lease", deployment.wait_until_final(60), report)


@pytest.mark.faults
@pytest.mark.postgres
@pytest.mark.timeout(400)
def test_who_wakes_after_another_took_over_sends_nothing_twice(
    postgres_deployment: Deployment, report: Report
) -> None:
    """Three rounds: one of two replicas freezes at work, the other takes over, the first wakes in the middle of it."""
    deployment = postgres_deployment
    replicas = [deployment.start().ready(), deployment.start("worker").ready()]
    with slow(deployment.sandbox, 0.5):
        for sleeper in (replicas[0], replicas[1], replicas[0]):
            deployment.heppu.send(calls(40), per_second=40)
            _freeze_at_work(deployment, sleeper)
            time.sleep(PAST_THE_LEASE)
            sleeper.wake()
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(90)
    taken_over = deployment.cut_short()
    _judge(deployment, "frozen, taken over", seconds, report, f"{taken_over} attempts taken over")
    assert taken_over > 0


@pytest.mark.faults
@pytest.mark.postgres
@pytest.mark.timeout(200)
def test_who_freezes_in_a_transaction_does_not_hold_the_others_up(
    postgres_deployment: Deployment, report: Report
) -> None:
    """Frozen between two statements of a claim, it holds the row of its connection; the others must get past it."""
    deployment = postgres_deployment
    sleeper = deployment.start("worker").ready()
    deployment.start().ready()
    _freeze_in_a_claim(deployment, sleeper)
    begin = time.monotonic()
    busy, completed = happening("call.busy"), happening("call.completed")
    deployment.heppu.send([busy, completed])
    wait_for(
        lambda: deployment.texts()[busy["metadata"]["contactPhone"]]
        and deployment.records()[completed["conversationId"]],
        60, "what came in while a replica is frozen", deployment.states,
    )  # fmt: skip
    waited = time.monotonic() - begin
    sleeper.wake()
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(90)
    _judge(deployment, "frozen in a claim", seconds, report, f"others waited {waited:.1f} s")
    assert waited < 15


def _freeze_in_a_claim(deployment: Deployment, process: Process) -> None:
    """Freeze `process` at random moments until it holds the row of a connection."""
    holding = """
        SELECT DISTINCT a.pid FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
        WHERE a.state = 'idle in transaction' AND l.relation = 'connections'::regclass AND l.mode = 'RowShareLock'
    """
    chance = random.Random(4)
    for _ in range(300):
        deployment.heppu.send(calls(2))
        time.sleep(chance.uniform(0.01, 0.05))
        process.freeze()
        time.sleep(0.05)
        first = set(deployment.query(holding))
        time.sleep(0.15)
        if first & set(deployment.query(holding)):
            return
        process.wake()
    pytest.skip("the process was never caught in the middle of a claim")
