"""Processes that are killed with `kill -9` at random moments, under load."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.harness import Deployment, Outcome, calls, kill_at_random, kill_at_work, slow

Report = Callable[[Outcome], None]


def _judge(deployment: Deployment, scenario: str, seconds: float, report: Report) -> None:
    cut_short = deployment.cut_short()
    outcome = deployment.outcome(scenario, seconds, f"{cut_short} attempts cut short")
    report(outcome)
    assert deployment.lost() == []
    assert deployment.doubled() == []
    assert outcome.review == 0, deployment.query(
        "SELECT action, detail FROM deliveries WHERE state = 'needs_review'"
    )
    assert set(deployment.states()) == {"succeeded"}
    assert cut_short > 0, "no kill hit an attempt: this run proves nothing"
    assert deployment.sandbox.slack.messages == [], "a kill of ours is no fault of a partner"


def test_three_kills_under_load_lose_nothing_and_double_nothing(
    deployment: Deployment, report: Report
) -> None:
    process = deployment.start().ready()
    with slow(deployment.sandbox, 0.15):
        deployment.heppu.send(calls(80), per_second=25)
        kill_at_work(deployment, process)
        kill_at_random(deployment, kills=2, seed=1)
        deployment.heppu.wait()
        _judge(deployment, "3 kills", deployment.wait_until_final(60, hurry=True), report)


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_fifty_kills_under_load_lose_nothing_and_double_nothing(
    deployment: Deployment, report: Report
) -> None:
    replicas = 1 if deployment.kind == "SQLite" else 2
    for _ in range(replicas):
        deployment.start().ready()
    with slow(deployment.sandbox, 0.2):
        deployment.heppu.send(calls(600), per_second=9)
        kill_at_random(deployment, kills=50, seed=2)
        deployment.heppu.wait(120)
        _judge(deployment, "50 kills", deployment.wait_until_final(90), report)
