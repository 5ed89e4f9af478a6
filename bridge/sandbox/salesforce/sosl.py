"""SOSL: text search over an index that lags behind."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import phonenumbers

from bridge.sandbox.salesforce.records import Records, SObject
from bridge.sandbox.salesforce.refusals import refuse
from bridge.sandbox.salesforce.schema import Field, SObjectType
from bridge.sandbox.salesforce.soql import Query, parse_filter, tokens

_FORM = re.compile(
    r"\s*FIND\s*\{(?P<term>(?:[^{}\\]|\\.)*)\}"
    r"(?:\s+IN\s+(?P<scope>ALL|NAME|EMAIL|PHONE|SIDEBAR)\s+FIELDS)?"
    r"(?:\s+RETURNING\s+(?P<returning>.+?))?"
    r"(?:\s+LIMIT\s+(?P<limit>\d+))?\s*",
    re.IGNORECASE | re.DOTALL,
)
_RESERVED = set("?&|!{}[]()^~*:\\\"'+-")
_SCOPES = {"PHONE": ("phone",), "EMAIL": ("email",), "NAME": ("name",)}
MOST_ROWS = 2000


@dataclass(frozen=True)
class Search:
    """A search that was understood: what to look for, and what to show of which objects."""

    test: Callable[[str], bool]
    scope: str
    queries: list[Query]
    limit: int

    def rows(self, records: Records, now: datetime, lag: float) -> list[tuple[SObject, Query]]:
        """What the index finds: nothing that is younger than `lag` seconds."""
        seen = now - timedelta(seconds=lag)
        found = [
            (row, query)
            for query in self.queries
            for row in query.rows(records)
            if row.created_at <= seen and any(self.test(token) for token in self._tokens(query.kind, row))
        ]
        return found[: self.limit]

    def _tokens(self, kind: SObjectType, row: SObject) -> list[str]:
        return [
            token
            for known in kind.fields.values()
            if isinstance(row[known.name], str) and _in_scope(known, self.scope)
            for token in _indexed(known, row[known.name])
        ]


def parse(text: str, records: Records, now: datetime) -> Search:
    """Understand `text`; raises the Refusal that Salesforce would answer with."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise refuse("MALFORMED_SEARCH", "No search term found. The search term must be enclosed in braces.")
    queries = [_query(part, records, now) for part in _parts(match["returning"] or "")]
    if not queries:
        queries = [
            Query(records.types[name], [[records.types[name].fields["Id"]]])
            for name in ("Contact", "Lead", "Account")
        ]
    limit = int(match["limit"] or MOST_ROWS)
    return Search(
        _term(match["term"].strip()), (match["scope"] or "ALL").upper(), queries, min(limit, MOST_ROWS)
    )


def _term(text: str) -> Callable[[str], bool]:
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
        return lambda token: any(pattern.fullmatch(token) for pattern in patterns)
    return lambda token: all(pattern.search(token) for pattern in patterns)


def _in_scope(known: Field, scope: str) -> bool:
    if scope == "PHONE":
        return known.type == "phone"
    if scope == "EMAIL":
        return known.type == "email"
    if scope == "NAME":
        return known.name in ("Name", "FirstName", "LastName", "Company", "Subject")
    return known.type in ("string", "phone", "email", "picklist", "textarea")


def _indexed(known: Field, value: str) -> list[str]:
    """What a value is found by: its words, the whole of it, and a phone number's digits with and without country."""
    text = value.lower()
    found = [text, *re.split(r"[^\w@.]+", text)]
    if known.type == "phone":
        found.append(re.sub(r"\D", "", text))
        with contextlib.suppress(phonenumbers.NumberParseException):
            found.append(str(phonenumbers.parse(value, "US").national_number))
    return [token for token in found if token]


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


def _query(part: str, records: Records, now: datetime) -> Query:
    match = re.fullmatch(r"(\w+)\s*(?:\((.*)\))?", part, re.DOTALL)
    kind = next(
        (one for one in records.types.values() if match and one.name.lower() == match[1].lower()), None
    )
    if match is None or kind is None:
        raise refuse("INVALID_TYPE", f"sObject type '{part.split('(')[0]}' is not supported.")
    inner = match[2] or "Id"
    names, _, rest = (piece or "" for piece in re.match(r"(?is)(.*?)(?:\b(where)\b(.*))?$", inner).groups())  # type: ignore[union-attr]
    limit = re.search(r"(?i)\s+limit\s+(\d+)\s*$", rest or names)
    if limit is not None:
        names, rest = (names, rest[: limit.start()]) if rest else (names[: limit.start()], rest)
    query = Query(kind, limit=int(limit[1]) if limit else None)
    for name in names.split(","):
        known = kind.field(name.strip())
        if known is None:
            raise refuse("INVALID_FIELD", f"No such column '{name.strip()}' on entity '{kind.name}'.")
        query.paths.append([known])
    if rest:
        query.test = parse_filter(tokens(rest), kind, records, now)
    return query
