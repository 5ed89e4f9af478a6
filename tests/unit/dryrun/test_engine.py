"""Dry runs on the engine and in the simulator: the states that deliveries end in, on a clock of their own.

Tests in which providers accept everything run on both.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bridge
from bridge.dryrun.engine import DryRun
from bridge.dryrun.explain import explain
from bridge.dryrun.simulator import Simulation
from bridge.events import Event
from bridge.samples import sample

PACKAGE = Path(bridge.__file__).parent
START = datetime(2026, 3, 2, 17, tzinfo=UTC)

SMS_RULES = """
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
METADATA = {"contactPhone": "+12125550123"}


@pytest.fixture(params=["engine", "simulator"])
def run_events(request, database):
    """Return a function that runs events through rules and returns the result of every delivery."""

    def run(rules, *events, **options):
        on_engine = request.param == "engine"
        dry_run = DryRun(database, rules, **options) if on_engine else Simulation(rules, **options)
        dry_run.run(events)
        run.params = [each.planned.params for each in dry_run.deliveries]
        return [
            (each.planned.action, each.state, each.reason, each.at.astimezone(UTC).isoformat())
            for each in dry_run.deliveries
        ]

    return run


def test_message_at_night_is_sent_in_the_morning(run_events, load_rules, event):
    night = event("call.busy", "2026-03-02T21:30:00-05:00", metadata=METADATA)
    assert run_events(load_rules(SMS_RULES), night) == [
        ("texter.send", "succeeded", None, "2026-03-03T13:00:00+00:00")
    ]


def test_later_call_of_same_contact_cancels_message(run_events, load_rules, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA)
    done = event("call.completed", "2026-03-02T12:05:00-05:00", metadata=METADATA)
    assert run_events(load_rules(SMS_RULES), done, busy) == [
        ("texter.send", "cancelled", None, "2026-03-02T17:05:00+00:00")
    ]


def test_later_call_of_other_contact_does_not_cancel(run_events, load_rules, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA)
    done = event("call.completed", "2026-03-02T12:01:00-05:00", metadata={"contactPhone": "+14155550188"})
    assert run_events(load_rules(SMS_RULES), busy, done)[0][1] == "succeeded"


def test_call_with_earlier_timestamp_does_not_cancel(run_events, load_rules, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA)
    done = event(
        "call.completed", "2026-03-02T12:01:00-05:00", metadata=METADATA, timestamp="2026-03-02T16:59:59Z"
    )
    assert run_events(load_rules(SMS_RULES), busy, done)[0][1] == "succeeded"


def test_deferral_beyond_expiry_suppresses(run_events, load_rules, event):
    text = SMS_RULES.replace("expires: 16h", "expires: 8h")
    night = event("call.busy", "2026-03-02T21:30:00-05:00", metadata=METADATA)
    assert [row[1:3] for row in run_events(load_rules(text), night)] == [("suppressed", "expired")]


def test_third_message_of_a_day_is_capped(run_events, load_rules, event):
    calls = [event("call.busy", f"2026-03-02T{hour}:00:00-05:00", metadata=METADATA) for hour in (10, 11, 12)]
    assert [row[1:3] for row in run_events(load_rules(SMS_RULES), *calls)] == [
        ("succeeded", None),
        ("succeeded", None),
        ("suppressed", "frequency_capped"),
    ]


def test_messages_wait_once_the_total_cap_pauses_their_connection(run_events, load_rules, event):
    text = SMS_RULES.replace("rules:", "messaging: {caps: {total: {sms: 2 per 1h}}}\n    rules:")
    calls = [
        event(
            "call.busy",
            f"2026-03-02T{10 + number}:00:00-05:00",
            metadata={"contactPhone": f"+1212555012{number}"},
        )
        for number in range(3)
    ]
    assert [row[1] for row in run_events(load_rules(text), *calls)] == ["succeeded"] * 3
    calls = [
        event(
            "call.busy",
            f"2026-03-02T10:{10 + number}:00-05:00",
            metadata={"contactPhone": f"+1212555012{number}"},
        )
        for number in range(4)
    ]
    assert [row[1] for row in run_events(load_rules(text), *calls)] == ["succeeded"] * 2 + ["pending"] * 2


