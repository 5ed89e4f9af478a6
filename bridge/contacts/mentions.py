"""Mentions: whether a text contains an address, in any of its spellings, and not only as a part of another one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import unquote

from bridge.contacts.email import email_spellings
from bridge.contacts.phone import normalize_phone, shared_digits

_SEPARATORS: Final = rb"(?:[ ().\-/\\\x80-\xff]|\\u[0-9a-f]{4}|%[0-9a-f]{2}){0,12}"
"""Up to 12 characters between two digits: separators, escapes, and the bytes of characters outside ASCII."""
_SPACES_AND_DASHES: Final = "\u00a0\u00ad\u2000-\u2015\u202a-\u202f\u2060-\u2069\u2212\ufeff"
"""Those that are not ASCII, and invisible characters."""
_RUN: Final = re.compile(rf"[+(]{{0,2}}[0-9](?:[0-9 ().\-/{_SPACES_AND_DASHES}]*[0-9])?")
"""All the digits that one number may have. Reading all of them is what tells a number from a part of a longer one."""
_ESCAPE: Final = re.compile(r"((?:\\u[0-9a-fA-F]{4})+)|\\(.)", re.DOTALL)


def mention_test(address: str, country: str | None = None) -> Callable[[bytes], bool]:
    """Return the test whether a text, which may be JSON, mentions a canonical address.

    National numbers are read as numbers of `country`. A pattern that takes about a microsecond per KB rules out nearly
    every text; what it leaves is read with care.
    """
    if "@" in address:
        is_candidate, confirm = _email_candidates(address), _email_test(address)
    else:
        is_candidate, confirm = _number_candidates(address), _number_test(address, country)

    def mentions(text: bytes) -> bool:
        return bool(is_candidate(text)) and any(map(confirm, _readings(text)))

    return mentions


def _number_candidates(number: str) -> Callable[[bytes], object]:
    """Return the test whether a text has the digits that all spellings of a number share."""
    digits = shared_digits(number).encode()
    return re.compile(_SEPARATORS.join(bytes([digit]) for digit in digits), re.IGNORECASE).search


def _number_test(number: str, country: str | None) -> Callable[[str], bool]:
    """Return the test whether a text contains an E.164 number in any spelling, not only in a longer one."""
    find = re.compile(rf"{re.escape(number)}(?![0-9])").search

    def contains(text: str) -> bool:
        return find(text) is not None or any(
            normalize_phone(run, country) == number for run in _RUN.findall(text)
        )

    return contains


def _email_candidates(email: str) -> Callable[[bytes], object]:
    """Return the test whether a text has the characters of an email address, in any case, or escaped."""
    spellings = sorted(email_spellings(email))
    find = re.compile(b"|".join(b"".join(map(_character_pattern, spelling)) for spelling in spellings)).search
    return lambda text: find(text.lower())  # a quarter of the time that IGNORECASE takes


def _character_pattern(char: str) -> bytes:
    """Return the pattern of a character of either case, as it is or escaped, in a text whose ASCII is in lower case."""
    if char.isascii() and char.isalnum():
        return char.lower().encode()
    forms = []
    for form in sorted({char.lower(), char.upper()}):
        units = re.sub("....", r"\\u\g<0>", form.encode("utf-16-be").hex())
        octets = "".join(f"%{octet:02x}" for octet in form.encode())
        forms += [re.escape(item.encode()) for item in (form, units, octets)]
    return b"(?:" + b"|".join(forms) + b")"


def _email_test(email: str) -> Callable[[str], bool]:
    """Return the test whether a text contains an email address that is not the end or start of another one."""
    either = "|".join(map(re.escape, sorted(email_spellings(email))))
    whole = rf"(?<![a-z0-9])(?<![a-z0-9][._+-])(?:{either})(?![a-z0-9])(?![.-][a-z0-9])"
    find = re.compile(whole, re.IGNORECASE).search
    return lambda text: find(text) is not None


def _readings(text: bytes) -> Iterator[str]:
    """Yield the text without the escapes of JSON, without those of JSON in JSON, and without those of a URL."""
    plain = _ESCAPE.sub(_unescape, text.decode("utf-8", "replace"))
    yield plain
    yield _ESCAPE.sub(_unescape, plain)
    yield unquote(plain)


def _unescape(escape: re.Match[str]) -> str:
    if escape[1]:
        return bytes.fromhex(escape[1].replace("\\u", "")).decode("utf-16-be", "replace")
    return "\n" if escape[2] in "bfnrt" else escape[2]
