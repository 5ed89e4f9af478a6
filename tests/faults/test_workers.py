"""Several workers on one PostgreSQL: one that dies, and two that race for one contact and one conversation."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

import pytest

from tests.faults.harness import (
    Deployment,
    Report,
    call_events,
    event_body,
    slow_providers,
    wait_for,
)

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


def _kill_one_of_two_workers(deployment: Deployment, count: int, skip_waits: bool, report: Report) -> None:
    """Kill one of two workers permanently during attempts; the other takes them over."""
    killed, survivor = deployment.start("worker").ready(), deployment.start().ready()
    with slow_providers(deployment.sandbox, 0.5):
        deployment.heppu.send(call_events(count), per_second=40)
        wait_for(
            lambda: deployment.running_attempts(killed) > 2,
            20, "the worker to have running attempts", deployment.states, every=0.01,
        )  # fmt: skip
        deployment.kill(killed)
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(90, skip_waits=skip_waits)
    assert survivor.running
    taken_over = deployment.taken_over_attempts()
    outcome = deployment.outcome("a worker dies", seconds, f"{taken_over} attempts taken over")
    report(outcome)
    assert taken_over > 0
    assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}


@pytest.mark.faults
def test_attempts_of_dead_worker_are_taken_over(postgres_deployment: Deployment, report: Report) -> None:
    _kill_one_of_two_workers(postgres_deployment, 30, True, report)


@pytest.mark.faults
@pytest.mark.timeout(200)
def test_attempts_of_dead_worker_are_taken_over_when_lease_expires(
    postgres_deployment: Deployment, report: Report
) -> None:
    _kill_one_of_two_workers(postgres_deployment, 200, False, report)


def test_two_racing_workers_respect_caps_and_keys(postgres_deployment: Deployment, report: Report) -> None:
    """Simultaneous events of five contacts: concurrency keys, caps, `once` and idempotency keys hold across workers.

    On a busy machine, one worker can win the whole race. Then it is repeated with other contacts.
    """
    deployment = postgres_deployment
    (deployment.folder / "rules.yaml").write_text(RACE, "utf-8")
    for _ in range(2):
        deployment.start().ready()
    conversations: dict[str, str] = {}
    seconds = 0.0
    while _workers_with_attempts(deployment) < 2:
        assert len(conversations) < 50, "one of the workers never gets a delivery"
        contacts = {f"+1646555{len(conversations) + 100 + number:04}": uuid4().hex for number in range(5)}
        conversations |= contacts
        seconds += _race(deployment, contacts)
    assert deployment.text_messages() == dict.fromkeys(conversations, 2), "the cap is two a day"
    assert deployment.call_records() == dict.fromkeys(conversations.values(), 1)
    assert deployment.contacts() == dict.fromkeys(conversations, 1)
    reasons = Counter(
        row[0] for row in deployment.query("SELECT reason FROM deliveries WHERE state = 'suppressed'")
    )
    assert reasons["frequency_capped"] == 4 * len(conversations)
    assert set(reasons) <= {"frequency_capped", "superseded"}
    report(deployment.outcome(f"two race for {len(conversations)} contacts", seconds))
    assert deployment.duplicates() == []


def _workers_with_attempts(deployment: Deployment) -> int:
    return int(deployment.query("SELECT count(DISTINCT worker_id) FROM attempts")[0][0])


def _race(deployment: Deployment, conversations: dict[str, str]) -> float:
    """Send six rounds of events of these contacts, given with their conversations. Return the seconds it took."""
    with slow_providers(deployment.sandbox, 0.05):
        for _ in range(6):
            for phone, conversation in conversations.items():
                deployment.heppu.send(
                    [
                        event_body("call.busy", phone),
                        event_body("call.completed", phone, conversation),
                        event_body("call.failed", phone, conversation),
                    ]
                )
        deployment.heppu.wait()
        return deployment.wait_until_final(60)


@pytest.mark.faults
def test_two_racing_workers_respect_once_per_contact(postgres_deployment: Deployment, report: Report) -> None:
    deployment = postgres_deployment
    (deployment.folder / "rules.yaml").write_text(RACE, "utf-8")
    for _ in range(2):
        deployment.start().ready()
    phones = [f"+1646555020{number}" for number in range(8)]
    deployment.heppu.send([event_body("call.no-answer", phone) for _ in range(4) for phone in phones])
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(60)
    assert deployment.text_messages() == dict.fromkeys(phones, 1)
    report(deployment.outcome("two race, once per contact", seconds))
