"""The JSON Schema for editors agrees with the loader, as far as an editor can check."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.connector.discovery import Registry
from bridge.rules.load import load, load_tests
from bridge.rules.schema import schema, schema_of_tests
from tests.unit.rules.helpers import REGISTRY, rules_of

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "number": (int, float),
    "integer": (int,),
    "null": (type(None),),
}
KEYWORDS = {
    *("type", "enum", "const", "anyOf", "allOf", "if", "then", "$ref", "pattern", "properties", "required"),
    *(
        "additionalProperties",
        "patternProperties",
        "items",
        "minItems",
        "minProperties",
        "minimum",
        "maximum",
    ),
    *("exclusiveMinimum", "minLength", "maxLength"),
    *("$schema", "$defs", "title", "description", "examples", "default"),
}


class Validator:
    """Validator of the subset of JSON Schema that the schema uses. An unknown keyword fails the test."""

    def __init__(self, root: dict[str, Any]) -> None:
        self.root = root

    def errors(self, value: Any, part: dict[str, Any], place: str = "") -> Iterator[str]:
        assert not set(part) - KEYWORDS, f"unknown keywords {set(part) - KEYWORDS} at {place}"
        if "$ref" in part:
            referenced: Any = self.root
            for key in part["$ref"].removeprefix("#/").split("/"):
                referenced = referenced[key]
            yield from self.errors(value, referenced, place)
        if "type" in part:
            kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
            if not any(self.is_a(value, kind) for kind in kinds):
                yield f"{place} is not {' or '.join(kinds)}"
        if "enum" in part and value not in part["enum"]:
            yield f"{place} is not one of {part['enum']}"
        if "const" in part and value != part["const"]:
            yield f"{place} is not {part['const']}"
        if "anyOf" in part and all(list(self.errors(value, option, place)) for option in part["anyOf"]):
            yield f"{place} does not match any alternative"
        for option in part.get("allOf", []):
            yield from self.errors(value, option, place)
        if "if" in part and not list(self.errors(value, part["if"], place)):
            yield from self.errors(value, part["then"], place)
        if isinstance(value, str) and "pattern" in part and not re.search(part["pattern"], value):
            yield f"{place} does not match {part['pattern']}"
        if isinstance(value, dict):
            yield from self.object_errors(value, part, place)
        if isinstance(value, list):
            if len(value) < part.get("minItems", 0):
                yield f"{place} is too short"
            for index, item in enumerate(value):
                yield from self.errors(item, part.get("items", {}), f"{place}[{index}]")

    def object_errors(self, value: dict[str, Any], part: dict[str, Any], place: str) -> Iterator[str]:
        for key in part.get("required", []):
            if key not in value:
                yield f"{place} needs {key}"
        for key, item in value.items():
            subschemas = [part["properties"][key]] if key in part.get("properties", {}) else []
            subschemas += [
                subschema
                for name, subschema in part.get("patternProperties", {}).items()
                if re.search(name, key)
            ]
            if not subschemas and part.get("additionalProperties") is False:
                yield f"{place}.{key} is unknown"
            elif not subschemas and isinstance(part.get("additionalProperties"), dict):
                subschemas = [part["additionalProperties"]]
            for subschema in subschemas:
                yield from self.errors(item, subschema, f"{place}.{key}")

    @staticmethod
    def is_a(value: Any, kind: str) -> bool:
        return isinstance(value, TYPES[kind]) and not (
            isinstance(value, bool) and kind in ("number", "integer")
        )


SCHEMA = schema(REGISTRY)


def errors(text: str) -> list[str]:
    return list(Validator(SCHEMA).errors(yaml.safe_load(text), SCHEMA))


def test_shipped_rules_match_schema_of_shipped_connectors() -> None:
    shipped = schema(Registry())
    text = (Path(__file__).parents[3] / "rules.yaml").read_text("utf-8")
    assert list(Validator(shipped).errors(yaml.safe_load(text), shipped)) == []


def test_schema_lists_every_action_with_description_and_params() -> None:
    descriptions = {option["const"]: option["description"] for option in SCHEMA["$defs"]["use"]["anyOf"]}
    assert descriptions["phone.send"] == "Send one text message."
    assert "hubspot.log_call" in descriptions
    params = SCHEMA["$defs"]["params"]["phone.send"]
    assert params["required"] == ["body"]
    assert params["properties"]["to"]["description"].startswith("Recipient, in E.164 format.")
    assert "{{ contact.phone }}" in params["properties"]["to"]["description"]
    assert params["properties"]["to"]["examples"] == ["+14155550123"]


def test_schema_omits_connector_that_fails_to_load() -> None:
    assert not any(name.startswith("shattered") for name in SCHEMA["$defs"]["params"])


GOOD = """
version: 1
rules:
  - name: a
    when: [call.busy, chat.*]
    where: {event.duration: {gte: 5}, any: [{contact.email: {exists: true}}], not: {event.direction: inbound}}
    if: event.duration > 5
    do:
      - {use: phone.send, delay: 5m, once: {per: contact, within: 1d}, with: {to: +14155550123, body: "{{ now }}"}}
      - {use: crm.log_call, with: {duration: "{{ event.duration }}", properties: {a: 1}}, retry: 6h}
