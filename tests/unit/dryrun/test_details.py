"""`details` in dry runs: tests give them, `explain` and `plan` show the templates."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bridge.dryrun.explain import explain
from bridge.dryrun.plan import plan
from bridge.dryrun.rule_tests import run_tests

RULES = """
    version: 1
    rules:
      - name: log
        when: call.completed
        do: [{use: ledger.log, with: {summary: "Said: {{ details.transcript | default('nothing') }}"}}]
    tests:
      - name: with a transcript
        event: call.completed
        details: {transcript: "Agent: Hello"}
        expect: {log: [{use: ledger.log, with: {summary: "Said: Agent: Hello"}}]}
      - name: without one
        event: call.completed
        expect: {log: [{use: ledger.log, with: {summary: "Said: nothing"}}]}
"""
TEMPLATE = "Said: {{ details.transcript | default('nothing') }}"
NOTE = "`summary`: filled in before it is sent, with the conversation's details from Heppu"


def test_rule_tests_give_details(load_rules):
    assert [result.mismatches for result in run_tests(load_rules(RULES)).results] == [(), ()]


def test_param_that_needs_details_fails_its_test_without_them(load_rules):
    strict = RULES.replace(" | default('nothing')", "").replace("ledger.log", "desk.notify")
    first, second = run_tests(load_rules(strict.replace("summary:", "text:"))).results
    assert first.mismatches == ()
    assert "details.transcript is missing" in str(second.mismatches)


@pytest.mark.parametrize("events", [1, 2])
def test_explain_and_plan_show_the_template(load_rules, event, events):
    rules = load_rules(RULES)
    calls = [event("call.completed", f"2026-03-02T12:0{number}:00-05:00") for number in range(events)]
    [outcome] = explain(calls[0], rules, datetime(2026, 3, 2, 18, tzinfo=UTC)).deliveries
    assert outcome.outcome == "go"
    assert outcome.planned.params["summary"] == TEMPLATE
    assert (outcome.details, outcome.planned.notes) == ((NOTE,), ())
    changed = load_rules(RULES.replace("Said:", "Heard:"))
    assert "Heard: {{ details.transcript" in str(plan(rules, changed, calls).to_json())