def test_text_to_a_country_that_is_not_listed_is_suppressed(run_events, load_rules, event):
    text = SMS_RULES.replace("rules:", "messaging: {countries: [US, CA]}\n    rules:")
    calls = [
        event("call.busy", f"2026-03-02T{hour}:00:00-05:00", metadata={"contactPhone": phone})
        for hour, phone in ((10, "+12125550123"), (11, "+18765550123"), (12, "+19005550123"))
    ]
    assert [row[1:3] for row in run_events(load_rules(text), *calls)] == [
        ("succeeded", None),
        ("suppressed", "country_not_allowed"),
        ("suppressed", "country_not_allowed"),
    ]


def test_once_counts_sent_and_not_cancelled_deliveries(run_events, load_rules, event):
    text = SMS_RULES.replace("expires: 16h", "once: {per: contact, within: 6h}")
    first = event("call.busy", "2026-03-02T09:00:00-05:00", metadata=METADATA)
    cancelling = event("call.completed", "2026-03-02T09:01:00-05:00", metadata=METADATA)
    second = event("call.busy", "2026-03-02T10:00:00-05:00", metadata=METADATA)
    third = event("call.no-answer", "2026-03-02T11:00:00-05:00", metadata=METADATA)
    assert [row[1:3] for row in run_events(load_rules(text), first, cancelling, second, third)] == [
        ("cancelled", None),
        ("succeeded", None),
        ("suppressed", "cooldown"),
    ]


def test_two_rules_send_one_message_for_one_event(run_events, load_rules, event):
    twice = (
        SMS_RULES
        + """
      - name: text-too
        when: call.busy
        do:
          - {use: texter.send, delay: 10m, with: {body: "The same, again"}}
    """
    )
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA)
    assert [row[1:3] for row in run_events(load_rules(twice), busy)] == [
        ("succeeded", None),
        ("suppressed", "duplicate"),
    ]


LOG_RULES = """
    version: 1
    rules:
      - name: log
        when: chat.*
        do: [{use: ledger.log}]
"""


def test_resolved_event_supersedes_completed_event_of_a_conversation(run_events, load_rules, event):
    conversation = {"conversationId": "conv_1"}
    resolved = event("chat.resolved", "2026-03-02T12:00:00Z", **conversation)
    completed = event("chat.completed", "2026-03-02T12:00:05Z", **conversation)
    assert [row[1:3] for row in run_events(load_rules(LOG_RULES), resolved, completed)] == [
        ("succeeded", None),
        ("suppressed", "superseded"),
    ]
    late = event("chat.completed", "2026-03-02T11:59:00Z", **conversation)
    assert [row[1] for row in run_events(load_rules(LOG_RULES), late, resolved)] == [
        "succeeded",
        "succeeded",
    ]


def test_repeated_event_is_a_duplicate(run_events, load_rules, event):
    first = event("call.busy", "2026-03-02T12:00:00-05:00", "one")
    repeated = event("call.busy", "2026-03-02T12:00:00-05:00", "under another webhookId")
    assert len(run_events(load_rules(SMS_RULES), first, repeated)) == 1


def test_shadow_rule_is_suppressed_when_it_would_be_sent(run_events, load_rules, event):
    shadow = SMS_RULES.replace("when: [", "shadow: true\n        when: [")
    busy = event("call.busy", "2026-03-02T21:30:00-05:00", metadata=METADATA)
    assert run_events(load_rules(shadow), busy) == [
        ("texter.send", "suppressed", "shadow", "2026-03-03T13:00:00+00:00")
    ]


def test_allowlist_must_contain_every_colleague(run_events, load_rules, event):
    rules = load_rules(
        """
        version: 1
        rules:
          - name: mail
            when: call.busy
            do: [{use: email.send, with: {to: ann@team.example, cc: bo@team.example, subject: s, text: t}}]
        """
    )
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA)
    assert run_events(rules, busy, allowlist=["ann@team.example"])[0][1] == "suppressed"
    assert run_events(rules, busy, allowlist=["ann@team.example", "bo@team.example"])[0][1] == "succeeded"


def test_allowlist_suppresses_other_recipients(run_events, load_rules, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA)
    rules = load_rules(SMS_RULES)
    assert run_events(rules, busy, allowlist=["+14155550188"])[0][1:3] == (
        "suppressed",
        "not_allowlisted",
    )
    assert run_events(rules, busy, allowlist=["+12125550123"])[0][1] == "succeeded"


