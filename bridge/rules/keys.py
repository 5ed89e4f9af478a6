"""Key definitions of rules.yaml: one `Key` per key, from which its parser, its JSON Schema and its documentation come.

Every section of the file (a rule, a step, ...) is a `Section`, defined next to the functions that read its values. To
add a key, add it to its section and give the section's class in `bridge.rules.model` an attribute for its value.
`bridge.rules.schema` turns the sections into schemas for editors, `make docs` into the tables of
docs/rules-reference.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.rules.parse_context import ParseContext
from bridge.rules.yaml import Node

Schema = dict[str, Any]
Reader = Callable[[ParseContext, Node, str], Any]
"""Function of (context, the value's node, label for errors). It reports an invalid value and returns None."""
Entries = dict[str, tuple[Node, Node]]


@dataclass(frozen=True)
class ValueType:
    """A type of value: the function that reads it, and its JSON Schema, which is never stricter."""

    read: Reader
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Key:
    """A key of a section."""

    name: str
    type: ValueType
    meaning: str
    """Markdown for docs/rules-reference.md. Editors show it too."""
    example: str = ""
    """A value as it is written in the file."""
    default: str = ""
    """The default as it would be written in the file, if it is worth showing."""
    required: bool = False
    attribute: str = ""
    """The name of the value in `bridge.rules.model`, if it is not the key's."""


@dataclass(frozen=True)
class Section:
    """A mapping of the file with a fixed set of keys."""

    label: str
    """The section's name in errors: `a step`."""
    hint: str
    keys: tuple[Key, ...]

    def open(
        self,
        context: ParseContext,
        node: Node,
        *,
        require: bool = True,
        hints: Mapping[str, str] | None = None,
    ) -> Entries | None:
        """Return the entries of a mapping. Report unknown keys and, with `require`, missing ones.

        None if the node is not a mapping, which is also reported.
        """
        names = [key.name for key in self.keys]
        entries = dict(context.mapping(node, self.label, names, self.hint, hints))
        if node.entries is None:
            return None
        missing = [f"`{key.name}`" for key in self.keys if key.required and key.name not in entries]
        if missing and require:
            context.error(node, f"{self.label} needs {' and '.join(missing)}", self.hint)
        return entries

    def take(self, context: ParseContext, entries: Entries, name: str) -> Any:
        """Remove an entry that decides how others are read, and return its value. None: missing or invalid."""
        entry = {name: entries.pop(name)} if name in entries else {}
        return next(iter(self.read(context, entry).values()), None)

    def read(self, context: ParseContext, entries: Entries) -> dict[str, Any]:
        """Return the value of each entry by attribute. A missing or invalid one is left out, so its default applies."""
        values = {
            key.attribute or key.name: key.type.read(context, entries[key.name][1], f"`{key.name}`")
            for key in self.keys
            if key.name in entries
        }
        return {name: value for name, value in values.items() if value is not None}


STRING = ValueType(ParseContext.string, {"type": "string"})
BOOLEAN = ValueType(ParseContext.boolean, {"type": "boolean"})
POSITIVE_INT = ValueType(ParseContext.positive_int, {"type": "integer", "minimum": 1})
DURATION = ValueType(
    ParseContext.duration,
    {"type": "string", "pattern": r"^(\d{1,6}[smhdw])+$", "examples": ["90s", "5m", "16h", "7d"]},
)
TIMESTAMP = ValueType(ParseContext.timestamp, {"type": "string", "examples": ["2026-03-02T21:30:00-05:00"]})
EVENT_TYPES = ValueType(ParseContext.expand_event_types, {"$ref": "#/$defs/events"})
CONDITION = ValueType(ParseContext.condition, {"type": ["string", "boolean"]})


def list_of(name: str, read: Reader) -> ValueType:
    """Return the type of a list whose items have the schema `#/$defs/name`. `read` reads the whole list."""
    return ValueType(read, {"type": "array", "items": {"$ref": f"#/$defs/{name}"}, "minItems": 1})
