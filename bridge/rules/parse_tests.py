"""Parser of `tests`: checks the shape of rule tests. `bridge.dryrun` runs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from bridge.errors import Reason
from bridge.events import EVENT_TYPES
from bridge.rules import retired
from bridge.rules.fields import check_path, did_you_mean
from bridge.rules.model import ALERTS, Expectation, Rule, RuleTest, RuleTestEvent, Step
from bridge.rules.parse_context import Entries, ParseContext
from bridge.rules.yaml import Node

KEYS = ("name", "event", "events", "set", "at", "fail", "expect")
EVENT_KEYS = ("event", "set", "at")
EXPECT_KEYS = ("use", "connection", "at", "state", "reason", "with")
STATES = ("succeeded", "suppressed", "cancelled", "failed", "needs_review")
FAILURES = (*get_args(Reason), "undelivered")
_RENAMED_FAILURES = {old: new for old, new in retired.REASONS.items() if new in FAILURES}


def read_tests(
    context: ParseContext, node: Node, rules: Mapping[str, Rule], alerts: tuple[Step, ...], path: str
) -> tuple[RuleTest, ...]:
    """Return every test of the file at `path`."""
    lines: dict[str, int] = {}
    tests = []
    for item in context.list_items(node, "`tests`"):
        test = _test(context, item, rules, alerts, path)
        if test is None:
            continue
        if test.name in lines:
            context.error(
                item.get("name"),
                f"duplicate test name `{test.name[:60]}`",
                f"the other test is on line {lines[test.name]}: rename one of them",
            )
        lines.setdefault(test.name, test.line)
        tests.append(test)
    return tuple(tests)


def _test(
    context: ParseContext, node: Node, rules: Mapping[str, Rule], alerts: tuple[Step, ...], path: str
) -> RuleTest | None:
    hint = "write `- name: ...`, `event: call.busy` and `expect:`"
    entries = context.mapping(node, "a test", KEYS, hint)
    if node.entries is None:
        return None
    context.require_keys(node, "a test", entries, ("name", "expect"), hint)
    name = context.string(entries["name"][1], "`name`") if "name" in entries else None
    events = _events(context, node, entries)
    expect = _expect(context, entries["expect"][1], rules, alerts) if "expect" in entries else {}
    fail = _fail(context, entries["fail"][1], rules) if "fail" in entries else {}
    return RuleTest(name, node.line, events, expect, path, fail) if name and events else None


def _events(context: ParseContext, node: Node, entries: Entries) -> tuple[RuleTestEvent, ...]:
    if ("event" in entries) == ("events" in entries):
        hint = "write `event: ...` for one event, or `events:` with a list of `- event: ...`"
        context.error(node, "a test needs either `event` or `events`", hint)
        return ()
    if "event" in entries:
        event = _event(context, node, entries)
        return (event,) if event else ()
    for name in ("set", "at"):
        if name in entries:
            hint = f"write `{name}` under the events that it is for"
            context.error(entries[name][0], f"`{name}` cannot be next to `events`", hint)
    events = []
    for item in context.list_items(entries["events"][1], "`events`"):
        item_entries = context.mapping(item, "an event", EVENT_KEYS, "write `- event: call.busy`")
        event = _event(context, item, item_entries) if item.entries is not None else None
        if event:
            events.append(event)
    return tuple(events)


def _event(context: ParseContext, node: Node, entries: Entries) -> RuleTestEvent | None:
    if "event" not in entries:
        context.error(node, "an event of a test needs `event`", "write `event: call.busy`")
        return None
    source_node = entries["event"][1]
    source = context.string(source_node, "`event`")
    if source is None:
        return None
    if source not in EVENT_TYPES and not source.endswith(".json"):
        hint = did_you_mean(source, EVENT_TYPES) + " (the name of a file ends with .json)"
        context.error(source_node, f"no sample `{source[:60]}`", hint.strip())
        return None
    at = context.timestamp(entries["at"][1], "`at`") if "at" in entries else None
    event_types = (source,) if source in EVENT_TYPES else ()
    changes = _changes(context, entries["set"][1], event_types) if "set" in entries else {}
    return RuleTestEvent(source, node.line, changes, at)


def _changes(context: ParseContext, node: Node, event_types: tuple[str, ...]) -> dict[str, Any]:
    changes = {}
    for name, (key, value) in context.mapping(node, "`set`", hint="write `event.direction: inbound`").items():
        path = tuple(name.split("."))
        if path[0] != "event" or len(path) < 2 or not all(path):
            context.error(
                key, f"`{name[:60]}` is not a field of the event", "write `event.direction: inbound`"
            )
        elif context.report(key, check_path(path, event_types, ("event",))):
            changes[".".join(path[1:])] = value.data()
    return changes


def _expect(
    context: ParseContext, node: Node, rules: Mapping[str, Rule], alerts: tuple[Step, ...]
) -> dict[str, tuple[Expectation, ...]]:
    expected: dict[str, tuple[Expectation, ...]] = {}
    hint = "write `rule-name:` with its deliveries, or `{}` for no deliveries at all"
    for name, (key, value) in context.mapping(node, "`expect`", hint=hint).items():
        if name == ALERTS:
            steps = alerts
        elif name in rules:
            steps = (*rules[name].do, *rules[name].on_failure)
        else:
            context.error(key, f"no rule `{name[:60]}`", did_you_mean(name, rules))
            continue
        items = context.list_items(value, f"the deliveries of `{name}`") if value.items != [] else []
        expectations = (_expectation(context, item, name, steps) for item in items)
        expected[name] = tuple(expectation for expectation in expectations if expectation)
    return expected


def _expectation(context: ParseContext, node: Node, rule: str, steps: tuple[Step, ...]) -> Expectation | None:
    hint = "write `- {use: twilio.send_sms}`"
    entries = context.mapping(node, "an expected delivery", EXPECT_KEYS, hint)
    if node.entries is None:
        return None
    nodes = {name: value for name, (_, value) in entries.items()}
    if "use" not in nodes:
        context.error(node, "an expected delivery needs `use`", hint)
        return None
    use = context.string(nodes["use"], "`use`")
    known = {step.use for step in steps}
    if use is not None and known and use not in known:
        context.error(nodes["use"], f"`{rule}` does not use `{use[:60]}`", did_you_mean(use, sorted(known)))
    state = _choice(context, nodes["state"], "`state`", STATES, retired.STATES) if "state" in nodes else None
    params = context.mapping(nodes["with"], "`with`") if "with" in nodes else None
    return Expectation(
        use=use or "",
        line=node.line,
        connection=context.string(nodes["connection"], "`connection`") if "connection" in nodes else None,
        at=context.timestamp(nodes["at"], "`at`") if "at" in nodes else None,
        state=state,
        reason=_reason(context, nodes["reason"]) if "reason" in nodes else None,
        params={name: value.data() for name, (_, value) in params.items()} if params is not None else None,
    )


def _reason(context: ParseContext, node: Node) -> str | None:
    reason = context.string(node, "`reason`")
    if reason is not None and reason in retired.REASONS:
        context.error(node, retired.renamed(reason, retired.REASONS[reason]))
        return None
    return reason


def _fail(context: ParseContext, node: Node, rules: Mapping[str, Rule]) -> dict[str, str]:
    uses = sorted({step.use for rule in rules.values() for step in (*rule.do, *rule.on_failure)})
    failures = {}
    for name, (key, value) in context.mapping(
        node, "`fail`", hint="write `twilio.send_sms: rejected`"
    ).items():
        if name not in uses:
            context.error(key, f"no rule uses `{name[:60]}`", did_you_mean(name, uses))
        reason = _choice(context, value, "a failure", FAILURES, _RENAMED_FAILURES)
        if reason:
            failures[name] = reason
    return failures


def _choice(
    context: ParseContext, node: Node, label: str, choices: tuple[str, ...], renamed: Mapping[str, str]
) -> str | None:
    """Return one of the choices. A retired word is an error that names the new one."""
    if node.value in choices:
        return str(node.value)
    word = node.value if isinstance(node.value, str) else json.dumps(node.data())
    if word in renamed:
        new = renamed[word]
        hint = "" if new in choices else f"{label} must be {_alternatives(choices)} here"
        context.error(node, retired.renamed(word, new), hint)
    else:
        context.error(node, f"{label} cannot be `{word[:40]}`", did_you_mean(word, choices))
    return None


def _alternatives(choices: tuple[str, ...]) -> str:
    return ", ".join(f"`{choice}`" for choice in choices[:-1]) + f" or `{choices[-1]}`"
