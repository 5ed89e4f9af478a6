"""Plans route the rules that both versions have in common only once."""

from __future__ import annotations

from collections import Counter

import pytest

from bridge.dryrun import shared_routing
from bridge.dryrun.plan import plan
from bridge.dryrun.spilling_map import SpillingMap
from bridge.rules.counting import no_history
from bridge.rules.route import route

OLD = """
    version: 1
    messaging: {time_zone: America/New_York}
    tables: {desks: {"1": "Front desk"}}
    defaults:
      ledger.log: {with: {summary: "A call"}}
    rules:
      - name: text
        when: call.busy
        do: [{use: texter.send, with: {body: "We tried to reach you"}}]
      - name: notify
        when: call.*
        do: [{use: desk.notify, with: {text: "{{ event.agentId | default('1') | table('desks', 'nobody') }}"}}]
      - name: log
        when: call.*
        do: [{use: ledger.log}]
"""


@pytest.mark.parametrize(
    ("old", "new", "twice"),
    [
        ("", "", set()),
        ("tried to reach", "called", {"text"}),
        ("A call", "A phone call", {"log"}),
        ("Front desk", "Back desk", {"notify"}),
        ("name: text", "name: text\n        shadow: true", {"text"}),
        ("name: text", "name: text\n        description: For people", set()),
        ("America/New_York", "Europe/Berlin", {"text", "notify", "log"}),
    ],
)
def test_only_rules_that_differ_are_routed_twice(load_rules, event, monkeypatch, old, new, twice):
    evaluated: Counter[str] = Counter()

    def counting(item, rules, *rest):
        evaluated.update(rule.name for rule, _ in rules.for_event(item.type).evaluated)
        return route(item, rules, *rest)

    monkeypatch.setattr(shared_routing, "route", counting)
    plan(
        load_rules(OLD), load_rules(OLD.replace(old, new)), [event("call.busy", "2026-03-02T10:00:00-05:00")]
    )
    assert evaluated == {name: 2 if name in twice else 1 for name in ("text", "notify", "log")}


def test_table_that_only_the_defaults_mention_is_compared(load_rules, event):
    text = OLD.replace('"A call"', "\"{{ '1' | table('desks', 'nobody') }}\"")
    versions = [load_rules(text), load_rules(text.replace("Front desk", "Back desk"))]
    deliveries = shared_routing.SharedRouting(versions).route(
        event("call.completed", "2026-03-02T10:00:00-05:00"), no_history
    )
    summaries = [item.params["summary"] for each in deliveries for item in each if item.rule == "log"]
    assert summaries == ["Front desk", "Back desk"]


def test_result_is_the_same_from_memory_and_from_the_temporary_file(load_rules, event, monkeypatch):
    once = 'tried to reach you"}, once: {per: contact, within: 2h}, cancel_on: call.completed, delay: 90m'
    new = OLD.replace('tried to reach you"}', once).replace(
        "messaging: {", "messaging: {caps: {sms: 1 per 3h}, "
    )
    events = [
        event(
            "call.completed" if number % 7 == 0 else "call.busy",
            f"2026-03-02T{8 + number // 6:02}:{number % 6}5:00-05:00",
            conversationId=f"conv-{number % 23}",
            metadata={"contactPhone": f"+121255501{number % 5:02}"},
        )
        for number in range(60)
    ]
    both = load_rules(OLD), load_rules(new)
    expected = plan(*both, events, samples=1000).to_json()
    monkeypatch.setattr(SpillingMap.__init__, "__defaults__", (2,))
    assert plan(*both, events, samples=1000).to_json() == expected
    held_back = expected["new"]["held_back"]
    assert {"cooldown", "cancelled"} <= set(held_back), held_back
