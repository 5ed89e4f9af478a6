"""Phone numbers in a CRM: compared as E.164, because CRM users type them in every format."""

from __future__ import annotations

from functools import lru_cache

import phonenumbers


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
