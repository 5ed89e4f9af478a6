"""The words for conditions that were not met."""

from __future__ import annotations

import pytest

from bridge.rules.route import route
from bridge.rules.trace import Check, Trace
from bridge.rules.unmet import is_disabled, is_for_other_events, unmet_conditions

PREVIOUS = "event.callMetadata.context.previousAttempts"


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("where: {event.direction: outbound}", "event.direction is inbound, expected outbound"),
        (
            "where: {event.direction: [outbound, x]}",
            'event.direction is inbound, expected one of ["outbound", "x"]',
        ),
        (
            "where: {event.direction: {ne: inbound}}",
            "event.direction is inbound, expected anything but inbound",
        ),
        ("where: {event.duration: {gte: 5}}", "event.duration is 0, expected at least 5"),
        (
            "where: {event.metadata.rating: [1, 2]}",
            'event.metadata.rating is "2", expected one of [1, 2] (a string is not compared with a number)',
        ),
        ("where: {event.metadata.x: a}", "event.metadata.x is missing, expected a"),
        ("where: {event.metadata.x: {exists: true}}", "event.metadata.x is missing, expected a value"),
        (
            "where: {event.metadata.x: {filled: true}}",
            "event.metadata.x is missing, expected a value that is not empty",
        ),
        ("where: {event.direction: {exists: false}}", "event.direction is inbound, expected no value"),
        (
            'where: {not: {contact.email: {ends_with: "@example.com"}}}',
            'contact.email ends with @example.com ("maya@example.com"), which `not` excludes',
        ),
        ("where: {not: {event.metadata.x: a}}", "event.metadata.x is missing, expected a"),
        (
            "where: {not: {any: [{event.direction: inbound}, {event.duration: 9}]}}",
            "event.direction is inbound, which `not` excludes",
        ),
        (
            "where: {any: [{event.duration: {gt: 60}}, {event.direction: outbound}]}",
            (
                "none of these 2 is true: event.duration is 0, expected more than 60; "
                "event.direction is inbound, expected outbound"
            ),
        ),
        (
            "where: {all: [{event.direction: inbound}, {event.duration: {not_in: [0, 1]}}]}",
            "event.duration is 0, expected none of [0, 1]",
        ),
        (f"if: {PREVIOUS} > 5", f"`if {PREVIOUS} > 5` is false: {PREVIOUS} is 1"),
        ("if: event.metadata.x > 5", "`if event.metadata.x > 5` is unknown: event.metadata.x is missing"),
        (
            "where:\n      count(call.busy, 7d): {gte: 3}",
            "count(call.busy, 7d) is 1 (2026-03-02 17:00 UTC), expected at least 3",
        ),
        ("enabled: false", "the rule is disabled (`enabled: false`)"),
    ],
)
def test_unmet_condition_in_words(load_rules, event, where, words):
    rules = load_rules(
        f"version: 1\nrules:\n  - name: text\n    when: call.busy\n    {where}\n    do: [{{use: ledger.log}}]\n"
    )
    busy = event(
        "call.busy",
        "2026-03-02T12:00:00-05:00",
        direction="inbound",
        metadata={"contactEmail": "maya@example.com", "rating": "2"},
    )
    [trace] = route(busy, rules, busy.received_at).traces
    assert unmet_conditions(trace) == (words,)
    assert unmet_conditions(Trace.from_json(trace.to_json())) == (words,)


def test_a_disabled_rule_is_told_from_one_for_other_events(load_rules, event):
    rules = load_rules(
        "version: 1\nrules:\n"
        "  - {name: mine, when: call.busy, enabled: false, do: [{use: ledger.log}]}\n"
        "  - {name: other, when: chat.*, enabled: false, do: [{use: ledger.log}]}\n"
        "  - {name: chats, when: chat.*, do: [{use: ledger.log}]}\n"
    )
    busy = event("call.busy", "2026-03-02T12:00:00-05:00")
    mine, other, chats = route(busy, rules, busy.received_at).traces
    assert [is_disabled(trace) for trace in (mine, other, chats)] == [True, False, False]
    assert [is_for_other_events(trace) for trace in (mine, other, chats)] == [False, True, True]


def test_a_disabled_rule_of_an_older_trace_may_be_for_this_event():
    trace = Trace("old", False, (Check("enabled", "false", "false"),))
    assert is_disabled(trace)
    assert not is_for_other_events(trace)
