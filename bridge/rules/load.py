"""Loading rules.yaml: every problem at once, each with its place; rules only when there is no error.

Warnings do not stop a file: they are about names that Heppu does not document, and things that are allowed but
can hardly be meant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

from bridge.connector.discovery import Registry
from bridge.rules.fields import kind_of
from bridge.rules.model import ALERTS, Loaded, Messaging, Rule, Rules
from bridge.rules.parse_context import Entries, File
from bridge.rules.parse_messaging import read_messaging
from bridge.rules.parse_params import NAMES
from bridge.rules.parse_steps import read_steps
from bridge.rules.parse_tests import read_tests
from bridge.rules.parse_where import read_where
from bridge.rules.report import RulesError
from bridge.rules.yaml import Node, Problems, TooManyProblems, decode, lines_of, parse

VERSION = 1
KEYS = ("version", "messaging", "alerts", "rules", "tests")
TESTS_KEYS = ("version", "tests")
"""The keys of a file that only holds tests of the rules beside it."""
RULE_KEYS = ("name", "description", "when", "where", "if", "do", "on_failure", "enabled", "shadow")

_LONGEST_NAME = 80


def load(
    text: str | bytes, *, path: str, registry: Registry, environ: Mapping[str, str] | None = None
) -> Loaded:
    """Read a rules file. With `environ`, connections in use must have their settings there.

    Never raises for anything that a file can contain.
    """
    return _load(text, registry, environ, lambda file, root, decoded: _rules_file(file, root, decoded, path))


def load_tests(text: str | bytes, *, path: str, rules: Rules, registry: Registry) -> Loaded:
    """Read a file that holds tests of `rules` and nothing else; gives the rules with these tests added.

    Never raises for anything that a file can contain.
    """
    return _load(text, registry, None, lambda file, root, _: _tests_file(file, root, path, rules))


def load_or_raise(
    text: str | bytes, *, path: str, registry: Registry, environ: Mapping[str, str] | None = None
) -> Rules:
    """The rules; raises RulesError with the whole report when there is an error."""
    loaded = load(text, path=path, registry=registry, environ=environ)
    if loaded.rules is None:
        shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        raise RulesError(loaded.problems, shown, path)
    return loaded.rules


def _load(
    text: str | bytes,
    registry: Registry,
    environ: Mapping[str, str] | None,
    read: Callable[[File, Node | None, str], Rules | None],
) -> Loaded:
    problems = Problems()
    connections: dict[str, str] = {}
    rules = None
    try:
        decoded = decode(text, problems) if isinstance(text, bytes) else text.removeprefix("\ufeff")
        root = parse(decoded, problems) if decoded is not None else None
        if decoded is not None and (root is not None or not problems.found):
            rules = read(File(lines_of(decoded), problems, registry, environ, connections), root, decoded)
    except TooManyProblems:
        pass
    found = tuple(sorted(problems.found, key=lambda problem: (problem.line, problem.column)))
    return Loaded(None if problems.errors else rules, found, connections)


def _tests_file(file: File, root: Node | None, path: str, rules: Rules) -> Rules | None:
    hint = "a file of tests holds `tests:` and nothing else"
    if root is None or root.value is None:
        file.problems.at(1, 1, "the file is empty", hint)
        return None
    entries = file.mapping(root, "a file of tests", TESTS_KEYS, hint)
    if root.entries is None:
        return None
    if "version" in entries:
        _version(file, root, entries)
    if "tests" not in entries:
        file.problems.error(root, "there are no `tests`", hint)
        return None
    named = {rule.name: rule for rule in rules.rules}
    return replace(
        rules, tests=(*rules.tests, *read_tests(file, entries["tests"][1], named, rules.alerts, path))
    )


def _rules_file(file: File, root: Node | None, text: str, path: str) -> Rules | None:
    hint = "begin with `version: 1` and `rules:`"
    if root is None or root.value is None:
        file.problems.at(1, 1, "the file is empty", hint)
        return None
    entries = file.mapping(root, "the file", KEYS, hint)
    if root.entries is None:
        return None
    _version(file, root, entries)
    nodes = {name: value for name, (_, value) in entries.items()}
    messaging = read_messaging(file, nodes["messaging"]) if "messaging" in nodes else Messaging()
    alerts = (
        read_steps(file, nodes["alerts"], "`alerts`", "alert", (), live=True) if "alerts" in nodes else ()
    )
    if "rules" not in nodes:
        file.problems.error(root, "there are no `rules`", hint)
    rules = _rules(file, nodes["rules"]) if "rules" in nodes else {}
    tests = read_tests(file, nodes["tests"], rules, alerts, path) if "tests" in nodes else ()
    return Rules(
        text=text,
        hash=hashlib.sha256(text.encode()).hexdigest(),
        rules=tuple(rules.values()),
        messaging=messaging,
        alerts=alerts,
        tests=tests,
        path=path,
    )


def _version(file: File, root: Node, entries: Entries) -> None:
    hint = f"write `version: {VERSION}`"
    if "version" not in entries:
        file.problems.error(root, "there is no `version`", hint)
        return
    node = entries["version"][1]
    if not isinstance(node.value, int) or isinstance(node.value, bool):
        file.problems.error(node, f"`version` must be a number, not {kind_of(node.value)}", hint)
    elif node.value != VERSION:
        file.problems.error(node, f"version {node.value} is not known", hint)


def _rules(file: File, node: Node) -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for item in file.list_of(node, "`rules`"):
        file.problems.rule = _name_of(item)
        rule = _rule(file, item)
        if rule is not None and rule.name in rules:
            hint = f"the other is on line {rules[rule.name].line}; names are unique"
            file.problems.error(item.at("name"), f"two rules are called `{rule.name}`", hint)
        elif rule is not None:
            rules[rule.name] = rule
    file.problems.rule = None
    if not file.problems.errors:
        _warn_of_collisions(file, rules)
    return rules


def _name_of(node: Node) -> str | None:
    """The rule's name for the report, before anything is checked."""
    name = node.at("name").value
    return name[:_LONGEST_NAME] if isinstance(name, str) else None


