"""Parse context: readers for the values that all sections of rules.yaml consist of. Errors are collected."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from bridge.connector.discovery import SEALING_KEY_NEEDED, Registry, read_settings
from bridge.connector.params import MarkupLanguage
from bridge.errors import BridgeError, ConfigError
from bridge.events import EVENT_TYPES
from bridge.json_values import describe_type
from bridge.rules import retired
from bridge.rules.durations import duration_hint
from bridge.rules.fields import (
    PATTERNS,
    boolean_hint,
    check_path,
    check_truth_test,
    check_value,
    expand_event_pattern,
)
from bridge.rules.model import Diagnostic, Rule, Step, Trigger
from bridge.rules.presence import Paths, check_presence
from bridge.rules.template_compiler import TemplateError
from bridge.rules.templates import Template, condition, template
from bridge.rules.yaml import Diagnostics, Node
from bridge.rules.yaml_errors import RULE_KEYS
from bridge.setting_types import parse_duration
from bridge.spelling import did_you_mean, nearest

MAX_DURATION = timedelta(days=366)

ALIASES = {
    "event": "when",
    "events": "when",
    "on": "when",
    "trigger": "when",
    "filter": "where",
    "conditions": "where",
    "condition": "if",
    "then": "do",
    "steps": "do",
    "actions": "do",
    "action": "use",
    "params": "with",
    "wait": "delay",
    "timeout": "expires",
    "title": "subject",
    "recipient": "to",
    "due_date": "due",
    "assignee": "owner",
}
"""Name of a key in other systems -> our key."""

_TEXT_PARAMS = ("text", "body", "message", "content")
"""Names of the param that contains a text; each action has one of them."""

_UNDOCUMENTED = re.compile(r"[a-z][a-z0-9_-]{0,30}(\.[a-z0-9_-]{1,30}){1,3}", re.ASCII)
"""Form of an event type that Heppu may send although its documentation does not list it."""

CONTEXT_NAMES: Mapping[Trigger, tuple[str, ...]] = {
    "rule": ("event", "contact", "now"),
    "on_success": ("event", "contact", "now", "delivery"),
    "on_failure": ("event", "contact", "now", "delivery"),
    "alert": ("event", "contact", "now", "delivery"),
}
"""Trigger -> the names that templates can use there."""


STEP_KEYS = (
    "use", "connection", "with", "delay", "expires", "cancel_on", "once", "retry", "idempotency_key"
)  # fmt: skip


def _misplaced_hint(name: str, known: Collection[str]) -> str:
    """Return where a key belongs that stands in a section with the keys `known`. Empty if it is not misplaced."""
    if "do" in known and name.startswith(("event.", "contact.", "count(")):
        return f"a condition belongs under `where:`: indent it below `where`, or write `where: {{{name[:60]}: ...}}`"
    if "do" in known and name in ("else", "otherwise", "elif", "elseif"):
        return f"there is no `{name}`: write a second rule with the opposite conditions, under `not:`"
    if "do" in known and name in STEP_KEYS:
        return f"`{name}` belongs to a step: write it under `do:`, exactly below the step's `use`"
    if "rules" in known and name in (*RULE_KEYS, *STEP_KEYS) and name not in known:
        return f"`{name}` belongs to a rule: write it under `rules:`, exactly below the rule's `name`"
    if "use" in known and name in RULE_KEYS and name not in known:
        return f"`{name}` belongs to the rule: start it exactly below the rule's `name`"
    if "with" in known and name not in STEP_KEYS and suggest_key(name, known) is None:
        return f"indent it below `with:` if it is a param of the action; {did_you_mean(name, known)}"
    return ""


def suggest_key(name: str, known: Collection[str]) -> str | None:
    """Return the known key that an unknown one probably stands for: a similar one, or an alias's."""
    if name in _TEXT_PARAMS:
        return next((param for param in _TEXT_PARAMS if param in known), None)
    aliases = {alias: key for alias, key in ALIASES.items() if key in known}
    if name in aliases:
        return aliases[name]
    suggestion = nearest(name, known)
    if suggestion is None:
        alias = nearest(name, aliases)
        suggestion = aliases[alias] if alias else None
    return suggestion


