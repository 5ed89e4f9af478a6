"""Counting: conditions about earlier events of the contact."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import pytest

from bridge.events import Event
from bridge.rules.route import route
from bridge.rules.trace import Check
from tests.unit.rules.helpers import NOW, diagnostics_of, event_of, rules_of

EARLIER = {
    "call.no-answer": [timedelta(hours=1), timedelta(days=2), timedelta(days=8)],
    "call.busy": [timedelta(days=1)],
}


def history(event: Event, event_types: Collection[str], since: datetime) -> Sequence[datetime]:
    times = [event.occurred_at - ago for name in event_types for ago in EARLIER.get(name, [])]
    return sorted(time for time in times if time > since)


def checks(condition: str, event_type: str = "call.no-answer", **changes: object) -> tuple[bool, Check]:
    rules = rules_of(f"- name: a\n  when: call.*\n  {condition}\n  do: [{{use: crm.log_call}}]")
    (trace,) = route(event_of(event_type, **changes), rules, NOW, history).traces
    return trace.fired, trace.checks[-1]


@pytest.mark.parametrize(
    ("condition", "event_type", "count"),
    [
        ("count(call.no-answer, 7d): {COMPARISON}", "call.no-answer", 3),
        ("count(call.no-answer, 9d): {COMPARISON}", "call.no-answer", 4),
        ("count(call.no-answer, 7d): {COMPARISON}", "call.busy", 2),
        ("count(call.no-answer, call.busy, 7d): {COMPARISON}", "call.busy", 4),
        ("count(call.*, 90m): {COMPARISON}", "call.completed", 2),
        ("count(chat.*, 7d): {COMPARISON}", "call.completed", 0),
    ],
)
def test_count_includes_the_event_itself_and_ends_with_it(
    condition: str, event_type: str, count: int
) -> None:
    for comparison, expected in (
        (f"{{gte: {count}}}", True),
        (f"{{gt: {count}}}", False),
        (f"{{eq: {count}}}", True),
    ):
        fired, row = checks("where:\n    " + condition.replace("{COMPARISON}", comparison), event_type)
        assert fired is expected
        assert row.actual.split(" ")[0] == str(count)


def test_trace_shows_the_events_counted() -> None:
    fired, row = checks("where:\n        count(call.no-answer, 7d): {gte: 3}")
    times = [
        event_of("call.no-answer").occurred_at - ago
        for ago in (timedelta(days=2), timedelta(hours=1), timedelta(0))
    ]
    assert (fired, row.condition) == (True, "count(call.no-answer, 7d) gte 3")
    assert row.actual == "3 (" + ", ".join(f"{time:%Y-%m-%d %H:%M}" for time in times) + " UTC)"
    _, row = checks("if: count('call.no-answer', '7d') >= 3 and event.direction == 'outbound'")
    assert row.actual.startswith("3 (")


def test_count_is_a_number_in_expressions_and_templates() -> None:
    assert checks("if: count('call.no-answer', '7d') + 1 == 4")[0]
    step = "{use: crm.log_call, with: {name: \"Call {{ count('call.no-answer', '7d') }}\"}}"
    rules = rules_of(f"- name: a\n  when: call.*\n  do: [{step}]")
    (planned,) = route(event_of("call.no-answer"), rules, NOW, history).planned
    assert planned.params["name"] == "Call 3"


def test_count_without_phone_and_email_is_unknown() -> None:
    gone = {"metadata__contactPhone": ..., "metadata__contactEmail": ...}
    for condition in ("where:\n        count(call.*, 7d): {lt: 3}", "if: count('call.*', '7d') < 3"):
        fired, row = checks(condition, **gone)
        assert (fired, row.result) == (False, "unknown")
        assert "no history" in row.reason


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("where:\n        count(call.no_answer, 7d): {gte: 3}", "no event type `call.no_answer`"),
        ("where:\n        count(call.busy): {gte: 3}", "`count` takes event types and a duration"),
        ("where:\n        count(call.busy, week): {gte: 3}", "invalid duration `week` of `count`"),
        ("where:\n        count(call.busy, 400d): {gte: 3}", "invalid duration `400d` of `count`"),
        ('where: {"count(call.busy, 7d": {gte: 3}}', "`count(` is not closed"),
        ("where:\n        count(call.busy, 7d): 3", "`count(call.busy, 7d)` needs a comparison"),
        ("where:\n        count(call.busy, 7d): {exists: true}", "`count` has no operator `exists`"),
        ("where:\n        count(call.busy, 7d): {gte: -1}", "`gte` takes a whole number from 0 to 1000"),
        ("if: count(event.direction, '7d') > 3", "`if`: `count` takes quoted texts"),
        ("if: counter('call.busy', '7d') > 3", "`if`: `counter(...)`: calls are not allowed"),
    ],
)
def test_wrong_count_is_reported(text: str, error: str) -> None:
    file = f"version: 1\nrules:\n  - name: a\n    when: call.*\n    {text}\n    do: [{{use: crm.log_call}}]"
    assert [item.text for item in diagnostics_of(file)] == [error]


def test_count_is_for_rules_only() -> None:
    file = """
    version: 1
    messaging: {consent: "count('call.*', '7d') < 3"}
    alerts: [{use: crm.create_task, with: {subject: "{{ delivery.message }} {{ count('call.*', '7d') }}"}}]
    rules: [{name: a, when: call.*, do: [{use: crm.log_call}]}]
    """
    texts = [item.text for item in diagnostics_of(file) if item.level == "error"]
    assert texts == ["`count` is not available in `consent`", "`count` is available only in rules"]
