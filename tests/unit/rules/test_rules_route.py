"""Routing: which deliveries an event leads to, when, under which keys, and why."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge.events import Event
from bridge.rules.conditions import Where
from bridge.rules.model import Messaging, Planned
from bridge.rules.route import alerts, consent, follow_up, route
from tests.unit.rules.helpers import NOW, event_of, rules_of

TEXT = """
- name: text
  when: [call.busy, call.no-answer]
  do:
    - use: phone.send
      with: {body: "Hi {{ contact.first_name | default('there') }}"}
"""


def planned(text: str, event: Event | None = None, now: datetime = NOW) -> list[Planned]:
    return list(route(event or event_of(), rules_of(text), now).planned)


def one(text: str, event: Event | None = None, now: datetime = NOW) -> Planned:
    (found,) = planned(text, event, now)
    return found


def step(lines: str, name: str = "a") -> str:
    return f"- name: {name}\n  when: call.busy\n  do:\n    - {lines}"


def test_a_rule_that_fires_plans_its_deliveries() -> None:
    delivery = one(TEXT)
    assert (delivery.rule, delivery.trigger, delivery.step_index) == ("text", "rule", 0)
    assert (delivery.action, delivery.connection) == ("phone.send", "phone")
    assert delivery.params == {"to": "+12125550167", "body": "Hi Ines"}
    assert (delivery.channel, delivery.recipient) == ("sms", "+12125550167")
    assert delivery.problem is None


def test_every_rule_is_in_the_trace_in_the_files_order() -> None:
    rules = rules_of(
        """
        - {name: other, when: chat.*, do: [{use: crm.log_call}]}
        - {name: fires, when: call.busy, do: [{use: crm.log_call}]}
        - {name: off, when: call.busy, enabled: false, do: [{use: crm.log_call}]}
        - {name: not, when: call.busy, where: {event.direction: inbound}, do: [{use: crm.log_call}]}
        """
    )
    routing = route(event_of(), rules, NOW)
    assert [(trace.rule, trace.fired) for trace in routing.traces] == [
        ("other", False),
        ("fires", True),
        ("off", False),
        ("not", False),
    ]
    assert [trace.checks[0] for trace in routing.traces] == [
        ("when chat.*", "call.busy", "false", "", 0),
        ("when call.busy", "call.busy", "true", "", 0),
        ("enabled", "false", "false", "", 0),
        ("when call.busy", "call.busy", "true", "", 0),
    ]
    assert [delivery.rule for delivery in routing.planned] == ["fires"]
    assert json.loads(json.dumps([trace.to_json() for trace in routing.traces]))[3]["checks"][1] == {
        "condition": "event.direction eq inbound",
        "actual": '"outbound"',
        "result": "false",
        "reason": "",
        "depth": 0,
    }


def test_an_event_that_heppu_does_not_document_is_traced_and_leads_to_nothing() -> None:
    routing = route(event_of(event="chat.message.received"), rules_of(TEXT), NOW)
    assert routing.planned == ()
    assert routing.traces[0].checks[0].actual == "chat.message.received"


def test_routing_twice_gives_the_same() -> None:
    rules = rules_of(TEXT)
    assert route(event_of(), rules, NOW) == route(event_of(), rules, NOW)


# -- times


def test_a_delay_counts_from_the_events_own_time() -> None:
    event = event_of(timestamp="2026-03-02T15:20:00Z")
    text = step("{use: crm.log_call, delay: 15m}")
    assert one(text, event).run_at == datetime(2026, 3, 2, 15, 35, tzinfo=UTC)
    assert one(text, event, NOW + timedelta(hours=1)).run_at == NOW + timedelta(hours=1)


def test_an_event_from_the_future_counts_from_its_receipt() -> None:
    event = event_of(timestamp="2026-03-09T15:20:00Z")
    assert one(step("{use: crm.log_call, delay: 15m}"), event).run_at == NOW + timedelta(minutes=15)


def test_messages_expire_after_a_day_and_records_never() -> None:
    event = event_of(timestamp="2026-03-02T15:20:00Z")
    sent = datetime(2026, 3, 2, 15, 20, tzinfo=UTC)
    assert one(TEXT, event).expires_at == sent + timedelta(hours=24)
    assert one(
        step("{use: phone.send, expires: 16h, with: {body: Hi}}"), event
    ).expires_at == sent + timedelta(hours=16)
    assert one(step("{use: crm.log_call}"), event).expires_at is None
    assert one(step("{use: crm.log_call, expires: 1h}"), event).expires_at == sent + timedelta(hours=1)


def test_what_a_step_says_about_later_goes_with_the_delivery() -> None:
    delivery = one(
        step("{use: crm.log_call, cancel_on: chat.*, once: {per: contact, within: 1d}, retry: {attempts: 2}}")
    )
    assert delivery.cancel_on == ("chat.completed", "chat.resolved", "chat.abandoned")
    assert delivery.once is not None
    assert delivery.once.within == timedelta(days=1)
    assert delivery.retry.attempts == 2


def test_a_shadow_rule_plans_shadows() -> None:
    text = "- {name: a, when: call.busy, shadow: true, do: [{use: crm.log_call}]}"
    assert one(text).shadow is True


# -- params


def test_params_keep_their_types_however_deep_they_are() -> None:
    delivery = one(
        step(
            'use: crm.log_call\n      with: {properties: {n: "{{ event.duration }}", '
            't: "{{ event.duration }} s", list: ["{{ event.duration }}", 1, true]}}'
        )
    )
    assert delivery.params["properties"] == {"n": 0, "t": "0 s", "list": [0, 1, True]}


def test_a_param_left_out_comes_from_the_event_and_a_missing_one_is_nothing() -> None:
    delivery = one(step("{use: crm.log_call}"))
    assert delivery.params == {"summary": None, "duration": 0, "name": "Call with Ines Okafor"}


def test_a_number_can_stand_where_a_text_is_wanted() -> None:
    event = event_of(duration=125)
    assert one(step('{use: team.post, with: {text: "{{ event.duration }}"}}'), event).problem is None


@pytest.mark.parametrize("value", ["long", True, {"a": 1}, [1], "x" * 2_000_000, float("inf")])
def test_a_field_of_an_odd_type_never_keeps_a_call_from_being_logged(value: Any) -> None:
    delivery = one(step("{use: crm.log_call}"), event_of(duration=value, summary=value))
    assert delivery.problem is None
    assert delivery.params["duration"] in (None, 1, True)
    json.dumps(delivery.params, allow_nan=False)


def test_a_field_that_the_rule_asks_for_has_to_be_there() -> None:
    delivery = one(step('{use: phone.send, with: {body: "About {{ event.summary }}"}}'))
    assert delivery.problem == "`body`: event.summary is missing"
    assert delivery.params == {}
    assert delivery.run_at == NOW


def test_every_param_that_cannot_be_rendered_is_named_and_no_value_is() -> None:
    event = event_of(metadata__contactPhone=None, metadata__contactName="x" * 200)
    delivery = one(step('{use: phone.send, with: {body: "{{ event.summary }}"}}'), event)
    assert delivery.problem == "`to`: contact.phone is missing; `body`: event.summary is missing"
    delivery = one(step('{use: phone.send, with: {to: "+14155550123", body: "{{ contact.name }}"}}'), event)
    assert delivery.problem == "`body` may have at most 160 characters"


def test_a_message_goes_to_the_address_as_the_action_reads_it() -> None:
    event = event_of(metadata__contactEmail="Ines@OKAFOR.example")
    delivery = one(step("{use: team.mail, with: {subject: Hi, text: Hi}}"), event)
    assert delivery.recipient == "Ines@okafor.example"


def test_html_is_escaped_and_text_is_not() -> None:
    event = event_of(metadata__contactEmail="ines@okafor.example", metadata__contactName="<i>Ines</i>")
    body = "Hi {{ contact.name }}"
    delivery = one(
        step(f'use: team.mail\n      with: {{subject: Hi, text: "{body}", html: "<p>{body}</p>"}}'), event
    )
    assert delivery.params["text"] == "Hi <i>Ines</i>"
    assert delivery.params["html"] == "<p>Hi &lt;i&gt;Ines&lt;/i&gt;</p>"


# -- effects and lanes


def test_an_effect_does_not_depend_on_the_rules_name_or_place() -> None:
    first = one(step("{use: phone.send, with: {body: Hi}}", "a"))
    second = planned(step("{use: crm.log_call}\n    - {use: phone.send, with: {body: Ho}}", "b"))[1]
    assert first.idempotency_key == second.idempotency_key


@pytest.mark.parametrize(
    "other",
    [
        "{use: phone.send, idempotency_key: second, with: {body: Hi}}",
        '{use: phone.send, idempotency_key: "{{ event.agentId }}", with: {body: Hi}}',
        '{use: phone.send, with: {to: "+14155550123", body: Hi}}',
    ],
)
def test_another_key_or_recipient_is_another_effect(other: str) -> None:
    assert (
        one(step("{use: phone.send, with: {body: Hi}}")).idempotency_key != one(step(other)).idempotency_key
    )


def test_a_replay_of_the_event_has_the_same_effects_and_another_event_others() -> None:
    later = NOW + timedelta(days=3)
    text = step("{use: phone.send, idempotency_key: '{{ contact.name }}', with: {body: '{{ now }}'}}")
    assert one(text).idempotency_key == one(text, now=later).idempotency_key
    assert one(text).idempotency_key != one(text, event_of(webhookId="whd_other")).idempotency_key


def test_records_of_one_conversation_are_one_effect() -> None:
    text = "- {name: a, when: call.*, do: [{use: crm.log_call}]}"
    one_call = [
        one(text, event_of(name, conversationId="conv_1")) for name in ("call.busy", "call.completed")
    ]
    assert one_call[0].idempotency_key == one_call[1].idempotency_key
    assert one_call[0].updates_existing is True


def test_two_posts_of_other_words_are_two_effects() -> None:
    posts = planned(step("{use: team.post, with: {text: a}}\n    - {use: team.post, with: {text: b}}"))
    assert posts[0].idempotency_key != posts[1].idempotency_key


def test_a_key_that_cannot_be_rendered_is_a_problem() -> None:
    delivery = one(step('{use: crm.log_call, idempotency_key: "{{ event.summary }}"}'))
    assert delivery.problem == "`idempotency_key`: event.summary is missing"


def test_what_must_not_run_twice_at_once_shares_a_lane() -> None:
    event = event_of(conversationId="conv_1", metadata__contactPhone="+12125550167")
    assert one(TEXT, event).concurrency_key == "phone|+12125550167"
    assert one(step("{use: crm.log_call}"), event).concurrency_key == "crm|+12125550167"
    assert (
        one(step("{use: crm.log_call, connection: crm_eu}"), event).concurrency_key == "crm_eu|+12125550167"
    )
    assert one(step("{use: crm.create_task, with: {subject: a}}"), event).concurrency_key == "crm|conv_1"
    assert one(step("{use: team.post, with: {text: a}}"), event).concurrency_key is None
    nobody = event_of(conversationId="conv_1", metadata__contactPhone=None)
    assert one(step("{use: crm.log_call}"), nobody).concurrency_key == "crm|conv_1"


def test_ids_from_outside_cannot_break_an_index() -> None:
    event = event_of(conversationId="x" * 100_000, webhookId="a\x00\ud800", metadata__contactPhone=None)
    delivery = one(step("{use: crm.create_task, with: {subject: a}}"), event)
    assert delivery.concurrency_key is not None
    assert len(delivery.concurrency_key) < 100
    assert delivery.idempotency_key.isprintable()
    assert len(delivery.idempotency_key) < 500


# -- follow-ups and alerts

FAILED = {
    "id": "dlv_1",
    "rule": "text",
    "action": "phone.send",
    "state": "failed",
    "reason": "rejected",
    "message": "phone.send was given up on: rejected",
}
FOLLOWED = TEXT + (
    "  on_failure:\n"
    "    - use: team.post\n"
    "    - use: team.post\n"
    '      with: {text: "{{ delivery.action }} for {{ event.conversationId }}: {{ delivery.reason }}"}\n'
    "    - use: phone.send\n"
    "      delay: 1h\n"
    "      with: {body: \"{{ delivery.message_status | default('lost') }}\"}\n"
)


def test_what_follows_a_failure_is_the_rules_on_failure() -> None:
    later = NOW + timedelta(days=3)
    first, second, third = follow_up(event_of(), rules_of(FOLLOWED), "text", FAILED, later)
    assert {delivery.trigger for delivery in (first, second, third)} == {"on_failure"}
    assert first.params == {"text": "phone.send was given up on: rejected"}
    assert second.params == {"text": "phone.send for conv_sample_call_busy: rejected"}
    assert third.params["body"] == "lost"
    assert (third.rule, third.step_index) == ("text", 2)
    assert third.run_at == later + timedelta(hours=1)
    assert third.expires_at == later + timedelta(hours=24)


def test_a_follow_up_is_an_effect_of_its_own_once_per_failed_delivery() -> None:
    rules = rules_of(FOLLOWED)
    text = one(FOLLOWED)
    other = {**FAILED, "id": "dlv_2"}
    first = follow_up(event_of(), rules, "text", FAILED, NOW)
    again = follow_up(event_of(), rules, "text", FAILED, NOW + timedelta(hours=1))
    second = follow_up(event_of(), rules, "text", other, NOW)
    assert [delivery.idempotency_key for delivery in first] == [
        delivery.idempotency_key for delivery in again
    ]
    idempotency_keys = {delivery.idempotency_key for delivery in (text, *first, *second)}
    assert len(idempotency_keys) == 7


def test_nothing_follows_for_a_rule_that_is_gone_or_says_nothing() -> None:
    assert follow_up(event_of(), rules_of(TEXT), "text", FAILED, NOW) == ()
    assert follow_up(event_of(), rules_of(TEXT), "gone", FAILED, NOW) == ()


ALERTED = f"""
version: 1
alerts:
  - use: team.post
  - use: team.mail
    with: {{to: ops@example.com, text: "{{{{ contact.name | default('nobody') }}}}: {{{{ delivery.message }}}}"}}
