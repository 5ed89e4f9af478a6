"""SOSL: full-text search over an index that may lag behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from bridge.sandbox.salesforce.errors import api_error
from bridge.sandbox.salesforce.records import Records, SObject
from bridge.sandbox.salesforce.schema import Field, phone_words
from bridge.sandbox.salesforce.soql import Query, parse_filter, tokenize

_STATEMENT = re.compile(
    r"\s*FIND\s*\{(?P<term>(?:[^{}\\]|\\.)*)\}"
    r"(?:\s+IN\s+(?P<scope>ALL|NAME|EMAIL|PHONE|SIDEBAR)\s+FIELDS)?"
    r"(?:\s+RETURNING\s+(?P<returning>.+?))?"
    r"(?:\s+LIMIT\s+(?P<limit>\d{1,6}))?\s*",
    re.IGNORECASE | re.DOTALL,
)
_RETURNING_TYPE = re.compile(
    r"(?P<kind>\w+)\s*(?:\(\s*(?P<names>\w+(?:\s*,\s*\w+)*)"
    r"(?:\s+WHERE\s+(?P<where>.+?))?(?:\s+LIMIT\s+(?P<limit>\d{1,6}))?\s*\))?",
    re.IGNORECASE | re.DOTALL,
)
_RESERVED = set("?&|!{}[]()^~*:\\\"'+-")
MAX_ROWS = 2000


@dataclass(frozen=True)
class Term:
    """A search term. `exact` is the word if the term is a single word without wildcards."""

    test: Callable[[str], bool]
    exact: str | None


@dataclass(frozen=True)
class Search:
    """A parsed search: the term, and a query with the fields to return for each object type."""

    term: Term
    scope: str
    queries: list[Query]
    limit: int

    def rows(self, records: Records, now: datetime, lag: float) -> list[tuple[SObject, Query]]:
        """Return the matching records that are at least `lag` seconds old, each with its query."""
        visible_until = now - timedelta(seconds=lag)
        results = []
        for query in self.queries:
            rows = [
                row
                for row in self._candidates(query, records)
                if row.created_at <= visible_until and (query.where is None or query.where.test(row))
            ]
            results += [(row, query) for row in rows[: query.limit]]
        return results[: self.limit]

    def _candidates(self, query: Query, records: Records) -> list[SObject]:
        if self.scope == "PHONE" and self.term.exact is not None:
            return records.find_by_phone(query.kind, self.term.exact)
        fields = [field for field in query.kind.fields.values() if _in_scope(field, self.scope)]
        return [
            row
            for row in records.active_records(query.kind)
            if any(self.term.test(word) for field in fields for word in _search_words(field, row[field.name]))
        ]


def parse(text: str, records: Records) -> Search:
    """Parse a search. Raise ProviderError if Salesforce would reject it."""
    match = _STATEMENT.fullmatch(text)
    if match is None:
        raise api_error(
            "MALFORMED_SEARCH", "No search term found. The search term must be enclosed in braces."
        )
    queries = [_query(part, records) for part in _split_returning(match["returning"] or "")]
    if not queries:
        queries = [
            Query(records.types[name], [[records.types[name].fields["Id"]]])
            for name in ("Contact", "Lead", "Account")
        ]
    limit = int(match["limit"] or MAX_ROWS)
    return Search(
        _term(match["term"].strip()), (match["scope"] or "ALL").upper(), queries, min(limit, MAX_ROWS)
    )


def _term(text: str) -> Term:
    """Parse a term. All words must match (with OR, one). `*` and `?` may not start a word."""
    words = text.split()
    any_of = "OR" in words
    patterns = []
    for word in words:
        if word in ("AND", "OR"):
            continue
        unescaped = re.sub(r"\\(.)", lambda match: chr(0xE000 + ord(match[1])), word)
        if unescaped[0] in "*?":
            raise api_error("MALFORMED_SEARCH", "a search term must not start with a wildcard")
        reserved = sorted(set(unescaped) & (_RESERVED - {"*", "?"}))
        if reserved:
            raise api_error("MALFORMED_SEARCH", f"unescaped reserved character: {reserved[0]}")
        unescaped = "".join(chr(ord(c) - 0xE000) if 0xE000 <= ord(c) < 0xF000 else c for c in unescaped)
        if len(unescaped.rstrip("*?")) < 2:
            raise api_error("MALFORMED_SEARCH", "search term must be longer than one character: " + word)
        pattern = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in unescaped.lower())
        patterns.append(re.compile(pattern))
    if not patterns:
        raise api_error("MALFORMED_SEARCH", "No search term found.")
    if any_of or len(patterns) == 1:
        exact = words[0].lower() if len(words) == 1 and words[0].isalnum() else None
        return Term(lambda word: any(pattern.fullmatch(word) for pattern in patterns), exact)
    return Term(lambda word: all(pattern.search(word) for pattern in patterns), None)


def _in_scope(definition: Field, scope: str) -> bool:
    if scope == "PHONE":
        return definition.type == "phone"
    if scope == "EMAIL":
        return definition.type == "email"
    if scope == "NAME":
        return definition.name in ("Name", "FirstName", "LastName", "Company", "Subject")
    return definition.type in ("string", "phone", "email", "picklist", "textarea")


def _search_words(definition: Field, value: object) -> list[str]:
    """Return the strings by which a value is found: itself and its words."""
    if not isinstance(value, str) or not value:
        return []
    if definition.type == "phone":
        return phone_words(value)
    text = value.lower()
    return [word for word in (text, *re.split(r"[^\w@.]+", text)) if word]


def _split_returning(text: str) -> list[str]:
    """Split `Contact(Id, Phone), Lead(Id)` at its outer commas."""
    parts, depth, start = [], 0, 0
    quoted = False
    for position, character in enumerate(text):
        if character == "'" and text[position - 1] != "\\":
            quoted = not quoted
        if quoted:
            continue
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _query(part: str, records: Records) -> Query:
    match = _RETURNING_TYPE.fullmatch(part)
    if match is None:
        raise api_error("MALFORMED_QUERY", f"unexpected token in: {part[:60]}")
    name = match["kind"]
    kind = records.visible_type(name)
    if kind is None:
        raise api_error("INVALID_TYPE", f"sObject type '{name}' is not supported.")
    query = Query(kind, limit=int(match["limit"]) if match["limit"] else None)
    for column in re.split(r"\s*,\s*", match["names"] or "Id"):
        definition = kind.field(column)
        if definition is None:
            raise api_error("INVALID_FIELD", f"No such column '{column}' on entity '{kind.name}'.")
        query.paths.append([definition])
    if match["where"]:
        query.where = parse_filter(tokenize(match["where"]), kind, records)
    return query
