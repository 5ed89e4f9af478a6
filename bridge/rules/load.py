"""Loader of rules files: reports all errors together, each with its place, and returns rules if there are none.

Several files are one set of rules: names are unique over all of them, and a rule can use the tables of another file.
Warnings do not make a file unusable: they are about names that Heppu does not document, and about settings that are
allowed but probably not intended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from bridge.connector.discovery import Registry
from bridge.json_values import describe_type
from bridge.rules.keys import Entries, Key, Section, ValueType, list_of
from bridge.rules.model import LoadResult, MessagingPolicy, Rules
from bridge.rules.parse_alerts import Alerts, read_alerts
from bridge.rules.parse_context import ParseContext
from bridge.rules.parse_defaults import read_defaults, read_tables
from bridge.rules.parse_messaging import read_messaging
from bridge.rules.parse_quiet_hours import warn_about_expiry
from bridge.rules.parse_rules import RULE, read_rules, warn_about_shared_idempotency_keys
from bridge.rules.parse_tests import read_tests
from bridge.rules.report import RulesError
from bridge.rules.sources import SourceFile, join_sources, split_sources
from bridge.rules.yaml import Diagnostics, Node, TooManyDiagnostics, decode, lines_of, parse

VERSION = 1
_IN_ONE_FILE: Final = ("messaging", "alerts", "defaults")
"""Keys that only one file of a set can have: they apply to every rule, so there is one place to look for them."""

Source = str | bytes | Sequence[SourceFile]
"""A file, a stored text of a set of files, or the files themselves."""


def load(
    source: Source, *, path: str, registry: Registry, environ: Mapping[str, str] | None = None
) -> LoadResult:
    """Load rules. With `environ`, connections in use must have their settings there.

    `path` is the name of the file or folder. No content of a file makes it raise.
    """
    return _load(_files(source, path), path, registry, environ, _read_rules_files)


def load_tests(text: str | bytes, *, path: str, rules: Rules, registry: Registry) -> LoadResult:
    """Load a test file, which contains only tests of `rules`. The result is `rules` with these tests added.

    No content of a file makes it raise.
    """
    file = SourceFile(path, text)
    return _load(
        [file], path, registry, None, lambda context, files, _: _read_test_file(context, files, rules)
    )


def load_or_raise(
    source: Source,
    *,
    path: str,
    registry: Registry,
    environ: Mapping[str, str] | None = None,
    ending: str = "",
) -> Rules:
    """Return the rules. Raise RulesError with the whole report, and `ending`, if there is an error."""
    loaded = load(source, path=path, registry=registry, environ=environ)
    if loaded.rules is None:
        raise RulesError(loaded, ending)
    return loaded.rules


def _files(source: Source, path: str) -> Sequence[SourceFile]:
    if isinstance(source, str):
        return split_sources(source, path)
    return [SourceFile(path, source, path)] if isinstance(source, bytes) else source


@dataclass
class _File:
    """A file of a set that is read section by section."""

    source: SourceFile
    text: str
    root: Node | None
    """None if the file is empty."""
    entries: Entries

    @property
    def top(self) -> Node:
        """The place of problems of the whole file."""
        return self.root or Node(1, 1, 1, None, self.source.path)


def _load(
    sources: Sequence[SourceFile],
    path: str,
    registry: Registry,
    environ: Mapping[str, str] | None,
    read: Callable[[ParseContext, Sequence[_File], str], Rules | None],
) -> LoadResult:
    diagnostics = Diagnostics()
    connections: dict[str, str] = {}
    rules = None
    try:
        files = [_parse(source, diagnostics) for source in sources]
        parsed = [file for file in files if file is not None]
        if len(parsed) == len(files):
            lines = {file.source.path: lines_of(file.text) for file in parsed}
            context = ParseContext(lines, diagnostics, registry, environ, connections)
            rules = read(context, parsed, path)
    except TooManyDiagnostics:
        pass
    order = {source.path: index for index, source in enumerate(sources)}
    in_file_order = sorted(
        diagnostics.entries, key=lambda entry: (order[entry.path], entry.line, entry.column)
    )
    texts = {source.path: _decoded(source.content) for source in sources}
    return LoadResult(None if diagnostics.error_count else rules, tuple(in_file_order), connections, texts)


def _parse(source: SourceFile, diagnostics: Diagnostics) -> _File | None:
    """Return the file, or None if its YAML is invalid, which is reported."""
    errors = diagnostics.error_count
    text = decode(source.content, diagnostics, source.path)
    root = parse(text, diagnostics, source.path) if text is not None else None
    if text is None or (root is None and diagnostics.error_count > errors):
        return None
    return _File(source, text, root, {})


def _decoded(content: bytes | str) -> str:
    return content.decode("utf-8", "replace") if isinstance(content, bytes) else content


def _read_test_file(context: ParseContext, files: Sequence[_File], rules: Rules) -> Rules | None:
    [file] = files
    if not _open_file(context, file, TEST_FILE):
        return None
    inner = context.within(rules={rule.name: rule for rule in rules.rules}, alerts=rules.alerts)
    values = TEST_FILE.read(inner, file.entries)
    return replace(rules, tests=(*rules.tests, *values.get("tests", ())))


def _read_rules_files(context: ParseContext, files: Sequence[_File], path: str) -> Rules | None:
    opened = [file for file in files if _open_file(context, file, FILE, is_alone=len(files) == 1)]
    if not opened:
        return None
    _require_rules(context, files)
    _keep_in_one_file(context, opened)
    # `messaging` comes last: `crm_opt_outs` names connections of the steps.
    tables = _read_tables(context, opened)
    inner = context.within(tables=tables, defaults=_first(context, opened, "defaults") or {})
    alerts = _first(inner, opened, "alerts") or Alerts()
    for file in opened:
        rules = FILE.take(inner, file.entries, "rules")
        inner = inner.within(rules=inner.rules if rules is None else rules)
    if not context.diagnostics.error_count:
        warn_about_shared_idempotency_keys(context, inner.rules)
    messaging = _first(inner, opened, "messaging") or MessagingPolicy()
    inner = inner.within(alerts=alerts.steps)
    warn_about_expiry(context, inner.rules.values(), messaging)
    text = join_sources([(file.source.name, file.text) for file in files])
    return Rules(
        text=text,
        hash=hashlib.sha256(text.encode()).hexdigest(),
        rules=tuple(inner.rules.values()),
        messaging=messaging,
        alerts=inner.alerts,
        alert_settings=alerts.settings,
        tables=tables,
        tests=tuple(test for file in opened for test in FILE.read(inner, file.entries).get("tests", ())),
        path=path,
    )


def _open_file(context: ParseContext, file: _File, section: Section, *, is_alone: bool = True) -> bool:
    """Read the entries of the file's top level. Return whether it has some."""
    if file.root is None or file.root.value is None:
        report = context.error if is_alone else context.warning
        report(file.top, "the file is empty", section.hint)
        return False
    entries = section.open(context, file.root, require=False)
    for key in section.keys:
        if entries is not None and key.required and key.name not in entries:
            hint = _VERSION_HINT if key.name == "version" else section.hint
            context.error(file.root, f"`{key.name}` is missing", hint)
    file.entries = entries or {}
    return entries is not None


