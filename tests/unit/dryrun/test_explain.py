"""Why each rule fires or not, what would be done, and when."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from bridge.dryrun.explain import explain
from bridge.policy import Facts

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
      - name: mail
        when: call.busy
        if: event.callMetadata.context.previousAttempts > 5
        do: [{use: mailer.post, with: {subject: "S", text: "T"}}]
"""
NOON = "2026-03-02T12:00:00-05:00"


@pytest.fixture
def explained(load_rules, event):
    def build(
        name="call.busy", at=NOON, *, text=RULES, later=timedelta(0), facts_of=None, allowlist=(), **changes
    ):
        found = event(name, at, **changes)
        return explain(
            found, load_rules(text), found.received_at + later, facts_of=facts_of, allowlist=allowlist
        )

    return build


def test_every_rule_is_traced_and_what_fires_is_rendered_and_timed(explained):
    found = explained()
    assert [(trace.rule, trace.fired) for trace in found.traces] == [
        ("text", True),
        ("log", False),
        ("mail", False),
    ]
    [text] = found.deliveries
    assert text.planned.params["body"] == "Hi Ines"
    assert (text.outcome, text.why) == ("go", ())
    assert text.at == datetime.fromisoformat(NOON) + timedelta(minutes=5)
    assert found.nearest is not None
    assert found.nearest.rule == "mail"


def test_quiet_hours_move_it_and_say_so(explained):
    [text] = explained(at="2026-03-02T21:30:00-05:00").deliveries
    assert text.outcome == "go"
    assert text.at == datetime.fromisoformat("2026-03-03T08:00:00-05:00")
    assert text.why[0].startswith("messaging.quiet_hours 20:00-08:00: it is 21:35 in America/New_York")


def test_what_the_service_remembers_counts(explained):
    [text] = explained(facts_of=lambda planned: Facts(sent=[datetime.fromisoformat(NOON)])).deliveries
    assert (text.outcome, text.reason) == ("suppress", "frequency_capped")
    [text] = explained(facts_of=lambda planned: Facts(opted_out_at=datetime.fromisoformat(NOON))).deliveries
    assert (text.outcome, text.reason) == ("suppress", "opted_out")


def test_a_cap_that_has_room_again_after_the_quiet_hours_does_not_stop_it(explained):
    sent = datetime.fromisoformat("2026-03-02T07:00:00-05:00")
    [text] = explained(at="2026-03-02T21:30:00-05:00", facts_of=lambda planned: Facts(sent=[sent])).deliveries
    assert text.outcome == "go"


def test_only_to_and_expiry_are_told(explained):
    [text] = explained(allowlist=["+14155550188"]).deliveries
    assert (text.outcome, text.reason) == ("suppress", "shadow")
    [text] = explained(later=timedelta(days=2)).deliveries
    assert (text.outcome, text.reason) == ("suppress", "expired")


def test_the_nearest_miss_is_named_when_nothing_fires(explained):
    found = explained("call.no-answer", duration=30)
    assert found.deliveries == ()
    assert found.nearest is not None
    assert found.nearest.rule == "text"
    assert found.hint.startswith("`text` missed by one condition: event.duration")
    assert found.hint.endswith(", found 30")


def test_of_several_misses_the_one_with_fewest_conditions_is_nearest(explained):
    found = explained(direction="inbound", duration=50)
    assert found.nearest is not None
    assert found.nearest.rule == "mail"


def test_there_is_no_hint_when_every_rule_for_the_event_fires(explained):
    found = explained("call.completed")
    assert [forecast.planned.rule for forecast in found.deliveries] == ["log"]
    assert (found.nearest, found.hint) == (None, "")


def test_a_group_is_one_condition_and_shows_its_parts(explained):
    grouped = RULES.replace(
        "event.duration: {lt: 10}",
        "any: [{event.duration: {gt: 60}}, {event.callMetadata.context.campaignType: billing}]",
    )
    assert explained(text=grouped).hint == (
        "`text` missed by one condition: any of 2 is false (event.duration gt 60, found 0; "
        'event.callMetadata.context.campaignType eq billing, found "appointment_reminder")'
    )


def test_an_event_that_no_rule_is_for_is_told_as_such(explained):
    assert explained("chat.resolved").hint == "no rule is for chat.resolved"
    assert "none of Heppu's documented events" in explained(event="call.bussy").hint
    off = RULES.replace("- name: log", "- name: log\n        enabled: false")
    assert explained("call.completed", text=off).hint == (
        "the rules for call.completed are switched off (`enabled: false`): log"
    )


def test_what_cannot_be_rendered_is_told(explained):
    broken = RULES.replace("| default('there') ", "")
    [text] = explained(text=broken, metadata={"contactName": None}).deliveries
    assert (text.outcome, text.reason) == ("failed", "render_error")
    assert "contact.first_name" in text.why[0]


def test_the_whole_is_json(explained):
    found = json.loads(json.dumps(explained(at="2026-03-02T21:30:00-05:00").to_json()))
    assert found["event"] == "call.busy"
    assert found["deliveries"][0]["at"] == "2026-03-03T13:00:00+00:00"
    assert found["rules"][0]["checks"]
