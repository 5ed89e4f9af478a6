"""Strict YAML parser for rules.yaml: a small subset in which every key and value knows its line and column.

The parser accepts mappings, lists and scalars. Aliases, anchors, tags, merge keys, multiple documents and duplicate
keys are errors. Only `true` and `false` are booleans, and only plain decimal numbers are numbers. `NO`,
`+4712345678`, `01234`, `22:22` and dates stay strings. The file is read as a stream of parser events, so its
content (depth, size, aliases) cannot cost more than its own length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from bridge.rules.model import Diagnostic
from bridge.rules.yaml_errors import explain

MAX_BYTES = 1 << 20
MAX_DEPTH = 24
MAX_DIAGNOSTICS = 100

Scalar = None | bool | int | float | str

_LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+", re.ASCII)
_TAG = re.compile(r"^tag:yaml\.org,2002:")
_UNINTENDED_COMMENT = re.compile(r"\s+#[^\s#]")
_LONGEST_NUMBER = 18


@dataclass(slots=True)
class Node:
    """A key or value with its line and column, counted from 1."""

    line: int
    column: int
    end_line: int
    value: Scalar | list[Node] | dict[str, tuple[Node, Node]]
    """For a mapping: key -> the key's node and the value's node."""
    path: str = ""
    """The file that contains it."""

    @property
    def entries(self) -> Mapping[str, tuple[Node, Node]] | None:
        """The entries of a mapping. None for any other node."""
        return self.value if isinstance(self.value, dict) else None

    @property
    def items(self) -> Sequence[Node] | None:
        """The items of a list. None for any other node."""
        return self.value if isinstance(self.value, list) else None

    def get(self, key: str) -> Node:
        """Return the value of a key, or this node if it has no such key."""
        entry = (self.entries or {}).get(key)
        return entry[1] if entry else self

    def find_key(self, key: str) -> Node | None:
        """Return the first key with this name in the node or below it."""
        for name, (key_node, value) in (self.entries or {}).items():
            found = key_node if name == key else value.find_key(key)
            if found:
                return found
        return next((found for item in self.items or () if (found := item.find_key(key))), None)

    def data(self) -> Any:
        """Return the plain value, without lines and columns."""
        if isinstance(self.value, dict):
            return {name: node.data() for name, (_, node) in self.value.items()}
        if isinstance(self.value, list):
            return [node.data() for node in self.value]
        return self.value


class TooManyDiagnostics(Exception):
    """The file has so many errors that reporting more would not help."""


class Diagnostics:
    """Collector of the diagnostics of a set of files. Reading stops after MAX_DIAGNOSTICS."""

    def __init__(self) -> None:
        self.entries: list[Diagnostic] = []
        self.rule: str | None = None
        """The rule that is being read."""

    def error(self, node: Node, text: str, hint: str = "", connection: str | None = None) -> None:
        """Add an error at a key or value. `connection` marks an error in that connection's settings."""
        self.error_at(node.path, node.line, node.column, text, hint, connection)

    def warning(self, node: Node, text: str, hint: str = "") -> None:
        """Add a warning: the file is valid there, but probably not what its author intended."""
        entry = Diagnostic(node.line, node.column, text, hint, self.rule, "warning", path=node.path)
        if len(self.entries) < MAX_DIAGNOSTICS and not self._is_known(entry):
            self.entries.append(entry)

    def error_at(
        self, path: str, line: int, column: int, text: str, hint: str = "", connection: str | None = None
    ) -> None:
        """Add an error at a place. Raise TooManyDiagnostics if the limit is reached."""
        entry = Diagnostic(line, column, text, hint, self.rule, connection=connection, path=path)
        if self._is_known(entry):
            return
        self.entries.append(entry)
        if len(self.entries) >= MAX_DIAGNOSTICS:
            self.entries.append(Diagnostic(line, column, "too many problems: fix these first", path=path))
            raise TooManyDiagnostics

    def _is_known(self, entry: Diagnostic) -> bool:
        """Return whether this was reported before: a value of `defaults` is read with every step that has it."""
        place = (entry.path, entry.line, entry.column, entry.text)
        return any((item.path, item.line, item.column, item.text) == place for item in self.entries)

    @property
    def error_count(self) -> int:
        """The number of errors, without warnings."""
        return sum(diagnostic.level == "error" for diagnostic in self.entries)


