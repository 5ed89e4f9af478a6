"""`on_success`: what is planned after a success, what templates know about it, and what loading says about them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bridge.connector.discovery import Registry
from bridge.rules.changes import rule_definitions
from bridge.rules.model import PlannedDelivery
from bridge.rules.route import after_delivery, follow_up, route
from tests.unit.rules.helpers import NOW, diagnostics_of, event_of, load_text, rules_of

TEXT = """
- name: text
  when: call.busy
  do: [{use: phone.send, with: {body: "Sorry, {{ event.agentName }}!"}}]
"""
LOGGED = TEXT + "  on_success: [{use: crm.log_message}, {use: team.post}]\n"
BOTH = LOGGED + "  on_failure: [{use: team.post}]\n"
SENT: dict[str, Any] = {
    "id": "dlv_1",
    "rule": "text",
    "action": "phone.send",
    "state": "succeeded",
    "channel": "sms",
    "recipient": "+14155550123",
    "params": {"to": "+14155550123", "body": "Sorry, Sales!"},
    "external_id": "SM1",
    "message": "phone.send of rule text succeeded",
}


def plan(rules: str, **changes: Any) -> tuple[PlannedDelivery, ...]:
    return after_delivery(event_of(), rules_of(rules), SENT | changes, NOW)


def test_success_is_followed_up_with_the_message_as_it_was_sent() -> None:
    log, post = plan(LOGGED)
    assert {item.trigger for item in (log, post)} == {"on_success"}
    assert log.params == {"body": "Sorry, Sales!", "channel": "sms", "message_id": "SM1"}
    assert post.params == {"text": "phone.send of rule text succeeded"}


def test_only_rules_with_on_success_mark_their_deliveries() -> None:
    for rules, expected in ((TEXT, False), (LOGGED, True)):
        [delivery] = route(event_of(), rules_of(rules), NOW).planned
        assert delivery.on_success is expected
    assert plan(TEXT) == ()


@pytest.mark.parametrize(
    ("changes", "trigger"),
    [
        ({}, "on_success"),
        ({"reason": "undelivered", "message_status": "undelivered"}, "on_failure"),
        ({"state": "failed", "reason": "rejected"}, "on_failure"),
        ({"state": "needs_review", "reason": None}, "on_failure"),
    ],
)
def test_outcome_decides_which_steps_run(changes: dict[str, Any], trigger: str) -> None:
    assert {item.trigger for item in plan(BOTH, **changes)} == {trigger}


def test_each_success_has_its_own_keys_and_delays_count_from_it() -> None:
    rules = rules_of(TEXT + "  on_success: [{use: crm.log_message, delay: 5m}]\n")
    [first] = follow_up(event_of(), rules, "text", SENT, NOW)
    [again] = follow_up(event_of(), rules, "text", SENT, NOW + timedelta(hours=1))
    [forced] = follow_up(event_of(), rules, "text", SENT | {"id": "dlv_2"}, NOW)
    [retried] = follow_up(event_of(), rules, "text", SENT | {"outcome_id": "dlv_1 2"}, NOW)
    assert first.idempotency_key == again.idempotency_key != forced.idempotency_key
    assert retried.idempotency_key not in (first.idempotency_key, forced.idempotency_key)
    assert first.run_at == NOW + timedelta(minutes=5)


def test_email_has_its_subject_and_other_messages_do_not() -> None:
    email = TEXT.replace("phone.send, with: {body:", "team.email, with: {subject: Sorry, text:")
    noted = email + '  on_success: [{use: team.post, with: {text: "{{ delivery.subject }}"}}]\n'
    params = {"to": "ines@okafor.example", "subject": "Sorry", "text": "Sorry, Sales!"}
    [post] = plan(noted, action="team.email", params=params)
    assert post.params == {"text": "Sorry"}
    [log, _] = plan(LOGGED)
    assert "subject" not in log.params


def test_text_of_a_pruned_message_is_a_render_error() -> None:
    log, _ = plan(LOGGED, params={"erased": True})
    assert log.render_error is not None
    assert "delivery.text" in log.render_error


def texts(rules: str) -> list[tuple[str, str, str]]:
    return [
        (item.level, item.text, item.hint) for item in diagnostics_of(f"version: 1\nrules:{_indent(rules)}")
    ]


def _indent(rules: str) -> str:
    return rules.replace("\n", "\n  ")


def test_action_that_needs_a_message_is_an_error_where_there_is_none() -> None:
    [body, channel] = texts("\n- {name: a, when: call.busy, do: [{use: crm.log_message}]}")
    hint = "write it under `with:`, or use the action under `on_success`, where it is `{{ delivery.text }}`"
    assert body == ("error", "`crm.log_message` needs `body` here", hint)
    assert channel[1] == "`crm.log_message` needs `channel` here"
    mixed = LOGGED.replace("do: [", "do: [{use: crm.log_call}, ")
    assert {text for level, text, _ in texts(mixed) if level == "error"} == {body[1], channel[1]}
    assert "in which every step of `do` is a message" in texts(mixed)[0][2]


def test_action_that_needs_a_message_can_be_told_it() -> None:
    told = """