def _rule(file: File, node: Node) -> Rule | None:
    hint = "write `- name: ...`, `when:` and `do:`"
    entries = file.mapping(node, "a rule", RULE_KEYS, hint)
    if node.entries is None:
        return None
    file.needs(node, "a rule", entries, ("name", "when", "do"), hint)
    nodes = {name: value for name, (_, value) in entries.items()}
    name = _name(file, nodes["name"]) if "name" in nodes else None
    enabled = file.boolean(nodes["enabled"], "`enabled`", True) if "enabled" in nodes else True
    shadow = file.boolean(nodes["shadow"], "`shadow`", False) if "shadow" in nodes else False
    events = file.events(nodes["when"], "`when`") if "when" in nodes else ()
    where = read_where(file, nodes["where"], events) if "where" in nodes else None
    condition = file.condition(nodes["if"], "`if`", events, NAMES["rule"]) if "if" in nodes else None
    do = read_steps(file, nodes["do"], "`do`", "rule", events, enabled) if "do" in nodes else ()
    on_failure = (
        read_steps(file, nodes["on_failure"], "`on_failure`", "on_failure", events, enabled)
        if "on_failure" in nodes
        else ()
    )
    description = file.text(nodes["description"], "`description`") if "description" in nodes else None
    if name is None:
        return None
    return Rule(
        name=name,
        line=node.line,
        when=frozenset(events),
        when_text=", ".join(str(item) for item in _flat(nodes["when"].data())) if "when" in nodes else "",
        where=where,
        condition=condition,
        do=do,
        on_failure=on_failure,
        enabled=enabled,
        shadow=shadow,
        description=description or "",
    )


def _flat(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _name(file: File, node: Node) -> str | None:
    name = file.text(node, "`name`")
    if name is None:
        return None
    if len(name) > _LONGEST_NAME or name != name.strip() or not name.isprintable():
        hint = f"a few words on one line, at most {_LONGEST_NAME} characters, such as `text-when-busy`"
        file.problems.error(node, "this cannot be a rule's name", hint)
        return None
    if name == ALERTS:
        file.problems.error(node, f"`{ALERTS}` cannot be a rule's name", "tests call the file's alerts so")
        return None
    return name


def _warn_of_collisions(file: File, rules: Mapping[str, Rule]) -> None:
    """Warn where one event surely brings about one effect twice: only the first of the two is carried out."""
    seen: dict[tuple[str, ...], tuple[str, int]] = {}
    for rule in rules.values():
        if not rule.enabled:
            continue
        mine: dict[tuple[str, ...], tuple[str, int]] = {}
        for step in rule.do:
            if step.action.idempotency.updates:
                continue
            recipient = _source(step.values.get(step.action.recipient or ""))
            apart = _source(step.values.get(step.action.dedupe_by or ""))
            idempotency_key = (step.use, step.connection, recipient, apart, _source(step.idempotency_key))
            always = rule.where is None and rule.condition is None
            events = [(*idempotency_key, event) for event in sorted(rule.when)]
            other = next(
                (found[key] for found in (mine, seen if always else {}) for key in events if key in found),
                None,
            )
            if other:
                file.problems.rule = rule.name
                place = file.place(Node(step.line, 1, step.line, None), "use")
                text = f"the same event already does `{step.use}` in rule `{other[0]}`, line {other[1]}"
                hint = "each action runs once per event: give one of them its own `idempotency_key`"
                file.problems.warning(place, text, hint)
            mine.update(dict.fromkeys(events, (rule.name, step.line)))
            if always:
                seen.update({key: (rule.name, step.line) for key in events if key not in seen})
    file.problems.rule = None


def _source(value: object) -> str:
    """A compiled value as it was written, to tell two of them apart."""
    template = getattr(value, "template", value)
    return str(getattr(template, "source", template))
