"""`bridge test`: mismatches between expectations and deliveries, and the coverage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bridge.dryrun.rule_tests import run_tests

RULES = """
    version: 1
    alerts: [{use: desk.notify, with: {text: "{{ delivery.message }}"}}]
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
        on_failure: [{use: desk.notify, with: {text: "{{ delivery.reason }}"}}]
      - name: log
        when: call.*
        do: [{use: ledger.log}]
    tests:
"""


@pytest.fixture
def run_rule_tests(load_rules, tmp_path):
    def run(*tests: str, rules: str = RULES, folder: Path | None = None):
        text = rules + "".join(f"      - {test.strip()}\n" for test in tests)
        return run_tests(load_rules(text), folder=folder or tmp_path)

    return run


def mismatches(report):
    return [mismatch.text for result in report.results for mismatch in result.mismatches]


NIGHT = """{name: night, event: call.busy, set: {event.metadata.contactPhone: "+12125550123"},
         at: "2026-03-02T21:30:00-05:00", expect: {text: [%s]}}"""


def test_expected_delivery_passes(run_rule_tests):
    report = run_rule_tests(
        NIGHT % '{use: texter.send, at: "2026-03-03T08:00:00-05:00", with: {body: Hi Ines}}'
    )
    assert mismatches(report) == []
    assert report.passed


def test_time_mismatch_is_reported_in_utc_offset_of_the_test(run_rule_tests):
    report = run_rule_tests(NIGHT % '{use: texter.send, at: "2026-03-03T09:00:00-05:00"}')
    assert mismatches(report) == [
        "expected texter.send at 2026-03-03T09:00-05:00: it was at 2026-03-03T08:00-05:00"
    ]
    assert not report.passed


def test_time_mismatch_is_shown_on_the_clock_of_the_recipient_too(run_rule_tests):
    other_offset = NIGHT % '{use: texter.send, at: "2026-03-03T15:00:00+02:00"}'
    passes = run_rule_tests(other_offset)
    assert passes.passed
    report = run_rule_tests(NIGHT % '{use: texter.send, at: "2026-03-03T16:00:00+02:00"}')
    [mismatch] = report.results[0].mismatches
    assert mismatch.text.endswith("it was at 2026-03-03T15:00+02:00")
    assert mismatch.details == ("on the recipient's clock: 2026-03-03 08:00 America/New_York",)


def test_param_mismatch_is_reported(run_rule_tests):
    report = run_rule_tests(NIGHT % "{use: texter.send, with: {body: Hello}}")
    assert mismatches(report) == ['expected texter.send: body is "Hi Ines", not "Hello"']


def test_times_are_compared_by_the_minute(run_rule_tests):
    day = """{name: day, event: call.busy, at: "2026-03-02T12:00:40-05:00",
             expect: {text: [{use: texter.send, at: "2026-03-02T12:05:00-05:00"}]}}"""
    assert mismatches(run_rule_tests(day)) == []


def test_missing_delivery_is_explained_by_unmet_conditions(run_rule_tests):
    report = run_rule_tests(
        "{name: inbound, event: call.busy, set: {event.direction: inbound}, expect: {text: [{use: texter.send}]}}"
    )
    assert mismatches(report) == ["expected texter.send: no such delivery"]
    [detail] = report.results[0].mismatches[0].details
    assert detail == "call.busy: event.direction is inbound, expected outbound"


def test_unexpected_delivery_is_reported(run_rule_tests):
    report = run_rule_tests(
        "{name: nothing, event: call.busy, at: 2026-03-02T12:00:00-05:00, expect: {text: []}}"
    )
    [text] = mismatches(report)
    assert text.startswith("unexpected: texter.send succeeded at 2026-03-02T")


def test_empty_expectation_allows_no_delivery(run_rule_tests):
    report = run_rule_tests("{name: nothing, event: call.completed, expect: {}}")
    assert [text.partition(" at ")[0] for text in mismatches(report)] == ["unexpected: ledger.log succeeded"]
    assert run_rule_tests("{name: nothing, event: chat.completed, expect: {}}").passed


def test_cancelled_delivery_needs_no_expectation(run_rule_tests):
    sequence = """{name: called back, events: [
          {event: call.busy, at: "2026-03-02T12:00:00-05:00", set: {event.metadata.contactPhone: "+12125550123"}},
          {event: call.completed, at: "2026-03-02T12:03:00-05:00", set: {event.metadata.contactPhone: "+12125550123"}}],
          expect: {text: [%s]}}"""
    assert mismatches(run_rule_tests(sequence % "")) == []
    assert mismatches(run_rule_tests(sequence % "{use: texter.send, state: cancelled}")) == []
    [text] = mismatches(run_rule_tests(sequence % "{use: texter.send}"))
    assert text.startswith("expected texter.send: it was cancelled at ")


def test_events_from_the_same_sample_are_not_duplicates(run_rule_tests):
    calls = ", ".join(f'{{event: call.busy, at: "2026-03-02T{hour}:00:00-05:00"}}' for hour in (10, 11, 12))
    test = f"{{name: caps, events: [{calls}], expect: {{text: [%s]}}}}"
    sent = "{use: texter.send}"
    capped = "{use: texter.send, state: suppressed, reason: frequency_capped}"
    assert mismatches(run_rule_tests(test % ", ".join([capped, sent, sent]))) == []
    assert mismatches(run_rule_tests(test % ", ".join([sent, sent]))) == []
    [text] = mismatches(run_rule_tests(test % ", ".join([sent, sent, sent])))
    assert "was suppressed (frequency_capped)" in text


def test_fail_simulates_failing_provider(run_rule_tests):
    test = """{name: rejected, event: call.busy, at: "2026-03-02T12:00:00-05:00", fail: {texter.send: rejected},
          expect: {text: [{use: texter.send, state: failed, reason: rejected},
                          {use: desk.notify, with: {text: rejected}}]}}"""
    assert mismatches(run_rule_tests(test)) == []
    paused = """{name: paused, event: call.busy, at: "2026-03-02T12:00:00-05:00", fail: {texter.send: auth},
          expect: {alerts: [{use: desk.notify}]}}"""
    assert mismatches(run_rule_tests(paused)) == []


@pytest.mark.parametrize(
    ("default", "posted"),
    [("", "state: failed, reason: render_error"), (" | default('none')", "with: {text: 'Record none'}")],
)
def test_action_that_fails_has_no_result(run_rule_tests, default, posted):
    rules = f"""
    version: 1
    rules:
      - name: log
        when: call.busy
        do:
          - use: ledger.log
          - use: desk.notify
            with: {{text: "Record {{{{ results.ledger.log.id{default} }}}}"}}
    tests:
"""
    test = """{name: rejected, event: call.busy, fail: {ledger.log: rejected},
          expect: {log: [{use: ledger.log, state: failed}, {use: desk.notify, %s}]}}"""
    assert mismatches(run_rule_tests(test % posted, rules=rules)) == []
    sent = """{name: sent, event: call.busy,
          expect: {log: [{use: ledger.log}, {use: desk.notify, with: {text: Record (ID of ledger.log)}}]}}"""
    assert mismatches(run_rule_tests(sent, rules=rules)) == []


@pytest.mark.parametrize(
    ("at", "due"),
    [
        ("2026-03-07T21:00:00-05:00", "2026-03-08T08:00:00-04:00"),
        ("2026-10-31T21:00:00-04:00", "2026-11-01T08:00:00-05:00"),
    ],
)
def test_quiet_hours_across_dst_changes(run_rule_tests, at, due):
    test = (
        f'{{name: dst, event: call.busy, at: "{at}", expect: {{text: [{{use: texter.send, at: "{due}"}}]}}}}'
    )
    assert mismatches(run_rule_tests(test)) == []


def test_events_can_be_read_from_files(run_rule_tests, tmp_path):
    body = {"event": "call.busy", "timestamp": "2026-03-02T17:00:00Z", "direction": "outbound",
            "metadata": {"contactPhone": "+12125550123"}}  # fmt: skip
    (tmp_path / "busy.json").write_text(json.dumps(body))
    test = '{name: file, event: busy.json, expect: {text: [{use: texter.send, at: "2026-03-02T17:05:00Z"}]}}'
    assert mismatches(run_rule_tests(test)) == []
    assert mismatches(run_rule_tests(test.replace("busy.json", "gone.json"))) == [
        "gone.json cannot be read: No such file or directory"
    ]
    (tmp_path / "busy.json").write_text("[]")
    assert mismatches(run_rule_tests(test)) == ["busy.json is not an event: not a JSON object"]
    (tmp_path / "busy.json").write_text('{"event": "call.busy"}')
    assert mismatches(run_rule_tests(test)) == ["event 1, busy.json: it has no timestamp; set one with `at:`"]


def test_coverage_reports_untried_rules_and_actions(run_rule_tests):
    coverage = run_rule_tests(
        "{name: one, event: call.completed, expect: {log: [{use: ledger.log}]}}"
    ).coverage
    assert coverage.rules == (1, 2)
    assert coverage.actions == (1, 4)
    assert [(gap.kind, gap.rule, gap.text) for gap in coverage.gaps] == [
        ("rule", "text", "never fires"),
        ("action", "text", "texter.send is never attempted"),
        ("action", "text", "desk.notify in on_failure is never attempted"),
        ("action", "alerts", "desk.notify in alerts is never attempted"),
    ]


def test_coverage_needs_both_results_of_a_condition(run_rule_tests):
    one = "{name: one, event: call.busy, expect: {}}"
    two = "{name: two, event: call.busy, set: {event.direction: inbound}, expect: {}}"
    gaps = [gap.text for gap in run_rule_tests(one).coverage.gaps if gap.kind == "condition"]
    assert len(gaps) == 1
    assert gaps[0].startswith("event.direction")
    assert gaps[0].endswith(": always true")
    assert [gap for gap in run_rule_tests(one, two).coverage.gaps if gap.kind == "condition"] == []


def test_coverage_needs_both_results_of_every_part_of_a_group(run_rule_tests):
    grouped = RULES.replace(
        "{event.direction: outbound}", "{any: [{event.direction: outbound}, {event.duration: {gt: 5}}]}"
    )
    one = "{name: one, event: call.busy, expect: {}}"
    gaps = [gap.text for gap in run_rule_tests(one, rules=grouped).coverage.gaps if gap.kind == "condition"]
    assert gaps == ["event.direction eq outbound: always true", "event.duration gt 5: never true"]


def test_report_is_serializable(run_rule_tests):
    report = run_rule_tests(NIGHT % "{use: texter.send, with: {body: Hello}}")
    parsed = json.loads(json.dumps(report.to_json()))
    assert parsed["passed"] is False
    assert parsed["tests"][0]["mismatches"][0]["rule"] == "text"
    assert parsed["coverage"]["rules"] == [2, 2]


def test_on_result_is_called_after_each_test(load_rules, tmp_path):
    results = []
    text = (
        RULES
        + "      - {name: one, event: call.busy, expect: {}}\n      - {name: two, event: call.busy, expect: {}}\n"
    )
    run_tests(load_rules(text), folder=tmp_path, on_result=results.append)
    assert [result.name for result in results] == ["one", "two"]
