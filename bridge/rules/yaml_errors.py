"""Words for invalid YAML: translates the errors of the parser for readers who have never heard of one.

The parser reports the place where it could not go on. What has to be corrected is often the line above, or the number
of spaces before the line. So each explanation looks at the lines around that place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import yaml

FILE_KEYS: Final = ("version", "rules", "messaging", "tables", "defaults", "alerts", "tests")
"""Keys that stand at the very left."""
RULE_KEYS: Final = (
    "name", "description", "when", "where", "if", "do", "on_success", "on_failure", "enabled", "shadow",
)  # fmt: skip
"""Keys of a rule, which align with its `name`."""

_KEY = re.compile(r"""( *)((?:- +)*)(["']?)([A-Za-z_][\w.*(), -]*?)\3 *:(?= |$)""")
_CLOSE_OR_QUOTE = "close it, or put the string in quotes"
_OPERATORS: Final = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte", "=": "eq", "==": "eq", "!=": "ne"}
_COMPARISON = re.compile(r"(>=|<=|==|!=|>|<|=)\s*(-?\d.*)")
_EXPLANATIONS = (
    ("did not find expected ',' or '}'", "unclosed `{`", _CLOSE_OR_QUOTE),
    ("did not find expected ',' or ']'", "unclosed `[`", _CLOSE_OR_QUOTE),
    ("unexpected end of stream", "unclosed quote", "add the closing quote"),
    ("found unexpected document indicator", "unclosed quote", "add the closing quote"),
    (
        "unknown escape character",
        "unknown escape sequence after `\\`",
        "write \\\\ for a backslash, or use 'single quotes'",
    ),
    ("did not find expected hexdecimal", "unknown escape sequence after `\\`", "write \\\\ for a backslash"),
    ("did not find expected <document start>", "text after the end of the document", "check the indentation"),
)
"""(part of the parser's message, our message, hint)"""


class YamlProblem(NamedTuple):
    """What is wrong, where (counted from 1), and what to do."""

    line: int
    column: int
    text: str
    hint: str


class _Level(NamedTuple):
    """A key of a line above, with which a line can be aligned."""

    line: int
    dash: int | None
    """Column of the `-` before the key, from 0."""
    column: int
    """Column of the key, from 0."""
    name: str


def comparison_hint(text: str) -> str:
    """Return how to write a comparison such as `> 30`. Empty if the text is none."""
    match = _COMPARISON.fullmatch(text.strip()[:100])
    return f"write `{{{_OPERATORS[match[1]]}: {match[2].strip()[:20]}}}`" if match else ""


def explain(error: yaml.MarkedYAMLError, lines: Sequence[str]) -> YamlProblem:
    """Return the problem behind an error of the YAML parser in a file with these lines."""
    message = error.problem or error.context or "unknown error"
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return YamlProblem(1, 1, f"invalid YAML: {message}", "")
    line, column = min(mark.line, len(lines) - 1), mark.column
    found = (
        _explain_character(message, lines, line, column)
        or _explain_quotes(message, lines, line, column)
        or _explain_colon(error, message, lines, line, column)
        or _explain_indentation(message, lines, line)
    )
    if found:
        return found
    for part, text, hint in _EXPLANATIONS:
        if part in message:
            if text.startswith("unclosed") and error.context_mark is not None:
                line, column = error.context_mark.line, error.context_mark.column
                hint = _comment_hint(lines[line], column) or hint
            return YamlProblem(line + 1, column + 1, text, hint)
    return YamlProblem(line + 1, column + 1, f"invalid YAML: {message}", "")


def _comment_hint(line: str, column: int) -> str:
    """Return the hint for a `#` that made a comment of the rest of a value."""
    return "` #` starts a comment: put the string in quotes" if " #" in line[column:] else ""


def _explain_character(message: str, lines: Sequence[str], line: int, column: int) -> YamlProblem | None:
    """Explain a character that no value can start with."""
    text, rest = lines[line], lines[line][column:]
    if ("cannot start any token" in message and rest.startswith("\t")) or "tab character" in message:
        return YamlProblem(line + 1, column + 1, "tabs are not allowed here", "indent with spaces")
    if "cannot start any token" in message:
        return YamlProblem(
            line + 1, column + 1, f"a value cannot start with `{rest[:1]}`", "put it in quotes"
        )
    if "comment or line break" in message:
        start = max(text.rfind(">", 0, column + 1), text.rfind("|", 0, column + 1))
        hint = comparison_hint(text[start:]) if start >= 0 else ""
        return YamlProblem(
            line + 1, max(start, 0) + 1, "a value cannot start with `>` or `|`", hint or "put it in quotes"
        )
    if "node content" not in message and "alphabetic or numeric" not in message:
        return None
    start_text = rest[:1] if "node" in message else text[column - 1 : column]
    if start_text in ("[", "{"):
        return YamlProblem(line + 1, column + 1, f"unclosed `{start_text}`", _CLOSE_OR_QUOTE)
    if not "".join(lines[line:])[column:].strip():
        opened = next(number for number in range(line, -1, -1) if lines[number].strip())
        bracket = max(lines[opened].rfind("["), lines[opened].rfind("{"))
        if bracket >= 0:
            return YamlProblem(
                opened + 1, bracket + 1, f"unclosed `{lines[opened][bracket]}`", _CLOSE_OR_QUOTE
            )
    text = f"a value cannot start with `{start_text}`" if start_text.strip() else "the value is missing"
    return YamlProblem(line + 1, column + 1, text, "if it is a string, put it in quotes")


def _explain_quotes(message: str, lines: Sequence[str], line: int, column: int) -> YamlProblem | None:
    """Explain a value that goes on after its closing quote."""
    text = lines[line]
    before = text[:column].rstrip()
    follows_value = "expected key" in message and before and text[column : column + 1] not in ("-", "")
    follows_quote = before.endswith(('"', "'")) and "did not find expected" in message
    if not follows_value and not follows_quote:
        return None
    if before.endswith('"'):
        hint = (
            "put quotes around the whole value; inside \"...\", write ' instead of \", as in default('there')"
        )
    elif before.endswith("'"):
        hint = "put the whole value in \"double quotes\", because a ' inside '...' ends it"
    else:
        hint = "put quotes around the whole value"
    return YamlProblem(line + 1, column + 1, "unexpected text after the end of the value", hint)


def _explain_colon(
    error: yaml.MarkedYAMLError, message: str, lines: Sequence[str], line: int, column: int
) -> YamlProblem | None:
    """Explain a colon in a place without a key, or a key without a colon."""
    if "could not find expected ':'" in message and error.context_mark is not None:
        return _explain_missing_colon(lines, error.context_mark.line)
    if "mapping values are not allowed" not in message:
        return None
    key = _KEY.match(lines[line])
    above = _line_above(lines, line)
    if key is None or key.end() - 1 != column or above is None:
        return YamlProblem(
            line + 1, column + 1, "unexpected colon", "put a string that contains `: ` in quotes"
        )
    if _KEY.match(lines[above]) is None:
        return _explain_missing_colon(lines, above)
    value = lines[above].partition(": ")[2].strip()
    is_prose = " " in value and value[0] not in "[{\"'"
    addition = "; if it belongs to the text above, put the whole text in quotes" if is_prose else ""
    return _misaligned(lines, line, "indented too deep", addition)


def _explain_missing_colon(lines: Sequence[str], line: int) -> YamlProblem:
    content = lines[line].strip()
    column = len(lines[line]) - len(lines[line].lstrip()) + 1
    above = _line_above(lines, line)
    if above is not None and re.search(r"[|>][+-]?\d?$", lines[above].rstrip()):
        name = f"line {above + 1}"
        hint = f"put more spaces before each line of the text, so that it starts further right than {name}"
        return YamlProblem(line + 1, column, f"the text must be indented below {name}", hint)
    if match := re.match(r"-([A-Za-z_].*)", content):
        return YamlProblem(line + 1, column, "no space after `-`", f"write `- {match[1][:40]}`")
    if match := re.match(r"((?:- +)?[A-Za-z_]\w*):(\S.*)", content):
        return YamlProblem(
            line + 1, column, "no space after the colon", f"write `{match[1]}: {match[2][:40]}`"
        )
    match = re.match(r"((?:- +)?[A-Za-z_]\w*)(?: +(.+))?$", content)
    known = match is not None and match[1].removeprefix("-").strip() in (
        *RULE_KEYS,
        *FILE_KEYS,
        "use",
        "with",
    )
    example = f"write `{match[1]}:{' ' + match[2][:40] if match[2] else ''}`" if match and known else ""
    hint = example or "write `name: value`; put a string with several lines in quotes, or use `|`"
    return YamlProblem(line + 1, column, "a key without a colon", hint)


def _explain_indentation(message: str, lines: Sequence[str], line: int) -> YamlProblem | None:
    """Explain a line that starts in a column where no line above starts."""
    if "expected '-' indicator" in message or "expected key" in message:
        return _misaligned(lines, line, "not aligned")
    return None


def _misaligned(lines: Sequence[str], line: int, problem: str, addition: str = "") -> YamlProblem:
    """Return the problem, and the line with which this one has to be aligned."""
    text = lines[line]
    indentation = len(text) - len(text.lstrip(" "))
    key = _KEY.match(text)
    is_item = text.lstrip(" ").startswith("-")
    name = key[4] if key else ""
    subject = "this list entry" if is_item else f"`{name}`" if name else "this line"
    level = _best_level(list(_levels(lines, line)), indentation, name, is_item)
    words = f"{subject} is {problem}"
    above = _line_above(lines, line)
    parent = _KEY.match(lines[above]) if above is not None else None
    if above is not None and parent and not lines[above][parent.end() :].strip() and name not in FILE_KEYS:
        spaces = _spaces(len(parent[1]) + len(parent[2]) + 2)
        hint = f"indent it below `{parent[4]}` of line {above + 1}, with {spaces} before it"
        return YamlProblem(line + 1, indentation + 1, words, hint)
    if level is None:
        return YamlProblem(line + 1, indentation + 1, words, "align it with a line above")
    column = level.dash if is_item and level.dash is not None else level.column
    other = f"the `-` of line {level.line + 1}" if is_item else f"`{level.name}` of line {level.line + 1}"
    hint = f"start it exactly below {other}, with {_spaces(column)} before it{addition}"
    return YamlProblem(line + 1, indentation + 1, words, hint)


def _spaces(number: int) -> str:
    return "no spaces" if number == 0 else "1 space" if number == 1 else f"{number} spaces"


def _best_level(levels: Sequence[_Level], indentation: int, name: str, is_item: bool) -> _Level | None:
    """Return the level that the author of a line most probably meant."""
    if is_item:
        dashes = [level for level in levels if level.dash is not None]
        same = [level for level in dashes if level.name == name]
        return min(
            same or dashes,
            key=lambda level: (abs((level.dash or 0) - indentation), -level.column),
            default=None,
        )
    if name in FILE_KEYS and indentation < 4:
        return next((level for level in levels if level.column == 0), None)
    if name in RULE_KEYS:
        rules = [level for level in levels if level.dash is not None and level.name == "name"]
        levels = rules or levels
    return min(levels, key=lambda level: (abs(level.column - indentation), -level.column), default=None)


def _levels(lines: Sequence[str], line: int) -> Iterator[_Level]:
    """Yield the keys with which a line can be aligned: those of the line above, and of the lines that contain it."""
    leftmost, is_dash = len(lines[line]) + 1_000, False
    for number in range(line - 1, -1, -1):
        key = _KEY.match(lines[number])
        if key is None:
            continue
        dash = len(key[1]) if key[2] else None
        column = len(key[1]) + len(key[2])
        outer = column if dash is None else dash
        if outer < leftmost or (outer == leftmost and is_dash and dash is None):
            yield _Level(number, dash, column, key[4])
            leftmost, is_dash = outer, dash is not None


def _line_above(lines: Sequence[str], line: int) -> int | None:
    """Return the number of the last line above that is neither empty nor a comment."""
    contents = ((number, lines[number].strip()) for number in range(line - 1, -1, -1))
    return next((number for number, content in contents if content and content[0] != "#"), None)
