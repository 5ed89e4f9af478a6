"""Suggestions for misspelled names: of keys and fields in the rules, and of a provider's properties and options."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

_MAX_WORD_LENGTH = 60


def nearest(word: str, known: Iterable[str], cutoff: float = 0.7) -> str | None:
    """Return the known name that is most similar to `word`, ignoring case, `_` and `-`. None: no similar name."""
    if len(word) > _MAX_WORD_LENGTH:
        return None
    best, best_ratio = None, cutoff
    matcher = SequenceMatcher(autojunk=False)
    matcher.set_seq2(_plain(word))
    for name in known:
        matcher.set_seq1(_plain(name))
        if matcher.real_quick_ratio() >= best_ratio and matcher.quick_ratio() >= best_ratio:
            ratio = matcher.ratio()
            if ratio >= best_ratio and (best is None or ratio > best_ratio):
                best, best_ratio = name, ratio
    return best


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the hint for an unknown name: the nearest known name, or all known names if there are few."""
    names = list(known)
    suggestion = nearest(word, names)
    if suggestion:
        return f"did you mean `{suggestion}`?"
    return "one of: " + ", ".join(f"`{name}`" for name in names) if 0 < len(names) <= 12 else ""


def _plain(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")