def test_success_is_followed_up_with_the_text_of_the_message(run_events, load_rules, event):
    rules = load_rules("""
        version: 1
        rules:
          - name: text
            when: call.busy
            do: [{use: texter.send, delay: 5m, with: {body: "We tried, {{ contact.first_name }}"}}]
            on_success:
              - use: desk.notify
                delay: 1m
                with: {text: "{{ delivery.channel }} {{ delivery.external_id }}: {{ delivery.text }}"}
    """)
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA)
    rows = run_events(rules, busy)
    assert rows == [
        ("texter.send", "succeeded", None, "2026-03-02T17:05:00+00:00"),
        ("desk.notify", "succeeded", None, "2026-03-02T17:06:00+00:00"),
    ]
    assert run_events.params[1] == {"text": "sms sample: We tried, Ines"}
    assert (
        len(run_events(rules, busy, allowlist=["+14155550188"])) == 1
    )  # suppressed, so nothing to follow up


FAILURE_RULES = """
    version: 1
    alerts:
      - {use: desk.notify, with: {text: "look: {{ delivery.message }}"}}
    rules:
      - name: text
        when: call.busy
        do: [{use: texter.send, with: {body: "We tried"}}]
        on_failure:
          - use: desk.notify
            with: {text: "{{ delivery.action }}: {{ delivery.reason | default(delivery.message_status) }}"}
      - name: email
        when: call.completed
        do: [{use: mailer.post, with: {subject: "Thanks", text: "{{ event.summary }}"}}]
"""


@pytest.fixture
def run_with_failure(load_rules, database):
    """Return a function that runs events through FAILURE_RULES on the engine, with failing providers."""

    def run(*events, fail, rules=FAILURE_RULES):
        dry_run = DryRun(database, load_rules(rules), fail=fail)
        dry_run.run(events)
        return [
            (
                each.planned.trigger,
                each.planned.action,
                each.state,
                each.reason,
                each.planned.params.get("text"),
            )
            for each in dry_run.deliveries
        ]

    return run


def test_alerts_about_one_cause_are_grouped(run_events, load_rules, event):
    calls = [
        event(
            "call.completed",
            f"2026-03-02T12:0{minute}:00-05:00",
            summary=None,
            conversationId=f"call {minute}",
        )
        for minute in range(4)
    ]
    results = run_events(load_rules(FAILURE_RULES), *calls)
    alerts = [(action, at) for action, state, _, at in results if state == "succeeded"]
    assert alerts == [
        ("desk.notify", "2026-03-02T17:00:00+00:00"),
        ("desk.notify", "2026-03-02T17:10:00+00:00"),
    ]
    assert run_events.params[-1]["text"].startswith(
        "look: 3 more deliveries over mailer failed (render_error) since 17:00 UTC: 3 of email; the latest: mailer.post"
    )


def test_rejected_delivery_fails_and_triggers_on_failure(run_with_failure, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA)
    assert run_with_failure(busy, fail={"texter.send": "rejected"}) == [
        ("rule", "texter.send", "failed", "rejected", None),
        ("on_failure", "desk.notify", "succeeded", None, "texter.send: rejected"),
    ]


def test_undelivered_message_triggers_on_failure(run_with_failure, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA)
    assert run_with_failure(busy, fail={"texter.send": "undelivered"}) == [
        ("rule", "texter.send", "succeeded", None, None),
        ("on_failure", "desk.notify", "succeeded", None, "texter.send: undelivered"),
    ]


def test_unknown_outcome_without_lookup_needs_review(run_with_failure, event):
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA)
    first, follow_up, alert = run_with_failure(busy, fail={"texter.send": "timeout"})
    assert first == ("rule", "texter.send", "needs_review", "timeout", None)
    assert follow_up[:3] == ("on_failure", "desk.notify", "succeeded")
    assert alert[:3] == ("alert", "desk.notify", "succeeded")


def test_unknown_outcome_with_lookup_fails_in_the_end(run_with_failure, event):
    done = event("call.completed", "2026-03-02T12:00:00-05:00")
    assert run_with_failure(done, fail={"mailer.post": "timeout"})[0][2:4] == (
        "failed",
        "timeout",
    )


