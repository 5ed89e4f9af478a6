"""Routing: the deliveries that an event leads to, their times and keys, and the trace."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bridge.events import Event
from bridge.rules.model import MessagingPolicy, PlannedDelivery, Step
from bridge.rules.route import alerts, consent, follow_up, route
from tests.unit.rules.helpers import NOW, diagnostics_of, event_of, rules_of

TEXT = """
- name: text
  when: [call.busy, call.no-answer]
  do:
    - use: phone.send
      with: {body: "Hi {{ contact.first_name | default('there') }}"}
"""


def plan(text: str, event: Event | None = None, now: datetime = NOW) -> list[PlannedDelivery]:
    return list(route(event or event_of(), rules_of(text), now).planned)


def plan_one(text: str, event: Event | None = None, now: datetime = NOW) -> PlannedDelivery:
    (delivery,) = plan(text, event, now)
    return delivery


def step(lines: str, name: str = "a") -> str:
    return f"- name: {name}\n  when: call.busy\n  do:\n    - {lines}"


def test_route_plans_deliveries_of_matching_rule() -> None:
    delivery = plan_one(TEXT)
    assert (delivery.rule, delivery.trigger, delivery.step_index) == ("text", "rule", 0)
    assert (delivery.action, delivery.connection) == ("phone.send", "phone")
    assert delivery.params == {"to": "+12125550167", "body": "Hi Ines"}
    assert (delivery.channel, delivery.recipient) == ("sms", "+12125550167")
    assert delivery.render_error is None


def test_route_traces_every_rule_in_file_order() -> None:
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


def test_route_undocumented_event_type_plans_no_deliveries() -> None:
    routing = route(event_of(event="chat.message.received"), rules_of(TEXT), NOW)
    assert routing.planned == ()
    assert routing.traces[0].checks[0].actual == "chat.message.received"


def test_route_is_deterministic() -> None:
    rules = rules_of(TEXT)
    assert route(event_of(), rules, NOW) == route(event_of(), rules, NOW)


# -- times


def test_delay_counts_from_event_time() -> None:
    event = event_of(timestamp="2026-03-02T15:20:00Z")
    text = step("{use: crm.log_call, delay: 15m}")
    assert plan_one(text, event).run_at == datetime(2026, 3, 2, 15, 35, tzinfo=UTC)
    assert plan_one(text, event, NOW + timedelta(hours=1)).run_at == NOW + timedelta(hours=1)


def test_delay_counts_from_arrival_when_event_time_is_in_the_future() -> None:
    event = event_of(timestamp="2026-03-09T15:20:00Z")
    assert plan_one(step("{use: crm.log_call, delay: 15m}"), event).run_at == NOW + timedelta(minutes=15)


def test_expires_at_defaults_to_one_day_for_messages_only() -> None:
    event = event_of(timestamp="2026-03-02T15:20:00Z")
    event_time = datetime(2026, 3, 2, 15, 20, tzinfo=UTC)
    assert plan_one(TEXT, event).expires_at == event_time + timedelta(hours=24)
    assert plan_one(
        step("{use: phone.send, expires: 16h, with: {body: Hi}}"), event
    ).expires_at == event_time + timedelta(hours=16)
    assert plan_one(step("{use: crm.log_call}"), event).expires_at is None
    assert plan_one(step("{use: crm.log_call, expires: 1h}"), event).expires_at == event_time + timedelta(
        hours=1
    )


def test_delivery_keeps_cancel_on_once_and_retry() -> None:
    delivery = plan_one(
        step("{use: crm.log_call, cancel_on: chat.*, once: {per: contact, within: 1d}, retry: {attempts: 2}}")
    )
    assert delivery.cancel_on == ("chat.completed", "chat.resolved", "chat.abandoned")
    assert delivery.once is not None
    assert delivery.once.within == timedelta(days=1)
    assert delivery.retry.attempts == 2


def test_shadow_rule_plans_shadow_deliveries() -> None:
    text = "- {name: a, when: call.busy, shadow: true, do: [{use: crm.log_call}]}"
    assert plan_one(text).shadow is True


# -- params


def test_nested_params_keep_their_types() -> None:
    delivery = plan_one(
        step(
            'use: crm.log_call\n      with: {properties: {n: "{{ event.duration }}", '
            't: "{{ event.duration }} s", list: ["{{ event.duration }}", 1, true]}}'
        )
    )
    assert delivery.params["properties"] == {"n": 0, "t": "0 s", "list": [0, 1, True]}


def test_unset_params_use_default_templates_or_none() -> None:
    delivery = plan_one(step("{use: crm.log_call}"))
    assert delivery.params == {"summary": None, "duration": 0, "name": "Call with Ines Okafor"}


def test_number_is_accepted_for_a_string_param() -> None:
    event = event_of(duration=125)
    assert (
        plan_one(step('{use: team.post, with: {text: "{{ event.duration }}"}}'), event).render_error is None
    )


@pytest.mark.parametrize("value", ["long", True, {"a": 1}, [1], "x" * 2_000_000, float("inf")])
def test_optional_default_of_unexpected_type_is_left_out(value: Any) -> None:
    delivery = plan_one(step("{use: crm.log_call}"), event_of(duration=value, summary=value))
    assert delivery.render_error is None
    assert delivery.params["duration"] in (None, 1, True)
    json.dumps(delivery.params, allow_nan=False)


def test_missing_field_in_set_param_is_a_render_error() -> None:
    delivery = plan_one(step('{use: phone.send, with: {body: "About {{ event.summary }}"}}'))
    assert delivery.render_error == "`body`: event.summary is missing"
    assert delivery.params == {}
    assert delivery.run_at == NOW


def test_render_error_names_params_but_no_values() -> None:
    event = event_of(metadata__contactPhone=None, metadata__contactName="x" * 200)
    delivery = plan_one(step('{use: phone.send, with: {body: "{{ event.summary }}"}}'), event)
    assert delivery.render_error == "`to`: contact.phone is missing; `body`: event.summary is missing"
    delivery = plan_one(
        step('{use: phone.send, with: {to: "+14155550123", body: "{{ contact.name }}"}}'), event
    )
    assert delivery.render_error == "`body` can have at most 160 characters"


def test_recipient_is_normalized_by_the_action() -> None:
    event = event_of(metadata__contactEmail="Ines@OKAFOR.example")
    delivery = plan_one(step("{use: team.email, with: {subject: Hi, text: Hi}}"), event)
    assert delivery.recipient == "Ines@okafor.example"


def test_html_param_is_escaped_and_text_param_is_not() -> None:
    event = event_of(metadata__contactEmail="ines@okafor.example", metadata__note="<i>Ines</i>")
    body = "Hi {{ event.metadata.note }}"
    delivery = plan_one(
        step(f'use: team.email\n      with: {{subject: Hi, text: "{body}", html: "<p>{body}</p>"}}'), event
    )
    assert delivery.params["text"] == "Hi <i>Ines</i>"
    assert delivery.params["html"] == "<p>Hi &lt;i&gt;Ines&lt;/i&gt;</p>"


# -- idempotency and concurrency keys


def test_idempotency_key_does_not_depend_on_rule_or_step_index() -> None:
    first = plan_one(step("{use: phone.send, with: {body: Hi}}", "a"))
    second = plan(step("{use: crm.log_call}\n    - {use: phone.send, with: {body: Ho}}", "b"))[1]
    assert first.idempotency_key == second.idempotency_key


@pytest.mark.parametrize(
    "other",
    [
        "{use: phone.send, idempotency_key: second, with: {body: Hi}}",
        '{use: phone.send, idempotency_key: "{{ event.agentId }}", with: {body: Hi}}',
        '{use: phone.send, with: {to: "+14155550123", body: Hi}}',
    ],
)
def test_idempotency_key_differs_for_other_key_or_recipient(other: str) -> None:
    assert (
        plan_one(step("{use: phone.send, with: {body: Hi}}")).idempotency_key
        != plan_one(step(other)).idempotency_key
    )


def test_idempotency_key_is_the_same_for_a_replay_and_differs_for_another_event() -> None:
    later = NOW + timedelta(days=3)
    text = step("{use: phone.send, idempotency_key: '{{ contact.name }}', with: {body: '{{ now }}'}}")
    assert plan_one(text).idempotency_key == plan_one(text, now=later).idempotency_key
    assert plan_one(text).idempotency_key != plan_one(text, event_of(webhookId="whd_other")).idempotency_key


def test_idempotency_key_per_conversation_is_shared_by_its_events() -> None:
    text = "- {name: a, when: call.*, do: [{use: crm.log_call}]}"
    deliveries = [
        plan_one(text, event_of(name, conversationId="conv_1")) for name in ("call.busy", "call.completed")
    ]
    assert deliveries[0].idempotency_key == deliveries[1].idempotency_key
    assert deliveries[0].updates_existing is True


def test_idempotency_key_differs_for_other_dedupe_by_value() -> None:
    posts = plan(step("{use: team.post, with: {text: a}}\n    - {use: team.post, with: {text: b}}"))
    assert posts[0].idempotency_key != posts[1].idempotency_key


def test_idempotency_key_that_cannot_be_rendered_is_a_render_error() -> None:
    delivery = plan_one(step('{use: crm.log_call, idempotency_key: "{{ event.summary }}"}'))
    assert delivery.render_error == "`idempotency_key`: event.summary is missing"


def test_concurrency_key_by_contact_conversation_or_none() -> None:
    event = event_of(conversationId="conv_1", metadata__contactPhone="+12125550167")
    assert plan_one(TEXT, event).concurrency_key == "phone|+12125550167"
    assert plan_one(step("{use: crm.log_call}"), event).concurrency_key == "crm|+12125550167"
    assert (
        plan_one(step("{use: crm.log_call, connection: crm_eu}"), event).concurrency_key
        == "crm_eu|+12125550167"
    )
    assert plan_one(step("{use: crm.create_task, with: {subject: a}}"), event).concurrency_key == "crm|conv_1"
    assert plan_one(step("{use: team.post, with: {text: a}}"), event).concurrency_key is None
    without_phone = event_of(conversationId="conv_1", metadata__contactPhone=None)
    assert plan_one(step("{use: crm.log_call}"), without_phone).concurrency_key == "crm|conv_1"


def test_concurrency_key_by_the_value_of_a_param() -> None:
    def key(value: str) -> str | None:
        return plan_one(
            step(f"{{use: lantern.comment, with: {{ticket: {value}, comment: a}}}}")
        ).concurrency_key

    assert key("35436") == "lantern|ticket 35436"
    assert key('"{{ event.conversationId }}"') != key("35436")
    without_ticket = plan_one(step("{use: lantern.comment, with: {comment: a}}"))
    assert (
        without_ticket.concurrency_key
        == plan_one(step("{use: lantern.open_ticket, with: {subject: a}}")).concurrency_key
    )


def test_idempotency_key_differs_by_each_of_several_params() -> None:
    def key(ticket: str, comment: str) -> str:
        return plan_one(
            step(f"{{use: lantern.comment, with: {{ticket: {ticket}, comment: {comment}}}}}")
        ).idempotency_key

    assert key("1", "a") == key("1", "a")
    assert len({key("1", "a"), key("2", "a"), key("1", "b")}) == 3


def test_text_that_is_too_long_for_its_param_is_cut_and_noted() -> None:
    delivery = plan_one(
        step('{use: lantern.comment, with: {comment: "{{ event.conversationId }} called again"}}')
    )
    assert delivery.params["comment"].endswith("…")
    assert len(delivery.params["comment"]) == 20
    assert delivery.notes == ("`comment`: what does not fit into 20 characters",)


def test_check_warns_about_a_fixed_text_that_is_cut() -> None:
    text = step("{use: lantern.comment, with: {comment: Please call this person back}}")
    [warning] = diagnostics_of("version: 1\nrules:\n" + textwrap.indent(text, "  "))
    assert (warning.level, warning.text) == (
        "warning",
        "`comment` has room for 20 characters: the rest is cut",
    )


def test_long_or_unprintable_ids_are_hashed_in_keys() -> None:
    event = event_of(conversationId="x" * 100_000, webhookId="a\x00\ud800", metadata__contactPhone=None)
    delivery = plan_one(step("{use: crm.create_task, with: {subject: a}}"), event)
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
    "message": "phone.send failed permanently: rejected",
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


def test_follow_up_plans_on_failure_of_the_rule() -> None:
    later = NOW + timedelta(days=3)
    first, second, third = follow_up(event_of(), rules_of(FOLLOWED), "text", FAILED, later)
    assert {delivery.trigger for delivery in (first, second, third)} == {"on_failure"}
    assert first.params == {"text": "phone.send failed permanently: rejected"}
    assert second.params == {"text": "phone.send for conv_sample_call_busy: rejected"}
    assert third.params["body"] == "lost"
    assert (third.rule, third.step_index) == ("text", 2)
    assert third.run_at == later + timedelta(hours=1)
    assert third.expires_at == later + timedelta(hours=24)


def test_follow_up_has_its_own_idempotency_key_per_failed_delivery() -> None:
    rules = rules_of(FOLLOWED)
    text = plan_one(FOLLOWED)
    other = {**FAILED, "id": "dlv_2"}
    first = follow_up(event_of(), rules, "text", FAILED, NOW)
    repeated = follow_up(event_of(), rules, "text", FAILED, NOW + timedelta(hours=1))
    second = follow_up(event_of(), rules, "text", other, NOW)
    after_retry = [
        follow_up(event_of(), rules, "text", FAILED | {"outcome_id": f"dlv_1 {token}"}, NOW)
        for token in (1, 2)
    ]
    assert [delivery.idempotency_key for delivery in first] == [
        delivery.idempotency_key for delivery in repeated
    ]
    idempotency_keys = {delivery.idempotency_key for delivery in (text, *first, *second)}
    assert len(idempotency_keys) == 7
    assert len({delivery.idempotency_key for planned in after_retry for delivery in planned}) == 6


def test_follow_up_is_empty_without_rule_or_on_failure() -> None:
    assert follow_up(event_of(), rules_of(TEXT), "text", FAILED, NOW) == ()
    assert follow_up(event_of(), rules_of(TEXT), "gone", FAILED, NOW) == ()


ALERTED = f"""
version: 1
alerts:
  - use: team.post
  - use: team.email
    with: {{to: ops@example.com, text: "{{{{ contact.name | default('no contact') }}}}: {{{{ delivery.message }}}}"}}
