"""JSON Schemas of rules.yaml, generated from the installed connectors, and of test files, for editors.

An editor knows less than `bridge check`: it sees keys, names and shapes, but not the content of templates. So the
schema is never stricter than the loader.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import PydanticUserError
from pydantic.fields import FieldInfo

from bridge.connector.api import Action, example_of, template_of
from bridge.connector.discovery import Registry
from bridge.errors import BridgeError
from bridge.events import EVENT_TYPES
from bridge.rules import load, parse_messaging, parse_steps, parse_tests
from bridge.rules.parse_context import PATTERNS
from bridge.rules.parse_params import is_required, params_of
from bridge.rules.parse_where import GROUPS, OPERATOR_NAMES

Schema = dict[str, Any]

_DURATION = {"type": "string", "pattern": r"^(\d{1,6}[smhdw])+$", "examples": ["90s", "5m", "16h", "7d"]}
_TEMPLATE = {"type": "string", "pattern": r"\{[{%#]"}
_INSTANT = {"type": "string", "examples": ["2026-03-02T21:30:00-05:00"]}
_HOURS = {"type": "string", "examples": ["20:00-08:00"]}
_CAP = {"type": "string", "pattern": r"^\s*[1-9]\d{0,4}\s+per\s+\S+\s*$", "examples": ["2 per 24h"]}


_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TESTS = {"type": "array", "items": {"$ref": "#/$defs/test"}, "minItems": 1}
_EVENT = {"enum": list(EVENT_TYPES)}


def schema_of_tests() -> Schema:
    """Return the schema of a test file: `NAME.tests.yaml` next to the rules file, or `tests/*.yaml`."""
    return {
        "$schema": _DRAFT,
        "title": "Tests of rules.yaml",
        **_object(
            load.TESTS_KEYS, {"version": {"const": load.VERSION}, "tests": _TESTS}, required=("tests",)
        ),
        "$defs": {"event": _EVENT, "test": _test()},
    }


def schema(registry: Registry) -> Schema:
    """Return the schema (draft 2020-12) of a rules file for these connectors, without those that fail to load."""
    actions = list(_actions(registry))
    return {
        "$schema": _DRAFT,
        "title": "rules.yaml",
        **_object(
            load.KEYS,
            {
                "version": {"const": load.VERSION},
                "messaging": {"$ref": "#/$defs/messaging"},
                "alerts": {"type": "array", "items": {"$ref": "#/$defs/alert"}, "minItems": 1},
                "rules": {"type": "array", "items": {"$ref": "#/$defs/rule"}, "minItems": 1},
                "tests": _TESTS,
            },
            required=("version", "rules"),
        ),
        "$defs": {
            "event": _EVENT,
            "events": _one_or_list({"anyOf": [{"$ref": "#/$defs/event"}, {"enum": list(PATTERNS)}]}),
            "where": _where(),
            "rule": _rule(),
            "step": _step(actions, parse_steps.KEYS),
            "alert": _step(actions, parse_steps.ALERT_KEYS),
            "messaging": _messaging(),
            "test": _test(),
            "params": {action.full_name: _params(action) for action in actions},
        },
    }


def _actions(registry: Registry) -> Iterable[Action]:
    for name in registry.names():
        try:
            yield from registry.connector(name).actions.values()
        except BridgeError:
            continue


def _object(keys: Iterable[str], properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    """Return the schema of an object with exactly these keys. A key without a property schema can have any value."""
    return {
        "type": "object",
        "properties": {key: properties.get(key, {}) for key in keys},
        "required": list(required),
        "additionalProperties": False,
    }


def _one_or_list(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


def _where() -> Schema:
    operators = _object(OPERATOR_NAMES, {"exists": {"type": "boolean"}})
    value = {"type": ["string", "number", "boolean"]}
    field = {"anyOf": [value, {"type": "array", "items": value}, operators]}
    group = {"type": "array", "items": {"$ref": "#/$defs/where"}, "minItems": 1}
    groups: dict[str, Schema] = dict.fromkeys(GROUPS, group)
    groups["not"] = {"anyOf": [{"$ref": "#/$defs/where"}, group]}
    return {
        "type": "object",
        "minProperties": 1,
        "properties": groups,
        "patternProperties": {r"^(event|contact)\.": field},
        "additionalProperties": False,
    }


def _rule() -> Schema:
    described: Schema = {
        "name": {"type": "string", "description": "A unique name, such as text-when-busy."},
        "description": {"type": "string"},
        "when": {"$ref": "#/$defs/events", "description": "The event types that the rule applies to."},
        "where": {"$ref": "#/$defs/where", "description": "Conditions on fields of the event."},
        "if": {"type": ["string", "boolean"], "description": "A condition, written without {{ }}."},
        "do": {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1},
        "on_failure": {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1},
        "enabled": {"type": "boolean", "description": "`false` disables the rule."},
        "shadow": {"type": "boolean", "description": "`true` does everything except sending."},
    }
    return _object(load.RULE_KEYS, described, required=("name", "when", "do"))


def _step(actions: list[Action], keys: Iterable[str]) -> Schema:
    once: Schema = {"per": {"enum": ["contact", "conversation"]}, "within": _DURATION}
    retry: Schema = {"for": _DURATION, "attempts": {"type": "integer", "minimum": 1}}
    described: Schema = {
        "use": {
            "anyOf": [{"const": action.full_name, "description": action.description} for action in actions]
        },
        "connection": {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"},
        "delay": {**_DURATION, "description": "Time from the event to the delivery."},
        "expires": {
            **_DURATION,
            "description": "Time from the event after which the delivery is not sent any more.",
        },
        "cancel_on": {"$ref": "#/$defs/events"},
        "once": _object(once, once, required=once),
        "retry": {"anyOf": [_DURATION, _object(retry, retry)]},
        "idempotency_key": {
            "type": "string",
            "description": "Makes this a separate delivery for the same event.",
        },
        "with": {"type": "object"},
    }
    params_by_action = [
        {
            "if": {"properties": {"use": {"const": action.full_name}}, "required": ["use"]},
            "then": {"properties": {"with": {"$ref": f"#/$defs/params/{action.full_name}"}}},
        }
        for action in actions
    ]
    return {**_object(keys, described, required=("use",)), "allOf": params_by_action}


def _params(action: Action) -> Schema:
    """Return the schema of an action's params. Every value can also be a template."""
    try:
        model_schema = action.params.model_json_schema(
            ref_template=f"#/$defs/params/{action.full_name}/$defs/{{model}}"
        )
    except PydanticUserError:  # a type that JSON Schema cannot express
        model_schema = {}
    properties = model_schema.get("properties", {})
    params = _object(
        params_of(action),
        {name: _param(info, properties.get(name, {})) for name, info in params_of(action).items()},
        required=[name for name, info in params_of(action).items() if is_required(info)],
    )
    return {**params, "$defs": model_schema["$defs"]} if "$defs" in model_schema else params


