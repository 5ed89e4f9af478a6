"""What a text costs: how many segments it becomes, as phone networks count them (GSM 03.38)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

# What fits seven bits, and what takes an escape there and so counts twice.
_GSM: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_ESCAPED: Final = frozenset("^{}\\[~]|€\f")


@dataclass(frozen=True)
class Segments:
    """The size of a text; every segment is billed."""

    count: int
    encoding: Literal["GSM-7", "UCS-2"]
    """One character outside GSM-7 makes the whole text UCS-2, with 70 instead of 160 characters to a segment."""


def segments(text: str) -> Segments:
    """How many segments `text` is sent in; an empty text is one."""
    if set(text) <= _GSM | _GSM_ESCAPED:
        return Segments(_count([2 if char in _GSM_ESCAPED else 1 for char in text], 160, 153), "GSM-7")
    return Segments(_count([2 if ord(char) > 0xFFFF else 1 for char in text], 70, 67), "UCS-2")


def _count(widths: Sequence[int], alone: int, joined: int) -> int:
    """Segments for characters of these widths; a wide character is never split between two."""
    if sum(widths) <= alone:
        return 1
    used, count = 0, 1
    for width in widths:
        if used + width > joined:
            used, count = 0, count + 1
        used += width
    return count
