"""`bridge explain`: why each rule fires or not, what would be done, and when."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from bridge.dryrun.engine import DryRun
from bridge.dryrun.explain import explain
from bridge.policy import ActiveOptOut, OptOutEntry, PolicyInputs

RULES = """
    version: 1
    messaging:
      caps: {sms: 1 per 24h}
    rules:
      - name: text
        when: [call.busy, call.no-answer]
        where:
          event.direction: outbound
          event.duration: {lt: 10}
        do:
          - use: texter.send
            delay: 5m
            cancel_on: call.completed
            with: {body: "Hi {{ contact.first_name | default('there') }}"}
      - name: log
        when: call.completed
        do: [{use: ledger.log}]
      - name: email
        when: call.busy
        if: event.callMetadata.context.previousAttempts > 5
        do: [{use: mailer.post, with: {subject: "S", text: "T"}}]
"""
NOON = "2026-03-02T12:00:00-05:00"


@pytest.fixture
def explain_event(load_rules, event):
    def build(
        name="call.busy",
        at=NOON,
        *,
        text=RULES,
        later=timedelta(0),
        load_inputs=None,
        allowlist=(),
        **changes,
    ):
        built = event(name, at, **changes)
        return explain(
            built, load_rules(text), built.received_at + later, load_inputs=load_inputs, allowlist=allowlist
        )

    return build


def test_explain_traces_every_rule_and_renders_deliveries(explain_event):
    explanation = explain_event()
    assert [(trace.rule, trace.fired) for trace in explanation.traces] == [
        ("text", True),
        ("log", False),
        ("email", False),
    ]
    [outcome] = explanation.deliveries
    assert outcome.planned.params["body"] == "Hi Ines"
    assert (outcome.outcome, outcome.details) == ("go", ())
    assert outcome.at == datetime.fromisoformat(NOON) + timedelta(minutes=5)
    assert explanation.nearest is not None
    assert explanation.nearest.rule == "email"


def test_size_of_a_text_message_names_the_characters_that_double_it(explain_event):
    [short] = explain_event().deliveries
    assert (str(short.segments), short.to_json()["segments"]) == ("1 segment", 1)
    [long] = explain_event(text=RULES.replace("Hi {{", "¿Más información? " + "x" * 60 + "{{")).deliveries
    assert str(long.segments) == "2 segments (áó: 70 instead of 160 characters per segment)"
    [logged] = explain_event("call.completed").deliveries
    assert logged.segments is None


def test_quiet_hours_defer_delivery_and_are_named(explain_event):
    [outcome] = explain_event(at="2026-03-02T21:30:00-05:00").deliveries
    assert outcome.outcome == "go"
    assert outcome.at == datetime.fromisoformat("2026-03-03T08:00:00-05:00")
    assert outcome.to_json()["local_time"] == "2026-03-03 08:00 America/New_York"
    assert outcome.details[0].startswith("messaging.quiet_hours 20:00-08:00: it is 21:35 in America/New_York")


def test_policy_inputs_are_used(explain_event):
    [outcome] = explain_event(
        load_inputs=lambda planned: PolicyInputs(messages_sent_at=[datetime.fromisoformat(NOON)])
    ).deliveries
    assert (outcome.outcome, outcome.reason) == ("suppress", "frequency_capped")
    noon = datetime.fromisoformat(NOON)
    [outcome] = explain_event(
        load_inputs=lambda planned: PolicyInputs(
            opt_out=ActiveOptOut(OptOutEntry("sms", noon, noon, "STOP to twilio"))
        )
    ).deliveries
    assert (outcome.outcome, outcome.reason) == ("suppress", "opted_out")


def test_cap_is_checked_after_quiet_hours(explain_event):
    sent = datetime.fromisoformat("2026-03-02T07:00:00-05:00")
    [outcome] = explain_event(
        at="2026-03-02T21:30:00-05:00", load_inputs=lambda planned: PolicyInputs(messages_sent_at=[sent])
    ).deliveries
    assert outcome.outcome == "go"


def test_total_cap_makes_a_message_wait(explain_event):
    [outcome] = explain_event(load_inputs=lambda planned: PolicyInputs(messages_of_connection=500)).deliveries
    assert (outcome.outcome, outcome.reason) == ("wait", None)
    assert outcome.details[-1].startswith("messaging.caps.total.sms: at most 500 text messages per 1h")


def test_allowlist_and_expiry_suppress(explain_event):
    [outcome] = explain_event(allowlist=["+14155550188"]).deliveries
    assert (outcome.outcome, outcome.reason) == ("suppress", "not_allowlisted")
    [outcome] = explain_event(later=timedelta(days=2)).deliveries
    assert (outcome.outcome, outcome.reason) == ("suppress", "expired")


def test_hint_names_nearest_miss_if_no_rule_fires(explain_event):
    explanation = explain_event("call.no-answer", duration=30)
    assert explanation.deliveries == ()
    assert explanation.nearest is not None
    assert explanation.nearest.rule == "text"
    assert explanation.hint == "`text` missed by one condition: event.duration is 30, expected less than 10"


def test_nearest_miss_has_fewest_unmet_conditions(explain_event):
    explanation = explain_event(direction="inbound", duration=50)
    assert explanation.nearest is not None
    assert explanation.nearest.rule == "email"


def test_hint_is_empty_if_every_rule_for_event_fires(explain_event):
    explanation = explain_event("call.completed")
    assert [outcome.planned.rule for outcome in explanation.deliveries] == ["log"]
    assert (explanation.nearest, explanation.hint) == (None, "")


def test_group_counts_as_one_condition_with_its_parts(explain_event):
    grouped = RULES.replace(
        "event.duration: {lt: 10}",
        "any: [{event.duration: {gt: 60}}, {event.callMetadata.context.campaignType: billing}]",
    )
    assert explain_event(text=grouped).hint == (
        "`text` missed by one condition: none of these 2 is true: event.duration is 0, expected more than 60; "
        "event.callMetadata.context.campaignType is appointment_reminder, expected billing"
    )


def test_hint_explains_event_without_rule(explain_event):
    assert explain_event("chat.resolved").hint == "no rule handles chat.resolved"
    assert "is not a known event type" in explain_event(event="call.bussy").hint
    disabled = RULES.replace("- name: log", "- name: log\n        enabled: false")
    assert explain_event("call.completed", text=disabled).hint == (
        "the rules for call.completed are disabled (`enabled: false`): log"
    )


def test_render_error_is_named(explain_event):
    without_default = RULES.replace("| default('there') ", "")
    [outcome] = explain_event(text=without_default, metadata={"contactName": None}).deliveries
    assert (outcome.outcome, outcome.reason) == ("failed", "render_error")
    assert "contact.first_name" in outcome.details[0]


def test_explanation_is_serializable(explain_event):
    parsed = json.loads(json.dumps(explain_event(at="2026-03-02T21:30:00-05:00").to_json()))
    assert parsed["event"] == "call.busy"
    assert parsed["deliveries"][0]["at"] == "2026-03-03T13:00:00+00:00"
    assert parsed["rules"][0]["checks"]


def test_explain_says_that_a_crm_is_asked_when_the_message_is_sent(explain_event):
    text = RULES.replace("caps:", "crm_opt_outs: [ledger]\n      caps:", 1)
    [text_message] = [item for item in explain_event(text=text).deliveries if item.planned.rule == "text"]
    assert text_message.outcome == "go"
    assert text_message.details == (
        "messaging.crm_opt_outs: ledger can still suppress it: asked when it is sent",
    )


TWO_TEXTS = """
    version: 1
    rules:
      - name: late
        when: call.busy
        do: [{use: texter.send, delay: 10m, with: {body: "second"}}]
      - name: first
        when: call.busy
        do: [{use: texter.send, delay: 5m, with: {body: "first"}}]
      - name: mail
        when: call.busy
        do: [{use: mailer.post, with: {to: maya@example.com, subject: S, text: T}}]
