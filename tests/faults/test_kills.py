"""Processes that are killed with `kill -9` at random moments, under load."""

from __future__ import annotations

import pytest

from tests.faults.harness import (
    Deployment,
    Report,
    call_events,
    kill_during_attempts,
    kill_randomly,
    slow_providers,
)


def _assert_all_succeeded(deployment: Deployment, scenario: str, seconds: float, report: Report) -> None:
    taken_over = deployment.taken_over_attempts()
    outcome = deployment.outcome(scenario, seconds, f"{taken_over} attempts taken over")
    report(outcome)
    assert deployment.lost_events() == []
    assert deployment.duplicates() == []
    assert outcome.needs_review == 0, deployment.query(
        "SELECT action, detail FROM deliveries WHERE state = 'needs_review'"
    )
    assert set(deployment.states()) == {"succeeded"}
    assert taken_over > 0, "no kill hit an attempt, so the run proves nothing"
    assert deployment.sandbox.slack.messages == [], "a killed process must not count as a provider failure"


def test_three_kills_under_load_lose_and_duplicate_nothing(deployment: Deployment, report: Report) -> None:
    process = deployment.start().ready()
    with slow_providers(deployment.sandbox, 0.15):
        deployment.heppu.send(call_events(80), per_second=25)
        kill_during_attempts(deployment, process)
        kill_randomly(deployment, kills=2, seed=1)
        deployment.heppu.wait()
        _assert_all_succeeded(deployment, "3 kills", deployment.wait_until_final(60, skip_waits=True), report)


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_fifty_kills_under_load_lose_and_duplicate_nothing(deployment: Deployment, report: Report) -> None:
    servers = 1 if deployment.database_kind == "SQLite" else 2
    for _ in range(servers):
        deployment.start().ready()
    with slow_providers(deployment.sandbox, 0.2):
        deployment.heppu.send(call_events(600), per_second=9)
        kill_randomly(deployment, kills=50, seed=2)
        deployment.heppu.wait(120)
        _assert_all_succeeded(deployment, "50 kills", deployment.wait_until_final(90), report)
