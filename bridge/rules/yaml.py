"""YAML as rules.yaml needs it: strict, small, and every key and value knows its place.

Only the part of YAML that people mean is read: mappings, lists and scalars. Aliases, anchors, tags, merge keys,
several documents and duplicate keys are problems, not features. Only `true` and `false` are booleans, only
plain decimal numbers are numbers; `NO`, `+4712345678`, `01234`, `22:22` and dates stay the text they look like.
The file is read as a stream of events, so nothing in it (depth, size, aliases) can cost more than its own length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from bridge.rules.model import Problem

MAX_BYTES = 1 << 20
MAX_DEPTH = 24
MAX_PROBLEMS = 100

Scalar = None | bool | int | float | str

_LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+", re.ASCII)
_TAG = re.compile(r"^tag:yaml\.org,2002:")
_LONGEST_NUMBER = 18


@dataclass(slots=True)
class Node:
    """One key or value with its place, counted from 1."""

    line: int
    column: int
    end_line: int
    value: Scalar | list[Node] | dict[str, tuple[Node, Node]]
    """A mapping holds, per key, the key's node and the value's."""

    @property
    def entries(self) -> Mapping[str, tuple[Node, Node]] | None:
        """What a mapping holds; None when it is none."""
        return self.value if isinstance(self.value, dict) else None

    @property
    def items(self) -> Sequence[Node] | None:
        """What a list holds; None when it is none."""
        return self.value if isinstance(self.value, list) else None

    def at(self, key: str) -> Node:
        """The value under a key; this node itself when there is none."""
        entry = (self.entries or {}).get(key)
        return entry[1] if entry else self

    def data(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {name: node.data() for name, (_, node) in self.value.items()}
        if isinstance(self.value, list):
            return [node.data() for node in self.value]
        return self.value


class TooManyProblems(Exception):
    """The file is so wrong that listing more helps nobody."""


class Problems:
    """What is wrong with a file, gathered while it is read; beyond MAX_PROBLEMS reading stops."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self.rule: str | None = None
        """The rule that is being read."""

    def error(self, place: Node, text: str, hint: str = "", connection: str | None = None) -> None:
        """Note a mistake at a key or value, or that the `connection` that stands there is not set up."""
        self.at(place.line, place.column, text, hint, connection)

    def warning(self, place: Node, text: str, hint: str = "") -> None:
        """Note what is allowed but probably not meant."""
        if len(self.found) < MAX_PROBLEMS:
            self.found.append(Problem(place.line, place.column, text, hint, self.rule, "warning"))

    def at(self, line: int, column: int, text: str, hint: str = "", connection: str | None = None) -> None:
        """Note a mistake at a place; raises TooManyProblems when it is the last that is shown."""
        self.found.append(Problem(line, column, text, hint, self.rule, connection=connection))
        if len(self.found) >= MAX_PROBLEMS:
            self.found.append(Problem(line, column, "too many problems; mend these first"))
            raise TooManyProblems

    @property
    def errors(self) -> int:
        """How many of them are errors."""
        return sum(problem.level == "error" for problem in self.found)


def lines_of(text: str) -> list[str]:
    """The text's lines as YAML counts them."""
    return _LINE_BREAK.split(text)


def decode(raw: bytes, problems: Problems) -> str | None:
    """The bytes of a file as text; None, with a problem noted, when they are no UTF-8."""
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        lines = lines_of(raw[: error.start].decode("utf-8"))
        hint = "save the file as UTF-8 (in a Windows editor: not as `Unicode` and not as `ANSI`)"
        problems.at(len(lines), len(lines[-1]) + 1, f"byte 0x{raw[error.start]:02X} is not UTF-8 text", hint)
        return None


def parse(text: str, problems: Problems) -> Node | None:
    """Read one document; None when there is none or its YAML is broken, with the problems noted."""
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        problems.at(1, 1, "the file is larger than 1 MiB", "rules are at most 1 MiB of text")
        return None
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        lines = lines_of(text[: forbidden.start()])
        name = f"U+{ord(forbidden.group()):04X}"
        hint = "it cannot be seen, and probably came with text copied from elsewhere: delete it"
        problems.at(len(lines), len(lines[-1]) + 1, f"the character {name} is not allowed", hint)
        return None
    try:
        return _Reader(text, problems).document()
    except _Unreadable as error:
        problems.at(error.line, error.column, error.text, error.hint)
    except yaml.MarkedYAMLError as error:
        problems.at(*_explained(error, lines_of(text)))
    except yaml.YAMLError as error:
        problems.at(1, 1, f"this is not YAML: {error}")
    return None


class _Unreadable(Exception):
    """What makes the rest of the file unreadable."""

    def __init__(self, mark: Any, text: str, hint: str) -> None:
        self.line, self.column = mark.line + 1, mark.column + 1
        self.text, self.hint = text, hint