def _require_rules(context: ParseContext, files: Sequence[_File]) -> None:
    """Report a set without any rule: an error without `rules`, a warning if all lists are empty."""
    found = [file.entries["rules"][1] for file in files if "rules" in file.entries]
    if not found:
        text = f"none of the {len(files)} files has `rules`" if len(files) > 1 else "`rules` is missing"
        context.error(files[0].top, text, FILE.hint)
    if found and all(node.items == [] for node in found):
        context.warning(found[0], "the file has no rules, so no event leads to anything", RULE.hint)


def _keep_in_one_file(context: ParseContext, files: Sequence[_File]) -> None:
    """Report and remove the keys that a file before has already."""
    for name in _IN_ONE_FILE:
        owners = [file for file in files if name in file.entries]
        for file in owners[1:]:
            key, _ = file.entries.pop(name)
            other = context.line_of(owners[0].entries[name][0], key)
            hint = "it applies to every rule, so only one file can have it: move everything there"
            context.error(key, f"`{name}` is already on {other}", hint)


def _first(context: ParseContext, files: Sequence[_File], name: str) -> Any:
    """Return the value of a key that one file has at most. None: missing or invalid."""
    file = next((file for file in files if name in file.entries), None)
    return FILE.take(context, file.entries, name) if file else None


def _read_tables(context: ParseContext, files: Sequence[_File]) -> dict[str, dict[str, Any]]:
    """Return the tables of all files."""
    tables: dict[str, dict[str, Any]] = {}
    keys: dict[str, Node] = {}
    for file in files:
        names = file.entries["tables"][1].entries or {} if "tables" in file.entries else {}
        for name, (key, _) in names.items():
            if name in keys:
                other = context.line_of(keys[name], key)
                context.error(key, f"duplicate table `{name[:60]}`", f"the other table is on {other}")
            keys.setdefault(name, key)
        tables = (FILE.take(context, file.entries, "tables") or {}) | tables
    return tables


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
        Key(
            "rules",
            list_of("rule", read_rules),
            "the list of [rules](#rules); with several files, one has it at least",
        ),
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
            ValueType(
                read_alerts,
                {"anyOf": [list_of("alert", read_alerts).schema, {"$ref": "#/$defs/alerts"}]},
            ),
            "the [steps](#steps) that notify the team of problems, or these and [when to alert](#alerts)",
        ),
        _TESTS_KEY,
    ),
)
TEST_FILE = Section(
    "a test file",
    hint="a test file contains only `tests:`",
    keys=(replace(_VERSION_KEY, required=False), replace(_TESTS_KEY, required=True)),
)
