"""One definition per key: the parser, the schema for editors and the reference agree because they come from it."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from bridge.connector.discovery import Registry
from bridge.rules import load, parse_alerts, parse_messaging, parse_rules, parse_steps, parse_tests
from bridge.rules.alert_settings import NEVER, AlertSettings
from bridge.rules.keys import DURATION, STRING, Key, Section
from bridge.rules.model import (
    Expectation,
    MessagingPolicy,
    OncePer,
    Retry,
    Rule,
    Rules,
    RuleTest,
    RuleTestEvent,
    Step,
)
from bridge.rules.parse_context import ParseContext
from bridge.rules.schema import schema, section_schema
from bridge.rules.yaml import Diagnostics, Node, parse
from tests.unit.rules.test_rules_schema import Validator

MODELS: tuple[tuple[Section, type], ...] = (
    (load.FILE, Rules),
    (load.TEST_FILE, Rules),
    (parse_rules.RULE, Rule),
    (parse_steps.STEP, Step),
    (parse_steps.ALERT, Step),
    (parse_steps.ONCE, OncePer),
    (parse_steps.RETRY, Retry),
    (parse_messaging.MESSAGING, MessagingPolicy),
    (parse_alerts.ALERTS, AlertSettings),
    (parse_tests.TEST, RuleTest),
    (parse_tests.EVENT, RuleTestEvent),
    (parse_tests.EXPECTATION, Expectation),
)
READ_SEPARATELY = {
    ("the file", "defaults"),
    ("the file", "version"),
    ("a test file", "version"),
    ("a rule", "where"),
    ("a rule", "if"),
    ("a step", "with"),
    ("`alerts`", "do"),
    *(("a test", name) for name in ("event", "set", "details", "at")),
}
EXAMPLES = [
    pytest.param(key, text, id=f"{section.label} {key.name} {text}")
    for section in (*(section for section, _ in MODELS), parse_messaging.CAPS, parse_messaging.TOTAL_CAPS)
    for key in section.keys
    for text in (key.example, key.default)
    if text
]
REGISTRY = Registry()
RULES = load.load_or_raise(
    "version: 1\nrules:\n"
    "  - {name: text-when-busy, when: call.busy, do: [{use: twilio.send_sms, with: {body: Hi}}]}",
    path="rules.yaml",
    registry=REGISTRY,
)


@cache
def schema_of_rules() -> dict[str, Any]:
    """Return the schema with the params of every shipped action, which takes a tenth of a second to build."""
    return schema(REGISTRY)


def node_of(text: str) -> Node:
    node = parse(text, Diagnostics())
    assert node is not None
    return node


def context_of(text: str) -> ParseContext:
    by_name = {rule.name: rule for rule in RULES.rules}
    return ParseContext({"": [text]}, Diagnostics(), REGISTRY, None, rules=by_name)


@pytest.mark.parametrize(("section", "model"), MODELS, ids=lambda item: getattr(item, "label", ""))
def test_value_of_every_key_has_an_attribute(section: Section, model: type) -> None:
    attributes = {field.name for field in fields(model)}
    for key in section.keys:
        if (section.label, key.name) not in READ_SEPARATELY:
            assert (key.attribute or key.name) in attributes
        assert key.meaning


@pytest.mark.parametrize(("key", "text"), EXAMPLES)
def test_example_is_accepted_by_parser_and_schema(key: Key, text: str) -> None:
    context = context_of(text)
    node = node_of(text)
    key.type.read(context.within(event_types=("call.busy", "chat.completed")), node, f"`{key.name}`")
    assert context.diagnostics.entries == []
    assert list(Validator(schema_of_rules()).errors(node.data(), dict(key.type.schema))) == []


def test_shown_defaults_of_alerts_are_those_of_the_settings() -> None:
    shown = {
        key.name: key.type.read(context_of(key.default), node_of(key.default), key.name)
        for key in parse_alerts.ALERTS.keys
        if key.default
    }
    assert shown == vars(AlertSettings())


def test_alerts_are_a_list_of_steps_or_a_mapping_with_settings() -> None:
    step = "{use: slack.post}"
    text = "version: 1\nrules: []\nalerts: "
    as_list = load.load_or_raise(f"{text}[{step}]", path="rules.yaml", registry=REGISTRY)
    mapping = f"{{do: [{step}], backlog_after: never, no_events_after: 90m, disk_free_below: 500 MB}}"
    as_mapping = load.load_or_raise(f"{text}{mapping}", path="rules.yaml", registry=REGISTRY)
    assert [step.use for step in as_list.alerts] == [step.use for step in as_mapping.alerts] == ["slack.post"]
    assert as_list.alert_settings == AlertSettings()
    assert as_mapping.alert_settings == AlertSettings(
        backlog_after=NEVER, no_events_after=timedelta(minutes=90), disk_free_below=500_000_000
    )


def test_shown_defaults_of_messaging_are_those_of_the_policy() -> None:
    shown = {
        key.name: key.type.read(context_of(key.default), node_of(key.default), key.name)
        for key in parse_messaging.MESSAGING.keys
        if key.default
    }
    policy = MessagingPolicy()
    assert shown == {name: getattr(policy, name) for name in shown}
    assert {"quiet_hours", "time_zone"} <= shown.keys()


@pytest.mark.parametrize(
    ("section", "caps"),
    [
        (parse_messaging.CAPS, MessagingPolicy().caps | {"total": MessagingPolicy().total_caps}),
        (parse_messaging.TOTAL_CAPS, MessagingPolicy().total_caps),
    ],
)
def test_shown_defaults_of_caps_are_those_of_the_policy(section: Section, caps: dict[str, Any]) -> None:
    shown = {
        key.name: key.type.read(context_of(key.default), node_of(key.default), key.name)
        for key in section.keys
    }
    assert shown == caps


def test_added_key_is_parsed_and_described() -> None:
    section = Section(
        "a meal",
        "write `dish: ...`",
        (
            Key("dish", STRING, "the [dish](#dishes)", example="soup", required=True),
            Key("for", DURATION, "how long it takes", default="1h", attribute="time"),
        ),
    )
    context = context_of("")
    entries = section.open(context, node_of("{dish: soup, for: long, drink: tea}"))
    assert entries is not None
    assert section.read(context, entries) == {"dish": "soup"}
    assert section.open(context, node_of("for: 5m")) is not None
    assert [(item.text, item.hint) for item in context.diagnostics.entries] == [
        ("unknown key `drink`", "one of: `dish`, `for`"),
        ("`for` must be a duration, not `long`", "write a number and a unit: 90s, 5m, 16h, 7d, or 1h30m"),
        ("a meal needs `dish`", "write `dish: ...`"),
    ]
    described: dict[str, Any] = section_schema(section)
    assert described["required"] == ["dish"]
    assert described["properties"]["dish"] == {
        "type": "string",
        "description": "the dish",
        "examples": ["soup"],
    }
    assert described["properties"]["for"]["default"] == "1h"
