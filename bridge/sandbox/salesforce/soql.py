"""SOQL: a parser for the queries that a connector needs; what it does not understand it refuses.

Not here: aggregates other than COUNT(), subqueries, GROUP BY, date literals such as TODAY, FIELDS().
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from bridge.sandbox.provider import whole_number
from bridge.sandbox.salesforce.errors import refuse
from bridge.sandbox.salesforce.records import Records, SObject
from bridge.sandbox.salesforce.schema import Field, SObjectType, long_id

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>'(?:[^'\\]|\\.)*')
      | (?P<instant>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d))
      | (?P<day>\d{4}-\d\d-\d\d)
      | (?P<number>-?\d+(?:\.\d+)?)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
      | (?P<sign><=|>=|!=|<>|[=<>(),])
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_RESERVED = {"select", "from", "where", "and", "or", "not", "like", "in", "order", "by", "limit", "offset"}
MOST_ROWS = 50_000
LONGEST_QUERY = 100_000
DEEPEST_NESTING = 50

Test = Callable[[SObject], bool]


@dataclass(frozen=True)
class Condition:
    """What a record must fit; `only`, when known, is an indexed field of which it must hold one of the values."""

    test: Test
    only: tuple[Field, frozenset[str]] | None = None


@dataclass(frozen=True)
class Token:
    """One word, sign or literal of a query."""

    kind: str
    text: str


@dataclass
class Query:
    """A query that was understood."""

    kind: SObjectType
    paths: list[list[Field]] = field(default_factory=list)
    count: bool = False
    where: Condition | None = None
    order: list[tuple[Field, bool, bool]] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0

    def rows(self, records: Records) -> list[SObject]:
        """The records that fit, in the order asked for."""
        found = self.candidates(records)
        if self.where is not None:
            found = [one for one in found if self.where.test(one)]
        for known, descending, nulls_last in reversed(self.order):
            filled = [one for one in found if one[known.name] is not None]
            empty = [one for one in found if one[known.name] is None]
            filled.sort(key=lambda one: _comparable(known, one[known.name]), reverse=descending)
            found = filled + empty if nulls_last else empty + filled
        end = None if self.limit is None else self.offset + self.limit
        return found[self.offset : end]

    def candidates(self, records: Records) -> list[SObject]:
        """The records that may fit: those that an index names, or else all."""
        if self.where is None or self.where.only is None:
            return records.live(self.kind)
        known, values = self.where.only
        return sorted(records.holding(self.kind, known.name, values), key=lambda one: one.id)


def parse(text: str, records: Records) -> Query:
    """Understand `text`; raises the Refusal that Salesforce would answer with."""
    if len(text) > LONGEST_QUERY:
        raise refuse("QUERY_TOO_COMPLICATED", "SOQL statement is too long")
    return _Parser(tokens(text), records).query()


def parse_filter(words: list[Token], kind: SObjectType, records: Records) -> Condition:
    """Understand a WHERE clause alone, as SOSL has it."""
    parser = _Parser(words, records)
    parser.kind = kind
    condition = parser.condition()
    parser.end()
    return condition


def tokens(text: str) -> list[Token]:
    """The tokens of a query; raises the Refusal for what is none."""
    found = []
    place = 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise refuse("MALFORMED_QUERY", f"unexpected token: '{text[place : place + 20].strip()}'")
        kind = str(match.lastgroup)
        found.append(Token(kind, match.group(kind)))
        place = match.end()
    return found


def project(
    row: SObject, paths: list[list[Field]], records: Records, url: Callable[[SObject], str]
) -> dict[str, Any]:
    """The fields of a row that were asked for; those of a parent stand in an object of its own."""
    shown: dict[str, Any] = {"attributes": {"type": row.type, "url": url(row)}}
    for path in paths:
        if len(path) == 1:
            shown[path[0].name] = row[path[0].name]
            continue
        name = path[0].name.removesuffix("Id")
        parent = _parent(row, path[0], records)
        if parent is None:
            shown[name] = None
            continue
        inner = project(parent, [path[1:]], records, url)
        shown[name] = (shown.get(name) or {}) | inner
    return shown


def _parent(row: SObject, known: Field, records: Records) -> SObject | None:
    wanted = row[known.name]
    return next((table[wanted] for table in records.tables.values() if wanted in table), None)


class _Parser:
    def __init__(self, words: list[Token], records: Records) -> None:
        self.words = words
        self.place = 0
        self.depth = 0
        self.records = records
        self.kind: SObjectType

    def query(self) -> Query:
        self.expect("select")
        count, names = self._select()
        self.expect("from")
        name = self.take("word").text
        kind = next((one for one in self.records.types.values() if one.name.lower() == name.lower()), None)
        if kind is None:
            raise refuse("INVALID_TYPE", f"sObject type '{name}' is not supported.")
        self.kind = kind
        query = Query(kind, [self._path(one) for one in names], count)
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
            known = self._field(self.take("word").text)
            if not known.filterable:
                raise refuse("INVALID_FIELD", f"field '{known.name}' can not be sorted in a query call")
            descending = bool(self.accept("desc")) or (not self.accept("asc") and False)
            last = False
            if self.accept("nulls"):
                last = bool(self.accept("last"))
                if not last:
                    self.expect("first")
            order.append((known, descending, last))
            if not self.accept(","):
                return order

    def condition(self) -> Condition:
        """Comparisons joined by AND or by OR; both together need parentheses, as in SOQL."""
        parts = [self._negated()]
        joint = self._joint()
        while True:
            word = self._joint()
            if word is None:
                break
            if word != joint:
                raise refuse("MALFORMED_QUERY", f"unexpected token: '{word}' (AND and OR need parentheses)")
            self.place += 1
            parts.append(self._negated())
        if len(parts) == 1:
            return parts[0]
        tests = [part.test for part in parts]
        if joint == "or":
            return Condition(lambda row: any(test(row) for test in tests))
        only = next((part.only for part in parts if part.only is not None), None)
        return Condition(lambda row: all(test(row) for test in tests), only)

    def _joint(self) -> str | None:
        token = self.peek()
        word = token.text.lower() if token is not None and token.kind == "word" else ""
        return word if word in ("and", "or") else None

    def _negated(self) -> Condition:
        self.depth += 1
        if self.depth > DEEPEST_NESTING:
            raise refuse("QUERY_TOO_COMPLICATED", "the condition is nested too deeply")
        try:
            return self._part()
        finally:
            self.depth -= 1

    def _part(self) -> Condition:
        if self.accept("not"):
            inner = self._negated().test
            return Condition(lambda row: not inner(row))
        if self.accept("("):
            condition = self.condition()
            self.expect(")")
            return condition
        return self._comparison()

    def _comparison(self) -> Condition:
        path = self._path(self.take("word").text)
        known = path[-1]
        if not known.filterable:
            raise refuse("INVALID_FIELD", f"field '{known.name}' can not be filtered in a query call")

        def held(row: SObject) -> Any:
            found: SObject | None = row
            for step in path[:-1]:
                found = _parent(found, step, self.records) if found is not None else None
            return found[known.name] if found is not None else None

        if self.accept("like"):
            if known.type in ("int", "double", "currency", "boolean", "date", "datetime", "id", "reference"):
                raise refuse("INVALID_FIELD", f"invalid operator on {known.type} field {known.name}")
            pattern = _like(self.take("text").text)
            return Condition(lambda row: isinstance(held(row), str) and bool(pattern.fullmatch(held(row))))
        if self.accept("in"):
            among = self._list(known)
            return Condition(lambda row: _comparable(known, held(row)) in among, _only(path, among))
        if self.accept("not"):
            self.expect("in")
            among = self._list(known)
            return Condition(lambda row: _comparable(known, held(row)) not in among)
        sign = self.take("sign").text
        if sign not in ("=", "!=", "<>", "<", "<=", ">", ">="):
            raise self._unexpected(sign)
        wanted = self._literal(known)
        if sign == "=":
            return Condition(lambda row: _comparable(known, held(row)) == wanted, _only(path, {wanted}))
        if sign in ("!=", "<>"):
            return Condition(lambda row: bool(_comparable(known, held(row)) != wanted))
        if wanted is None:
            raise refuse("MALFORMED_QUERY", f"null cannot be compared with {sign}")
        compare: Mapping[str, Callable[[Any], bool]] = {
            "<": lambda value: value < wanted,
            "<=": lambda value: value <= wanted,
            ">": lambda value: value > wanted,
            ">=": lambda value: value >= wanted,
        }
        return Condition(lambda row: held(row) is not None and compare[sign](_comparable(known, held(row))))

    def _list(self, known: Field) -> set[Any]:
        self.expect("(")
        found = {self._literal(known)}
        while self.accept(","):
            found.add(self._literal(known))
        self.expect(")")
        return found

    def _literal(self, known: Field) -> Any:
        token = self.take()
        word = token.text.lower()
        if token.kind == "sign":
            raise self._unexpected(token.text)
        if token.kind == "word" and word == "null":
            return None
        kind = {
            "int": "number",
            "double": "number",
            "currency": "number",
            "date": "day",
            "datetime": "instant",
        }
        wanted = kind.get(known.type, "boolean" if known.type == "boolean" else "text")
        if token.kind == "word" and word in ("true", "false") and wanted == "boolean":
            return word == "true"
        if token.kind == wanted:
            if wanted == "text":
                return _comparable(known, _unquoted(token.text))
            return _comparable(known, float(token.text) if wanted == "number" else token.text)
        quotes = "enclosed in quotes" if wanted == "text" else "of its own type and not enclosed in quotes"
        raise refuse(
            "INVALID_FIELD",
            f"value of filter criterion for field '{known.name}' must be of type {known.type} and should be {quotes}",
        )

    def _field(self, name: str) -> Field:
        return self._path(name)[-1]

    def _path(self, name: str) -> list[Field]:
        kind, path = self.kind, []
        *parents, last = name.split(".")
        if parents and parents[0].lower() == kind.name.lower():
            parents = parents[1:]
        for parent in parents:
            known = kind.field(parent + "Id")
            if known is None or not known.references:
                raise refuse(
                    "INVALID_FIELD", f"Didn't understand relationship '{parent}' in field path of {kind.name}"
                )
            path.append(known)
            kind = self.records.types[known.references[0]]
        found = kind.field(last)
        if found is None:
            raise refuse("INVALID_FIELD", f"No such column '{last}' on entity '{kind.name}'.")
        return [*path, found]

    def _number(self) -> int:
        text = self.take("number").text
        number = whole_number(text, 0, MOST_ROWS)
        if number is None:
            raise self._unexpected(text)
        return number

    def peek(self) -> Token | None:
        return self.words[self.place] if self.place < len(self.words) else None

    def take(self, kind: str | None = None) -> Token:
        token = self.peek()
        if token is None:
            raise refuse("MALFORMED_QUERY", "unexpected token: '<EOF>'")
        if kind is not None and token.kind != kind:
            raise self._unexpected(token.text)
        self.place += 1
        return token

    def accept(self, text: str) -> bool:
        token = self.peek()
        if token is None or token.kind == "text" or token.text.lower() != text:
            return False
        self.place += 1
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
        return refuse("MALFORMED_QUERY", f"unexpected token: '{text}'")


def _only(path: list[Field], values: set[Any]) -> tuple[Field, frozenset[str]] | None:
    return (path[0], frozenset(values)) if len(path) == 1 and path[0].indexed and None not in values else None


def _unquoted(text: str, escapes: Mapping[str, str] = _ESCAPES) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1] not in escapes:
            raise refuse(
                "MALFORMED_QUERY",
                f"Invalid string literal '{text[1:-1]}'. Illegal character sequence '{match[0]}'",
            )
        return escapes[match[1]]

    return re.sub(r"\\(.)", one, text[1:-1], flags=re.DOTALL)


def _like(text: str) -> re.Pattern[str]:
    """`%` is any text, `_` one character; both can be escaped."""
    pattern = ""
    escaped = False
    for character in text[1:-1]:
        if escaped:
            if character not in _ESCAPES and character not in "%_":
                raise refuse("MALFORMED_QUERY", f"Illegal character sequence '\\{character}'")
            pattern += re.escape(_ESCAPES.get(character, character))
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            pattern += {"%": ".*", "_": "."}.get(character, re.escape(character))
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


def _comparable(known: Field, value: Any) -> Any:
    """How values of a field compare: text without regard to case, ids by their 18 characters."""
    if value is None:
        return False if known.type == "boolean" else None
    if known.type in ("id", "reference"):
        return long_id(str(value))
    if known.type == "date":
        return date.fromisoformat(value)
    if known.type == "datetime":
        return datetime.fromisoformat(value)
    return value.lower() if isinstance(value, str) else value