- name: a
  when: call.busy
  do: [{use: crm.log_message, with: {body: "{{ event.event }}", channel: sms}}]
"""
    assert texts(told) == []
    [delivery] = route(event_of(), rules_of(told), NOW).planned
    assert (delivery.render_error, delivery.params) == (None, {"body": "call.busy", "channel": "sms"})


@pytest.mark.parametrize(
    ("do", "field", "is_certain"),
    [
        ("phone.send, with: {body: Hi}", "text", True),
        ("phone.send, with: {body: Hi}", "sent_at", True),
        ("phone.send, with: {body: Hi}", "external_id", False),
        ("phone.send, with: {body: Hi}", "subject", False),
        ("team.email, with: {subject: Hi, text: Hi}", "subject", True),
        ("crm.log_call", "text", False),
        ("crm.log_call", "recipient", False),
    ],
)
def test_template_warns_about_what_some_deliveries_lack(do: str, field: str, is_certain: bool) -> None:
    rule = f"""
- name: a
  when: call.busy
  do: [{{use: {do}}}]
  on_success: [{{use: team.post, with: {{text: "{{{{ delivery.{field} }}}}"}}}}]
"""
    found = texts(rule)
    assert not found if is_certain else found[0][0] == "warning" and f"delivery.{field}" in found[0][1]


def test_unknown_field_and_delivery_in_a_rule_are_errors() -> None:
    wrong = LOGGED.replace("{use: crm.log_message}", '{use: team.post, with: {text: "{{ delivery.txt }}"}}')
    assert texts(wrong) == [("error", "`delivery` has no field `txt`", "did you mean `delivery.text`?")]
    in_do = TEXT.replace("{{ event.agentName }}", "{{ delivery.text }}")
    assert "`delivery` is not available here" in texts(in_do)[0][1]


def test_rule_with_another_on_success_is_another_rule() -> None:
    definitions = [rule_definitions(f"version: 1\nrules:{_indent(text)}")["text"] for text in (TEXT, LOGGED)]
    assert definitions[0] != definitions[1]


def test_rules_file_of_the_test_loads_without_diagnostics() -> None:
    assert load_text(f"version: 1\nrules:{_indent(BOTH)}").diagnostics == ()


@pytest.mark.parametrize(("action", "text"), [("twilio.send_sms", "body"), ("email.send", "text")])
def test_shipped_messages_say_what_their_text_is(action: str, text: str) -> None:
    assert Registry().action(action).text == text


@pytest.mark.parametrize("action", ["hubspot.log_message", "salesforce.log_message"])
def test_shipped_crms_log_a_text_without_a_subject(action: str) -> None:
    [log] = plan(TEXT + f"  on_success: [{{use: {action}}}]\n")
    assert (log.params["body"], log.params["channel"]) == ("Sorry, Sales!", "sms")
    assert log.params["subject"] is None


@pytest.mark.parametrize("trigger", ["on_success", "on_failure"])
@pytest.mark.parametrize("state", ["failed", "needs_review"])
def test_follow_up_that_fails_is_alerted_and_not_followed_up(trigger: str, state: str) -> None:
    rules = rules_of(f"version: 1\nalerts: [{{use: team.post}}]\nrules:\n{BOTH}")
    planned = after_delivery(event_of(), rules, SENT | {"state": state, "trigger": trigger}, NOW)
    assert [item.trigger for item in planned] == ["alert"]
