"""How many SMS a text becomes: 160 GSM-7 or 70 UCS-2 characters alone, 153 or 67 each when it is split."""

from __future__ import annotations

_GSM_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_GSM_EXTENDED = frozenset("\f^{}\\[~]|€")


def segments(text: str) -> int:
    """The number of SMS that `text` is sent as; never less than one."""
    if all(character in _GSM_BASIC or character in _GSM_EXTENDED for character in text):
        return _count([2 if character in _GSM_EXTENDED else 1 for character in text], 160, 153)
    return _count([len(character.encode("utf-16-be")) // 2 for character in text], 70, 67)


def _count(widths: list[int], alone: int, split: int) -> int:
    """A character that is two units wide is never torn apart."""
    if sum(widths) <= alone:
        return 1
    parts, used = 1, 0
    for width in widths:
        if used + width > split:
            parts, used = parts + 1, 0
        used += width
    return parts
