"""Several replicas on one PostgreSQL: one that never returns, and two that race for one person and one conversation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.faults.harness import Deployment, Outcome, calls, happening, slow, wait_for

Report = Callable[[Outcome], None]

pytestmark = pytest.mark.postgres

RACE = """\
version: 1
messaging:
  quiet_hours: none
  caps: {sms: 2 per 24h}
alerts:
  - use: slack.post
rules:
  - name: text
    when: call.busy
    do:
      - use: twilio.send_sms
        with: {body: "Text {{ event.conversationId }}."}
  - name: text-once
    when: call.no-answer
    do:
      - use: twilio.send_sms
        once: {per: contact, within: 24h}
        with: {body: "Once {{ event.conversationId }}."}
  - name: log
    when: [call.completed, call.failed]
    do:
      - use: hubspot.log_call
"""


def _never_returns(deployment: Deployment, count: int, hurry: bool, report: Report) -> None:
    """Kill one of two replicas at work, for good: what it had under way is the other's."""
    lost, other = deployment.start("worker").ready(), deployment.start().ready()
    with slow(deployment.sandbox, 0.5):
        deployment.heppu.send(calls(count), per_second=40)
        wait_for(
            lambda: deployment.attempts_of(lost) > 2,
            20, "the replica to have something under way", deployment.states, every=0.01,
        )  # fmt: skip
        deployment.kill(lost)
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(90, hurry=hurry)
    assert other.running
    taken = deployment.cut_short()
    outcome = deployment.outcome("a replica never returns", seconds, f"{taken} attempts taken over")
    report(outcome)
    assert taken > 0
    assert (deployment.lost(), deployment.doubled()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}


def test_what_a_lost_replica_had_under_way_is_taken_over(
    postgres_deployment: Deployment, report: Report
) -> None:
    _never_returns(postgres_deployment, 30, True, report)


@pytest.mark.faults
@pytest.mark.timeout(200)
def test_what_a_lost_replica_had_under_way_is_taken_over_when_its_lease_ends(
    postgres_deployment: Deployment, report: Report
) -> None:
    _never_returns(postgres_deployment, 200, False, report)


def test_two_replicas_that_race_for_one_person_keep_to_caps_once_and_one_record(
    postgres_deployment: Deployment, report: Report
) -> None:
    """Everything about five people at once: lanes, caps, `once` and effects hold across processes."""
    deployment = postgres_deployment
    (deployment.folder / "rules.yaml").write_text(RACE, "utf-8")
    for _ in range(2):
        deployment.start().ready()
    people = [f"+1646555010{number}" for number in range(5)]
    conversations = {person: f"conv_race_{number}" for number, person in enumerate(people)}
    with slow(deployment.sandbox, 0.05):
        for _ in range(6):
            for person in people:
                deployment.heppu.send(
                    [
                        happening("call.busy", person),
                        happening("call.completed", person, conversations[person]),
                        happening("call.failed", person, conversations[person]),
                    ]
                )
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(60)
    texts = deployment.texts()
    assert texts == dict.fromkeys(people, 2), "the cap is two a day"
    assert deployment.records() == dict.fromkeys(conversations.values(), 1)
    assert deployment.contacts() == dict.fromkeys(people, 1)
    reasons = Counter(
        row[0] for row in deployment.query("SELECT reason FROM deliveries WHERE state = 'suppressed'")
    )
    assert reasons["frequency_capped"] == 4 * len(people)
    assert set(reasons) <= {"frequency_capped", "superseded"}
    replicas = deployment.query("SELECT count(DISTINCT replica) FROM attempts")[0][0]
    report(deployment.outcome("two race for five people", seconds))
    assert replicas == 2
    assert deployment.doubled() == []


def test_two_replicas_that_race_text_one_person_once(postgres_deployment: Deployment, report: Report) -> None:
    deployment = postgres_deployment
    (deployment.folder / "rules.yaml").write_text(RACE, "utf-8")
    for _ in range(2):
        deployment.start().ready()
    people = [f"+1646555020{number}" for number in range(8)]
    deployment.heppu.send([happening("call.no-answer", person) for _ in range(4) for person in people])
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(60)
    assert deployment.texts() == dict.fromkeys(people, 1)
    report(deployment.outcome("two race, once per contact", seconds))
