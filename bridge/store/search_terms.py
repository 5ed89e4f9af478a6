"""Search terms: reads what an operator typed as a part of a phone number, a masked address or a name.

Each reading is a condition that an index answers; `bridge.store.search` combines them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Text, and_, literal_column, select

from bridge.contacts.country import country_of
from bridge.contacts.same_name import name_words
from bridge.store import schema

MIN_CONVERSATION_PREFIX: Final = 8
"""Characters of a conversation ID that find it."""
MIN_PHONE_PREFIX: Final = 5
_ENDING: Final = 4
"""Digits in the index `events_phone_ending`."""
_REVERSED_ENDING: Final = literal_column(f"({schema.PHONE_ENDING})", Text)
"""Literal, so that the index is used."""
_MAX_ENDING: Final = 6
_SAMPLED_PHONES: Final = 200
"""Newest events whose phone numbers say which country is the most frequent."""
_EVENTS: Final = schema.events.c
_LAST: Final = "\U0010ffff"
"""Comes after every other character."""
_GAP: Final = r"\s*(?:\*{3}|·{3}|•{3}|…|\.{3})\s*"
_MASKED_PHONE: Final = re.compile(rf"(\+\d{{1,4}}){_GAP}(\d{{2,4}})")
_MASKED_EMAIL: Final = re.compile(rf"(\S{{1,3}}){_GAP}@([\w.-]+)")
_PHONE_PUNCTUATION: Final = re.compile(r"[\s().\-/…·•*]")


def conditions(conn: Connection, term: str) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions for the events that `term` finds although it names neither an ID nor a whole address."""
    digits = _PHONE_PUNCTUATION.sub("", term)
    if _ENDING <= len(digits) <= _MAX_ENDING and digits.isascii() and digits.isdigit():
        yield _has_ending(digits)
    if re.fullmatch(rf"\+\d{{{MIN_PHONE_PREFIX},}}", digits) and not _MASKED_PHONE.search(term):
        yield starts_with(conn, _EVENTS.phone, digits)
    if len(term) >= MIN_CONVERSATION_PREFIX:
        yield starts_with(conn, _EVENTS.conversation_id, term)
    masked = _masked(conn, term)
    if masked is not None:
        yield masked
    elif any(char.isalpha() for char in term) and (name := " ".join(name_words(term))):
        yield starts_with(conn, _EVENTS.contact_name, name)
        yield starts_with(conn, _EVENTS.contact_sort_name, name)


def starts_with(conn: Connection, column: Any, prefix: str) -> ColumnElement[bool]:
    """Return the condition that a column starts with `prefix`, which its index answers on both databases."""
    if conn.dialect.name == "sqlite":
        return and_(column >= prefix, column < prefix + _LAST)
    # The operators of text_pattern_ops, which compare bytes; those of the collation would find other rows.
    return and_(
        column.op("~>=~", is_comparison=True)(prefix), column.op("~<~", is_comparison=True)(prefix + _LAST)
    )


def most_frequent_country(conn: Connection) -> str | None:
    """Return the country of most phone numbers of the newest events; None without any."""
    newest = select(_EVENTS.phone).order_by(_EVENTS.received_at.desc()).limit(_SAMPLED_PHONES)
    countries = [country_of(phone) for phone in conn.execute(newest).scalars() if phone]
    known = [country for country in countries if country]
    return max(set(known), key=lambda country: (known.count(country), country), default=None)


def is_national_number(term: str) -> bool:
    """Return whether a text may be a phone number without its country code."""
    digits = _PHONE_PUNCTUATION.sub("", term)
    return len(digits) > _MAX_ENDING and digits.isascii() and digits.isdigit()


def _has_ending(digits: str) -> ColumnElement[bool]:
    """Return the condition for phone numbers with these last digits."""
    reversed_ending = digits[::-1][:_ENDING]
    return and_(
        _REVERSED_ENDING.between(reversed_ending, reversed_ending.ljust(_ENDING, "9")),
        _EVENTS.phone.is_not(None),
        _EVENTS.routed_at.is_not(None),
        _EVENTS.phone.endswith(digits),
    )


def _masked(conn: Connection, term: str) -> ColumnElement[bool] | None:
    """Return the condition for a masked address, as lists print it: `+141***23` or `k***@example.com`."""
    if phone := _MASKED_PHONE.search(term):
        return and_(_has_ending(phone[2]), _EVENTS.phone.startswith(phone[1]))
    if email := _MASKED_EMAIL.search(term):
        start, domain = email[1].lower(), f"@{email[2].lower()}"
        return and_(starts_with(conn, _EVENTS.email, start), _EVENTS.email.endswith(domain, autoescape=True))
    return None
