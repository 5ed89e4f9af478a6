"""Reading the parts that sections of rules.yaml are made of: every helper notes what is wrong, and goes on."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bridge.connector.discovery import Registry
from bridge.events import EVENT_NAMES
from bridge.rules.fields import Complaint, check_path, check_value, did_you_mean, kind_of, nearest, truth_hint
from bridge.rules.template_compiler import TemplateError
from bridge.rules.templates import Template, condition, template
from bridge.rules.yaml import Node, Problems
from bridge.settings import parse_duration

LONGEST_DURATION = timedelta(days=366)
PATTERNS: Mapping[str, tuple[str, ...]] = {
    kind: tuple(name for name in EVENT_NAMES if name.startswith(kind[:-1])) for kind in ("call.*", "chat.*")
}

_MEANT = {
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
}
"""What other systems call our keys."""

Entries = Mapping[str, tuple[Node, Node]]


def meant_key(name: str, known: Collection[str]) -> str | None:
    """The key that an unknown one was probably meant to be: a misspelt one, or what other systems call it."""
    meant = {word: key for word, key in _MEANT.items() if key in known}
    if name in meant:
        return meant[name]
    found = nearest(name, known)
    if found is None:
        other = nearest(name, meant)
        found = meant[other] if other else None
    return found


@dataclass
class File:
    """The file that is being read: its lines, what is wrong so far, and what it can be checked against."""

    lines: Sequence[str]
    problems: Problems
    registry: Registry
    environ: Mapping[str, str] | None
    connections: dict[str, str] = field(default_factory=dict)
    """Every connection that was met so far, and its connector."""
    checked_connections: set[str] = field(default_factory=set)

    def mapping(self, node: Node, what: str, known: Iterable[str] | None = None, hint: str = "") -> Entries:
        """The entries of a mapping. Unknown keys are noted, and read as what they were probably meant to be."""
        if node.entries is None:
            self.problems.error(node, f"{what} must be a mapping, not {_shape_of(node.value)}", hint)
            return {}
        if known is None:
            return node.entries
        names = tuple(known)
        found = {name: entry for name, entry in node.entries.items() if name in names}
        for name, (key, value) in node.entries.items():
            if name in names:
                continue
            meant = meant_key(name, names)
            hint = f"did you mean `{meant}`?" if meant else did_you_mean(name, names)
            self.problems.error(key, f"unknown key `{name[:60]}`", hint)
            if meant and meant not in found:
                found[meant] = (key, value)
        return found

    def needs(self, node: Node, what: str, entries: Entries, keys: Iterable[str], hint: str) -> None:
        """Note which keys a mapping lacks."""
        missing = [f"`{key}`" for key in keys if key not in entries]
        if missing:
            self.problems.error(node, f"{what} needs {' and '.join(missing)}", hint)

    def list_of(self, node: Node, what: str, *, single: bool = False) -> Sequence[Node]:
        """The items of a list; with `single`, one item may stand without a list around it."""
        if node.items is not None:
            if not node.items:
                self.problems.error(node, f"{what} is empty")
            return node.items
        if single and node.value is not None:
            return [node]
        hint = "begin each entry with `- `"
        self.problems.error(node, f"{what} must be a list, not {_shape_of(node.value)}", hint)
        return []

    def text(self, node: Node, what: str) -> str | None:
        """A text that is not empty."""
        if isinstance(node.value, str) and node.value.strip():
            return node.value
        found = "empty" if node.value in (None, "") or isinstance(node.value, str) else kind_of(node.value)
        hint = "put it in quotes" if isinstance(node.value, bool | int | float) else ""
        self.problems.error(node, f"{what} must be a text, not {found}", hint)
        return None

    def boolean(self, node: Node, what: str, default: bool) -> bool:
        """`true` or `false`."""
        if isinstance(node.value, bool):
            return node.value
        text = f"{what} must be true or false, not {kind_of(node.value)}"
        self.problems.error(node, text, truth_hint(node.value))
        return default

    def count(self, node: Node, what: str) -> int | None:
        """A whole number from 1."""
        if isinstance(node.value, int) and not isinstance(node.value, bool) and 1 <= node.value <= 10_000:
            return node.value
        self.problems.error(node, f"{what} must be a whole number from 1, not {_quoted(node.value)}")
        return None

    def duration(self, node: Node, what: str) -> timedelta | None:
        """A length of time such as `5m`."""
        hint = "write a number and a unit: 90s, 5m, 16h, 7d, or 1h30m"
        if isinstance(node.value, str):
            try:
                length = parse_duration(node.value)
            except ValueError:
                length = None
            if length is not None and length <= LONGEST_DURATION:
                return length
            hint = "a year at most" if length is not None else hint
        self.problems.error(node, f"{what} must be a duration, not {_quoted(node.value)}", hint)
        return None

    def instant(self, node: Node, what: str) -> datetime | None:
        """An instant with its offset, such as `2026-03-02T21:30:00-05:00`."""
        try:
            found = datetime.fromisoformat(node.value) if isinstance(node.value, str) else None
        except ValueError:
            found = None
        if found is not None and found.tzinfo is not None:
            return found
        hint = 'write it with its offset: "2026-03-02T21:30:00-05:00"'
        self.problems.error(node, f"{what} must be an instant, not {_quoted(node.value)}", hint)
        return None

    def events(self, node: Node, what: str) -> tuple[str, ...]:
        """Event names: one, a list, or a pattern such as `call.*`, spread out."""
        found: dict[str, None] = {}
        for item in self.list_of(node, what, single=True):
            name = self.text(item, what)
            if name is None:
                continue
            spread = _spread(name)
            if not spread:
                several = _several_events(name)
                hint = f"several are a list: `[{', '.join(several)}]`" if several else ""
                hint = hint or did_you_mean(name, (*EVENT_NAMES, *PATTERNS))
                self.problems.error(item, f"no event `{name[:60]}`", hint)
                spread = tuple(event for one in several for event in _spread(one))
            elif all(event in found for event in spread):
                self.problems.warning(item, f"`{name}` is already in the list")
            found.update(dict.fromkeys(spread))
        return tuple(found)

    def condition(
        self, node: Node, what: str, events: Collection[str], names: Collection[str]
    ) -> Template | None:
        """A condition in the language of `if`."""
        if isinstance(node.value, bool):
            node.value = str(node.value).lower()
        source = self.text(node, what)
        if source is None:
            return None
        try:
            compiled = condition(source)
        except TemplateError as error:
            self._mistakes(node, what, error, events, names)
            return None
        self._names(node, compiled, events, names)
        return compiled

    def template(
        self, node: Node, source: str, events: Collection[str], names: Collection[str], html: bool = False
    ) -> Template | None:
        """A text with `{{ }}` in it."""
        try:
            compiled = template(source, html)
        except TemplateError as error:
            self._mistakes(node, "template", error, events, names)
            return None
        self._names(node, compiled, events, names)
        return compiled

    def path(self, node: Node, dotted: str, events: Collection[str], names: Collection[str]) -> bool:
        """Whether a dotted name of `where` can be; what is odd about it is noted."""
        return self.complain(node, check_path(tuple(dotted.split(".")), events, names))

    def complain(self, node: Node, complaint: Complaint | None) -> bool:
        """Note what is wrong with a name or value, if anything; whether it can be used all the same."""
        if complaint is None:
            return True
        level, text, hint = complaint
        note = self.problems.error if level == "error" else self.problems.warning
        note(node, text, hint)
        return level != "error"

    def _mistakes(
        self, node: Node, what: str, error: TemplateError, events: Collection[str], names: Collection[str]
    ) -> None:
        for mistake in error.mistakes:
            self.problems.error(self.place(node, mistake.about), f"{what}: {mistake.text}", mistake.hint)
        for path in sorted(error.paths):
            self.complain(self.place(node, ".".join(path)), check_path(path, events, names))

    def _names(self, node: Node, compiled: Template, events: Collection[str], names: Collection[str]) -> None:
        odd = {path: check_path(path, events, names) for path in compiled.paths}
        for path in sorted(path for path in odd if odd[path]):
            self.complain(self.place(node, ".".join(path)), odd[path])
        for path, value in sorted(compiled.compared, key=str):
            complaint = check_value(path, value, events)
            if complaint and not odd.get(path):
                self.complain(self.place(node, ".".join(path)), complaint)

    def place(self, node: Node, word: str) -> Node:
        """Where `word` stands in the text of a value; the value itself where it cannot be found."""
        if word:
            pattern = re.compile(rf"(?<![\w.]){re.escape(word)}" if word[0].isalnum() else re.escape(word))
            for number in range(node.line, min(node.end_line, len(self.lines)) + 1):
                start = node.column - 1 if number == node.line else 0
                found = pattern.search(self.lines[number - 1], start)
                if found:
                    return Node(number, found.start() + 1, number, None)
        return node


def _spread(name: str) -> tuple[str, ...]:
    return PATTERNS.get(name) or ((name,) if name in EVENT_NAMES else ())


def _several_events(text: str) -> list[str]:
    """The events that stand in one text, such as `call.busy, call.failed`; none when it is not so."""
    words = [word for word in re.split(r"[\s,;|/&+]+", text[:200]) if word not in ("", "and", "or")]
    events = [nearest(word, (*EVENT_NAMES, *PATTERNS), cutoff=0.8) for word in words]
    return [event for event in events if event] if len(events) > 1 and all(events) else []


def _shape_of(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else kind_of(value)


def _quoted(value: Any) -> str:
    if isinstance(value, bool) or value in (None, "") or isinstance(value, list | dict):
        return kind_of(value) if value != "" else "empty"
    return f"`{str(value)[:40]}`"
