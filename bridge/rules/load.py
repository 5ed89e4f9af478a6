"""Loader of rules.yaml: reports all errors together, each with its place, and returns rules if there are none.

Warnings do not make a file unusable: they are about names that Heppu does not document, and about settings that are
allowed but probably not intended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from bridge.connector.discovery import Registry
from bridge.rules.fields import describe_type
from bridge.rules.model import ALERTS, LoadResult, MessagingPolicy, Rule, Rules
from bridge.rules.parse_context import Entries, ParseContext
from bridge.rules.parse_messaging import read_messaging
from bridge.rules.parse_params import CONTEXT_NAMES
from bridge.rules.parse_steps import read_steps
from bridge.rules.parse_tests import read_tests
from bridge.rules.parse_where import read_where
from bridge.rules.report import RulesError
from bridge.rules.yaml import Diagnostics, Node, TooManyDiagnostics, decode, lines_of, parse

VERSION = 1
KEYS = ("version", "messaging", "alerts", "rules", "tests")
TESTS_KEYS = ("version", "tests")
"""The keys of a test file, which contains only tests of the rules file next to it."""
RULE_KEYS = ("name", "description", "when", "where", "if", "do", "on_failure", "enabled", "shadow")

_MAX_NAME_LENGTH = 80


def load(
    text: str | bytes, *, path: str, registry: Registry, environ: Mapping[str, str] | None = None
) -> LoadResult:
    """Load a rules file. With `environ`, connections in use must have their settings there.

    No content of a file makes it raise.
    """

    def read(context: ParseContext, root: Node | None, decoded: str) -> Rules | None:
        return _read_rules_file(context, root, decoded, path)

    return _load(text, registry, environ, read)


def load_tests(text: str | bytes, *, path: str, rules: Rules, registry: Registry) -> LoadResult:
    """Load a test file, which contains only tests of `rules`. The result is `rules` with these tests added.

    No content of a file makes it raise.
    """
    return _load(text, registry, None, lambda context, root, _: _read_test_file(context, root, path, rules))


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
            rules = read(
                ParseContext(lines_of(decoded), diagnostics, registry, environ, connections), root, decoded
            )
    except TooManyDiagnostics:
        pass
    in_file_order = tuple(sorted(diagnostics.entries, key=lambda entry: (entry.line, entry.column)))
    return LoadResult(None if diagnostics.error_count else rules, in_file_order, connections)


def _read_test_file(context: ParseContext, root: Node | None, path: str, rules: Rules) -> Rules | None:
    hint = "a test file contains only `tests:`"
    if root is None or root.value is None:
        context.error_at(1, 1, "the file is empty", hint)
        return None
    entries = context.mapping(root, "a test file", TESTS_KEYS, hint)
    if root.entries is None:
        return None
    if "version" in entries:
        _check_version(context, root, entries)
    if "tests" not in entries:
        context.error(root, "`tests` is missing", hint)
        return None
    by_name = {rule.name: rule for rule in rules.rules}
    tests = read_tests(context, entries["tests"][1], by_name, rules.alerts, path)
    return replace(rules, tests=(*rules.tests, *tests))


def _read_rules_file(context: ParseContext, root: Node | None, text: str, path: str) -> Rules | None:
    hint = "start with `version: 1` and `rules:`"
    if root is None or root.value is None:
        context.error_at(1, 1, "the file is empty", hint)
        return None
    entries = context.mapping(root, "the file", KEYS, hint)
    if root.entries is None:
        return None
    _check_version(context, root, entries)
    nodes = {name: value for name, (_, value) in entries.items()}
    messaging = read_messaging(context, nodes["messaging"]) if "messaging" in nodes else MessagingPolicy()
    alerts = (
        read_steps(context, nodes["alerts"], "`alerts`", "alert", (), needs_settings=True)
        if "alerts" in nodes
        else ()
    )
    if "rules" not in nodes:
        context.error(root, "`rules` is missing", hint)
    rules = _read_rules(context, nodes["rules"]) if "rules" in nodes else {}
    tests = read_tests(context, nodes["tests"], rules, alerts, path) if "tests" in nodes else ()
    return Rules(
        text=text,
        hash=hashlib.sha256(text.encode()).hexdigest(),
        rules=tuple(rules.values()),
        messaging=messaging,
        alerts=alerts,
        tests=tests,
        path=path,
    )


def _check_version(context: ParseContext, root: Node, entries: Entries) -> None:
    hint = f"write `version: {VERSION}`"
    if "version" not in entries:
        context.error(root, "`version` is missing", hint)
        return
    node = entries["version"][1]
    if not isinstance(node.value, int) or isinstance(node.value, bool):
        context.error(node, f"`version` must be a number, not {describe_type(node.value)}", hint)
    elif node.value != VERSION:
        context.error(node, f"version {node.value} is not supported", hint)


def _read_rules(context: ParseContext, node: Node) -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for item in context.list_items(node, "`rules`"):
        context.diagnostics.rule = _unchecked_name(item)
        rule = _read_rule(context, item)
        if rule is not None and rule.name in rules:
            hint = f"the other rule is on line {rules[rule.name].line}: rename one of them"
            context.error(item.get("name"), f"duplicate rule name `{rule.name}`", hint)
        elif rule is not None:
            rules[rule.name] = rule
    context.diagnostics.rule = None
    if not context.diagnostics.error_count:
        _warn_about_shared_idempotency_keys(context, rules)
    return rules


def _unchecked_name(node: Node) -> str | None:
    """Return the rule's name for the report, before the name is checked."""
    name = node.get("name").value
    return name[:_MAX_NAME_LENGTH] if isinstance(name, str) else None