"""


def test_second_text_of_an_event_is_a_duplicate_of_the_earlier_rule(explain_event):
    late, first, mail = explain_event(text=TWO_TEXTS).deliveries
    assert [item.outcome for item in (first, mail)] == ["go", "go"]
    assert (late.outcome, late.reason) == ("suppress", "duplicate")
    assert late.details == ("rule `first` already sends this person a text message for this event",)
    assert late.at == datetime.fromisoformat(NOON) + timedelta(minutes=10)


def test_second_text_of_an_event_counts_toward_the_cap(explain_event):
    capped = TWO_TEXTS.replace("version: 1", "version: 1\n    messaging: {caps: {sms: 1 per 24h}}")
    late, first, _ = explain_event(text=capped).deliveries
    assert (first.outcome, late.outcome, late.reason) == ("go", "suppress", "frequency_capped")


def test_shadow_rule_sends_nothing_that_a_duplicate_could_repeat(explain_event):
    shadow = TWO_TEXTS.replace("- name: first", "- name: first\n        shadow: true")
    late, first, _ = explain_event(text=shadow).deliveries
    assert (first.reason, late.outcome) == ("shadow", "go")


def test_dry_run_agrees_about_two_texts_of_an_event(load_rules, event, database):
    dry_run = DryRun(database, load_rules(TWO_TEXTS))
    dry_run.run([event("call.busy", NOON)])
    assert [(item.planned.rule, item.state, item.detail) for item in dry_run.deliveries] == [
        ("late", "suppressed", "rule `first` already sends this person a text message for this event"),
        ("first", "succeeded", ""),
        ("mail", "succeeded", ""),
    ]


def test_explain_names_the_day_and_the_holidays_it_does_not_know(explain_event):
    text = RULES.replace(
        "caps: {sms: 1 per 24h}",
        'quiet_hours: {sms: {mon-fri: "17:00-09:00", sat-sun: all day, holidays: all day}}',
    )
    evening = explain_event(text=text, at="2026-03-04T18:00:00-05:00")
    (delivery,) = evening.deliveries
    assert (delivery.outcome, delivery.at) == ("go", datetime.fromisoformat("2026-03-05T09:00:00-05:00"))
    (detail,) = delivery.details
    assert detail == (
        "messaging.quiet_hours.sms wed: 17:00-09:00; it is Wed 18:05 in America/New_York; "
        "they end on 2026-03-05 at 09:00 local time (14:00 UTC)"
    )
    satellite = explain_event(text=text, metadata={"contactPhone": "+881612345678"})
    assert satellite.deliveries[0].details == (
        "messaging.quiet_hours.sms holidays: none are known, because there is no phone number of a known country",
    )
