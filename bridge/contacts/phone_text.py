"""The text of a phone number: makes it ASCII, and removes what is around the number."""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote

_URI = re.compile(r"(tel|sms|smsto|callto|whatsapp|sips?):", re.IGNORECASE)
SIP_ADDRESS: Final = re.compile(
    r"(?:[^<>]*<)?sips?:([^@;<>]*)(?:@([^;<>]*))?[^<>]*(?:>[^<>]*)?", re.IGNORECASE
)
_URI_PARAM = re.compile(r"\s*([a-z][a-z0-9-]*)\s*(?:=\s*([^=]*))?", re.IGNORECASE)
_EXTENSION = re.compile(
    r"[ ,]*(?:(?:(?:ext(?:ension|n)?|xt?n?|anexo|poste|durchwahl)[ .:]*|#) ?\d{1,9}|,+ ?\d{1,6})#?$",
    re.IGNORECASE,
)
_EXTENSION_LENGTH = 24
_INVISIBLE: Final = ("Cf", "Mn", "Me")
"""Categories of bidi marks, zero-width characters and soft hyphens, of variation selectors, and of keycaps."""
_DECORATION: Final = ("So", "Sk", "Pi", "Pf")
"""Categories of pictures of phones and of quotation marks, which people and spreadsheets put around a number."""
_ESCAPED_CHARACTER = re.compile(r"%[0-9A-F]{2}", re.IGNORECASE)
_DIAL_LABEL = re.compile(r"tel(?:ephone)?[.: ]+", re.IGNORECASE)


_ASCII_CHANGES: Final = str.maketrans({"[": "(", "]": ")", "_": " "})


def to_ascii(text: str) -> str:
    """Return the text with ASCII digits, letters and punctuation, without invisible characters, stripped."""
    if _ESCAPED_CHARACTER.search(text):  # a number from a link or a form: `tel:%2B44`
        text = unquote(text)
    if not text.isascii() or not text.isprintable():
        text = "".join(map(_ascii_character, text))
    return " ".join(text.translate(_ASCII_CHANGES).split()).strip("'\"")


def _ascii_character(char: str) -> str:
    if char.isascii():
        return " " if char.isspace() else char if char.isprintable() else ""
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    category = unicodedata.category(char)
    if category in _INVISIBLE:
        return ""
    if category.startswith("Z") or category in _DECORATION:
        return " "
    if category == "Pd" or char in "−˗ーｰ":
        return "-"
    if char in "·•‧∙⋅・･․。｡":
        return "."
    if category == "No":  # superscripts and circled digits are footnotes
        return char
    return unicodedata.normalize("NFKC", char)


def split_uri(text: str) -> tuple[str, str]:
    """Return the number in a URI (`tel:`, `sip:`, ...) or other text, and the prefix in its `phone-context`."""
    if sip := SIP_ADDRESS.fullmatch(text):
        return (sip[1], "") if sip[1].startswith("+") else ("", "")
    text = text.removeprefix("<").removesuffix(">")
    if scheme := _URI.match(text):
        text = text[scheme.end() :].removeprefix("//")
    elif label := _DIAL_LABEL.match(text):
        text = text[label.end() :]
    number, *params = text.split(";")
    values = {match[1]: match[2] or "" for param in params if (match := _URI_PARAM.fullmatch(param))}
    if len(values) < len(params):
        return text, ""  # the semicolon separates something else
    context = values.get("phone-context", "").strip()
    return number.strip(), re.sub(r"\D", "", context) if context.startswith("+") else ""


def without_extension(text: str) -> str:
    """Remove an extension or digits to be dialed after the call is answered."""
    match = _EXTENSION.search(text, max(len(text) - _EXTENSION_LENGTH, 0))
    return text[: match.start()].strip() if match else text
