"""SOQL: a parser for the queries that a connector needs. It rejects unsupported syntax.

Not supported: aggregates other than COUNT(), subqueries, GROUP BY, date literals such as TODAY, FIELDS().
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from bridge.sandbox.provider import parse_whole_number
from bridge.sandbox.salesforce.errors import api_error
from bridge.sandbox.salesforce.records import Records, SObject
from bridge.sandbox.salesforce.schema import Field, SObjectType, long_id

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>'(?:[^'\\]|\\.)*')
      | (?P<datetime>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))
      | (?P<date>\d{4}-\d\d-\d\d)
      | (?P<number>-?\d+(?:\.\d+)?)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
      | (?P<operator><=|>=|!=|<>|[=<>(),])
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_RESERVED = {"select", "from", "where", "and", "or", "not", "like", "in", "order", "by", "limit", "offset"}
_NOT_LIKE_TYPES = {"int", "double", "currency", "boolean", "date", "datetime", "id", "reference"}
MAX_ROWS = 50_000
MAX_QUERY_LENGTH = 100_000
MAX_NESTING_DEPTH = 50

Predicate = Callable[[SObject], bool]


@dataclass(frozen=True)
class SoqlCondition:
    """A condition on records. `indexed_values`, if set, is an indexed field and the values of which a match has one."""

    test: Predicate
    indexed_values: tuple[Field, frozenset[str]] | None = None


@dataclass(frozen=True)
class Token:
    """A word, operator or literal of a query."""

    kind: str
    text: str


@dataclass
class Query:
    """A parsed query."""

    kind: SObjectType
    paths: list[list[Field]] = field(default_factory=list)
    count: bool = False
    where: SoqlCondition | None = None
    order: list[tuple[Field, bool, bool]] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0

    def rows(self, records: Records) -> list[SObject]:
        """Return the matching records in the requested order."""
        matches = self.candidates(records)
        if self.where is not None:
            matches = [record for record in matches if self.where.test(record)]
        for definition, descending, nulls_last in reversed(self.order):
            with_value = [record for record in matches if record[definition.name] is not None]
            without_value = [record for record in matches if record[definition.name] is None]
            with_value.sort(
                key=lambda record: _sort_key(definition, record[definition.name]), reverse=descending
            )
            matches = with_value + without_value if nulls_last else without_value + with_value
        end = None if self.limit is None else self.offset + self.limit
        return matches[self.offset : end]

    def candidates(self, records: Records) -> list[SObject]:
        """Return the records that may match: from an index if possible, or all records."""
        if self.where is None or self.where.indexed_values is None:
            return records.active_records(self.kind)
        definition, values = self.where.indexed_values
        return sorted(records.find_indexed(self.kind, definition.name, values), key=lambda record: record.id)


def parse(text: str, records: Records) -> Query:
    """Parse a query. Raise ProviderError if Salesforce would reject it."""
    if len(text) > MAX_QUERY_LENGTH:
        raise api_error("QUERY_TOO_COMPLICATED", "SOQL statement is too long")
    return _Parser(tokenize(text), records).query()


def parse_filter(tokens: list[Token], kind: SObjectType, records: Records) -> SoqlCondition:
    """Parse a WHERE clause on its own, as SOSL uses it."""
    parser = _Parser(tokens, records)
    parser.kind = kind
    condition = parser.condition()
    parser.end()
    return condition


def tokenize(text: str) -> list[Token]:
    """Return the tokens of a query. Raise ProviderError for invalid characters."""
    result = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise api_error(
                "MALFORMED_QUERY", f"unexpected token: '{text[position : position + 20].strip()}'"
            )
        kind = str(match.lastgroup)
        result.append(Token(kind, match.group(kind)))
        position = match.end()
    return result


def project(
    row: SObject, paths: list[list[Field]], records: Records, url: Callable[[SObject], str]
) -> dict[str, Any]:
    """Return the requested fields of a record. Fields of a parent are in a nested object."""
    projected: dict[str, Any] = {"attributes": {"type": row.type, "url": url(row)}}
    for path in paths:
        if len(path) == 1:
            projected[path[0].name] = row[path[0].name]
            continue
        name = path[0].name.removesuffix("Id")
        parent = _parent_record(row, path[0], records)
        if parent is None:
            projected[name] = None
            continue
        inner = project(parent, [path[1:]], records, url)
        projected[name] = (projected.get(name) or {}) | inner
    return projected


def _parent_record(row: SObject, reference: Field, records: Records) -> SObject | None:
    parent_id = row[reference.name]
    return next((table[parent_id] for table in records.tables.values() if parent_id in table), None)


class _Parser:
    def __init__(self, tokens: list[Token], records: Records) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0
        self.records = records
        self.kind: SObjectType

    def query(self) -> Query:
        self.expect("select")
        count, names = self._select()
        self.expect("from")
        name = self.take("word").text
        kind = self.records.visible_type(name)
        if kind is None:
            raise api_error("INVALID_TYPE", f"sObject type '{name}' is not supported.")
        self.kind = kind
        query = Query(kind, [self._path(path) for path in names], count)
        if self.accept("where"):
            query.where = self.condition()
        if self.accept("order"):
            self.expect("by")
            query.order = self._order()
        if self.accept("limit"):
            query.limit = self._number()
        if self.accept("offset"):
            query.offset = self._number()
        self.end()
        return query

    def _select(self) -> tuple[bool, list[str]]:
        names = []
        while True:
            word = self.take("word").text
            if word.lower() in _RESERVED:
                raise self._unexpected(word)
            if word.lower() == "count" and self.accept("("):
                self.expect(")")
                return True, []
            names.append(word)
            if not self.accept(","):
                return False, names

    def _order(self) -> list[tuple[Field, bool, bool]]:
        order = []
        while True:
            definition = self._field(self.take("word").text)
            if not definition.filterable:
                raise api_error(
                    "INVALID_FIELD", f"field '{definition.name}' can not be sorted in a query call"
                )
            descending = bool(self.accept("desc")) or (not self.accept("asc") and False)
            nulls_last = False
            if self.accept("nulls"):
                nulls_last = bool(self.accept("last"))
                if not nulls_last:
                    self.expect("first")
            order.append((definition, descending, nulls_last))
            if not self.accept(","):
                return order

    def condition(self) -> SoqlCondition:
        """Parse comparisons joined by AND or OR. A mix of both requires parentheses, as in SOQL."""
        parts = [self._negated()]
        joint = self._joint()
        while True:
            word = self._joint()
            if word is None:
                break
            if word != joint:
                raise api_error(
                    "MALFORMED_QUERY", f"unexpected token: '{word}' (AND and OR need parentheses)"
                )
            self.position += 1
            parts.append(self._negated())
        if len(parts) == 1:
            return parts[0]
        tests = [part.test for part in parts]
        if joint == "or":
            return SoqlCondition(lambda row: any(test(row) for test in tests))
        indexed_values = next(
            (part.indexed_values for part in parts if part.indexed_values is not None), None
        )
        return SoqlCondition(lambda row: all(test(row) for test in tests), indexed_values)

    def _joint(self) -> str | None:
        token = self.peek()
        word = token.text.lower() if token is not None and token.kind == "word" else ""
        return word if word in ("and", "or") else None

    def _negated(self) -> SoqlCondition:
        self.depth += 1
        if self.depth > MAX_NESTING_DEPTH:
            raise api_error("QUERY_TOO_COMPLICATED", "the condition is nested too deeply")
        try:
            return self._part()
        finally:
            self.depth -= 1

    def _part(self) -> SoqlCondition:
        if self.accept("not"):
            inner = self._negated().test
            return SoqlCondition(lambda row: not inner(row))
        if self.accept("("):
            condition = self.condition()
            self.expect(")")
            return condition
        return self._comparison()

    def _comparison(self) -> SoqlCondition:
        path = self._path(self.take("word").text)
        definition = path[-1]
        if not definition.filterable:
            raise api_error("INVALID_FIELD", f"field '{definition.name}' can not be filtered in a query call")

        def field_value(row: SObject) -> Any:
            record: SObject | None = row
            for reference in path[:-1]:
                record = _parent_record(record, reference, self.records) if record is not None else None
            return record[definition.name] if record is not None else None

        if self.accept("like"):
            if definition.type in _NOT_LIKE_TYPES:
                raise api_error(
                    "INVALID_FIELD", f"invalid operator on {definition.type} field {definition.name}"
                )
            pattern = _like_pattern(self.take("string").text)
            return SoqlCondition(
                lambda row: isinstance(field_value(row), str) and bool(pattern.fullmatch(field_value(row)))
            )
        if self.accept("in"):
            accepted = self._list(definition)
            return SoqlCondition(
                lambda row: _sort_key(definition, field_value(row)) in accepted,
                _indexed_values(path, accepted),
            )
        if self.accept("not"):
            self.expect("in")
            accepted = self._list(definition)
            return SoqlCondition(lambda row: _sort_key(definition, field_value(row)) not in accepted)
        operator = self.take("operator").text
        if operator not in ("=", "!=", "<>", "<", "<=", ">", ">="):
            raise self._unexpected(operator)
        operand = self._literal(definition)
        if operator == "=":
            return SoqlCondition(
                lambda row: _sort_key(definition, field_value(row)) == operand,
                _indexed_values(path, {operand}),
            )
        if operator in ("!=", "<>"):
            return SoqlCondition(lambda row: bool(_sort_key(definition, field_value(row)) != operand))
        if operand is None:
            raise api_error("MALFORMED_QUERY", f"null cannot be compared with {operator}")
        compare: Mapping[str, Callable[[Any], bool]] = {
            "<": lambda value: value < operand,
            "<=": lambda value: value <= operand,
            ">": lambda value: value > operand,
            ">=": lambda value: value >= operand,
        }
        return SoqlCondition(
            lambda row: (
                field_value(row) is not None and compare[operator](_sort_key(definition, field_value(row)))
            )
        )

    def _list(self, definition: Field) -> set[Any]:
        self.expect("(")
        values = {self._literal(definition)}
        while self.accept(","):
            values.add(self._literal(definition))
        self.expect(")")
        return values

    def _literal(self, definition: Field) -> Any:
        token = self.take()
        word = token.text.lower()
        if token.kind == "operator":
            raise self._unexpected(token.text)
        if token.kind == "word" and word == "null":
            return None
        kinds = {
            "int": "number",
            "double": "number",
            "currency": "number",
            "date": "date",
            "datetime": "datetime",
        }
        expected_kind = kinds.get(definition.type, "boolean" if definition.type == "boolean" else "string")
        if token.kind == "word" and word in ("true", "false") and expected_kind == "boolean":
            return word == "true"
        if token.kind == expected_kind:
            if expected_kind == "string":
                return _sort_key(definition, _unquote(token.text))
            return _sort_key(definition, float(token.text) if expected_kind == "number" else token.text)
        hint = (
            "enclosed in quotes"
            if expected_kind == "string"
            else "of its own type and not enclosed in quotes"
        )
        raise api_error(
            "INVALID_FIELD",
            f"value of filter criterion for field '{definition.name}' "
            f"must be of type {definition.type} and should be {hint}",
        )

    def _field(self, name: str) -> Field:
        return self._path(name)[-1]

    def _path(self, name: str) -> list[Field]:
        kind, path = self.kind, []
        *parents, last = name.split(".")
        if parents and parents[0].lower() == kind.name.lower():
            parents = parents[1:]
        for parent in parents:
            reference = kind.field(parent + "Id")
            if reference is None or not reference.references:
                raise api_error(
                    "INVALID_FIELD", f"Didn't understand relationship '{parent}' in field path of {kind.name}"
                )
            path.append(reference)
            kind = self.records.types[reference.references[0]]
        definition = kind.field(last)
        if definition is None:
            raise api_error("INVALID_FIELD", f"No such column '{last}' on entity '{kind.name}'.")
        return [*path, definition]

    def _number(self) -> int:
        text = self.take("number").text
        number = parse_whole_number(text, 0, MAX_ROWS)
        if number is None:
            raise self._unexpected(text)
        return number

    def peek(self) -> Token | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def take(self, kind: str | None = None) -> Token:
        token = self.peek()
        if token is None:
            raise api_error("MALFORMED_QUERY", "unexpected token: '<EOF>'")
        if kind is not None and token.kind != kind:
            raise self._unexpected(token.text)
        self.position += 1
        return token

    def accept(self, text: str) -> bool:
        token = self.peek()
        if token is None or token.kind == "string" or token.text.lower() != text:
            return False
        self.position += 1
        return True

    def expect(self, text: str) -> None:
        if not self.accept(text):
            token = self.peek()
            raise self._unexpected(token.text if token else "<EOF>")

    def end(self) -> None:
        token = self.peek()
        if token is not None:
            raise self._unexpected(token.text)

    def _unexpected(self, text: str) -> Exception:
        return api_error("MALFORMED_QUERY", f"unexpected token: '{text}'")


def _indexed_values(path: list[Field], values: set[Any]) -> tuple[Field, frozenset[str]] | None:
    return (path[0], frozenset(values)) if len(path) == 1 and path[0].indexed and None not in values else None


def _unquote(text: str) -> str:
    def unescape(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise api_error(
                "MALFORMED_QUERY",
                f"Invalid string literal '{text[1:-1]}'. Illegal character sequence '{match[0]}'",
            )
        return _ESCAPES[match[1]]

    return re.sub(r"\\(.)", unescape, text[1:-1], flags=re.DOTALL)


def _like_pattern(text: str) -> re.Pattern[str]:
    """Return a LIKE pattern as a regular expression. `%` matches any string and `_` one character."""
    pattern = ""
    escaped = False
    for character in text[1:-1]:
        if escaped:
            if character not in _ESCAPES and character not in "%_":
                raise api_error("MALFORMED_QUERY", f"Illegal character sequence '\\{character}'")
            pattern += re.escape(_ESCAPES.get(character, character))
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            pattern += {"%": ".*", "_": "."}.get(character, re.escape(character))
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


def _sort_key(definition: Field, value: Any) -> Any:
    """Return the comparable form of a value: strings without case, IDs with 18 characters."""
    if value is None:
        return False if definition.type == "boolean" else None
    if definition.type in ("id", "reference"):
        return long_id(str(value))
    if definition.type == "date":
        return date.fromisoformat(value)
    if definition.type == "datetime":
        return datetime.fromisoformat(value)
    return value.lower() if isinstance(value, str) else value
