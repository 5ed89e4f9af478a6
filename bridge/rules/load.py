"""Loader of rules.yaml: reports all errors together, each with its place, and returns rules if there are none.

Warnings do not make a file unusable: they are about names that Heppu does not document, and about settings that are
allowed but probably not intended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from bridge.connector.discovery import Registry
from bridge.json_values import describe_type
from bridge.rules.keys import Entries, Key, Section, ValueType, list_of
from bridge.rules.model import LoadResult, MessagingPolicy, Rules
from bridge.rules.parse_context import ParseContext
from bridge.rules.parse_defaults import read_defaults, read_tables
from bridge.rules.parse_messaging import read_messaging
from bridge.rules.parse_quiet_hours import warn_about_expiry
from bridge.rules.parse_rules import read_rules
from bridge.rules.parse_steps import read_alerts
from bridge.rules.parse_tests import read_tests
from bridge.rules.report import RulesError
from bridge.rules.yaml import Diagnostics, Node, TooManyDiagnostics, decode, lines_of, parse

VERSION = 1


def load(
    text: str | bytes, *, path: str, registry: Registry, environ: Mapping[str, str] | None = None
) -> LoadResult:
    """Load a rules file. With `environ`, connections in use must have their settings there.

    No content of a file makes it raise.
    """
    return _load(text, path, registry, environ, _read_rules_file)


def load_tests(text: str | bytes, *, path: str, rules: Rules, registry: Registry) -> LoadResult:
    """Load a test file, which contains only tests of `rules`. The result is `rules` with these tests added.

    No content of a file makes it raise.
    """
    return _load(text, path, registry, None, lambda context, root, _: _read_test_file(context, root, rules))


def load_or_raise(
    text: str | bytes, *, path: str, registry: Registry, environ: Mapping[str, str] | None = None
) -> Rules:
    """Return the rules. Raise RulesError with the whole report if the file has an error."""
    loaded = load(text, path=path, registry=registry, environ=environ)
    if loaded.rules is None:
        decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        raise RulesError(loaded.diagnostics, decoded, path)
    return loaded.rules


def _load(
    text: str | bytes,
    path: str,
    registry: Registry,
    environ: Mapping[str, str] | None,
    read: Callable[[ParseContext, Node | None, str], Rules | None],
) -> LoadResult:
    diagnostics = Diagnostics()
    connections: dict[str, str] = {}
    rules = None
    try:
        decoded = decode(text, diagnostics) if isinstance(text, bytes) else text.removeprefix("\ufeff")
        root = parse(decoded, diagnostics) if decoded is not None else None
        if decoded is not None and (root is not None or not diagnostics.entries):
            lines = lines_of(decoded)
            context = ParseContext(path, lines, diagnostics, registry, environ, connections)
            rules = read(context, root, decoded)
    except TooManyDiagnostics:
        pass
    in_file_order = tuple(sorted(diagnostics.entries, key=lambda entry: (entry.line, entry.column)))
    return LoadResult(None if diagnostics.error_count else rules, in_file_order, connections)


def _read_test_file(context: ParseContext, root: Node | None, rules: Rules) -> Rules | None:
    entries = _open_file(context, root, TEST_FILE)
    if entries is None:
        return None
    inner = context.within(rules={rule.name: rule for rule in rules.rules}, alerts=rules.alerts)
    values = TEST_FILE.read(inner, entries)
    return replace(rules, tests=(*rules.tests, *values.get("tests", ())))


def _read_rules_file(context: ParseContext, root: Node | None, text: str) -> Rules | None:
    entries = _open_file(context, root, FILE)
    if entries is None:
        return None
    # `messaging` comes last: `crm_opt_outs` names connections of the steps.
    tables, defaults = (FILE.take(context, entries, name) or {} for name in ("tables", "defaults"))
    inner = context.within(tables=tables, defaults=defaults)
    names = ("alerts", "rules", "messaging")
    alerts, rules, messaging = (FILE.take(inner, entries, name) for name in names)
    inner = inner.within(rules=rules or {}, alerts=alerts or ())
    warn_about_expiry(context, inner.rules.values(), messaging or MessagingPolicy())
    return Rules(
        text=text,
        hash=hashlib.sha256(text.encode()).hexdigest(),
        rules=tuple(inner.rules.values()),
        messaging=messaging or MessagingPolicy(),
        alerts=inner.alerts,
        tables=tables,
        path=context.path,
        **FILE.read(inner, entries),
    )


def _open_file(context: ParseContext, root: Node | None, section: Section) -> Entries | None:
    """Return the entries of the file's top level, or None if it has none."""
    if root is None or root.value is None:
        context.error_at(1, 1, "the file is empty", section.hint)
        return None
    entries = section.open(context, root, require=False)
    for key in section.keys:
        if entries is not None and key.required and key.name not in entries:
            hint = _VERSION_HINT if key.name == "version" else section.hint
            context.error(root, f"`{key.name}` is missing", hint)
    return entries


def _version(context: ParseContext, node: Node, label: str) -> int | None:
    if not isinstance(node.value, int) or isinstance(node.value, bool):
        context.error(node, f"{label} must be a number, not {describe_type(node.value)}", _VERSION_HINT)
    elif node.value != VERSION:
        context.error(node, f"version {node.value} is not supported", _VERSION_HINT)
    return None


_VERSION_HINT = f"write `version: {VERSION}`"
_VERSION_KEY = Key("version", ValueType(_version, {"const": VERSION}), f"always `{VERSION}`", required=True)
_TESTS_KEY = Key("tests", list_of("test", read_tests), "a list of [tests](#tests)")
FILE = Section(
    "the file",
    hint="start with `version: 1` and `rules:`",
    keys=(
        _VERSION_KEY,
        Key("rules", list_of("rule", read_rules), "the list of [rules](#rules)", required=True),
        Key(
            "messaging",
            ValueType(read_messaging, {"$ref": "#/$defs/messaging"}),
            "the [policy](#messaging) for every text message, email and call",
        ),
        Key(
            "tables",
            ValueType(read_tables, {"type": "object", "additionalProperties": {"type": "object"}}),
            "[tables](#tables-and-defaults) that the filter `table` looks values up in",
            example="{greeting: {Nora: Front desk, Sam: Workshop}}",
        ),
        Key(
            "defaults",
            ValueType(read_defaults, {"type": "object", "additionalProperties": {"type": "object"}}),
            "[keys of a step](#tables-and-defaults) that every step of an action has unless it sets them",
            example="{twilio.send_sms: {delay: 5m, cancel_on: call.completed}}",
        ),
        Key(
            "alerts",
            list_of("alert", read_alerts),
            "the [steps](#steps) that notify the team of problems",
        ),
        _TESTS_KEY,
    ),
)
TEST_FILE = Section(
    "a test file",
    hint="a test file contains only `tests:`",
    keys=(replace(_VERSION_KEY, required=False), replace(_TESTS_KEY, required=True)),
)
