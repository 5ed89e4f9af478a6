"""SOSL: text search over an index that lags behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from bridge.sandbox.salesforce.errors import refuse
from bridge.sandbox.salesforce.records import Records, SObject
from bridge.sandbox.salesforce.schema import Field, phone_words
from bridge.sandbox.salesforce.soql import Query, parse_filter, tokens

_FORM = re.compile(
    r"\s*FIND\s*\{(?P<term>(?:[^{}\\]|\\.)*)\}"
    r"(?:\s+IN\s+(?P<scope>ALL|NAME|EMAIL|PHONE|SIDEBAR)\s+FIELDS)?"
    r"(?:\s+RETURNING\s+(?P<returning>.+?))?"
    r"(?:\s+LIMIT\s+(?P<limit>\d{1,6}))?\s*",
    re.IGNORECASE | re.DOTALL,
)
_RETURNED = re.compile(
    r"(?P<kind>\w+)\s*(?:\(\s*(?P<names>\w+(?:\s*,\s*\w+)*)"
    r"(?:\s+WHERE\s+(?P<where>.+?))?(?:\s+LIMIT\s+(?P<limit>\d{1,6}))?\s*\))?",
    re.IGNORECASE | re.DOTALL,
)
_RESERVED = set("?&|!{}[]()^~*:\\\"'+-")
_SCOPES = {"PHONE": ("phone",), "EMAIL": ("email",), "NAME": ("name",)}
MOST_ROWS = 2000


@dataclass(frozen=True)
class Term:
    """What a record must hold: `exact` is the one word without wildcards, when it is just that."""

    test: Callable[[str], bool]
    exact: str | None


@dataclass(frozen=True)
class Search:
    """A search that was understood: what to look for, and what to show of which objects."""

    term: Term
    scope: str
    queries: list[Query]
    limit: int

    def rows(self, records: Records, now: datetime, lag: float) -> list[tuple[SObject, Query]]:
        """What the index finds: nothing that is younger than `lag` seconds."""
        seen = now - timedelta(seconds=lag)
        found = []
        for query in self.queries:
            rows = [
                row
                for row in self._candidates(query, records)
                if row.created_at <= seen and (query.where is None or query.where.test(row))
            ]
            found += [(row, query) for row in rows[: query.limit]]
        return found[: self.limit]

    def _candidates(self, query: Query, records: Records) -> list[SObject]:
        if self.scope == "PHONE" and self.term.exact is not None:
            return records.possibly_sent_at(query.kind, self.term.exact)
        known = [field for field in query.kind.fields.values() if _in_scope(field, self.scope)]
        return [
            row
            for row in records.live(query.kind)
            if any(self.term.test(word) for field in known for word in _words(field, row[field.name]))
        ]


def parse(text: str, records: Records) -> Search:
    """Understand `text`; raises the Refusal that Salesforce would answer with."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise refuse("MALFORMED_SEARCH", "No search term found. The search term must be enclosed in braces.")
    queries = [_query(part, records) for part in _parts(match["returning"] or "")]
    if not queries:
        queries = [
            Query(records.types[name], [[records.types[name].fields["Id"]]])
            for name in ("Contact", "Lead", "Account")
        ]
    limit = int(match["limit"] or MOST_ROWS)
    return Search(
        _term(match["term"].strip()), (match["scope"] or "ALL").upper(), queries, min(limit, MOST_ROWS)
    )


def _term(text: str) -> Term:
    """Words that must all fit (or one of them, with OR); `*` and `?` only inside or at the end of a word."""
    words = text.split()
    any_of = "OR" in words
    patterns = []
    for word in words:
        if word in ("AND", "OR"):
            continue
        plain = re.sub(r"\\(.)", lambda match: chr(0xE000 + ord(match[1])), word)
        if plain[0] in "*?":
            raise refuse("MALFORMED_SEARCH", "a search term must not begin with a wildcard")
        bad = sorted(set(plain) & (_RESERVED - {"*", "?"}))
        if bad:
            raise refuse("MALFORMED_SEARCH", f"unescaped reserved character: {bad[0]}")
        plain = "".join(chr(ord(c) - 0xE000) if 0xE000 <= ord(c) < 0xF000 else c for c in plain)
        if len(plain.rstrip("*?")) < 2:
            raise refuse("MALFORMED_SEARCH", "search term must be longer than one character: " + word)
        pattern = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in plain.lower())
        patterns.append(re.compile(pattern))
    if not patterns:
        raise refuse("MALFORMED_SEARCH", "No search term found.")
    if any_of or len(patterns) == 1:
        exact = words[0].lower() if len(words) == 1 and words[0].isalnum() else None
        return Term(lambda word: any(pattern.fullmatch(word) for pattern in patterns), exact)
    return Term(lambda word: all(pattern.search(word) for pattern in patterns), None)


def _in_scope(known: Field, scope: str) -> bool:
    if scope == "PHONE":
        return known.type == "phone"
    if scope == "EMAIL":
        return known.type == "email"
    if scope == "NAME":
        return known.name in ("Name", "FirstName", "LastName", "Company", "Subject")
    return known.type in ("string", "phone", "email", "picklist", "textarea")


def _words(known: Field, value: object) -> list[str]:
    """What a value is found by: itself and its words."""
    if not isinstance(value, str) or not value:
        return []
    if known.type == "phone":
        return phone_words(value)
    text = value.lower()
    return [word for word in (text, *re.split(r"[^\w@.]+", text)) if word]


def _parts(text: str) -> list[str]:
    """`Contact(Id, Phone), Lead(Id)` at its outer commas."""
    parts, depth, start = [], 0, 0
    quoted = False
    for place, character in enumerate(text):
        if character == "'" and text[place - 1] != "\\":
            quoted = not quoted
        if quoted:
            continue
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _query(part: str, records: Records) -> Query:
    match = _RETURNED.fullmatch(part)
    if match is None:
        raise refuse("MALFORMED_QUERY", f"unexpected token in: {part[:60]}")
    name = match["kind"]
    kind = next((one for one in records.types.values() if one.name.lower() == name.lower()), None)
    if kind is None:
        raise refuse("INVALID_TYPE", f"sObject type '{name}' is not supported.")
    query = Query(kind, limit=int(match["limit"]) if match["limit"] else None)
    for column in re.split(r"\s*,\s*", match["names"] or "Id"):
        known = kind.field(column)
        if known is None:
            raise refuse("INVALID_FIELD", f"No such column '{column}' on entity '{kind.name}'.")
        query.paths.append([known])
    if match["where"]:
        query.where = parse_filter(tokens(match["where"]), kind, records)
    return query
