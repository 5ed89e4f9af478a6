"""Reading `tests`: what a file expects of itself, checked for shape; `bridge.dryrun` runs it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from bridge.errors import Reason
from bridge.events import EVENT_NAMES
from bridge.rules.fields import check_path, did_you_mean
from bridge.rules.model import ALERTS, Expectation, RehearsedEvent, Rule, RuleTest, Step
from bridge.rules.parse_context import Entries, File
from bridge.rules.yaml import Node

KEYS = ("name", "event", "events", "set", "at", "fail", "expect")
EVENT_KEYS = ("event", "set", "at")
EXPECT_KEYS = ("use", "connection", "at", "state", "reason", "with")
STATES = ("succeeded", "suppressed", "cancelled", "failed", "needs_review")
FAILURES = (*get_args(Reason), "undelivered")


def read_tests(
    file: File, node: Node, rules: Mapping[str, Rule], alerts: tuple[Step, ...], path: str
) -> tuple[RuleTest, ...]:
    """Every test of the file, which is called `path`."""
    seen: dict[str, int] = {}
    found = []
    for item in file.list_of(node, "`tests`"):
        test = _test(file, item, rules, alerts, path)
        if test is None:
            continue
        if test.name in seen:
            file.problems.error(
                item.at("name"),
                f"two tests are called `{test.name[:60]}`",
                f"the other is on line {seen[test.name]}",
            )
        seen.setdefault(test.name, test.line)
        found.append(test)
    return tuple(found)


def _test(
    file: File, node: Node, rules: Mapping[str, Rule], alerts: tuple[Step, ...], path: str
) -> RuleTest | None:
    hint = "write `- name: ...`, `event: call.busy` and `expect:`"
    entries = file.mapping(node, "a test", KEYS, hint)
    if node.entries is None:
        return None
    file.needs(node, "a test", entries, ("name", "expect"), hint)
    name = file.text(entries["name"][1], "`name`") if "name" in entries else None
    events = _events(file, node, entries)
    expect = _expect(file, entries["expect"][1], rules, alerts) if "expect" in entries else {}
    fail = _fail(file, entries["fail"][1], rules) if "fail" in entries else {}
    return RuleTest(name, node.line, events, expect, path, fail) if name and events else None


def _events(file: File, node: Node, entries: Entries) -> tuple[RehearsedEvent, ...]:
    if ("event" in entries) == ("events" in entries):
        hint = "`event:` for one, or `events:` for a list of `- event: ...`"
        file.problems.error(node, "a test needs either `event` or `events`", hint)
        return ()
    if "event" in entries:
        found = _event(file, node, entries)
        return (found,) if found else ()
    for name in ("set", "at"):
        if name in entries:
            hint = f"with `events:`, write `{name}` under each of them"
            file.problems.error(entries[name][0], f"`{name}` belongs to an event", hint)
    events = []
    for item in file.list_of(entries["events"][1], "`events`"):
        parts = file.mapping(item, "an event", EVENT_KEYS, "write `- event: call.busy`")
        found = _event(file, item, parts) if item.entries is not None else None
        if found:
            events.append(found)
    return tuple(events)


def _event(file: File, node: Node, entries: Entries) -> RehearsedEvent | None:
    if "event" not in entries:
        file.problems.error(node, "an event of a test needs `event`", "write `event: call.busy`")
        return None
    place = entries["event"][1]
    source = file.text(place, "`event`")
    if source is None:
        return None
    if source not in EVENT_NAMES and not source.endswith(".json"):
        hint = did_you_mean(source, EVENT_NAMES) + " (a file's name ends with .json)"
        file.problems.error(place, f"no sample `{source[:60]}`", hint.strip())
        return None
    at = file.instant(entries["at"][1], "`at`") if "at" in entries else None
    events = (source,) if source in EVENT_NAMES else ()
    changes = _changes(file, entries["set"][1], events) if "set" in entries else {}
    return RehearsedEvent(source, node.line, changes, at)


def _changes(file: File, node: Node, events: tuple[str, ...]) -> dict[str, Any]:
    changes = {}
    for name, (key, value) in file.mapping(node, "`set`", hint="write `event.direction: inbound`").items():
        path = tuple(name.split("."))
        if path[0] != "event" or len(path) < 2 or not all(path):
            file.problems.error(
                key, f"`{name[:60]}` is no field of the event", "write `event.direction: inbound`"
            )
        elif file.complain(key, check_path(path, events, ("event",))):
            changes[".".join(path[1:])] = value.data()
    return changes


def _expect(
    file: File, node: Node, rules: Mapping[str, Rule], alerts: tuple[Step, ...]
) -> dict[str, tuple[Expectation, ...]]:
    expected: dict[str, tuple[Expectation, ...]] = {}
    hint = "write `rule-name:` and its deliveries, or `{}` for none at all"
    for name, (key, value) in file.mapping(node, "`expect`", hint=hint).items():
        if name == ALERTS:
            steps = alerts
        elif name in rules:
            steps = (*rules[name].do, *rules[name].on_failure)
        else:
            file.problems.error(key, f"no rule `{name[:60]}`", did_you_mean(name, rules))
            continue
        items = file.list_of(value, f"what `{name}` leads to") if value.items != [] else []
        found = (_expectation(file, item, name, steps) for item in items)
        expected[name] = tuple(item for item in found if item)
    return expected


def _expectation(file: File, node: Node, rule: str, steps: tuple[Step, ...]) -> Expectation | None:
    hint = "write `- {use: twilio.send_sms}`"
    entries = file.mapping(node, "an expected delivery", EXPECT_KEYS, hint)
    if node.entries is None:
        return None
    nodes = {name: value for name, (_, value) in entries.items()}
    if "use" not in nodes:
        file.problems.error(node, "an expected delivery needs `use`", hint)
        return None
    use = file.text(nodes["use"], "`use`")
    known = {step.use for step in steps}
    if use is not None and known and use not in known:
        file.problems.error(
            nodes["use"], f"`{rule}` never does `{use[:60]}`", did_you_mean(use, sorted(known))
        )
    state = _word(file, nodes["state"], "`state`", STATES) if "state" in nodes else None
    params = file.mapping(nodes["with"], "`with`") if "with" in nodes else None
    return Expectation(
        use=use or "",
        line=node.line,
        connection=file.text(nodes["connection"], "`connection`") if "connection" in nodes else None,
        at=file.instant(nodes["at"], "`at`") if "at" in nodes else None,
        state=state,
        reason=file.text(nodes["reason"], "`reason`") if "reason" in nodes else None,
        params={name: value.data() for name, (_, value) in params.items()} if params is not None else None,
    )


def _fail(file: File, node: Node, rules: Mapping[str, Rule]) -> dict[str, str]:
    uses = sorted({step.use for rule in rules.values() for step in (*rule.do, *rule.on_failure)})
    failures = {}
    for name, (key, value) in file.mapping(node, "`fail`", hint="write `twilio.send_sms: rejected`").items():
        if name not in uses:
            file.problems.error(key, f"no rule does `{name[:60]}`", did_you_mean(name, uses))
        reason = _word(file, value, "a failure", FAILURES)
        if reason:
            failures[name] = reason
    return failures


def _word(file: File, node: Node, what: str, known: tuple[str, ...]) -> str | None:
    if node.value in known:
        return str(node.value)
    shown = node.value if isinstance(node.value, str) else json.dumps(node.data())
    file.problems.error(node, f"{what} cannot be `{shown[:40]}`", did_you_mean(shown, known))
    return None
