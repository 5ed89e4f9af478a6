"""What a change of the rules would have done to events that really came."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.connector import segments
from bridge.dryrun.plan import plan

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
def planned(load_rules, event):
    def build(new: str, old: str = OLD, hours=(10, 11), names=("call.busy",), **changes):
        events = [
            event(name, f"2026-03-02T{hour}:00:00-05:00", conversationId=f"{name}{hour}", **changes)
            for name in names
            for hour in hours
        ]
        return plan(load_rules(old), load_rules(new), events)

    return build


def test_the_same_rules_change_nothing(planned):
    found = planned(OLD)
    assert found.differences == ()
    assert found.old == found.new
    assert found.old.deliveries == 4
    assert dict(found.old.requests) == {"texter": 2, "ledger": 2}
    assert dict(found.old.messages) == {"sms": 2}


def test_another_text_where_texts_tell_effects_apart_is_one_that_changes(planned):
    post = """
      - name: tell
        when: call.busy
        do:
          - {use: desk.post_up, with: {text: "busy"}}
          - {use: desk.post_up, with: {text: "always"}}
    """
    found = planned(OLD + post.replace('busy"', 'engaged"'), OLD + post)
    assert found.counts() == {"tell": {"changed": 2}}
    assert [each.changes for each in found.differences] == [{"text": ("busy", "engaged")}] * 2
    assert planned(OLD, OLD + post).counts() == {"tell": {"removed": 4}}
    assert planned(OLD + post, OLD).counts() == {"tell": {"added": 4}}


def test_a_rule_that_is_added_and_one_that_goes(planned):
    new = (
        OLD.replace("name: text", "name: text\n        enabled: false")
        + """
      - name: tell
        when: call.busy
        do: [{use: desk.tell, with: {text: "busy"}}]
    """
    )
    found = planned(new)
    assert found.counts() == {"tell": {"added": 2}, "text": {"removed": 2}}
    assert (found.old.segments, found.new.segments) == (2, 0)
    assert found.new.requests["desk"] == 2


def test_another_text_is_a_change_and_shows_what_it_costs(planned):
    found = planned(OLD.replace("reach you", "reach you 😀"))
    assert found.counts() == {"text": {"changed": 2}}
    [sample] = found.samples(each=1)
    assert sample.changes == {"body": ("We tried to reach you", "We tried to reach you 😀")}
    long = planned(OLD.replace("reach you", "reach you " + "x" * 60 + "😀"))
    assert (long.old.segments, long.new.segments) == (2, 4)


def test_a_renamed_rule_sends_nothing_new(planned):
    found = planned(OLD.replace("name: text", "name: message"))
    assert found.counts() == {"message": {"changed": 2}}
    assert found.differences[0].changes == {"rule": ("text", "message")}


def test_another_delay_changes_the_time_only(planned):
    found = planned(OLD.replace("use: texter.send,", "use: texter.send, delay: 5m,"))
    assert [list(difference.changes) for difference in found.differences] == [["at"], ["at"]]


def test_a_tighter_cap_removes_and_says_why(planned):
    found = planned(OLD.replace("rules:", "messaging: {caps: {sms: 1 per 24h}}\n    rules:"))
    [difference] = found.differences
    assert difference.kind == "removed"
    assert difference.why.startswith("messaging.caps.sms: at most 1 text per 24h")
    assert dict(found.new.held_back) == {"frequency_capped": 1}


def test_what_cannot_be_rendered_is_counted_as_broken(planned):
    found = planned(OLD.replace("We tried to reach you", "{{ event.metadata.salesRep }}"))
    assert (found.old.broken, found.new.broken) == (0, 2)
    assert found.counts() == {"text": {"removed": 2}}
    assert "salesRep" in found.differences[0].why


def test_samples_are_few_of_each_kind(planned):
    many = planned(OLD, old=OLD.replace("when: call.*", "when: call.failed"), hours=range(10, 19))
    assert many.counts() == {"log": {"added": 9}}
    assert len(many.samples()) == 3
    assert len(many.samples(each=5)) == 5


def test_no_events_is_an_empty_plan(load_rules):
    found = plan(load_rules(OLD), load_rules(OLD), [])
    assert (found.events, found.since, found.differences) == (0, None, ())


def test_the_plan_is_json(planned):
    found = json.loads(json.dumps(planned(OLD.replace("reach", "get")).to_json(samples=1)))
    assert found["events"] == 2
    assert found["rules"] == {"text": {"changed": 2}}
    assert found["samples"][0]["delivery"]["params"]["body"] == "We tried to get you"
    assert found["samples"][0]["counterpart"]["params"]["body"] == "We tried to reach you"


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
def test_segments_are_counted_as_networks_do(text, count, encoding):
    found = segments(text)
    assert (found.count, found.encoding) == (count, encoding)


@given(st.text(max_size=2000))
def test_no_segment_is_overfull(text):
    found = segments(text)
    units = len(text.encode("utf-16-be", "surrogatepass")) // 2
    assert found.count >= -(-units // (160 if found.encoding == "GSM-7" else 70))
    assert found.count <= max(1, -(-2 * units // 67) + 1)


def test_progress_is_told_for_every_event_and_both_rules(load_rules, event):
    events = [event("call.busy", f"2026-03-02T{hour}:00:00Z") for hour in (10, 11, 12)]
    heard = []
    plan(load_rules(OLD), load_rules(OLD), events, on_event=lambda: heard.append(1))
    assert len(heard) == 6