def _read_rule(context: ParseContext, node: Node) -> Rule | None:
    hint = "write `- name: ...`, `when:` and `do:`"
    entries = context.mapping(node, "a rule", RULE_KEYS, hint)
    if node.entries is None:
        return None
    context.require_keys(node, "a rule", entries, ("name", "when", "do"), hint)
    nodes = {name: value for name, (_, value) in entries.items()}
    name = _read_name(context, nodes["name"]) if "name" in nodes else None
    enabled = context.boolean(nodes["enabled"], "`enabled`", True) if "enabled" in nodes else True
    shadow = context.boolean(nodes["shadow"], "`shadow`", False) if "shadow" in nodes else False
    event_types = context.event_types(nodes["when"], "`when`") if "when" in nodes else ()
    where = read_where(context, nodes["where"], event_types) if "where" in nodes else None
    condition = (
        context.condition(nodes["if"], "`if`", event_types, CONTEXT_NAMES["rule"]) if "if" in nodes else None
    )
    do = read_steps(context, nodes["do"], "`do`", "rule", event_types, enabled) if "do" in nodes else ()
    on_failure = (
        read_steps(context, nodes["on_failure"], "`on_failure`", "on_failure", event_types, enabled)
        if "on_failure" in nodes
        else ()
    )
    description = context.string(nodes["description"], "`description`") if "description" in nodes else None
    if name is None:
        return None
    return Rule(
        name=name,
        line=node.line,
        when=frozenset(event_types),
        when_text=", ".join(str(item) for item in _as_list(nodes["when"].data())) if "when" in nodes else "",
        where=where,
        condition=condition,
        do=do,
        on_failure=on_failure,
        enabled=enabled,
        shadow=shadow,
        description=description or "",
    )


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _read_name(context: ParseContext, node: Node) -> str | None:
    name = context.string(node, "`name`")
    if name is None:
        return None
    if len(name) > _MAX_NAME_LENGTH or name != name.strip() or not name.isprintable():
        limits = f"at most {_MAX_NAME_LENGTH} characters on one line, without spaces at the ends"
        context.error(node, "invalid rule name", f"write {limits}, such as `text-when-busy`")
        return None
    if name == ALERTS:
        hint = "write another name: in tests, this one refers to the file's alerts"
        context.error(node, f"`{ALERTS}` cannot be a rule name", hint)
        return None
    return name


def _warn_about_shared_idempotency_keys(context: ParseContext, rules: Mapping[str, Rule]) -> None:
    """Warn if two steps certainly share an idempotency key for an event: only the first one would run."""
    unconditional: dict[tuple[str, ...], tuple[str, int]] = {}
    for rule in rules.values():
        if not rule.enabled:
            continue
        own: dict[tuple[str, ...], tuple[str, int]] = {}
        for step in rule.do:
            if step.action.idempotency.updates:
                continue
            recipient = _source(step.values.get(step.action.recipient or ""))
            dedupe_value = _source(step.values.get(step.action.dedupe_by or ""))
            parts = (step.use, step.connection, recipient, dedupe_value, _source(step.idempotency_key))
            keys = [(*parts, event_type) for event_type in sorted(rule.when)]
            always_fires = rule.where is None and rule.condition is None
            tables = (own, unconditional) if always_fires else (own,)
            other = next((table[key] for table in tables for key in keys if key in table), None)
            if other:
                context.diagnostics.rule = rule.name
                use_node = context.locate(Node(step.line, 1, step.line, None), "use")
                text = f"rule `{other[0]}`, line {other[1]}, already runs `{step.use}` for the same event"
                hint = "an action runs once per event: set `idempotency_key` on one of the two steps"
                context.warning(use_node, text, hint)
            own.update(dict.fromkeys(keys, (rule.name, step.line)))
            if always_fires:
                unconditional.update(
                    {key: (rule.name, step.line) for key in keys if key not in unconditional}
                )
    context.diagnostics.rule = None


def _source(value: object) -> str:
    """Return a compiled value as the file spells it, for comparisons."""
    template = getattr(value, "template", value)
    return str(getattr(template, "source", template))