class _Reader:
    def __init__(self, text: str, problems: Problems) -> None:
        self.problems = problems
        self.lines = lines_of(text)
        self.events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)

    def document(self) -> Node | None:
        next(self.events)  # the stream begins
        root = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise _Unreadable(
                        event.start_mark,
                        "a second document begins",
                        "one file holds one document: remove `---`",
                    )
                if event.version or event.tags:
                    raise _Unreadable(
                        event.start_mark, "YAML directives are not allowed", "remove the `%` line"
                    )
                root = self.node(next(self.events), 0)
        return root

    def node(self, event: Any, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            hint = "write the value out; a text that begins with * needs quotes"
            raise _Unreadable(
                event.start_mark, f"the alias `*{_short(event.anchor or '')}` is not allowed", hint
            )
        if event.anchor is not None:
            hint = "write the value out where it is needed; a text that begins with & needs quotes"
            raise _Unreadable(event.start_mark, f"the anchor `&{_short(event.anchor)}` is not allowed", hint)
        if event.tag is not None:
            hint = "remove it; a text that begins with ! needs quotes"
            raise _Unreadable(
                event.start_mark, f"the tag `{_short(_TAG.sub('!!', event.tag))}` is not allowed", hint
            )
        if depth > MAX_DEPTH:
            raise _Unreadable(
                event.start_mark, "nested too deeply", f"at most {MAX_DEPTH} levels can be nested"
            )
        start = event.start_mark
        node = Node(start.line + 1, start.column + 1, event.end_mark.line + 1, None)
        if isinstance(event, yaml.MappingStartEvent):
            node.value = self.mapping(depth)
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

    def mapping(self, depth: int) -> dict[str, tuple[Node, Node]]:
        found: dict[str, tuple[Node, Node]] = {}
        for event in self.until(yaml.MappingEndEvent):
            key = self.key(event)
            value = self.node(next(self.events), depth + 1)
            name = str(key.value)
            if name in found:
                first = found[name][0].line
                self.problems.error(
                    key, f"duplicate key `{_short(name)}`", f"it is already on line {first}; keep one of them"
                )
            else:
                found[name] = (key, value)
        return found

    def key(self, event: Any) -> Node:
        mark: Any = event.start_mark
        if not isinstance(event, yaml.ScalarEvent):
            if isinstance(event, yaml.AliasEvent):
                self.node(event, 0)
            if self.lines[mark.line][: mark.column + 1].endswith("{{"):
                hint = 'put the whole value in quotes: "{{ ... }}"'
                raise _Unreadable(mark, "a value that begins with `{{` needs quotes", hint)
            raise _Unreadable(mark, "a key must be a word", "put the value in quotes if it is meant as text")
        node = Node(mark.line + 1, mark.column + 1, mark.line + 1, event.value)
        if event.anchor is not None or event.tag is not None:
            self.node(event, 0)
        if event.value == "<<" and not event.style:
            raise _Unreadable(mark, "merge keys (`<<`) are not allowed", "write the keys out")
        if not event.value:
            raise _Unreadable(mark, "a key is empty", "write a name before the colon")
        return node

    def scalar(self, event: Any, node: Node) -> Scalar:
        value: str = event.value
        if event.style:
            return value
        if value in ("", "~", "null"):
            return None
        if value in ("true", "false"):
            return value == "true"
        integer = _INTEGER.fullmatch(value)
        if not integer and not _DECIMAL.fullmatch(value):
            return value
        if len(value) > _LONGEST_NUMBER:
            self.problems.error(
                node, f"a number of {len(value)} characters", "put it in quotes: an id is a text"
            )
            return value
        return int(value) if integer else float(value)


_EXPLANATIONS = (
    (
        "mapping values are not allowed",
        "a colon where none can be",
        "a text that holds `: ` needs quotes; or the line above lacks its colon",
    ),
    (
        "could not find expected ':'",
        "a key without a colon",
        "every key is `name: value`; a text over several lines needs quotes or `|`",
    ),
    ("did not find expected '-' indicator", "this line does not fit the list above", "check the indentation"),
    ("did not find expected key", "this line does not fit the lines above", "check indentation and quotes"),
    ("did not find expected ',' or '}'", "a `{` is not closed", "close it, or put a text in quotes"),
    ("did not find expected ',' or ']'", "a `[` is not closed", "close it, or put a text in quotes"),
    ("unexpected end of stream", "a quote is not closed", "add the closing quote"),
    ("found unexpected document indicator", "a quote is not closed", "add the closing quote"),
    (
        "unknown escape character",
        "an unknown escape after `\\`",
        "write \\\\ for a backslash, or use 'single quotes'",
    ),
    ("did not find expected hexdecimal", "an unknown escape after `\\`", "write \\\\ for a backslash"),
    ("did not find expected <document start>", "text after the end of the document", "check the indentation"),
)


def _explained(error: yaml.MarkedYAMLError, lines: Sequence[str]) -> tuple[int, int, str, str]:
    """A parser's error in the words of people who do not know parsers, where the mistake is."""
    mark, said = error.problem_mark or error.context_mark, error.problem or error.context or "broken YAML"
    explanation = next((found for found in _EXPLANATIONS if found[0] in said), None)
    unclosed = explanation is not None and "not closed" in explanation[1]
    if unclosed and error.context_mark is not None:
        mark = error.context_mark
    if mark is None:
        return 1, 1, f"this is not YAML: {said}", ""
    line, column = min(mark.line, len(lines) - 1), mark.column
    rest = lines[line][column:]
    if "cannot start any token" in said:
        if rest.startswith("\t"):
            return line + 1, column + 1, "a tab where only spaces may be", "indent with spaces"
        return line + 1, column + 1, f"a value cannot begin with `{rest[:1]}`", "put it in quotes"
    if "tab character" in said:
        return line + 1, column + 1, "a tab where only spaces may be", "indent with spaces"
    if "node content" in said or "alphabetic or numeric" in said:
        begin = rest[:1] if "node" in said else lines[line][column - 1 : column]
        text = f"a value cannot begin with `{begin}`" if begin.strip() else "the value is missing"
        if begin in ("[", "{"):
            return line + 1, column + 1, f"a `{begin}` is not closed", "close it, or put a text in quotes"
        return line + 1, column + 1, text, "put it in quotes if it is a text"
    if explanation is None:
        return line + 1, column + 1, f"this is not YAML: {said}", ""
    if "expected key" in said and lines[line][:column].strip():
        hint = "put quotes around the whole value"
        return line + 1, column + 1, "more text after the value's end", hint
    return line + 1, column + 1, explanation[1], explanation[2]


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