rules:
{TEXT.replace(chr(10), chr(10) + "  ")}
"""


def test_alerts_go_out_for_a_delivery_and_for_a_connection_without_an_event() -> None:
    rules = rules_of(ALERTED)
    post, mail = alerts(event_of(), rules, FAILED, NOW)
    assert (post.rule, post.trigger, post.params["text"]) == ("alerts", "alert", FAILED["message"])
    assert mail.recipient == "ops@example.com"
    assert mail.params["text"] == "Ines Okafor: phone.send was given up on: rejected"
    paused = {
        "id": "pause_1",
        "connection": "phone",
        "message": "phone is paused: credentials",
        "attempts": 3,
    }
    post, mail = alerts(None, rules, paused, NOW)
    assert post.params == {"text": "phone is paused: credentials"}
    assert mail.params["subject"] == "phone is paused: credentials"
    assert mail.params["text"] == "nobody: phone is paused: credentials"
    assert (post.concurrency_key, mail.concurrency_key) == (None, None)
    other = alerts(None, rules, {**paused, "id": "pause_2"}, NOW)
    assert len({delivery.idempotency_key for delivery in (post, mail, *other)}) == 4


def test_what_templates_see_of_a_delivery_is_plain() -> None:
    rules = rules_of(FOLLOWED)
    odd = {**FAILED, "reason": NOW, "secret": "x", "message_status": None}
    _, second, third = follow_up(event_of(), rules, "text", odd, NOW)
    assert second.params["text"].endswith("2026-03-02 15:30:00+00:00")
    assert third.params["body"] == "lost"


# -- consent and bugs


def test_consent_is_what_messaging_requires() -> None:
    required = Messaging(consent="event.callMetadata.custom.smsConsent == true")
    assert consent(event_of(), Messaging(), NOW) is None
    for value, verdict in ((True, "true"), (False, "false"), ("true", "unknown"), (None, "unknown")):
        check = consent(event_of(callMetadata__custom={"smsConsent": value}), required, NOW)
        assert check is not None
        assert check.result == verdict


def test_a_bug_in_one_rule_is_that_rules_trace_and_stops_nobody() -> None:
    class Broken:
        def check(self, names: Any, rows: Any, depth: int = 0) -> Any:
            raise ZeroDivisionError("+14155550123")

    rules = rules_of(step("{use: crm.log_call}", "a") + "\n" + step("{use: team.post, with: {text: b}}", "b"))
    broken = replace(rules.rules[0], where=Where((Broken(),)))  # type: ignore[arg-type]
    routing = route(event_of(), replace(rules, rules=(broken, rules.rules[1])), NOW)
    assert [trace.error for trace in routing.traces] == ["bug in the bridge: ZeroDivisionError", None]
    assert [delivery.rule for delivery in routing.planned] == ["b"]