"""


def test_valid_rules_file_matches_schema() -> None:
    assert load(GOOD, path="rules.yaml", registry=REGISTRY).diagnostics == ()
    assert errors(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "version: 2"),
        ("name: a", "nam: a"),
        ("[call.busy, chat.*]", "call.bussy"),
        ("phone.send", "phone.sned"),
        ("delay: 5m", "delay: 5 minutes"),
        ("body:", "bdy:"),
        ("per: contact", "per: person"),
        ("exists: true", "exists: maybe"),
        ("{gte: 5}", "{least: 5}"),
        ("event.direction", "evnt.direction"),
        ('"{{ event.duration }}"', "long"),
        ("retry: 6h", "retry: 6"),
    ],
)
def test_schema_rejects_what_the_loader_rejects(old: str, new: str) -> None:
    text = GOOD.replace(old, new)
    assert text != GOOD
    assert load(text, path="rules.yaml", registry=REGISTRY).rules is None
    assert errors(text)


TESTED_RULES = rules_of("- {name: text, when: call.busy, do: [{use: phone.send, with: {body: Hi}}]}")
TESTS = """
version: 1
tests:
  - name: one
    event: call.busy
    set: {event.direction: outbound}
    at: "2026-03-02T21:30:00-05:00"
    fail: {phone.send: rejected}
    expect:
      text: [{use: phone.send, state: failed, reason: rejected, with: {body: Hi}}]
  - name: several
    events: [{event: call.busy}, {event: mine.json, at: "2026-03-02T21:30:00-05:00"}]
    expect: {}
"""


def errors_in_tests(text: str) -> list[str]:
    tests_schema = schema_of_tests()
    return list(Validator(tests_schema).errors(yaml.safe_load(text), tests_schema))


def test_valid_test_file_matches_schema() -> None:
    assert load_tests(TESTS, path="a.tests.yaml", rules=TESTED_RULES, registry=REGISTRY).diagnostics == ()
    assert errors_in_tests(TESTS) == []


def test_shipped_tests_match_schema_of_test_files() -> None:
    text = (Path(__file__).parents[3] / "rules.yaml").read_text("utf-8")
    assert errors_in_tests(text[text.index("\ntests:") :]) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "version: 2"),
        ("version: 1", "rules: []"),
        ("tests:", "test:"),
        ("name: one", "nam: one"),
        ("event: call.busy\n", "event: call.bussy\n"),
        ("event.direction", "evnt.direction"),
        ("send: rejected", "send: refused"),
        ("state: failed", "state: died"),
        ("{use: phone.send, ", "{"),
        ("expect: {}", "expects: {}"),
    ],
)
def test_schema_of_tests_rejects_what_the_loader_rejects(old: str, new: str) -> None:
    text = TESTS.replace(old, new)
    assert text != TESTS
    assert load_tests(text, path="a.tests.yaml", rules=TESTED_RULES, registry=REGISTRY).rules is None
    assert errors_in_tests(text)