def _param(info: FieldInfo, model_schema: Schema) -> Schema:
    hidden = ("title", "description", "default", "example", "template", "html", "format")
    literal = _allow_numbers({key: value for key, value in model_schema.items() if key not in hidden})
    param: Schema = {"anyOf": [literal, _TEMPLATE], "description": info.description or ""}
    if not literal:
        del param["anyOf"]
    if template_of(info):
        param["description"] += f"\n\nDefault: {template_of(info)}"
    if example_of(info) is not None:
        param["examples"] = [example_of(info)]
    return param


def _allow_numbers(value: Schema) -> Schema:
    """Allow a number for a string. To an editor, `+4712...` looks like a number; to the loader, it is a string."""
    if value.get("type") == "string" and "enum" not in value and "const" not in value:
        return {"anyOf": [value, {"type": "number"}]}
    if "anyOf" in value:
        return {**value, "anyOf": [_allow_numbers(part) for part in value["anyOf"]]}
    return value


def _messaging() -> Schema:
    described: Schema = {
        "quiet_hours": {**_HOURS, "description": "In the recipient's local time; `none` disables them."},
        "regions": {"type": "object", "additionalProperties": _HOURS},
        "caps": _object(parse_messaging.CHANNELS, dict.fromkeys(parse_messaging.CHANNELS, _CAP)),
        "time_zone": {"type": "string", "examples": ["America/New_York"]},
        "consent": {
            "type": ["string", "boolean"],
            "description": "A condition that every message must meet.",
        },
    }
    return _object(parse_messaging.KEYS, described)


def _test() -> Schema:
    source = {"anyOf": [{"$ref": "#/$defs/event"}, {"type": "string", "pattern": r"\.json$"}]}
    changes = {"type": "object", "patternProperties": {r"^event\.": {}}, "additionalProperties": False}
    event: Schema = {"event": source, "set": changes, "at": _INSTANT}
    delivery = _object(
        parse_tests.EXPECT_KEYS,
        {"use": {"type": "string"}, "state": {"enum": list(parse_tests.STATES)}, "at": _INSTANT},
        required=("use",),
    )
    described: Schema = {
        **event,
        "name": {"type": "string"},
        "events": {
            "type": "array",
            "items": _object(parse_tests.EVENT_KEYS, event, required=("event",)),
            "minItems": 1,
        },
        "fail": {"type": "object", "additionalProperties": {"enum": list(parse_tests.FAILURES)}},
        "expect": {"type": "object", "additionalProperties": {"type": "array", "items": delivery}},
    }
    return _object(parse_tests.KEYS, described, required=("name", "expect"))