def lines_of(text: str) -> list[str]:
    """Split the text into lines as YAML counts them."""
    return _LINE_BREAK.split(text)


def decode(raw: bytes | str, diagnostics: Diagnostics, path: str) -> str | None:
    """Return the text of a file without its byte order mark. None, and an error, if its bytes are not UTF-8."""
    if isinstance(raw, str):
        return raw.removeprefix("\ufeff")
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        lines = lines_of(raw[: error.start].decode("utf-8"))
        hint = "save the file as UTF-8 (in a Windows editor: not as `Unicode` and not as `ANSI`)"
        message = f"byte 0x{raw[error.start]:02X} is not valid UTF-8"
        diagnostics.error_at(path, len(lines), len(lines[-1]) + 1, message, hint)
        return None


def parse(text: str, diagnostics: Diagnostics, path: str = "") -> Node | None:
    """Parse the one document of a file. Return None if the file is empty or its YAML is invalid."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        diagnostics.error_at(
            path, 1, 1, "the file is larger than 1 MiB", "a rules file can have at most 1 MiB"
        )
        return None
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        lines = lines_of(text[: forbidden.start()])
        name = f"U+{ord(forbidden.group()):04X}"
        hint = "delete it: it is invisible and was probably copied together with other text"
        diagnostics.error_at(
            path, len(lines), len(lines[-1]) + 1, f"the character {name} is not allowed", hint
        )
        return None
    try:
        return _Reader(text, diagnostics, path).document()
    except _Unreadable as error:
        diagnostics.error_at(path, error.line, error.column, error.text, error.hint)
    except yaml.MarkedYAMLError as error:
        diagnostics.error_at(path, *explain(error, lines_of(text)))
    except yaml.YAMLError as error:
        diagnostics.error_at(path, 1, 1, f"invalid YAML: {error}")
    return None


class _Unreadable(Exception):
    """An error after which the rest of the file cannot be parsed."""

    def __init__(self, mark: Any, text: str, hint: str) -> None:
        self.line, self.column = mark.line + 1, mark.column + 1
        self.text, self.hint = text, hint


class _Reader:
    def __init__(self, text: str, diagnostics: Diagnostics, path: str) -> None:
        self.path = path
        self.diagnostics = diagnostics
        self.lines = lines_of(text)
        self.events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)

    def document(self) -> Node | None:
        next(self.events)  # the start of the stream
        root = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _Unreadable(
                        event.start_mark,
                        "a second document starts here",
                        "a file can have only one document: remove `---`",
                    )
                if event.version or event.tags:
                    raise _Unreadable(
                        event.start_mark, "YAML directives are not allowed", "remove the `%` line"
                    )
                root = self.node(next(self.events), 0)
        return root

    def node(self, event: Any, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            hint = "write out the value; put a string that starts with * in quotes"
            raise _Unreadable(
                event.start_mark, f"the alias `*{_short(event.anchor or '')}` is not allowed", hint
            )
        if event.anchor is not None:
            hint = "what rules share goes under `defaults:` or `tables:`; put a string that starts with & in quotes"
            raise _Unreadable(event.start_mark, f"the anchor `&{_short(event.anchor)}` is not allowed", hint)
        if event.tag is not None:
            tag = _TAG.sub("!!", event.tag)
            means = "remove it" if tag.startswith("!!") else "for `is not`, write `{ne: ...}`"
            hint = f"{means}; put a string that starts with ! in quotes"
            raise _Unreadable(event.start_mark, f"the tag `{_short(tag)}` is not allowed", hint)
        if depth > MAX_DEPTH:
            raise _Unreadable(
                event.start_mark, "nested too deeply", f"use at most {MAX_DEPTH} levels of nesting"
            )
        start = event.start_mark
        node = Node(start.line + 1, start.column + 1, event.end_mark.line + 1, None, self.path)
        if isinstance(event, yaml.MappingStartEvent):
            node.value = self.mapping(depth, is_flow=bool(event.flow_style))
        elif isinstance(event, yaml.SequenceStartEvent):
            node.value = [self.node(item, depth + 1) for item in self.until(yaml.SequenceEndEvent)]
        else:
            node.value = self.scalar(event, node)
        return node

    def until(self, end: type) -> Iterator[Any]:
        for event in self.events:
            if isinstance(event, end):
                return
            yield event

    def mapping(self, depth: int, *, is_flow: bool) -> dict[str, tuple[Node, Node]]:
        entries: dict[str, tuple[Node, Node]] = {}
        start = ""
        for event in self.until(yaml.MappingEndEvent):
            key = self.key(event)
            end, following = event.end_mark, next(self.events)
            if is_flow and self._has_no_colon(end, following):
                is_count = str(key.value).startswith("count(")
                whole = "`count(...)` inside { }" if is_count else "the whole text"
                hint = f"a text with a comma needs quotes: put {whole} in quotes"
                self.diagnostics.error(key, f"`{_short(str(key.value))}` has no value", hint)
                start = f"{key.value}, " if is_count else ""
                continue
            value = self.node(following, depth + 1)
            name, start = f"{start}{key.value}", ""
            if name in entries:
                first = entries[name][0].line
                self.diagnostics.error(
                    key, f"duplicate key `{_short(name)}`", f"it is already on line {first}: keep one of them"
                )
            else:
                entries[name] = (key, value)
        return entries

    def _has_no_colon(self, end: Any, value: Any) -> bool:
        """Return whether a key of `{...}` that ends at `end` is followed by no colon: it is the rest of a text."""
        is_empty = isinstance(value, yaml.ScalarEvent) and not value.value and not value.style
        return is_empty and not self.lines[end.line][end.column :].lstrip().startswith(":")

    def key(self, event: Any) -> Node:
        mark: Any = event.start_mark
        if not isinstance(event, yaml.ScalarEvent):
            if isinstance(event, yaml.AliasEvent):
                self.node(event, 0)
            if self.lines[mark.line][: mark.column + 1].endswith("{{"):
                hint = 'put the whole value in quotes: "{{ ... }}"'
                raise _Unreadable(mark, "a value that starts with `{{` needs quotes", hint)
            raise _Unreadable(
                mark, "a key must be a plain word", "if this is a string value, put it in quotes"
            )
        node = Node(mark.line + 1, mark.column + 1, mark.line + 1, event.value, self.path)
        if event.anchor is not None or event.tag is not None:
            self.node(event, 0)
        if event.value == "<<" and not event.style:
            raise _Unreadable(mark, "merge keys (`<<`) are not allowed", "write out the keys")
        if not event.value:
            raise _Unreadable(mark, "empty key", "write a name before the colon")
        return node

    def scalar(self, event: Any, node: Node) -> Scalar:
        value: str = event.value
        if event.style:
            return value
        end = event.end_mark
        rest = self.lines[end.line][end.column :] if end.line < len(self.lines) else ""
        if _UNINTENDED_COMMENT.match(rest) and (not value or " " in value):
            self.diagnostics.warning(
                node,
                f"the value ends here, because ` {rest.strip()[:20]}` is a comment",
                "put the whole value in quotes; if it is a comment, write a space after `#`",
            )
        if value in ("", "~", "null"):
            return None
        if value in ("true", "false"):
            return value == "true"
        integer = _INTEGER.fullmatch(value)
        if not integer and not _DECIMAL.fullmatch(value):
            return value
        if len(value) > _LONGEST_NUMBER:
            self.diagnostics.error(
                node, f"a number with {len(value)} characters is too long", "if it is an ID, put it in quotes"
            )
            return value
        return int(value) if integer else float(value)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
