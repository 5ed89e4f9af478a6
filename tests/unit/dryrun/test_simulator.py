"""The bridge in memory: what becomes of deliveries when a clock of its own runs."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.dryrun.explain import explain
from bridge.dryrun.simulator import Simulation
from bridge.events import Event
from bridge.samples import sample

START = datetime(2026, 3, 2, 17, tzinfo=UTC)

TEXTS = """
    version: 1
    rules:
      - name: text
        when: [call.busy, call.no-answer]
        do:
          - use: texter.send
            delay: 5m
            cancel_on: call.completed
            expires: 16h
            with: {body: "We tried to reach you"}
"""
PERSON = {"contactPhone": "+12125550123"}


def ran(rules, *events, **options):
    simulation = Simulation(rules, **options)
    simulation.run(events)
    return [
        (each.planned.action, each.state, each.reason, each.at.isoformat()) for each in simulation.deliveries
    ]


def test_a_busy_line_at_night_is_answered_in_the_morning(load_rules, event):
    night = event("call.busy", "2026-03-02T21:30:00-05:00", metadata=PERSON)
    assert ran(load_rules(TEXTS), night) == [("texter.send", "succeeded", None, "2026-03-03T13:00:00+00:00")]


def test_a_later_call_of_the_same_person_cancels_the_text(load_rules, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=PERSON)
    done = event("call.completed", "2026-03-02T12:05:00-05:00", metadata=PERSON)
    assert ran(load_rules(TEXTS), done, busy) == [
        ("texter.send", "cancelled", None, "2026-03-02T17:05:00+00:00")
    ]


def test_a_later_call_of_somebody_else_cancels_nothing(load_rules, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=PERSON)
    done = event("call.completed", "2026-03-02T12:01:00-05:00", metadata={"contactPhone": "+14155550188"})
    assert ran(load_rules(TEXTS), busy, done)[0][1] == "succeeded"


def test_a_call_that_came_back_before_the_line_was_busy_cancels_nothing(load_rules, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=PERSON)
    done = event(
        "call.completed", "2026-03-02T12:01:00-05:00", metadata=PERSON, timestamp="2026-03-02T16:59:59Z"
    )
    assert ran(load_rules(TEXTS), busy, done)[0][1] == "succeeded"


def test_what_cannot_go_before_it_expires_is_suppressed(load_rules, event):
    text = TEXTS.replace("expires: 16h", "expires: 8h")
    night = event("call.busy", "2026-03-02T21:30:00-05:00", metadata=PERSON)
    assert [found[1:3] for found in ran(load_rules(text), night)] == [("suppressed", "expired")]


def test_the_third_text_of_a_day_is_capped(load_rules, event):
    calls = [event("call.busy", f"2026-03-02T{hour}:00:00-05:00", metadata=PERSON) for hour in (10, 11, 12)]
    assert [found[1:3] for found in ran(load_rules(TEXTS), *calls)] == [
        ("succeeded", None),
        ("succeeded", None),
        ("suppressed", "frequency_capped"),
    ]


def test_once_counts_what_went_and_not_what_was_cancelled(load_rules, event):
    text = TEXTS.replace("expires: 16h", "once: {per: contact, within: 6h}")
    first = event("call.busy", "2026-03-02T09:00:00-05:00", metadata=PERSON)
    back = event("call.completed", "2026-03-02T09:01:00-05:00", metadata=PERSON)
    second = event("call.busy", "2026-03-02T10:00:00-05:00", metadata=PERSON)
    third = event("call.no-answer", "2026-03-02T11:00:00-05:00", metadata=PERSON)
    assert [found[1:3] for found in ran(load_rules(text), first, back, second, third)] == [
        ("cancelled", None),
        ("succeeded", None),
        ("suppressed", "cooldown"),
    ]


def test_two_rules_send_one_text_for_one_event(load_rules, event):
    twice = (
        TEXTS
        + """
      - name: text-too
        when: call.busy
        do:
          - {use: texter.send, delay: 10m, with: {body: "The same, again"}}
    """
    )
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=PERSON)
    assert [found[1:3] for found in ran(load_rules(twice), busy)] == [
        ("succeeded", None),
        ("suppressed", "duplicate"),
    ]


LOG = """
    version: 1
    rules:
      - name: log
        when: chat.*
        do: [{use: ledger.log}]
