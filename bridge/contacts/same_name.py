"""Comparison of names: whether two spellings may be the same person's."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from bridge.contacts.name import SUFFIXES, TITLES

_LETTERS = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})
"""Letters that have no decomposition into a base letter and an accent."""


@lru_cache(maxsize=4096)
def same_name(one: str, other: str) -> bool:
    """Return whether two names may be the same person's.

    Case, accents, order, punctuation, titles and missing parts do not matter; an initial stands for any name with that
    letter. Nicknames count as different names.
    """
    words, other_words = _words(one), _words(other)
    if len(words) > len(other_words):
        words, other_words = other_words, words
    remaining = list(other_words)
    for word in sorted(words, key=len, reverse=True):
        match = next((candidate for candidate in remaining if _same_word(word, candidate)), None)
        if match is None:
            return False
        remaining.remove(match)
    return True


def _same_word(word: str, other: str) -> bool:
    return word == other or (min(len(word), len(other)) == 1 and word[0] == other[0])


def _words(name: str) -> list[str]:
    words = name_words(name)
    return [word for word in words if word not in _TITLES] or words


def name_words(name: str) -> list[str]:
    """Return the words of a name without case, accents and punctuation: `["sean", "oneill"]` for `Seán O'Neill`."""
    letters = name.casefold()
    if not letters.isascii():
        decomposed = unicodedata.normalize("NFKD", letters.translate(_LETTERS))
        letters = "".join(char for char in decomposed if not unicodedata.combining(char))
    return re.findall(r"[^\W_]+", letters.replace("'", "").replace("\u2019", ""))


_TITLES = frozenset(word for title in TITLES | SUFFIXES for word in name_words(title) if len(word) > 1)
"""Words that do not distinguish people."""
