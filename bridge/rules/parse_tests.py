"""Parser of `tests`: checks the shape of rule tests. `bridge.dryrun` runs them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from bridge.errors import Reason
from bridge.events import EVENT_TYPES
from bridge.rules import retired
from bridge.rules.fields import check_path
from bridge.rules.keys import STRING, TIMESTAMP, Entries, Key, Section, ValueType, list_of
from bridge.rules.late import DETAILS
from bridge.rules.model import ALERTS, Expectation, RuleTest, RuleTestEvent, Step
from bridge.rules.parse_context import ParseContext
from bridge.rules.yaml import Node
from bridge.spelling import did_you_mean

STATES = ("succeeded", "suppressed", "cancelled", "failed", "needs_review")
FAILURES = (*get_args(Reason), "undelivered")
_RENAMED_FAILURES = {old: new for old, new in retired.REASONS.items() if new in FAILURES}


def read_tests(context: ParseContext, node: Node, label: str) -> tuple[RuleTest, ...]:
    """Return every test of the file, for the rules and alerts of the context."""
    lines: dict[str, int] = {}
    tests = []
    for item in context.list_items(node, label):
        test = _test(context, item)
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


def _test(context: ParseContext, node: Node) -> RuleTest | None:
    entries = TEST.open(context, node)
    if entries is None:
        return None
    single = {key.name: entries.pop(key.name) for key in EVENT.keys if key.name in entries}
    event = None
    if ("event" in single) == ("events" in entries):
        hint = "write `event: ...` for one event, or `events:` with a list of `- event: ...`"
        context.error(node, "a test needs either `event` or `events`", hint)
        entries.pop("events", None)
    elif "event" in single:
        event = _event(context, node, single)
    else:
        for name, (key, _) in single.items():
            hint = f"write `{name}` under the events that it is for"
            context.error(key, f"`{name}` cannot be next to `events`", hint)
    values = {"expect": {}, "events": (event,) if event else ()} | TEST.read(context, entries)
    if "name" not in values or not values["events"]:
        return None
    return RuleTest(line=node.line, path=node.path, **values)


def _events(context: ParseContext, node: Node, label: str) -> tuple[RuleTestEvent, ...]:
    items = context.list_items(node, label)
    events = [_event(context, item, EVENT.open(context, item, require=False)) for item in items]
    return tuple(event for event in events if event is not None)


def _event(context: ParseContext, node: Node, entries: Entries | None) -> RuleTestEvent | None:
    if entries is None:
        return None
    if "event" not in entries:
        context.error(node, "an event of a test needs `event`", "write `event: call.busy`")
        return None
    source = EVENT.take(context, entries, "event")
    if source is None:
        return None
    inner = context.within(event_types=(source,) if source in EVENT_TYPES else ())
    return RuleTestEvent(source, node.line, **EVENT.read(inner, entries))


def _source(context: ParseContext, node: Node, label: str) -> str | None:
    source = context.string(node, label)
    if source is not None and source not in EVENT_TYPES and not source.endswith(".json"):
        hint = did_you_mean(source, EVENT_TYPES) + " (the name of a file ends with .json)"
        context.error(node, f"no sample `{source[:60]}`", hint.strip())
        return None
    return source


def _changes(context: ParseContext, node: Node, label: str) -> dict[str, Any]:
    changes = {}
    for name, (key, value) in context.mapping(node, label, hint="write `event.direction: inbound`").items():
        path = tuple(name.split("."))
        if path[0] != "event" or len(path) < 2 or not all(path):
            context.error(
                key, f"`{name[:60]}` is not a field of the event", "write `event.direction: inbound`"
            )
        elif context.report(key, check_path(path, context.event_types, ("event",))):
            changes[".".join(path[1:])] = value.data()
    return changes


def _details(context: ParseContext, node: Node, label: str) -> dict[str, Any]:
    """Return the details of a conversation: field -> JSON value."""
    entries = context.mapping(node, label, hint='write `{transcript: "Agent: Hello"}`')
    return {
        name: value.data()
        for name, (key, value) in entries.items()
        if context.report(key, check_path((DETAILS, name), (), (DETAILS,)))
    }


def _expect(context: ParseContext, node: Node, label: str) -> dict[str, tuple[Expectation, ...]]:
    expected: dict[str, tuple[Expectation, ...]] = {}
    hint = "write `rule-name:` with its deliveries, or `{}` for no deliveries at all"
    for name, (key, value) in context.mapping(node, label, hint=hint).items():
        if name == ALERTS:
            steps = context.alerts
        elif name in context.rules:
            steps = context.rules[name].steps
        else:
            context.error(key, f"no rule `{name[:60]}`", did_you_mean(name, context.rules))
            continue
        items = context.list_items(value, f"the deliveries of `{name}`") if value.items != [] else []
        expectations = (_expectation(context, item, name, steps) for item in items)
        expected[name] = tuple(expectation for expectation in expectations if expectation)
    return expected


def _expectation(context: ParseContext, node: Node, rule: str, steps: tuple[Step, ...]) -> Expectation | None:
    entries = EXPECTATION.open(context, node)
    if entries is None or "use" not in entries:
        return None
    use_node = entries["use"][1]
    values = {"use": ""} | EXPECTATION.read(context, entries)
    use, known = values["use"], {step.use for step in steps}
    if use and known and use not in known:
        context.error(use_node, f"`{rule}` does not use `{use[:60]}`", did_you_mean(use, sorted(known)))
    return Expectation(line=node.line, **values)


def _params(context: ParseContext, node: Node, label: str) -> dict[str, Any]:
    return {name: value.data() for name, (_, value) in context.mapping(node, label).items()}


def _state(context: ParseContext, node: Node, label: str) -> str | None:
    return _choice(context, node, label, STATES, retired.STATES)


def _reason(context: ParseContext, node: Node, label: str) -> str | None:
    reason = context.string(node, label)
    if reason is not None and reason in retired.REASONS:
        context.error(node, retired.renamed(reason, retired.REASONS[reason]))
        return None
    return reason


def _fail(context: ParseContext, node: Node, label: str) -> dict[str, str]:
    uses = sorted({step.use for rule in context.rules.values() for step in rule.steps})
    hint = "write `twilio.send_sms: rejected`"
    failures = {}
    for name, (key, value) in context.mapping(node, label, hint=hint).items():
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


EVENT = Section(
    "an event",
    hint="write `- event: call.busy`",
    keys=(
        Key(
            "event",
            ValueType(
                _source, {"anyOf": [{"$ref": "#/$defs/event"}, {"type": "string", "pattern": r"\.json$"}]}
            ),
            "a sample, or the path of a `.json` file",
            example="call.busy",
            required=True,
            attribute="source",
        ),
        Key(
            "set",
            ValueType(
                _changes,
                {"type": "object", "patternProperties": {r"^event\.": {}}, "additionalProperties": False},
            ),
            "fields to change in the event",
            example="{event.direction: inbound}",
        ),
        Key(
            "details",
            ValueType(_details, {"type": "object"}),
            "the [details](rules.md#details-of-the-conversation) of the conversation; without it, they are missing",
            example='{transcript: "Agent: Hello"}',
        ),
        Key("at", TIMESTAMP, "when the event happens", example='"2026-03-02T21:30:00-05:00"'),
    ),
)
EXPECTATION = Section(
    "an expected delivery",
    hint="write `- {use: twilio.send_sms}`",
    keys=(
        Key("use", STRING, "the action", example="twilio.send_sms", required=True),
        Key("connection", STRING, "the connection", example="twilio_eu"),
        Key("at", TIMESTAMP, "when it runs, compared to the minute", example='"2026-03-02T21:30:00-05:00"'),
        Key(
            "state",
            ValueType(_state, {"enum": list(STATES)}),
            "its final state: " + ", ".join(f"`{state}`" for state in STATES),
            example="suppressed",
        ),
        Key(
            "reason",
            ValueType(_reason, STRING.schema),
            "the [reason](reference/delivery-states.md) of its state",
            example="frequency_capped",
        ),
        Key("with", ValueType(_params, {"type": "object"}), "some or all of its params", attribute="params"),
    ),
)
TEST = Section(
    "a test",
    hint="write `- name: ...`, `event: call.busy` and `expect:`",
    keys=(
        Key("name", STRING, "a unique name", example="quiet-hours", required=True),
        *(replace(key, required=False) for key in EVENT.keys),
        Key(
            "events",
            list_of("test_event", _events),
            "several events, each with `event`, `set` and `at`, instead of one `event`",
        ),
        Key(
            "fail",
            ValueType(_fail, {"type": "object", "additionalProperties": {"enum": list(FAILURES)}}),
            "how a provider fails, by action: a [failure reason](reference/delivery-states.md#reasons-of-failed-"
            "attempts), or `undelivered`",
            example="{twilio.send_sms: rejected}",
        ),
        Key(
            "expect",
            ValueType(
                _expect,
                {
                    "type": "object",
                    "additionalProperties": {"type": "array", "items": {"$ref": "#/$defs/expectation"}},
                },
            ),
            "the [deliveries](#expected-deliveries), by rule name; `alerts` refers to the file's alerts",
            example="{text-when-busy: [{use: twilio.send_sms}]}",
            required=True,
        ),
    ),
)