"""


def test_one_conversation_is_one_record_and_resolved_wins_over_completed(load_rules, event):
    conversation = {"conversationId": "conv_1"}
    resolved = event("chat.resolved", "2026-03-02T12:00:00Z", **conversation)
    completed = event("chat.completed", "2026-03-02T12:00:05Z", **conversation)
    assert [found[1:3] for found in ran(load_rules(LOG), resolved, completed)] == [
        ("succeeded", None),
        ("suppressed", "superseded"),
    ]
    late = event("chat.completed", "2026-03-02T11:59:00Z", **conversation)
    assert [found[1] for found in ran(load_rules(LOG), late, resolved)] == ["succeeded", "succeeded"]


def test_the_same_event_again_is_a_duplicate(load_rules, event):
    first = event("call.busy", "2026-03-02T12:00:00-05:00", "one")
    again = event("call.busy", "2026-03-02T12:00:00-05:00", "under another webhookId")
    assert len(ran(load_rules(TEXTS), first, again)) == 1


def test_a_shadow_does_everything_but_the_sending(load_rules, event):
    shadow = TEXTS.replace("when: [", "shadow: true\n        when: [")
    busy = event("call.busy", "2026-03-02T21:30:00-05:00", metadata=PERSON)
    assert ran(load_rules(shadow), busy) == [
        ("texter.send", "suppressed", "shadow", "2026-03-03T13:00:00+00:00")
    ]


def test_only_to_holds_back_everybody_else(load_rules, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=PERSON)
    rules = load_rules(TEXTS)
    assert ran(rules, busy, allowlist=["+14155550188"])[0][1:3] == ("suppressed", "shadow")
    assert ran(rules, busy, allowlist=["+12125550123"])[0][1] == "succeeded"


FAILING = """
    version: 1
    alerts:
      - {use: desk.tell, with: {text: "look: {{ delivery.message }}"}}
    rules:
      - name: text
        when: call.busy
        do: [{use: texter.send, with: {body: "We tried"}}]
        on_failure:
          - use: desk.tell
            with: {text: "{{ delivery.action }}: {{ delivery.reason | default(delivery.message_status) }}"}
      - name: mail
        when: call.completed
        do: [{use: mailer.post, with: {subject: "Thanks", text: "{{ event.summary }}"}}]
