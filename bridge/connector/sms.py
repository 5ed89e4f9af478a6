"""SMS segments: counts the billed parts of a text message as phone networks do (GSM 03.38)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

# Characters of the 7-bit alphabet, and those that need an escape character and so count twice.
_GSM: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_ESCAPED: Final = frozenset("^{}\\[~]|€\f")
_SHOWN: Final = 5
"""Characters outside GSM-7 that are named."""


@dataclass(frozen=True)
class Segments:
    """The size of a text message; each segment is billed."""

    count: int
    """Number of segments that are billed."""
    encoding: Literal["GSM-7", "UCS-2"]
    """A single character outside GSM-7 makes the whole message UCS-2: 70 instead of 160 characters per segment."""
    special: str = ""
    """The first characters outside GSM-7."""

    def __str__(self) -> str:
        """Return the size in words: `2 segments (á: 70 instead of 160 characters per segment)`."""
        size = f"{self.count} segment{'' if self.count == 1 else 's'}"
        return f"{size} ({self.special}: 70 instead of 160 characters per segment)" if self.special else size


def segments(text: str) -> Segments:
    """Return the number of segments in which `text` is sent. An empty message is one segment."""
    if set(text) <= _GSM | _GSM_ESCAPED:
        return Segments(_count([2 if char in _GSM_ESCAPED else 1 for char in text], 160, 153), "GSM-7")
    special = "".join(dict.fromkeys(char for char in text if char not in _GSM | _GSM_ESCAPED))[:_SHOWN]
    return Segments(_count([2 if ord(char) > 0xFFFF else 1 for char in text], 70, 67), "UCS-2", special)


def _count(widths: Sequence[int], single: int, concatenated: int) -> int:
    """Return the number of segments; a wide character is never split between two.

    `single` and `concatenated` are the capacities of a lone segment and of one in a longer message.
    """
    if sum(widths) <= single:
        return 1
    used, count = 0, 1
    for width in widths:
        if used + width > concatenated:
            used, count = 0, count + 1
        used += width
    return count
