"""The flags of a CRM's records by address, however a user of the CRM wrote the address."""

from __future__ import annotations

import phonenumbers
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat

from bridge.connector import PHONE_CHANNELS, ContactMatch, OptOutFlag, flags_by_address
from bridge.connector.opt_outs import EMAIL_CHANNELS

FLAG = OptOutFlag("DoNotCall", PHONE_CHANNELS)
NUMBERS = [
    example
    for region in sorted(phonenumbers.SUPPORTED_REGIONS)
    if (example := phonenumbers.example_number(region)) is not None
]
FORMATS = (PhoneNumberFormat.E164, PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.RFC3966)


def e164(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


@given(
    number=st.sampled_from(NUMBERS),
    form=st.sampled_from(FORMATS),
    separator=st.sampled_from([" ", "-", ".", "\u00a0", ""]),
)
def test_any_spelling_of_a_number_in_the_crm_has_the_flag(
    number: phonenumbers.PhoneNumber, form: int, separator: str
) -> None:
    spelling = phonenumbers.format_number(number, form).replace(" ", separator)
    matches = {"1": ContactMatch("1", phones=[spelling])}
    assert flags_by_address(matches, {"1": [FLAG]}, [], [e164(number)]) == {e164(number): [FLAG]}


@given(local=st.from_regex(r"[a-z][a-z0-9.+_-]{0,20}", fullmatch=True))
def test_case_of_an_email_address_does_not_matter(local: str) -> None:
    flag = OptOutFlag("hs_email_optout", EMAIL_CHANNELS)
    address = f"{local}@example.com"
    matches = {"1": ContactMatch("1", emails=[address.upper()])}
    assert flags_by_address(matches, {"1": [flag]}, [address], []) == {address: [flag]}


def test_flags_of_all_records_with_an_address_are_returned() -> None:
    other = OptOutFlag("HasOptedOutOfEmail", EMAIL_CHANNELS)
    matches = {
        "1": ContactMatch("1", emails=["a@example.com"], phones=["(212) 555-0123"]),
        "2": ContactMatch("2", phones=["+12125550123"]),
        "3": ContactMatch("3", phones=["+12125550124"]),
    }
    flags = {"1": [other], "2": [FLAG], "3": [FLAG]}
    assert flags_by_address(matches, flags, ["a@example.com"], ["+12125550123"]) == {
        "a@example.com": [other],
        "+12125550123": [other, FLAG],
    }
