"""`bridge plan`: the deliveries that a change of the rules adds, removes and changes."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.connector import segments
from bridge.dryrun.plan import plan
from bridge.events import Event

OLD = """
    version: 1
    rules:
      - name: text
        when: call.busy
        do: [{use: texter.send, with: {body: "We tried to reach you"}}]
      - name: log
        when: call.*
        do: [{use: ledger.log}]
"""


@pytest.fixture
def plan_change(load_rules, event):
    def build(new: str, old: str = OLD, hours=(10, 11), names=("call.busy",), samples=100, **changes):
        events = [
            event(name, f"2026-03-02T{hour}:00:00-05:00", conversationId=f"{name}{hour}", **changes)
            for name in names
            for hour in hours
        ]
        return plan(load_rules(old), load_rules(new), events, samples=samples)

    return build


def test_same_rules_have_no_differences(plan_change):
    result = plan_change(OLD)
    assert (result.differences, result.samples) == (0, ())
    assert result.old == result.new
    assert result.old.deliveries == 4
    assert dict(result.old.requests) == {"texter": 2, "ledger": 2}
    assert dict(result.old.messages) == {"sms": 2}


def test_messages_that_the_total_cap_stops_are_counted(plan_change):
    old = OLD.replace("rules:", "messaging: {caps: {sms: 9 per 1d}}\n    rules:")
    new = OLD.replace("rules:", "messaging: {caps: {sms: 9 per 1d, total: {sms: 2 per 1d}}}\n    rules:")
    result = plan_change(new, old, hours=(10, 11, 12, 13, 14))
    assert (dict(result.old.stopped), dict(result.new.stopped)) == ({}, {"texter": 3})
    assert dict(result.new.messages) == {"sms": 2}
    assert result.new.to_json()["stopped"] == {"texter": 3}
    removed = [difference for difference in result.samples if difference.kind == "removed"]
    assert "connection texter is paused: messaging.caps.total.sms" in removed[-1].detail


def test_changed_dedupe_param_is_one_change(plan_change):
    post = """
      - name: notify
        when: call.busy
        do:
          - {use: desk.post_up, with: {text: "busy"}}
          - {use: desk.post_up, with: {text: "always"}}
    """
    result = plan_change(OLD + post.replace('busy"', 'engaged"'), OLD + post)
    assert result.rules == {"notify": {"changed": 2}}
    assert [each.changes for each in result.samples] == [{"text": ("busy", "engaged")}] * 2
    assert plan_change(OLD, OLD + post).rules == {"notify": {"removed": 4}}
    assert plan_change(OLD + post, OLD).rules == {"notify": {"added": 4}}


def test_added_and_disabled_rules_are_counted(plan_change):
    new = (
        OLD.replace("name: text", "name: text\n        enabled: false")
        + """
      - name: notify
        when: call.busy
        do: [{use: desk.notify, with: {text: "busy"}}]
    """
    )
    result = plan_change(new)
    assert result.rules == {"notify": {"added": 2}, "text": {"removed": 2}}
    assert (result.old.segments, result.new.segments) == (2, 0)
    assert result.new.requests["desk"] == 2


def test_changed_text_shows_segments(plan_change):
    result = plan_change(OLD.replace("reach you", "reach you 😀"))
    assert result.rules == {"text": {"changed": 2}}
    sample = result.samples[0]
    assert sample.changes == {"body": ("We tried to reach you", "We tried to reach you 😀")}
    long = plan_change(OLD.replace("reach you", "reach you " + "x" * 60 + "😀"))
    assert (long.old.segments, long.new.segments) == (2, 4)


def test_renamed_rule_is_a_change(plan_change):
    result = plan_change(OLD.replace("name: text", "name: message"))
    assert result.rules == {"message": {"changed": 2}}
    assert result.samples[0].changes == {"rule": ("text", "message")}


def test_changed_delay_changes_only_the_time(plan_change):
    result = plan_change(OLD.replace("use: texter.send,", "use: texter.send, delay: 5m,"))
    assert [list(difference.changes) for difference in result.samples] == [["at"], ["at"]]


def test_tighter_cap_removes_delivery_and_is_named(plan_change):
    result = plan_change(OLD.replace("rules:", "messaging: {caps: {sms: 1 per 24h}}\n    rules:"))
    [difference] = result.samples
    assert difference.kind == "removed"
    assert difference.detail.startswith("messaging.caps.sms: at most 1 text message per 24h")
    assert dict(result.new.held_back) == {"frequency_capped": 1}


def test_render_errors_are_counted_as_broken(plan_change):
    result = plan_change(OLD.replace("We tried to reach you", "{{ event.metadata.salesRep }}"))
    assert (result.old.broken, result.new.broken) == (0, 2)
    assert result.rules == {"text": {"removed": 2}}
    assert "salesRep" in result.samples[0].detail


def test_samples_are_limited_per_kind(plan_change):
    old = OLD.replace("when: call.*", "when: call.failed")
    many = plan_change(OLD, old=old, hours=range(10, 19), samples=3)
    assert (many.rules, many.differences) == ({"log": {"added": 9}}, 9)
    assert [sample.delivery.event.received_at.hour for sample in many.samples] == [10, 11, 12]


def test_events_are_forgotten_once_their_deliveries_have_ended(load_rules, event):
    """A plan of any number of events keeps those whose deliveries still wait: here 30 minutes for one per minute."""
    alive: list[weakref.ref[Event]] = []
    most = 0

    def stream() -> Iterator[Event]:
        nonlocal most
        for minute in range(300):
            time = f"2026-03-02T{10 + minute // 60}:{minute % 60:02}:00-05:00"
            item = event("call.busy", time, conversationId=str(minute))
            alive.append(weakref.ref(item))
            yield item
            del item
            most = max(most, sum(reference() is not None for reference in alive))

    new = OLD.replace("rules:", "messaging: {caps: {sms: 999 per 1d}}\n    rules:")
    old = new.replace("use: texter.send,", "use: texter.send, delay: 30m,")
    result = plan(load_rules(old), load_rules(new), stream(), samples=2)
    assert (result.events, result.differences, len(result.samples)) == (300, 300, 2)
    assert 30 <= most <= 40


def test_stored_events_are_compared_without_looking_for_duplicates(load_rules, event):
    """An operator may have accepted an event with the type, conversation and time of another one."""
    events = [event("call.busy", "2026-03-02T10:00:00-05:00", dedupe_key) for dedupe_key in ("one", "two")]
    result = plan(load_rules(OLD), load_rules(OLD), events)
    assert (result.events, result.old.messages) == (2, {"sms": 2})


def test_plan_without_events_is_empty(load_rules):
    result = plan(load_rules(OLD), load_rules(OLD), [])
    assert (result.events, result.since, result.differences) == (0, None, 0)


def test_plan_is_serializable(plan_change):
    parsed = json.loads(json.dumps(plan_change(OLD.replace("reach", "get")).to_json()))
    assert parsed["events"] == 2
    assert parsed["rules"] == {"text": {"changed": 2}}
    assert parsed["samples"][0]["delivery"]["params"]["body"] == "We tried to get you"
    assert parsed["samples"][0]["counterpart"]["params"]["body"] == "We tried to reach you"


@pytest.mark.parametrize(
    ("text", "count", "encoding"),
    [
        ("", 1, "GSM-7"),
        ("x" * 160, 1, "GSM-7"),
        ("x" * 161, 2, "GSM-7"),
        ("x" * 306, 2, "GSM-7"),
        ("x" * 307, 3, "GSM-7"),
        ("€" * 80, 1, "GSM-7"),
        ("€" * 81, 2, "GSM-7"),
        ("x" * 152 + "€" + "x" * 10, 2, "GSM-7"),
        ("ł" * 70, 1, "UCS-2"),
        ("ł" * 71, 2, "UCS-2"),
        ("ł" * 134, 2, "UCS-2"),
        ("ł" * 135, 3, "UCS-2"),
        ("😀" * 35, 1, "UCS-2"),
        ("😀" * 36, 2, "UCS-2"),
        ("😀" * 66, 2, "UCS-2"),
        ("😀" * 67, 3, "UCS-2"),
    ],
)
def test_segments_follow_gsm_rules(text, count, encoding):
    counted = segments(text)
    assert (counted.count, counted.encoding) == (count, encoding)


@given(st.text(max_size=2000))
def test_segments_stay_within_size_limits(text):
    counted = segments(text)
    units = len(text.encode("utf-16-be", "surrogatepass")) // 2
    assert counted.count >= -(-units // (160 if counted.encoding == "GSM-7" else 70))
    assert counted.count <= max(1, -(-2 * units // 67) + 1)


def test_on_event_is_called_for_every_event(load_rules, event):
    events = [event("call.busy", f"2026-03-02T{hour}:00:00Z") for hour in (10, 11, 12)]
    calls = []
    plan(load_rules(OLD), load_rules(OLD), events, on_event=lambda: calls.append(1))
    assert len(calls) == 3
