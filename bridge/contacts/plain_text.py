"""Plain names: what may stand in a message to a customer although a stranger wrote it.

Anybody can type a name into a chat, or send an event with one, and the company's own sender repeats it. A name that
carries a link, an address, a phone number or a sentence would make the company deliver other people's text, so such
a name does not enter messages. The check lists what names consist of, not what links look like: there are too many
characters that look like a dot or a slash (such as U+3002, U+2024 and U+2044), and clients link more than URLs.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

MAX_FIRST_NAME: Final = 40
"""Characters of a first name in a message."""
MAX_NAME: Final = 60
"""Characters of a full name, family name or company in a message."""


def words_of(text: str) -> frozenset[str]:
    """Return the words of a table."""
    return frozenset(text.split())


PARTICLES: Final = words_of(
    "a aan af al an and av bin binti d da dal dalla das de degli dei del della den der des di do dos du e el et "
    "het i ibn im in la las le les lo los 't te ten ter till und van vom von y zu zum zur"
)
"""Words of family names that are written in lower case, and `and` in its languages."""

_LATIN: Final = "A-Za-zªºÀ-ÖØ-öø-ƿǄ-ɏ"
"""Latin letters, without U+01C0 to U+01C3, which look like `|` and `!`."""
SIMPLE_WORD: Final = rf"[{_LATIN}]+(?:['’-][{_LATIN}]+)*"
"""The pattern of a Latin word, as most names consist of."""
_SIMPLE = re.compile(SIMPLE_WORD)
_APOSTROPHES: Final = "'’‘ʻʼʾʿ`´׳״"
_HYPHENS: Final = "-‐‑־"
_JOINERS: Final = "\u200c\u200d"
_EAST_ASIAN: Final = ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC")
_KATAKANA_DOT: Final = "・"
_MAX_MARKS = 4
"""Combining marks in a row. Vietnamese, Hebrew and Arabic need at most this many."""
_PERIOD = re.compile(r"\.(?!$|[ ,)]|[^\W\d_]\.)")
"""A period inside of a word, as in a domain. Initials are no such words: `J.R.R. Tolkien`, `S.p.A.`"""
_LONG_BEFORE_PERIOD = re.compile(r"[^\W\d_]{5,}\.(?=.)")
"""The end of a sentence. Abbreviations are shorter: `St. John`, `Chas. Smith`."""


@lru_cache(maxsize=8192)
def is_plain_first_name(text: str) -> bool:
    """Return whether a text consists of one to three given names, and so may stand in a message to a customer."""
    return _has_shape(text, MAX_FIRST_NAME, words=3, lowercase=2) and _has_only(text, "")


@lru_cache(maxsize=8192)
def is_plain_name(text: str) -> bool:
    """Return whether a text is a full name, family name or company, and so may stand in a message to a customer.

    It may have four digits and some punctuation, but no domain: `Amazon.com` is none, because clients make it a link.
    """
    return (
        _has_shape(text, MAX_NAME, words=7, lowercase=3)
        and sum(char.isdecimal() for char in text) <= 4
        and _has_only(re.sub("[0-9]", "", text), "&+,()")
    )


def _has_shape(text: str, max_length: int, words: int, lowercase: int) -> bool:
    """Return whether the length, the number of words and the periods are those of a name, not of a sentence."""
    if not 0 < len(text) <= max_length or _PERIOD.search(text) or _LONG_BEFORE_PERIOD.search(text):
        return False
    parts = [part for part in text.split(" ") if part not in PARTICLES]
    return len(parts) <= words and sum(part.islower() for part in parts) <= lowercase


def _has_only(text: str, punctuation: str) -> bool:
    """Return whether a text has only letters, each word in one script, and the punctuation of names."""
    return all(_is_word(word) for word in re.split(r"[ .\-" + re.escape(punctuation) + "]+", text))


@lru_cache(maxsize=8192)
def _is_word(word: str) -> bool:
    if _SIMPLE.fullmatch(word):
        return True
    scripts, marks = set(), 0
    for char in word:
        category = unicodedata.category(char)
        if category[0] == "M":
            marks += 1
            if marks > _MAX_MARKS:
                return False
            continue
        marks = 0
        if category[0] == "L" and char not in _APOSTROPHES and char == unicodedata.normalize("NFKC", char):
            scripts.add(_script(char))
        elif char not in _APOSTROPHES + _HYPHENS + _JOINERS + _KATAKANA_DOT:
            return False
    if "LATIN" in scripts and any(char in _JOINERS for char in word):
        return False
    return len(scripts) <= 1


def _script(char: str) -> str:
    name = unicodedata.name(char, "")
    return "EAST ASIAN" if name.startswith(_EAST_ASIAN) else name.split(" ")[0]
