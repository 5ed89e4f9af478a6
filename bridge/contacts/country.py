"""Country of a phone number, for `contact.country` and `messaging.countries`."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from bridge.area_codes import STATE_BY_AREA_CODE

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

_NO_COUNTRY = "001"
"""The region that `phonenumbers` gives numbers of international networks."""
_TYPICAL_SUBSCRIBER = "2345678"
"""Digits that are valid after every North American area code."""
_NANP_NUMBER_LENGTH = len("+12125550123")


@lru_cache(maxsize=4096)
def country_of(phone: str) -> str | None:
    """Return the country of a phone number (ISO 3166), or None if it is unknown or the number belongs to no country.

    Numbers of international networks, and numbers that charge their callers, belong to no country. A number that its
    numbering plan does not know has the country of its area code, or of a calling code that only one country uses.
    """
    from phonenumbers import (
        PhoneNumberType,
        number_type,
        region_code_for_number,
        region_codes_for_country_code,
    )

    number = parsed_number(phone)
    if number is None or number.country_code is None:
        return None
    if number_type(number) in (
        PhoneNumberType.PREMIUM_RATE, PhoneNumberType.SHARED_COST, PhoneNumberType.PERSONAL_NUMBER
    ):  # fmt: skip
        return None
    country: str | None = region_code_for_number(number)
    if country is None and phone.startswith("+1"):
        area_code = area_code_of(phone)
        typical = f"+1{area_code}{_TYPICAL_SUBSCRIBER}"
        if area_code in STATE_BY_AREA_CODE:
            country = "US"
        elif area_code and phone != typical:
            country = country_of(typical)
    elif country is None:
        countries = region_codes_for_country_code(number.country_code)
        country = countries[0] if len(countries) == 1 else None
    return None if country == _NO_COUNTRY else country


def area_code_of(phone: str) -> str:
    """Return the area code of a complete +1 number. A number of any other length has no reliable area code."""
    return phone[2:5] if phone.startswith("+1") and len(phone) == _NANP_NUMBER_LENGTH else ""


def parsed_number(phone: str) -> PhoneNumber | None:
    """Return the parts of an E.164 number, or None if its calling code does not exist."""
    from phonenumbers import NumberParseException, parse

    try:
        return parse(phone)
    except NumberParseException:
        return None
