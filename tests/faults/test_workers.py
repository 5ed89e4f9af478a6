"""Several workers on one PostgreSQL: one that dies, and two that race for one contact and one conversation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.faults.harness import Deployment, Outcome, call_events, event_body, slow_providers, wait_for

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


def test_attempts_of_dead_worker_are_taken_over(postgres_deployment: Deployment, report: Report) -> None:
    _kill_one_of_two_workers(postgres_deployment, 30, True, report)


@pytest.mark.faults
@pytest.mark.timeout(200)
def test_attempts_of_dead_worker_are_taken_over_when_lease_expires(
    postgres_deployment: Deployment, report: Report
) -> None:
    _kill_one_of_two_workers(postgres_deployment, 200, False, report)


def test_two_racing_workers_respect_caps_and_keys(postgres_deployment: Deployment, report: Report) -> None:
    """Simultaneous events of five contacts: concurrency keys, caps, `once` and idempotency keys hold across workers."""
    deployment = postgres_deployment
    (deployment.folder / "rules.yaml").write_text(RACE, "utf-8")
    for _ in range(2):
        deployment.start().ready()
    phones = [f"+1646555010{number}" for number in range(5)]
    conversations = {phone: f"conv_race_{number}" for number, phone in enumerate(phones)}
    with slow_providers(deployment.sandbox, 0.05):
        for _ in range(6):
            for phone in phones:
                deployment.heppu.send(
                    [
                        event_body("call.busy", phone),
                        event_body("call.completed", phone, conversations[phone]),
                        event_body("call.failed", phone, conversations[phone]),
                    ]
                )
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(60)
    assert deployment.text_messages() == dict.fromkeys(phones, 2), "the cap is two a day"
    assert deployment.call_records() == dict.fromkeys(conversations.values(), 1)
    assert deployment.contacts() == dict.fromkeys(phones, 1)
    reasons = Counter(
        row[0] for row in deployment.query("SELECT reason FROM deliveries WHERE state = 'suppressed'")
    )
    assert reasons["frequency_capped"] == 4 * len(phones)
    assert set(reasons) <= {"frequency_capped", "superseded"}
    workers = deployment.query("SELECT count(DISTINCT worker_id) FROM attempts")[0][0]
    report(deployment.outcome("two race for five contacts", seconds))
    assert workers == 2
    assert deployment.duplicates() == []


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