rules:
{TEXT.replace(chr(10), chr(10) + "  ")}
"""


def test_alerts_for_a_delivery_and_for_a_paused_connection() -> None:
    rules = rules_of(ALERTED)
    post, email = alerts(event_of(), rules, FAILED, NOW)
    assert (post.rule, post.trigger, post.params["text"]) == ("alerts", "alert", FAILED["message"])
    assert email.recipient == "ops@example.com"
    assert email.params["text"] == "Ines Okafor: phone.send failed permanently: rejected"
    paused = {
        "id": "pause_1",
        "connection": "phone",
        "message": "phone is paused: auth",
        "attempts": 3,
    }
    post, email = alerts(None, rules, paused, NOW)
    assert post.params == {"text": "phone is paused: auth"}
    assert email.params["subject"] == "phone is paused: auth"
    assert email.params["text"] == "no contact: phone is paused: auth"
    assert (post.concurrency_key, email.concurrency_key) == (None, None)
    other = alerts(None, rules, {**paused, "id": "pause_2"}, NOW)
    assert len({delivery.idempotency_key for delivery in (post, email, *other)}) == 4


def test_delivery_fields_in_templates_are_plain_json() -> None:
    rules = rules_of(FOLLOWED)
    delivery = {**FAILED, "reason": NOW, "secret": "x", "message_status": None}
    _, second, third = follow_up(event_of(), rules, "text", delivery, NOW)
    assert second.params["text"].endswith("2026-03-02 15:30:00+00:00")
    assert third.params["body"] == "lost"


# -- consent and bugs


def test_consent_evaluates_messaging_consent() -> None:
    required = MessagingPolicy(consent="event.callMetadata.custom.smsConsent == true")
    assert consent(event_of(), MessagingPolicy(), NOW) is None
    for value, result in ((True, "true"), (False, "false"), ("true", "unknown"), (None, "unknown")):
        check = consent(event_of(callMetadata__custom={"smsConsent": value}), required, NOW)
        assert check is not None
        assert check.result == result


def test_exception_in_one_rule_does_not_affect_other_rules() -> None:
    class Broken:
        def check(self, context: Any, checks: Any, depth: int = 0) -> Any:
            raise ZeroDivisionError("+14155550123")

    rules = rules_of(step("{use: crm.log_call}", "a") + "\n" + step("{use: team.post, with: {text: b}}", "b"))
    broken = replace(rules.rules[0], conditions=(Broken(),))  # type: ignore[arg-type]
    routing = route(event_of(), replace(rules, rules=(broken, rules.rules[1])), NOW)
    assert [trace.error for trace in routing.traces] == ["bug in the bridge: ZeroDivisionError", None]
    assert [delivery.rule for delivery in routing.planned] == ["b"]


def boom(_: Any) -> Any:
    raise ZeroDivisionError("+14155550123")


def with_bug(steps: Sequence[Step]) -> tuple[Step, ...]:
    return replace(steps[0], values={"text": boom}), *steps[1:]


@pytest.mark.parametrize("trigger", ["rule", "on_failure", "alert"])
def test_step_with_a_bug_does_not_affect_other_steps(trigger: str) -> None:
    posts = "[{use: team.post, with: {text: a}}, {use: team.post, with: {text: b}}]"
    rules = rules_of(f"- name: a\n  when: call.busy\n  do: {posts}\n  on_failure: {posts}\n")
    [rule] = rules.rules
    broken = replace(rule, do=with_bug(rule.do), on_failure=with_bug(rule.on_failure))
    rules = replace(rules, rules=(broken,), alerts=with_bug(rule.do))
    failed = {
        "id": "dlv_1",
        "rule": "a",
        "state": "failed",
        "reason": "rejected",
        "message": "no",
        "params": {},
    }
    planned = {
        "rule": lambda: route(event_of(), rules, NOW).planned,
        "on_failure": lambda: follow_up(event_of(), rules, "a", failed, NOW),
        "alert": lambda: alerts(event_of(), rules, failed, NOW),
    }[trigger]()
    assert [item.render_error for item in planned] == ["bug in the bridge: ZeroDivisionError", None]
    assert len({item.idempotency_key for item in planned}) == 2


def test_text_is_trimmed() -> None:
    body = "\\n          {% if event.direction == 'outbound' %}\\n          Hola\\n          {% endif %}\\n"
    delivery = plan_one(step(f'use: phone.send\n      with: {{body: "{body}"}}'))
    assert delivery.params["body"] == "Hola"