def test_auth_failure_pauses_connection_and_alerts_once(run_with_failure, event):
    calls = [event("call.busy", f"2026-03-02T12:0{minute}:00-05:00") for minute in (0, 1)]
    rows = run_with_failure(*calls, fail={"texter.send": "auth"})
    assert sorted(each[:3] for each in rows) == [
        ("alert", "desk.notify", "succeeded"),
        ("rule", "texter.send", "pending"),
        ("rule", "texter.send", "pending"),
    ]


@pytest.mark.parametrize(("failure", "alerts"), [("quota", 1), ("rate_limited", 0)])
def test_pausing_failure_keeps_later_deliveries_waiting(run_with_failure, event, capsys, failure, alerts):
    calls = [event("call.busy", f"2026-03-02T1{hour}:00:00-05:00") for hour in (0, 5)]
    rows = run_with_failure(*calls, fail={"texter.send": failure})
    assert [each[2:4] for each in rows if each[0] == "rule"] == [("pending", failure), ("pending", None)]
    assert sum(each[0] == "alert" for each in rows) == alerts
    assert capsys.readouterr().out == ""  # `bridge test --json` prints nothing else


def test_failing_attempts_are_retried_before_on_failure_runs(load_rules, database, event):
    dry_run = DryRun(database, load_rules(FAILURE_RULES), fail={"texter.send": "network"})
    dry_run.run([event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA)])
    text, follow_up = dry_run.deliveries
    assert (text.state, text.reason) == ("failed", "network")
    assert text.detail.startswith("gave up after ")
    assert follow_up.at - text.at > timedelta(hours=4)


def test_failures_in_quick_succession_open_the_circuit_breaker(run_with_failure, event):
    calls = [event("call.completed", f"2026-03-02T12:00:0{second}-05:00") for second in range(6)]
    rows = run_with_failure(*calls, fail={"mailer.post": "network"}, rules=FAILURE_RULES)
    assert [each[:3] for each in rows if each[0] == "alert"] == [("alert", "desk.notify", "succeeded")]
    assert {each[2] for each in rows if each[0] == "rule"} == {"pending"}


def test_delivery_waits_for_key_of_delivery_that_needs_review(run_with_failure, event):
    twice = FAILURE_RULES.replace(
        'do: [{use: texter.send, with: {body: "We tried"}}]',
        'do: [{use: texter.send, with: {body: "One"}}, {use: texter.send, delay: 1h, with: {body: "Two"}}]',
    )
    busy = event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA)
    rows = run_with_failure(busy, fail={"texter.send": "timeout"}, rules=twice)
    assert [each[2:4] for each in rows if each[0] == "rule"] == [
        ("needs_review", "timeout"),
        ("pending", None),
    ]


def test_render_error_fails_delivery_and_alerts(run_with_failure, event):
    done = event("call.completed", "2026-03-02T12:00:00-05:00", summary=None)
    email, alert = run_with_failure(done, fail={})
    assert email == ("rule", "mailer.post", "failed", "render_error", None)
    assert alert[:3] == ("alert", "desk.notify", "succeeded")
    assert "event.summary is missing" in alert[4]


def test_alert_by_text_message_ignores_quiet_hours(run_events, load_rules, event):
    text = "{use: texter.send, with: {to: '+12025550100', body: '{{ delivery.message }}'}}"
    rules = load_rules(
        FAILURE_RULES.replace('{use: desk.notify, with: {text: "look: {{ delivery.message }}"}}', text)
    )
    late = event("call.completed", "2026-03-02T23:00:00-05:00", summary=None)
    assert run_events(rules, late)[1] == ("texter.send", "succeeded", None, "2026-03-03T04:00:00+00:00")


def test_order_of_given_events_does_not_matter(run_events, load_rules, event):
    rules = load_rules(SMS_RULES)
    events = [
        event("call.busy", "2026-03-02T12:00:00-05:00", metadata=METADATA),
        event("call.no-answer", "2026-03-02T12:30:00-05:00", metadata=METADATA),
        event("call.completed", "2026-03-02T12:33:00-05:00", metadata=METADATA),
    ]
    assert run_events(rules, *events) == run_events(rules, *reversed(events))


