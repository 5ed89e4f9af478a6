"""Addresses that an operator types or imports: unlike those of events, impossible ones are refused."""

from __future__ import annotations

import re
from typing import Final

from bridge.contacts.address import address_key
from bridge.contacts.email import normalize_email
from bridge.contacts.phone import impossible_number, normalize_phone, phone_problem

_SCIENTIFIC: Final = re.compile(r"\d([.,]\d+)?[eE]\+?\d+")


class InvalidAddress(ValueError):
    """The text is not an address. The message says what is wrong, and does not repeat the text."""


def read_typed_address(text: str, country: str | None = None, *, allow_impossible: bool = False) -> str:
    """Return the canonical phone number or email address in `text`; raise InvalidAddress.

    National numbers are read as numbers of `country` (ISO 3166 code, BRIDGE_DEFAULT_COUNTRY). A number that no
    numbering plan allows, such as `+1415555`, has a typing error: an opt-out of it would protect nobody. Events may
    have such numbers, so commands that look for what is stored set `allow_impossible`.
    """
    text = text.strip().strip("'\"=").strip()  # spreadsheets mark text so
    if "@" in text:
        email = normalize_email(text)
        if email is None:
            raise InvalidAddress("is not a valid email address")
        return address_key(email)
    if _SCIENTIFIC.fullmatch(text):
        raise InvalidAddress(
            "is a number that a spreadsheet has shortened: format the column as text and export it again"
        )
    number = normalize_phone(text, country)
    if number is None:
        raise InvalidAddress(
            f"is neither a phone number (it {phone_problem(text, country)}) nor an email address"
        )
    if not allow_impossible and (problem := impossible_number(number)):
        raise InvalidAddress(problem)
    return number