@dataclass(frozen=True)
class ParseContext:
    """The place in a file that is being read: what it is checked with, and where its diagnostics go."""

    lines: Mapping[str, Sequence[str]]
    """The lines of each file, by its path."""
    diagnostics: Diagnostics
    registry: Registry
    environ: Mapping[str, str] | None
    connections: dict[str, str] = field(default_factory=dict)
    """Every connection in the file so far -> its connector."""
    checked_connections: set[str] = field(default_factory=set)
    event_types: Collection[str] = ()
    """The event types whose fields can be used here. Empty: those of every event type."""
    trigger: Trigger = "rule"
    names: tuple[str, ...] = CONTEXT_NAMES["rule"]
    """The names that templates and conditions can use here."""
    needs_settings: bool = True
    """True if the connections used here must be set up."""
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`tables` of the file: name -> key -> value."""
    defaults: Mapping[str, Node] = field(default_factory=dict)
    """Action -> the keys that its steps have unless they set them."""
    present: Paths = frozenset()
    """The fields that have a value whenever the templates here are rendered; with `("details",)`, no field of the
    details needs one."""
    earlier: tuple[Step, ...] = ()
    """The steps before this one whose results it can use."""
    do: tuple[Step, ...] = ()
    """The steps of the rule that its follow-ups are about."""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """The rules that tests can name."""
    alerts: tuple[Step, ...] = ()

    def within(self, **changes: Any) -> ParseContext:
        """Return the context of an inner section. Both share their diagnostics and connections."""
        return replace(self, **changes)

    def error(self, node: Node, text: str, hint: str = "", connection: str | None = None) -> None:
        """Add an error at a key or value."""
        self.diagnostics.error(node, text, hint, connection)

    def warning(self, node: Node, text: str, hint: str = "") -> None:
        """Add a warning at a key or value."""
        self.diagnostics.warning(node, text, hint)

    def report(self, node: Node, diagnostic: Diagnostic | None) -> bool:
        """Add a diagnostic, if any, at the place of `node`. Return whether the value is usable anyway."""
        if diagnostic is None:
            return True
        add = self.warning if diagnostic.level == "warning" else self.error
        add(node, diagnostic.text, diagnostic.hint)
        return diagnostic.level == "warning"

    def check_settings(self, node: Node, connector: str, connection: str) -> None:
        """Add an error for missing or invalid variables of a connection, once per connection."""
        if self.environ is None or connection in self.checked_connections:
            return
        self.checked_connections.add(connection)
        try:
            found = self.registry.connector(connector)
            read_settings(found, connection, self.environ)
            if found.first_refresh_token is not None and not self.environ.get("BRIDGE_SECRET_KEY"):
                raise ConfigError(SEALING_KEY_NEEDED)
        except BridgeError as error:
            hint = f"set it in the environment or in .env; see `bridge connectors show {connector}`"
            self.error(node, f"connection `{connection}`: {error}", hint, connection)

    def mapping(
        self,
        node: Node,
        label: str,
        known: Iterable[str] | None = None,
        hint: str = "",
        hints: Mapping[str, str] | None = None,
    ) -> Mapping[str, tuple[Node, Node]]:
        """Return the entries of a mapping. An unknown key is an error; it is then read as the key it resembles.

        `hints` says of unknown keys what to do about them.
        """
        if node.value is None:
            below = f"write its entries on the lines below, indented deeper than {label}"
            self.error(node, f"{label} is empty", f"{below}; {hint}" if hint else below)
            return {}
        if node.entries is None:
            self.error(node, f"{label} must be a mapping, not {_describe_shape(node.value)}", hint)
            return {}
        if known is None:
            return node.entries
        names = tuple(known)
        entries = {name: entry for name, entry in node.entries.items() if name in names}
        for name, (key, value) in node.entries.items():
            if name in names:
                continue
            suggestion = retired.KEYS.get(name)
            if suggestion and suggestion in names:
                self.error(key, retired.renamed(name, suggestion))
            else:
                suggestion = suggest_key(name, names)
                hint = (hints or {}).get(name) or _misplaced_hint(name, names)
                suggestion = None if hint else suggestion
                hint = hint or (f"did you mean `{suggestion}`?" if suggestion else did_you_mean(name, names))
                self.error(key, f"unknown key `{name[:60]}`", hint)
            if suggestion and suggestion not in entries:
                entries[suggestion] = (key, value)
        return entries

    def list_items(self, node: Node, label: str, *, allow_single: bool = False) -> Sequence[Node]:
        """Return the items of a list. With `allow_single`, a plain value counts as a list of one item."""
        if node.items is not None:
            if not node.items:
                self.error(node, f"{label} is empty")
            return node.items
        if allow_single and node.value is not None:
            return [node]
        hint = "start each entry with `- `"
        self.error(node, f"{label} must be a list, not {_describe_shape(node.value)}", hint)
        return []

    def string(self, node: Node, label: str) -> str | None:
        """Return a string that is not empty."""
        if isinstance(node.value, str) and node.value.strip():
            return node.value
        if node.value is None or isinstance(node.value, str):
            self.error(node, f"{label} must not be empty")
            return None
        hint = "put it in quotes" if isinstance(node.value, bool | int | float) else ""
        self.error(node, f"{label} must be a string, not {_describe_shape(node.value)}", hint)
        return None

    def boolean(self, node: Node, label: str) -> bool | None:
        """Return `true` or `false`."""
        if isinstance(node.value, bool):
            return node.value
        text = f"{label} must be true or false, not {_describe_shape(node.value)}"
        self.error(node, text, boolean_hint(node.value))
        return None

    def positive_int(self, node: Node, label: str) -> int | None:
        """Return a whole number from 1 to 10,000."""
        if isinstance(node.value, int) and not isinstance(node.value, bool) and 1 <= node.value <= 10_000:
            return node.value
        self.error(node, f"{label} must be a whole number from 1 to 10000, not {quote_value(node.value)}")
        return None

    def duration(self, node: Node, label: str) -> timedelta | None:
        """Return a duration such as `5m`."""
        if isinstance(node.value, str):
            try:
                length = parse_duration(node.value)
            except ValueError:
                length = None
            if length is not None and length <= MAX_DURATION:
                return length
            if length is not None:
                limit = f"{MAX_DURATION.days}d"
                self.error(node, f"{label} is too long: {quote_value(node.value)}", f"write at most {limit}")
                return None
        hint = duration_hint(node.data())
        self.error(node, f"{label} must be a duration, not {quote_value(node.value)}", hint)
        return None

    def timestamp(self, node: Node, label: str) -> datetime | None:
        """Return a timestamp with a UTC offset, such as `2026-03-02T21:30:00-05:00`."""
        try:
            timestamp = datetime.fromisoformat(node.value) if isinstance(node.value, str) else None
        except ValueError:
            timestamp = None
        if timestamp is not None and timestamp.tzinfo is not None:
            return timestamp
        hint = 'write it with its UTC offset: "2026-03-02T21:30:00-05:00"'
        self.error(node, f"{label} must be a timestamp, not {quote_value(node.value)}", hint)
        return None

    def expand_event_types(self, node: Node, label: str) -> tuple[str, ...]:
        """Return event types from one name, a list, or a pattern such as `call.*`, which is expanded."""
        types: dict[str, None] = {}
        for item in self.list_items(node, label, allow_single=True):
            name = self.string(item, label)
            if name is None:
                continue
            expanded = expand_event_pattern(name)
            if not expanded and _UNDOCUMENTED.fullmatch(name) and not nearest(name, EVENT_TYPES, cutoff=0.8):
                hint = f"the event types are {', '.join(EVENT_TYPES)}"
                self.warning(item, f"Heppu does not document the event `{name}`", hint)
                expanded = (name,)
            if not expanded:
                several = _split_event_types(name)
                hint = f"write several as a list: `[{', '.join(several)}]`" if several else ""
                short = next((known for known in EVENT_TYPES if known.endswith(f".{name}")), None)
                hint = hint or (
                    f"did you mean `{short}`?" if short else did_you_mean(name, (*EVENT_TYPES, *PATTERNS))
                )
                self.error(item, f"no event type `{name[:60]}`", hint)
                expanded = tuple(event_type for one in several for event_type in expand_event_pattern(one))
            elif all(event_type in types for event_type in expanded):
                self.warning(item, f"`{name}` is already in the list")
            types.update(dict.fromkeys(expanded))
        return tuple(types)

    def condition(self, node: Node, label: str) -> Template | None:
        """Return a compiled condition in the language of `if`."""
        if isinstance(node.value, bool):
            node.value = str(node.value).lower()
        source = self.string(node, label)
        return self._compile(node, label, condition, source) if source is not None else None

    def template(
        self, node: Node, source: str, *, markup: MarkupLanguage | None = None, names: Collection[str] = ()
    ) -> Template | None:
        """Return a compiled string with `{{ }}` in it. `names` limits the names that it can use here."""
        return self._compile(node, "template", lambda text: template(text, markup), source, names)

    def check_field(self, node: Node, dotted: str, roots: Collection[str]) -> bool:
        """Check a dotted name of `where`. Return whether it is usable."""
        return self.report(node, check_path(tuple(dotted.split(".")), self.event_types, roots))

    def _compile(
        self,
        node: Node,
        label: str,
        build: Callable[[str], Template],
        source: str,
        names: Collection[str] = (),
    ) -> Template | None:
        roots = names or self.names
        try:
            compiled = build(source)
        except TemplateError as error:
            for token, diagnostic in error.diagnostics:
                self.error(self.locate(node, token), f"{label}: {diagnostic.text}", diagnostic.hint)
            self._check_paths(node, error.paths, roots)
            return None
        invalid = self._check_paths(node, compiled.paths, roots)
        for path, value in sorted(compiled.comparisons, key=str):
            if path not in invalid:
                self.report(self.locate(node, ".".join(path)), check_value(path, value, self.event_types))
        for path in sorted(compiled.truth_tests - invalid):
            self.report(self.locate(node, ".".join(path)), check_truth_test(path, self.event_types))
        if compiled.counts and self.trigger != "rule":
            self.error(
                self.locate(node, "count"), "`count` is available only in rules", "count in `where` or `if`"
            )
        for table in sorted(compiled.tables - set(self.tables)):
            hint = did_you_mean(table, sorted(self.tables)) or "define it under `tables:`"
            self.error(self.locate(node, table), f"no table `{table[:60]}`", hint)
        if label == "template":
            for path in sorted(compiled.required - compiled.truth_tests - self.present - invalid):
                if path[:1] in self.present:
                    continue
                self.report(self.locate(node, ".".join(path)), check_presence(path))
        return compiled

    def _check_paths(
        self, node: Node, paths: Iterable[tuple[str, ...]], roots: Collection[str]
    ) -> set[tuple[str, ...]]:
        """Report the dotted names that do not fit. Return them."""
        reported = set()
        for path in sorted(paths):
            diagnostic = check_path(path, self.event_types, roots)
            if diagnostic is not None:
                self.report(self.locate(node, ".".join(path)), diagnostic)
                reported.add(path)
        return reported

    def locate(self, node: Node, token: str) -> Node:
        """Return the place of `token` within a value, or the value itself if the token is not found."""
        if token:
            pattern = re.compile(rf"(?<![\w.]){re.escape(token)}" if token[0].isalnum() else re.escape(token))
            lines = self.lines.get(node.path, ())
            for number in range(node.line, min(node.end_line, len(lines)) + 1):
                start = node.column - 1 if number == node.line else 0
                match = pattern.search(lines[number - 1], start)
                if match:
                    return Node(number, match.start() + 1, number, None, node.path)
        return node

    def line_of(self, other: Node | Rule | Step, node: Node) -> str:
        """Return the words for the line of something else in the same set of files as `node`: `line 3`."""
        return f"line {other.line}" + (f" of {other.path}" if other.path != node.path else "")


def _split_event_types(text: str) -> list[str]:
    """Return the event types in a single string such as `call.busy, call.failed`. Empty if it is something else."""
    words = [word for word in re.split(r"[\s,;|/&+]+", text[:200]) if word not in ("", "and", "or")]
    event_types = [nearest(word, (*EVENT_TYPES, *PATTERNS), cutoff=0.8) for word in words]
    return [one for one in event_types if one] if len(event_types) > 1 and all(event_types) else []


def _describe_shape(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else describe_type(value)


def quote_value(value: Any) -> str:
    """Return a value of the file for a message, or its type if it is not a plain value."""
    if isinstance(value, bool) or value in (None, "") or isinstance(value, list | dict):
        return _describe_shape(value) if value != "" else "empty"
    return f"`{str(value)[:40]}`"
