"""Plans route and simulate the rules that both versions have in common only once."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.connector.idempotency import IdempotencyScope
from bridge.dryrun import shared_rules
from bridge.dryrun.plan import plan
from bridge.dryrun.shared_rules import SharedRules
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

    monkeypatch.setattr(shared_rules, "route", counting)
    plan(
        load_rules(OLD), load_rules(OLD.replace(old, new)), [event("call.busy", "2026-03-02T10:00:00-05:00")]
    )
    assert evaluated == {name: 2 if name in twice else 1 for name in ("text", "notify", "log")}


@pytest.mark.parametrize(
    ("old", "new", "independent"),
    [
        ("", "", "text notify log"),
        ("tried to reach", "called", "notify log"),
        ("A call", "A phone call", "text notify"),
        ("messaging: {", "messaging: {caps: {sms: 1 per 1d}, ", "notify log"),
        ("messaging: {", "alerts: [{use: desk.notify}]\n    messaging: {", "text log"),
        ("do: [{use: ledger.log}]", "do: [{use: ledger.log}, {use: desk.notify, with: {text: hi}}]", "text"),
        (
            "do: [{use: ledger.log}]",
            "do: [{use: ledger.log}]\n        on_success: [{use: texter.send, with: {body: hi}}]",
            "notify",
        ),
        (
            "name: log",
            "name: off\n        enabled: false\n        when: call.*\n        do: [use: ledger.log]\n      - name: log",
            "text notify log",
        ),
    ],
)
def test_rule_is_simulated_once_if_nothing_that_differs_decides_about_it(load_rules, old, new, independent):
    assert OLD.count(old) or not old
    shared = SharedRules(load_rules(OLD), load_rules(OLD.replace(old, new)))
    assert set(shared._independent) == {*independent.split()}


def test_rule_with_follow_ups_of_failures_is_simulated_twice(load_rules):
    rules = load_rules(OLD + "        on_failure: [{use: desk.post_up, with: {text: It failed}}]\n")
    assert set(SharedRules(rules, rules)._independent) == {"text", "notify"}


def test_rules_in_another_order_are_simulated_twice(load_rules):
    log = OLD[OLD.index("      - name: log") :]
    assert not SharedRules(
        load_rules(OLD), load_rules(OLD.replace(log, "").replace("rules:", "rules:\n" + log))
    )._independent


def test_rules_that_share_a_connection_or_a_channel_are_simulated_twice(load_rules):
    """A total cap pauses a connection for all actions; caps of an address count all messages of the channel."""
    for step in ("use: texter.label, with: {text: called}", "use: pager.page, with: {body: called}"):
        old = OLD.replace("use: ledger.log}", step + "}")
        shared = SharedRules(load_rules(old), load_rules(old.replace("tried to reach", "called")))
        assert set(shared._independent) == {"notify"}
        old = old.replace("do: [{use: desk.notify", f"do: [{{{step}}}, {{use: desk.notify")
        shared = SharedRules(load_rules(old), load_rules(old.replace("tried to reach", "called")))
        assert not shared._independent


def test_rule_that_shares_an_action_with_such_a_rule_is_simulated_twice(load_rules):
    old = OLD.replace(
        "do: [{use: ledger.log}]", "do: [{use: ledger.log}, {use: desk.notify, with: {text: hi}}]"
    )
    old += "      - {name: tag, when: call.*, do: [use: ledger.log]}\n"
    new = old.replace("name: tag, when: call.*", "name: tag, when: call.busy")
    assert set(SharedRules(load_rules(old), load_rules(new))._independent) == {"text"}


def test_actions_whose_keys_may_be_equal_are_simulated_twice(load_rules, monkeypatch):
    """A connector may define scopes whose keys do not contain the action."""
    rules = load_rules(OLD), load_rules(OLD.replace("A call", "A phone call"))
    scope = IdempotencyScope(lambda source: source.event)
    for name in ("log", "notify"):
        [action] = {step.action for it in rules for step in it.named(name).steps}
        monkeypatch.setitem(vars(action), "idempotency", scope)
    assert set(SharedRules(*rules)._independent) == {"text"}


def test_table_that_only_the_defaults_mention_is_compared(load_rules, event):
    text = OLD.replace('"A call"', "\"{{ '1' | table('desks', 'nobody') }}\"")
    shared = SharedRules(load_rules(text), load_rules(text.replace("Front desk", "Back desk")))
    planned = shared.plan(event("call.completed", "2026-03-02T10:00:00-05:00"), no_history)
    summaries = [item.params["summary"] for each in planned for item in each if item.rule == "log"]
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


LIVELY = """
    version: 1
    messaging: {time_zone: America/New_York, caps: {sms: 2 per 6h, total: {sms: 4 per 2h}}}
    alerts: [{use: desk.notify, with: {text: "{{ delivery.message }}"}}]
    rules:
      - name: text
        when: [call.busy, call.no-answer]
        do: [{use: texter.send, with: {body: Sorry}, delay: 20m, cancel_on: call.completed}]
        on_failure: [{use: desk.notify, with: {text: Not sent}}]
      - name: log
        when: [call.*, chat.*]
        do: [{use: ledger.log, with: {summary: "{{ event.metadata.salesRep }}"}}]
        on_success: [{use: desk.post_up, with: {text: "Logged {{ delivery.id }}"}, once: {per: contact, within: 3h}}]
      - name: write
        when: call.busy
        do:
          - use: mailer.post
            with: {subject: Hi, text: "Hi {{ event.metadata.salesRep }}"}
            once: {per: conversation, within: 2h}
      - name: label
        when: call.busy
        do: [{use: texter.label, with: {text: busy}}]
      - name: tag
        when: call.busy
        do: [{use: ledger.tag, with: {text: "{{ event.metadata.salesRep }}"}}]
      - name: page
        when: call.no-answer
        do: [{use: pager.page, with: {body: Call us}, delay: 10m}]
      - name: notify
        when: call.completed
        where: {event.duration: {gt: 100}}
        do: [{use: desk.notify, with: {text: Long}}]
