"""Mentions: an address is found in a text however it is spelled, and not as a part of another one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contacts.mentions import mention_test

EMAIL = "A.b+x@example.com"
NUMBERS = {
    "DE": ("+49", "0", "15123456789"),
    "FI": ("+358", "0", "401234567"),
    "FR": ("+33", "0", "612345678"),
    "GB": ("+44", "0", "7911123456"),
    "IT": ("+39", "", "0612345678"),
    "US": ("+1", "", "4155550123"),
}
"""Country -> its code, its trunk prefix, and a national number."""


def canonical(country: str) -> str:
    code, _, national = NUMBERS[country]
    return code + national


def mentions(text: str, address: str, country: str | None = None) -> bool:
    """Return whether a JSON text with this in a string mentions the address."""
    return mention_test(address, country)(
        f'{{"text":"Call {text}, please","at":"2026-11-29T09:30"}}'.encode()
    )


@pytest.mark.parametrize(
    ("country", "text"),
    [
        ("DE", "0151 23456789"),
        ("DE", "0151/23456789"),
        ("DE", r"0151\/23456789"),
        ("DE", "+49 151 234 56789"),
        ("FI", "+358 40 123 4567"),
        ("FI", "040 123 4567"),
        ("FR", "06 12 345 678"),
        ("FR", "0612 345678"),
        ("FR", r"06\u00a012\u00a034\u00a056\u00A078"),
        ("FR", "06\u202f12\u202f34\u202f56\u202f78"),
        ("GB", "07911 123 456"),
        ("GB", "+44 (0) 7911\u00a0\u2013\u00a0123456"),
        ("US", "(415)555-0123"),
        ("US", "415-5550123"),
        ("US", "415/555-0123"),
        ("US", r"\u002b14155550123"),
        ("US", r"\\u002b1 415\\u00a0555 0123"),
        ("US", "%2B1%20415%20555%200123"),
        ("US", r"\n+14155550123\n"),
    ],
)
def test_number_is_found_in_this_spelling(country: str, text: str) -> None:
    assert mentions(text, canonical(country), country)


@pytest.mark.parametrize(
    ("number", "country", "text"),
    [
        ("+5491123456789", "AR", "011 15-2345-6789"),
        ("+5511961234567", "BR", "(11) 6123-4567"),
        ("+525512345678", "MX", "044 55 1234 5678"),
        ("+29022222", "SH", "+290 222 22"),
        ("+15550001234", None, "%2B15550001234"),
    ],
)
def test_number_whose_digits_depend_on_the_form_is_found(number: str, country: str | None, text: str) -> None:
    assert mentions(text, number, country)


@st.composite
def written_numbers(draw: st.DrawFn) -> tuple[str, str]:
    """A country, and how its number is written in digits and separators."""
    country = draw(st.sampled_from(sorted(NUMBERS)))
    code, trunk, national = NUMBERS[country]
    is_national = draw(st.booleans())
    separators = st.sampled_from(["", "", "", " ", "-", ".", " - ", "\u00a0", "\u2011", "\u2009"])
    first = trunk if is_national else code + draw(separators)
    return country, first + "".join(digit + draw(separators) for digit in national[:-1]) + national[-1]


@given(written_numbers(), st.booleans())
def test_number_is_found_with_any_separators(written: tuple[str, str], is_escaped: bool) -> None:
    country, text = written
    assert mentions(json.dumps(text, ensure_ascii=is_escaped)[1:-1], canonical(country), country)


@given(written_numbers(), st.sampled_from("23456789"), st.sampled_from(["", " ", "-"]))
def test_number_is_not_found_in_a_longer_one(written: tuple[str, str], digit: str, separator: str) -> None:
    country, text = written
    plus, digits = ("+", text[1:]) if text.startswith("+") else ("", text)
    assert not mentions(plus + digit + separator + digits, canonical(country), country)
    assert not mentions(text + digit, canonical(country), country)


@pytest.mark.parametrize("text", ["5550123", "1" * 40 + "4155550123", "4155550124", "order 04155550123-7"])
def test_other_digits_are_not_the_number(text: str) -> None:
    assert not mentions(text, "+14155550123", "US")


def test_short_number_is_not_found_without_its_country_code() -> None:
    assert not mentions("order 22222", "+29022222", "SH")


def test_national_number_is_not_found_without_its_country() -> None:
    assert not mentions("07911 123456", "+447911123456")
    assert not mentions("07911 123456", "+447911123456", "FR")


@pytest.mark.parametrize(
    "text",
    [
        "A.B+X@Example.com",
        "a.b%2Bx%40example.com",
        "a.b%2bx%40example.com",
        r"a.b\u002bx\u0040example.com",
        r"a.b\u002Bx\u0040EXAMPLE.com",
        "mailto:a.b+x@example.com?subject=hi",
        r"\na.b+x@example.com",
        r"\\na.b+x@example.com",
        r"\u003ca.b+x@example.com\u003e",
        "_a.b+x@example.com_.",
        "です。a.b+x@example.comへ",
    ],
)
def test_email_address_is_found_in_this_spelling(text: str) -> None:
    assert mentions(text, EMAIL)


@pytest.mark.parametrize(
    "text",
    [
        "ca.b+x@example.com",
        "c.a.b+x@example.com",
        r"c\u002ba.b+x@example.com",
        "a.b+x@example.com.au",
        "a.b+x@example.community",
        "a.b+x@example.com-mail.example",
        "aab+x@example.com",
    ],
)
def test_email_address_is_not_found_in_a_longer_one(text: str) -> None:
    assert not mentions(text, EMAIL)


@pytest.mark.parametrize(
    "text",
    [
        "ölaf@xn--strae-oqa.example",
        "ÖLAF@Straße.example",
        r"\u00d6laf@stra\u00dfe.example",
        "%C3%B6laf%40xn--strae-oqa.example",
        r"\uD83D\uDE00\u00f6laf@stra\u00DFe.example",
    ],
)
def test_email_address_that_is_not_ascii_is_found_in_this_spelling(text: str) -> None:
    assert mentions(text, "ölaf@xn--strae-oqa.example")


@pytest.mark.parametrize(
    "part", ["4", "4 ", "41555501 ", r"4\u00a0", "4%20", "4\\", "((", "+1 ", "a.b+", r"\u002b"]
)
@pytest.mark.parametrize("address", ["+14155550123", "+444444444445", EMAIL])
def test_long_text_is_searched_in_linear_time(part: str, address: str) -> None:
    text = f"{address} " + part * 200_000
    assert mention_test(address)(text.encode())
    assert not mention_test(address)(text[len(address) :].encode())