def test_dry_run_keeps_traces_of_every_rule(database, load_rules, event):
    dry_run = DryRun(database, load_rules(FAILURE_RULES))
    dry_run.run([event("call.busy", "2026-03-02T12:00:00-05:00")])
    [(traced_event, traces)] = dry_run.traces
    assert traced_event.received_at == datetime(2026, 3, 2, 17, tzinfo=UTC)
    assert {trace.rule: trace.fired for trace in traces} == {"text": True, "email": False}


def test_email_addresses_are_compared_without_case(run_events, load_rules, event):
    email_rules = """
        version: 1
        rules:
          - name: email
            when: [call.completed, chat.abandoned]
            do: [{use: mailer.post, delay: 5m, cancel_on: chat.resolved, with: {subject: "S", text: "T"}}]
    """
    spellings = ["maya@example.com", "Maya@example.com", "MAYA@example.com"]
    calls = [
        event("call.completed", f"2026-03-02T{12 + hour}:00:00-05:00", metadata={"contactEmail": address})
        for hour, address in enumerate(spellings)
    ]
    rules = load_rules(email_rules)
    assert [row[1:3] for row in run_events(rules, *calls)] == [
        ("succeeded", None), ("succeeded", None), ("suppressed", "frequency_capped"),
    ]  # fmt: skip
    cancelling = event(
        "chat.resolved", "2026-03-02T12:01:00-05:00", metadata={"contactEmail": "mAya@example.com"}
    )
    assert run_events(rules, calls[0], cancelling)[0][1] == "cancelled"


def test_only_store_explain_and_simulator_decide():
    deciding = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(
            r"^from bridge\.policy\S* import (\([^)]*|.*)\bdecide\b", path.read_text("utf-8"), re.MULTILINE
        )
    }
    assert deciding - {"policy/__init__.py"} == {
        "dryrun/explain.py",
        "dryrun/permission.py",
        "dryrun/simulator.py",
        "store/policy_inputs.py",
    }


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=6,
)
fields = ["timestamp", "conversationId", "direction", "duration", "summary", "metadata", "callMetadata"]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(st.dictionaries(st.sampled_from(fields), values, max_size=5), min_size=1, max_size=4), st.data()
)
def test_any_event_body_can_be_run_and_explained(database, load_rules, changes, data):
    rules = load_rules(FAILURE_RULES)
    names = st.sampled_from(["call.busy", "call.completed", "chat.resolved", "unknown type", ""])
    events = [
        Event(sample("call.busy") | change | {"event": data.draw(names)}, f"event {number}", START)
        for number, change in enumerate(changes)
    ]
    dry_run, simulation = DryRun(database, rules), Simulation(rules)
    dry_run.run(events)
    simulation.run(events)
    assert len(dry_run.traces) == simulation.accepted <= len(events)
    for delivery in (*dry_run.deliveries, *simulation.deliveries):
        assert delivery.state in ("succeeded", "failed", "suppressed")
    for event in events:
        assert json.dumps(explain(event, rules, START).to_json())


COUNTING = """
    version: 1
    rules:
      - name: task-after-three
        when: call.no-answer
        where:
          count(call.no-answer, 7d): {gte: 3}
        do: [{use: desk.notify, with: {text: "{{ count('call.no-answer', '7d') }} calls"}}]
"""


def test_third_unanswered_call_within_a_week_fires(run_events, load_rules, event):
    phone, email = {"contactPhone": "+12125550123"}, {"contactEmail": "maya@example.com"}
    calls = [
        event("call.no-answer", "2026-03-02T12:00:00-05:00", metadata=phone),
        event("call.busy", "2026-03-03T12:00:00-05:00", metadata=phone),
        event("call.no-answer", "2026-03-04T12:00:00-05:00", metadata={"contactPhone": "+12125550199"}),
        event("call.no-answer", "2026-03-05T12:00:00-05:00", metadata=phone | email),
        event("call.no-answer", "2026-03-06T12:00:00-05:00", metadata=email),
        event("call.no-answer", "2026-03-09T12:30:00-05:00", metadata=phone | email),
        event("call.no-answer", "2026-03-09T12:40:00-05:00", metadata=phone),
    ]
    assert (
        [at for *_, at in run_events(load_rules(COUNTING), *calls)]
        == [
            "2026-03-09T17:30:00+00:00",  # the calls of the 5th, 6th and 9th; the one of the 2nd is over a week ago
            "2026-03-09T17:40:00+00:00",  # the calls of the 5th and 9th; the one of the 6th has no phone number
        ]
    )
