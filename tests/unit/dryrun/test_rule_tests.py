"""`bridge test`: expectations against what happens, and what was never tried."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge.dryrun.rule_tests import run_tests

RULES = """
    version: 1
    alerts: [{use: desk.tell, with: {text: "{{ delivery.message }}"}}]
    rules:
      - name: text
        when: [call.busy, call.no-answer]
        where: {event.direction: outbound}
        do:
          - use: texter.send
            delay: 5m
            cancel_on: call.completed
            expires: 16h
            with: {body: "Hi {{ contact.first_name | default('there') }}"}
        on_failure: [{use: desk.tell, with: {text: "{{ delivery.reason }}"}}]
      - name: log
        when: call.*
        do: [{use: ledger.log}]
    tests:
"""


@pytest.fixture
def tested(load_rules, tmp_path):
    def run(*tests: str, rules: str = RULES, folder: Path | None = None):
        text = rules + "".join(f"      - {test.strip()}\n" for test in tests)
        return run_tests(load_rules(text), folder=folder or tmp_path)

    return run


def mismatches(report):
    return [mismatch.text for result in report.results for mismatch in result.mismatches]


NIGHT = """{name: night, event: call.busy, set: {event.metadata.contactPhone: "+12125550123"},
         at: "2026-03-02T21:30:00-05:00", expect: {text: [%s]}}"""


def test_what_is_expected_passes(tested):
    report = tested(NIGHT % '{use: texter.send, at: "2026-03-03T08:00:00-05:00", with: {body: Hi Ines}}')
    assert mismatches(report) == []
    assert report.passed


def test_another_time_is_told_on_the_clock_of_the_test(tested):
    report = tested(NIGHT % '{use: texter.send, at: "2026-03-03T09:00:00-05:00"}')
    assert mismatches(report) == [
        "expected texter.send at 2026-03-03T09:00-05:00: it was at 2026-03-03T08:00-05:00"
    ]
    assert not report.passed


def test_another_text_is_told(tested):
    report = tested(NIGHT % "{use: texter.send, with: {body: Hello}}")
    assert mismatches(report) == ['expected texter.send: body is "Hi Ines", not "Hello"']


def test_seconds_do_not_matter(tested):
    day = """{name: day, event: call.busy, at: "2026-03-02T12:00:40-05:00",
             expect: {text: [{use: texter.send, at: "2026-03-02T12:05:00-05:00"}]}}"""
    assert mismatches(tested(day)) == []


def test_what_is_missing_is_explained_by_the_conditions(tested):
    report = tested(
        "{name: inbound, event: call.busy, set: {event.direction: inbound}, expect: {text: [{use: texter.send}]}}"
    )
    assert mismatches(report) == ["expected texter.send: nothing of the kind"]
    [why] = report.results[0].mismatches[0].why
    assert why.startswith("call.busy: event.direction")
    assert why.endswith('found "inbound"')


def test_what_happens_unexpectedly_is_told(tested):
    report = tested("{name: nothing, event: call.busy, at: 2026-03-02T12:00:00-05:00, expect: {text: []}}")
    [text] = mismatches(report)
    assert text.startswith("not expected: texter.send was sent at 2026-03-02T")


def test_an_empty_expectation_expects_nothing_of_any_rule(tested):
    report = tested("{name: nothing, event: call.completed, expect: {}}")
    assert [text.partition(" at ")[0] for text in mismatches(report)] == ["not expected: ledger.log was sent"]
    assert tested("{name: nothing, event: chat.completed, expect: {}}").passed


def test_a_sequence_cancels_and_needs_no_mention(tested):
    sequence = """{name: called back, events: [
          {event: call.busy, at: "2026-03-02T12:00:00-05:00", set: {event.metadata.contactPhone: "+12125550123"}},
          {event: call.completed, at: "2026-03-02T12:03:00-05:00", set: {event.metadata.contactPhone: "+12125550123"}}],
          expect: {text: [%s]}}"""
    assert mismatches(tested(sequence % "")) == []
    assert mismatches(tested(sequence % "{use: texter.send, state: cancelled}")) == []
    [text] = mismatches(tested(sequence % "{use: texter.send}"))
    assert text.startswith("expected texter.send: it was cancelled at ")


def test_two_events_of_one_sample_are_two_events(tested):
    calls = ", ".join(f'{{event: call.busy, at: "2026-03-02T{hour}:00:00-05:00"}}' for hour in (10, 11, 12))
    test = f"{{name: caps, events: [{calls}], expect: {{text: [%s]}}}}"
    sent = "{use: texter.send}"
    capped = "{use: texter.send, state: suppressed, reason: frequency_capped}"
    assert mismatches(tested(test % ", ".join([capped, sent, sent]))) == []
    assert mismatches(tested(test % ", ".join([sent, sent]))) == []
    [text] = mismatches(tested(test % ", ".join([sent, sent, sent])))
    assert "was suppressed (capped)" in text


def test_a_failing_partner_is_rehearsed(tested):
    test = """{name: refused, event: call.busy, at: "2026-03-02T12:00:00-05:00", fail: {texter.send: rejected},
          expect: {text: [{use: texter.send, state: failed, reason: rejected},
                          {use: desk.tell, with: {text: rejected}}]}}"""
    assert mismatches(tested(test)) == []
    paused = """{name: paused, event: call.busy, at: "2026-03-02T12:00:00-05:00", fail: {texter.send: credentials},
          expect: {alerts: [{use: desk.tell}]}}"""
    assert mismatches(tested(paused)) == []


@pytest.mark.parametrize(
    ("at", "due"),
    [
        ("2026-03-07T21:00:00-05:00", "2026-03-08T08:00:00-04:00"),
        ("2026-10-31T21:00:00-04:00", "2026-11-01T08:00:00-05:00"),
    ],
)
def test_both_changes_of_the_clocks(tested, at, due):
    test = (
        f'{{name: dst, event: call.busy, at: "{at}", expect: {{text: [{{use: texter.send, at: "{due}"}}]}}}}'
    )
    assert mismatches(tested(test)) == []


def test_events_come_from_files_too(tested, tmp_path):
    body = {"event": "call.busy", "timestamp": "2026-03-02T17:00:00Z", "direction": "outbound",
            "metadata": {"contactPhone": "+12125550123"}}  # fmt: skip
    (tmp_path / "busy.json").write_text(json.dumps(body))
    test = '{name: file, event: busy.json, expect: {text: [{use: texter.send, at: "2026-03-02T17:05:00Z"}]}}'
    assert mismatches(tested(test)) == []
    assert mismatches(tested(test.replace("busy.json", "gone.json"))) == [
        "gone.json cannot be read: No such file or directory"
    ]
    (tmp_path / "busy.json").write_text("[]")
    assert mismatches(tested(test)) == ["busy.json is not an event: not a JSON object"]
    (tmp_path / "busy.json").write_text('{"event": "call.busy"}')
    assert mismatches(tested(test)) == ["event 1, busy.json: it has no timestamp; say when with `at:`"]


def test_what_was_never_tried_is_told(tested):
    coverage = tested("{name: one, event: call.completed, expect: {log: [{use: ledger.log}]}}").coverage
    assert coverage.rules == (1, 2)
    assert coverage.actions == (1, 4)
    assert [(gap.kind, gap.rule, gap.text) for gap in coverage.gaps] == [
        ("rule", "text", "never fires"),
        ("action", "text", "texter.send is never attempted"),
        ("action", "text", "desk.tell in on_failure is never attempted"),
        ("action", "alerts", "desk.tell in alerts is never attempted"),
    ]


def test_a_condition_has_to_be_tried_both_ways(tested):
    one = "{name: one, event: call.busy, expect: {}}"
    two = "{name: two, event: call.busy, set: {event.direction: inbound}, expect: {}}"
    gaps = [gap.text for gap in tested(one).coverage.gaps if gap.kind == "condition"]
    assert len(gaps) == 1
    assert gaps[0].startswith("event.direction")
    assert gaps[0].endswith(": always holds")
    assert [gap for gap in tested(one, two).coverage.gaps if gap.kind == "condition"] == []


def test_of_a_group_every_part_has_to_be_tried_both_ways(tested):
    grouped = RULES.replace(
        "{event.direction: outbound}", "{any: [{event.direction: outbound}, {event.duration: {gt: 5}}]}"
    )
    one = "{name: one, event: call.busy, expect: {}}"
    gaps = [gap.text for gap in tested(one, rules=grouped).coverage.gaps if gap.kind == "condition"]
    assert gaps == ["event.direction eq outbound: always holds", "event.duration gt 5: never holds"]


def test_the_report_is_json(tested):
    report = tested(NIGHT % "{use: texter.send, with: {body: Hello}}")
    found = json.loads(json.dumps(report.to_json()))
    assert found["passed"] is False
    assert found["tests"][0]["mismatches"][0]["rule"] == "text"
    assert found["coverage"]["rules"] == [2, 2]


def test_each_result_is_heard_of_as_it_ends(load_rules, tmp_path):
    heard = []
    text = (
        RULES
        + "      - {name: one, event: call.busy, expect: {}}\n      - {name: two, event: call.busy, expect: {}}\n"
    )
    run_tests(load_rules(text), folder=tmp_path, on_result=heard.append)
    assert [result.name for result in heard] == ["one", "two"]
