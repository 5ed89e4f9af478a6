"""What a replay would do: counted by the policy that the service applies, also between the events of the replay."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bridge.dryrun.effects import effects_of_replay
from bridge.policy import IdempotencyRecord, PolicyInputs
from bridge.policy.effects import Effects
from bridge.rules.counting import no_history
from tests.unit.rules.helpers import NOW, event_of, rules_of

RULES = """
- name: text
  when: call.busy
  do: [{use: phone.send, with: {body: Hello}%s}]
- name: log
  when: call.*
  do: [{use: crm.log_call, with: {name: Call}}]
"""


def effects(*hours_ago: float, step: str = "", inputs: PolicyInputs | None = None, **options: Any) -> Effects:
    """Return the effects of replaying a busy call of one contact at each of these times."""
    events = [
        event_of(received_at=NOW - timedelta(hours=hours), conversationId=f"conv-{number}")
        for number, hours in enumerate(hours_ago)
    ]
    return effects_of_replay(
        events, rules_of(RULES % step), NOW,
        load_inputs=lambda planned: [inputs or PolicyInputs()] * len(planned), history=no_history, **options,
    )  # fmt: skip


def test_messages_and_actions_are_counted() -> None:
    found = effects(1)
    assert found.text == "1 text message, 0 emails, 1 crm.log_call"
    assert (found.messages, found.events) == (1, 1)


def test_once_holds_between_the_events_of_the_replay() -> None:
    found = effects(3, 2, 1, step=", once: {per: contact, within: 24h}")
    assert found.text == "1 text message, 0 emails, 3 crm.log_call; 2 suppressed (once)"
    by_conversation = effects(2, 1, step=", once: {per: conversation, within: 24h}")
    assert by_conversation.sent["sms"] == 2


def test_caps_count_the_messages_of_earlier_events() -> None:
    found = effects(3, 2.5, 2, 1.5, 1)
    assert (found.sent["sms"], found.held_back) == (2, {"frequency_capped": 3})  # the default of `caps.sms`


@pytest.mark.parametrize(("force", "sent"), [(False, 0), (True, 1)])
def test_completed_actions_are_repeated_only_with_force(force: bool, sent: int) -> None:
    done = PolicyInputs(idempotency_record=IdempotencyRecord("dlv_1", True, 0, NOW))
    found = effects(1, inputs=done, force=force)
    assert found.sent.get("sms", 0) == sent
    assert ("duplicate" in found.held_back) is not force


def test_what_waits_is_counted_as_later() -> None:
    assert effects(1, step=", delay: 3h").text == "1 text message, 0 emails, 1 crm.log_call (1 of them later)"
