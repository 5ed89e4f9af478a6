"""Phone numbers: one canonical E.164 form, which is the identity of a number everywhere."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

import phonenumbers

PHONE_PATTERN: Final = re.compile(r"\+[1-9]\d{1,14}", re.ASCII)
"""A valid number according to Heppu's documentation of outbound calls; stricter numbering plans reject its samples."""

_PUNCTUATION = re.compile(r"[\s().\-/\u00a0\u2010-\u2015]")


def normalize_phone(value: object, country: str | None = None) -> str | None:  # noqa: ARG001
    """Return the number as E.164, or None. Punctuation is removed and `00` becomes `+`; no country is assumed."""
    if not isinstance(value, str):
        return None
    if value.isascii() and PHONE_PATTERN.fullmatch(value):
        return value  # Heppu's format
    digits = _PUNCTUATION.sub("", unicodedata.normalize("NFKC", value))
    if digits.startswith("00"):
        digits = "+" + digits[2:]
    return digits if PHONE_PATTERN.fullmatch(digits) else None


def same_number(typed: str, number: str) -> bool:
    """Return whether `typed`, in any format, is the E.164 `number`. Without a country code, its country is assumed."""
    return typed == number or _e164(typed, _region(number)) == number


def national_digits(number: str) -> str:
    """Return the digits without the country code: CRMs index phone numbers in this form."""
    try:
        return phonenumbers.national_significant_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return number.lstrip("+")


@lru_cache(maxsize=16384)
def _e164(typed: str, region: str | None) -> str | None:
    try:
        parsed = phonenumbers.parse(
            "+" + typed.lstrip()[2:] if typed.lstrip().startswith("00") else typed, region
        )
    except phonenumbers.NumberParseException:
        return None
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


@lru_cache(maxsize=16384)
def _region(number: str) -> str | None:
    try:
        code = phonenumbers.parse(number).country_code
    except phonenumbers.NumberParseException:
        return None
    return phonenumbers.region_code_for_country_code(code) if code else None
