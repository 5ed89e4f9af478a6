"""JSON Schemas of rules.yaml, generated from the installed connectors, and of test files, for editors.

An editor knows less than `bridge check`: it sees keys, names and shapes, but not the content of templates. So the
schema is never stricter than the loader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import PydanticUserError
from pydantic.fields import FieldInfo

from bridge.connector.action import Action
from bridge.connector.discovery import Registry
from bridge.connector.params import example_of, template_of
from bridge.errors import BridgeError
from bridge.events import EVENT_TYPES
from bridge.rules import (
    load,
    parse_alerts,
    parse_connections,
    parse_messaging,
    parse_quiet_hours,
    parse_rules,
    parse_steps,
    parse_tests,
)
from bridge.rules.fields import PATTERNS
from bridge.rules.keys import Key, Schema, Section
from bridge.rules.operators import PRESENCE_OPERATORS
from bridge.rules.parse_params import is_required, params_of
from bridge.rules.parse_where import GROUPS, OPERATOR_NAMES
from bridge.rules.yaml import Diagnostics, parse

_TEMPLATE = {"type": "string", "pattern": r"\{[{%#]"}
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema_of_tests() -> Schema:
    """Return the schema of a test file: `NAME.tests.yaml` next to the rules file, or `tests/*.yaml`."""
    return {
        "$schema": _DRAFT,
        "title": "Tests of rules.yaml",
        **section_schema(load.TEST_FILE),
        "$defs": _test_definitions(),
    }


def schema(registry: Registry) -> Schema:
    """Return the schema (draft 2020-12) of a rules file for these connectors, without those that fail to load."""
    actions = list(_actions(registry))
    uses = [{"const": action.full_name, "description": action.description} for action in actions]
    return {
        "$schema": _DRAFT,
        "title": "rules.yaml",
        **section_schema(load.FILE),
        "$defs": {
            **_test_definitions(),
            "events": _one_or_list({"anyOf": [{"$ref": "#/$defs/event"}, {"enum": list(PATTERNS)}]}),
            "where": _where(),
            "rule": section_schema(parse_rules.RULE),
            "use": {"anyOf": uses},
            "connection": section_schema(parse_connections.CHOICE),
            "once": section_schema(parse_steps.ONCE),
            "retry": section_schema(parse_steps.RETRY),
            "step": _step(parse_steps.STEP, actions),
            "alert": _step(parse_steps.ALERT, actions),
            "alerts": section_schema(parse_alerts.ALERTS),
            "total_caps": section_schema(parse_messaging.TOTAL_CAPS),
            "caps": section_schema(parse_messaging.CAPS),
            "quiet_hours": parse_quiet_hours.SCHEMA,
            "messaging": section_schema(parse_messaging.MESSAGING),
            "params": {action.full_name: _params(action) for action in actions},
        },
    }


def _test_definitions() -> Schema:
    return {
        "event": {"enum": list(EVENT_TYPES)},
        "test": section_schema(parse_tests.TEST),
        "test_event": section_schema(parse_tests.EVENT),
        "expectation": section_schema(parse_tests.EXPECTATION),
    }


def section_schema(section: Section) -> Schema:
    """Return the schema of a section: an object with exactly its keys."""
    return _object(
        {key.name: _key(key) for key in section.keys}, [key.name for key in section.keys if key.required]
    )


def _key(key: Key) -> Schema:
    described: Schema = {**key.type.schema, "description": _LINK.sub(r"\1", key.meaning)}
    if key.example:
        described["examples"] = [_value(key.example)]
    if key.default:
        described["default"] = _value(key.default)
    return described


def _value(text: str) -> Any:
    node = parse(text, Diagnostics())
    return node.data() if node else None


def _actions(registry: Registry) -> Iterable[Action]:
    for name in registry.names():
        try:
            yield from registry.connector(name).actions.values()
        except BridgeError:
            continue


def _object(properties: Schema, required: Iterable[str] = ()) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _one_or_list(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}


def _where() -> Schema:
    operators = _object(
        {name: {"type": "boolean"} if name in PRESENCE_OPERATORS else {} for name in OPERATOR_NAMES}
    )
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


def _step(section: Section, actions: list[Action]) -> Schema:
    """Return the schema of a step, whose `with` depends on its `use`."""
    params_by_action = [
        {
            "if": {"properties": {"use": {"const": action.full_name}}, "required": ["use"]},
            "then": {"properties": {"with": {"$ref": f"#/$defs/params/{action.full_name}"}}},
        }
        for action in actions
    ]
    return {**section_schema(section), "allOf": params_by_action}


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
        {name: _param(info, properties.get(name, {})) for name, info in params_of(action).items()},
        required=[name for name, info in params_of(action).items() if is_required(info)],
    )
    return {**params, "$defs": model_schema["$defs"]} if "$defs" in model_schema else params


def _param(info: FieldInfo, model_schema: Schema) -> Schema:
    hidden = ("title", "description", "default", "example", "template", "markup", "format")
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