"""
CHANGES = (
    ("body: Sorry", "body: We are sorry"),
    ("delay: 20m", "delay: 3h"),
    ("text: Long", "text: Very long"),
    ("text: busy", "text: engaged"),
    ("sms: 2 per 6h", "sms: 1 per 6h"),
    ("subject: Hi", "subject: Hello"),
    ("when: [call.*, chat.*]", "when: call.*"),
    ("use: desk.post_up", "use: desk.notify"),
    ("name: write", "name: send"),
    ("name: label", "name: label\n        enabled: false"),
    ('ledger.tag, with: {text: "{{ event.metadata.salesRep }}"', "ledger.tag, with: {text: Ana"),
    ("text: Not sent", "text: It was not sent"),
)
occurrences = st.lists(
    st.tuples(
        st.sampled_from(["call.busy", "call.no-answer", "call.completed", "chat.resolved"]),
        st.integers(0, 59), st.integers(0, 3), st.booleans(),
    ),
    min_size=1, max_size=25,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.sampled_from(CHANGES)), occurrences)
def test_result_is_the_same_as_without_sharing(load_rules, event, changes, occurrences):
    new = LIVELY
    for change in changes:
        new = new.replace(*change)
    both = load_rules(LIVELY), load_rules(new)
    events = [
        event(
            name,
            f"2026-03-02T{9 + 10 * number // 60:02}:{10 * number % 60:02}:{minute:02}-05:00",
            conversationId=f"conv-{contact % 2}",
            metadata={
                "contactPhone": f"+1212555010{contact}",
                "contactEmail": f"{contact}@example.com",
                **({"salesRep": "Ana"} if is_complete else {}),
            },
        )
        for number, (name, minute, contact, is_complete) in enumerate(occurrences)
    ]
    result = plan(*both, events, samples=1000).to_json()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_rules, "_is_same", lambda *_: False)
        assert plan(*both, events, samples=1000).to_json() == result