"""


def said(rules, *events, fail):
    simulation = Simulation(rules, fail=fail)
    simulation.run(events)
    return [
        (each.planned.trigger, each.planned.action, each.state, each.reason, each.planned.params.get("text"))
        for each in simulation.deliveries
    ]


def test_a_refusal_is_a_dead_letter_and_sets_off_on_failure(load_rules, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=PERSON)
    assert said(load_rules(FAILING), busy, fail={"texter.send": "rejected"}) == [
        ("rule", "texter.send", "failed", "rejected", None),
        ("on_failure", "desk.tell", "succeeded", None, "texter.send: rejected"),
    ]


def test_a_text_that_does_not_arrive_sets_off_on_failure(load_rules, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=PERSON)
    assert said(load_rules(FAILING), busy, fail={"texter.send": "undelivered"}) == [
        ("rule", "texter.send", "succeeded", None, None),
        ("on_failure", "desk.tell", "succeeded", None, "texter.send: undelivered"),
    ]


def test_an_unknown_outcome_that_cannot_be_looked_up_waits_for_a_person(load_rules, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=PERSON)
    first, told, alert = said(load_rules(FAILING), busy, fail={"texter.send": "timeout"})
    assert first == ("rule", "texter.send", "needs_review", "timeout", None)
    assert told[:3] == ("on_failure", "desk.tell", "succeeded")
    assert alert[:3] == ("alert", "desk.tell", "succeeded")


def test_an_unknown_outcome_that_can_be_looked_up_is_given_up_in_the_end(load_rules, event):
    done = event("call.completed", "2026-03-02T12:00:00-05:00")
    assert said(load_rules(FAILING), done, fail={"mailer.post": "timeout"})[0][2:4] == ("failed", "timeout")


def test_wrong_credentials_pause_the_connection_and_are_told_once(load_rules, event):
    calls = [event("call.busy", f"2026-03-02T12:0{minute}:00-05:00") for minute in (0, 1)]
    found = said(load_rules(FAILING), *calls, fail={"texter.send": "auth"})
    assert sorted(each[:3] for each in found) == [
        ("alert", "desk.tell", "succeeded"),
        ("rule", "texter.send", "pending"),
        ("rule", "texter.send", "pending"),
    ]


def test_what_cannot_be_rendered_is_born_dead_and_the_team_is_told(load_rules, event):
    done = event("call.completed", "2026-03-02T12:00:00-05:00", summary=None)
    mail, alert = said(load_rules(FAILING), done, fail={})
    assert mail == ("rule", "mailer.post", "failed", "render_error", None)
    assert alert[:3] == ("alert", "desk.tell", "succeeded")
    assert "event.summary is missing" in alert[4]


def test_an_alert_by_text_wakes_the_team(load_rules, event):
    text = "{use: texter.send, with: {to: '+12025550100', body: '{{ delivery.message }}'}}"
    rules = load_rules(
        FAILING.replace('{use: desk.tell, with: {text: "look: {{ delivery.message }}"}}', text)
    )
    late = event("call.completed", "2026-03-02T23:00:00-05:00", summary=None)
    assert ran(rules, late)[1] == ("texter.send", "succeeded", None, "2026-03-02T23:00:00-05:00")


def test_the_order_in_which_events_are_given_does_not_matter(load_rules, event):
    rules = load_rules(TEXTS)
    events = [
        event("call.busy", "2026-03-02T12:00:00-05:00", metadata=PERSON),
        event("call.no-answer", "2026-03-02T12:30:00-05:00", metadata=PERSON),
        event("call.completed", "2026-03-02T12:33:00-05:00", metadata=PERSON),
    ]
    assert ran(rules, *events) == ran(rules, *reversed(events))


def test_traces_of_every_rule_are_kept(load_rules, event):
    simulation = Simulation(load_rules(FAILING))
    simulation.run([event("call.busy", "2026-03-02T12:00:00-05:00")])
    [(seen, traces)] = simulation.traces
    assert seen.received_at == datetime(2026, 3, 2, 17, tzinfo=UTC)
    assert {trace.rule: trace.fired for trace in traces} == {"text": True, "mail": False}


def test_a_mail_address_is_one_person_however_it_is_written(load_rules, event):
    mails = """
        version: 1
        rules:
          - name: mail
            when: [call.completed, chat.abandoned]
            do: [{use: mailer.post, delay: 5m, cancel_on: chat.resolved, with: {subject: "S", text: "T"}}]
    """
    spellings = ["maya@example.com", "Maya@example.com", "MAYA@example.com"]
    calls = [
        event("call.completed", f"2026-03-02T{12 + hour}:00:00-05:00", metadata={"contactEmail": address})
        for hour, address in enumerate(spellings)
    ]
    rules = load_rules(mails)
    assert [found[1:3] for found in ran(rules, *calls)] == [
        ("succeeded", None), ("succeeded", None), ("suppressed", "frequency_capped"),
    ]  # fmt: skip
    back = event("chat.resolved", "2026-03-02T12:01:00-05:00", metadata={"contactEmail": "mAya@example.com"})
    assert ran(rules, calls[0], back)[0][1] == "cancelled"


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=6,
)
fields = ["timestamp", "conversationId", "direction", "duration", "summary", "metadata", "callMetadata"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(st.dictionaries(st.sampled_from(fields), values, max_size=5), min_size=1, max_size=4), st.data()
)
def test_whatever_an_event_holds_it_can_be_rehearsed_and_explained(load_rules, changes, data):
    rules = load_rules(FAILING)
    names = st.sampled_from(["call.busy", "call.completed", "chat.resolved", "nothing known", ""])
    events = [
        Event(sample("call.busy") | change | {"event": data.draw(names)}, f"event {number}", START)
        for number, change in enumerate(changes)
    ]
    simulation = Simulation(rules)
    simulation.run(events)
    assert len(simulation.traces) <= len(events)
    assert all(delivery.state in ("succeeded", "failed", "suppressed") for delivery in simulation.deliveries)
    for event in events:
        assert json.dumps(explain(event, rules, START).to_json())
