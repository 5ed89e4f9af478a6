"""Phone numbers: one identity for every spelling, and none for what is not one phone number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from time import thread_time

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneMetadata, PhoneNumber, PhoneNumberFormat, PhoneNumberType

from bridge.contacts import phone
from bridge.contacts.phone import (
    MAX_LENGTH,
    impossible_number,
    is_withheld,
    normalize_phone,
    phone_problem,
    same_number,
)

BRITISH = "+447911123456"


@pytest.mark.parametrize(
    "spelling",
    [
        "+44 (0)7911 123456",
        "0044 (0) 7911-123456",
        "+4407911123456",
        "+44 0 7911 123456",
        "(+44) 7911 123456",
        "+00447911123456",
        "++447911123456",
        "011 44 7911 123456",
        "0011 44 7911 123456",
        "tel:+44-7911-123456",
        "tel:+447911123456;ext=12",
        "tel:7911123456;phone-context=+44",
        "TEL:+44.7911.123456;isub=1",
        "Tel.: +44 7911 123456",
        "whatsapp:+447911123456",
        "sip:+447911123456@gateway.example.com;user=phone",
        '"Ada" <sip:+447911123456@gateway.example.com>',
        "+44 7911 123456 ext. 12",
        "+44 7911 123456 x12",
        "+44 7911 123456 #12",
        "+447911123456,,12#",
        "\u202a+44\u202c 7911 123456",
        "\u2066+447911123456\u2069",
        "\u200e+44 7911\u200b 123456\ufeff",
        "+44\u00ad7911\u00ad123456",
        "+44\ufe0f7911123456",
        "+44\u00a07911\u2009123456\n",
        "+44\u20117911\u2013123456\u2212",
        "+44·7911·123456",
        "+44•7911・123456",
        "٠٠٤٤٧٩١١١٢٣٤٥٦",
        "+۴۴۷۹۱۱۱۲۳۴۵۶",
        "＋４４（０）７９１１－１２３４５６",
        "4️⃣4️⃣".join(["+", "7911123456"]),
        "📱 +44 7911 123456",
        "+44 7911 123456 ☎️",
        "“+44 7911 123456”",
        '"+447911123456"',
        "'+447911123456",
        "+44_7911_123456",
        "<tel:+447911123456>",
        "tel:%2B447911123456",
        "%2B44%207911%20123456",
    ],
)
def test_normalize_phone_reads_every_spelling_as_one_number(spelling: str) -> None:
    assert normalize_phone(spelling) == BRITISH
    assert phone_problem(spelling) == ""


@pytest.mark.parametrize(
    ("spelling", "country", "number"),
    [
        ("07911 123456", "GB", BRITISH),
        ("447911123456", "GB", BRITISH),
        ("447911123456", "US", BRITISH),  # only the + is missing
        ("00447911123456", "US", BRITISH),
        (7911123456, "GB", BRITISH),
        ("030/1234567", "DE", "+49301234567"),
        ("4915123456789", "DE", "+4915123456789"),
        ("(415) 555-0123", "US", "+14155550123"),
        ("1 415 555 0123", "US", "+14155550123"),
        ("(555) 123-4567", "US", "+15551234567"),  # unknown to the numbering plan, like Heppu's samples
        ("011 44 7911 123456", "US", BRITISH),
        ("8~10".replace("~", " ") + " 44 7911 123456", "RU", BRITISH),
        ("0114 496 0123", "GB", "+441144960123"),  # Sheffield, not the prefix 011
        ("8 916 123-45-67", "RU", "+79161234567"),
        ("06 20 123 4567", "HU", "+36201234567"),
        ("011 15-2345-6789", "AR", "+5491123456789"),
        ("0 15 11 91234 5678", "BR", "+5511912345678"),
        ("044 55 1234 5678", "MX", "+525512345678"),
        ("347 1234567", "IT", "+393471234567"),
        ("02 1234567", "IT", "+39021234567"),
    ],
)
def test_national_number_is_read_with_the_default_country(
    spelling: object, country: str, number: str
) -> None:
    assert normalize_phone(spelling, country) == number


@pytest.mark.parametrize(
    ("spelling", "number"),
    [
        ("+39 02 1234567", "+39021234567"),
        ("+39 (0)2 1234567", "+39021234567"),
        ("+39 (0) 347 1234567", "+393471234567"),
        ("+36 06 20 123 4567", "+36201234567"),
        ("+7 (8) 916 123-45-67", "+79161234567"),
        ("+45 (0) 20 12 34 56", "+4520123456"),
        ("+52 1 55 1234 5678", "+525512345678"),
        ("+54 11 15 2345 6789", "+5491123456789"),
        ("+54 9 11 2345 6789", "+5491123456789"),
        ("+55 (0) 11 91234-5678", "+5511912345678"),
        ("+55 31 8888-7777", "+5531988887777"),  # WhatsApp omits the ninth digit
        ("+1 (1) 415 555 0123", "+14155550123"),
        ("+49 30/1234567", "+49301234567"),
    ],
)
def test_trunk_prefix_is_removed_where_it_is_one(spelling: str, number: str) -> None:
    assert normalize_phone(spelling) == number


@pytest.mark.parametrize("number", ["+12125550123", "+15551234567", "+15551234", "+44123", "+99912345"])
def test_number_unknown_to_the_numbering_plan_is_kept(number: str) -> None:
    assert normalize_phone(number) == number
    assert normalize_phone(f"{number[:3]} {number[3:]}") == number


@pytest.mark.parametrize(
    ("value", "country", "problem"),
    [
        ("415 555 0123", None, "has no country code"),
        ("4235551234", None, "has no country code"),  # Tennessee; +4235551234 is Liechtenstein
        (4155550123, None, "has no country code"),
        ("+14155550123 / +14155550124", None, "more than one number"),
        ("+14155550123 +14155550124", None, "more than one number"),
        ("+14155550123; +14155550124", None, "more than one number"),
        ("415 555 0123 / 415 555 0124", "US", "more than one number"),
        ("030 123456/57", "DE", "more than one number"),
        ("030 1234567 / 030 7654321", "DE", "more than one number"),
        ("+298 123456/654321", None, "is not a phone number"),
        ("415 555 0123, 555 0124", "US", "letters or symbols"),
        ("415 555 0123 or 415 555 0124", "US", "letters or symbols"),
        ("1-800-FLOWERS", "US", "letters or symbols"),
        ("+1 415 555 0123 (mobile)", None, "letters or symbols"),
        ("N/A", None, "letters or symbols"),
        ("HEPPU", None, "letters or symbols"),
        ("+1 415 555 0123²", None, "letters or symbols"),
        ("12345", "US", "is not a phone number"),
        ("116117", "DE", "is not a phone number"),
        ("+0123", None, "is not a phone number"),
        ("+1212555012345678", None, "more than one number"),
        ("", None, "is not a phone number"),
        ("-", None, "is not a phone number"),
        ("+" * 200, None, "is too long"),
        (True, None, "is not a string"),
        (4155550123.0, "US", "is not a string"),
        (["+14155550123"], None, "is not a string"),
        (None, None, "is not a string"),
    ],
)
def test_unreadable_number_is_none_with_a_problem(value: object, country: str | None, problem: str) -> None:
    assert normalize_phone(value, country) is None
    assert problem in phone_problem(value, country)
    assert not is_withheld(value, country)


@pytest.mark.parametrize(
    "value",
    [
        "+266696687",
        "266696687",
        "00266696687",
        "+1266696687",
        "tel:+266696687",
        "+266 696 687",
        "+86282452253",
        "+7378742833",
        "+17378742833",
        "+7378742883",
        "+2562533",
        "+8656696",
        "+464",
        "0000000000",
        "+0",
        "anonymous",
        "Anonymous",
        "ANONYMOUS CALLER",
        "Restricted",
        "unavailable",
        "Unknown caller",
        "Private Number",
        "No Caller ID",
        "Out of area",
        "Blocked\u200b",
        "anonymous@anonymous.invalid",
        "sip:anonymous@anonymous.invalid",
        "sip:anonymous@192.0.2.1",
        '"Anonymous" <sip:anonymous@anonymous.invalid>;tag=1',
        "sip:unavailable@unknown.invalid",
    ],
)
def test_placeholder_of_a_carrier_is_withheld(value: str) -> None:
    assert is_withheld(value)
    assert normalize_phone(value) is None
    assert "withheld" in phone_problem(value)


@pytest.mark.parametrize(
    ("value", "country", "number"),
    [
        ("8656696", "IS", "+3548656696"),  # a mobile number in Iceland, and UNKNOWN on a keypad
        ("7378742833", "IN", "+917378742833"),
        ("02562533", "FI", "+3582562533"),
        ("+3548656696", None, "+3548656696"),
    ],
)
def test_real_number_is_not_withheld(value: str, country: str | None, number: str) -> None:
    assert normalize_phone(value, country) == number
    assert not is_withheld(value, country)


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        ("+1415555", "is too short for a number of +1"),
        ("+141555501234", "is too long for a number of +1"),
        ("+99912345678", "has a country code that does not exist"),
        ("+14155550123", ""),
        ("+15551234567", ""),
        ("+13101234", ""),
        (BRITISH, ""),
    ],
)
def test_impossible_number_says_why(number: str, problem: str) -> None:
    assert impossible_number(number) == problem


@pytest.mark.parametrize(
    ("typed", "number", "is_same"),
    [
        ("07911 123456", BRITISH, True),
        ("+44 (0)7911 123456", BRITISH, True),
        ("tel:+44-7911-123456", BRITISH, True),
        ("+1 7911 123456", BRITISH, False),
        ("(555) 123-4567", "+15551234567", True),
        ("55 1234 5678", "+525512345678", True),
        ("+5215512345678", "+525512345678", True),
        ("reception", BRITISH, False),
    ],
)
def test_same_number_compares_identities(typed: str, number: str, is_same: bool) -> None:
    assert same_number(typed, number) is is_same


# ---------------------------------------------------------------- properties


@cache
def examples() -> Sequence[tuple[str, PhoneNumber]]:
    """An example of every type of number in every region that the numbering plans call valid."""
    return [
        (region, number)
        for region in sorted(phonenumbers.SUPPORTED_REGIONS)
        for kind in PhoneNumberType.values()
        if (number := phonenumbers.example_number_for_type(region, kind))
        and phonenumbers.is_valid_number(number)
    ]


INVISIBLE = list("\u200e\u200f\u202a\u202c\u2066\u2069\u200b\u2060\u00ad\ufe0f\ufeff")
SPACING = ["", " ", "-", ".", "\u00a0", "\u2011", "·", "  "]
ZEROS = ["0", "\u0660", "\u06f0", "\u0966", "\uff10", "\U0001d7ce"]


def _grouped(number: PhoneNumber, draw: st.DrawFn) -> str:
    formats = [PhoneNumberFormat.E164, PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.RFC3966]
    return str(phonenumbers.format_number(number, draw(st.sampled_from(formats))))


def _with_trunk_prefix(region: str, number: PhoneNumber) -> str:
    """The number with its country's trunk prefix in parentheses; unchanged in a country without one."""
    metadata = PhoneMetadata.metadata_for_region(region)
    prefix = metadata.national_prefix if metadata else None
    if not prefix or number.country_code == 1:
        return str(phonenumbers.format_number(number, PhoneNumberFormat.E164))
    return f"+{number.country_code} ({prefix}) {phonenumbers.national_significant_number(number)}"


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str, str | None]:
    """A valid number in E.164, a spelling of it, and the country that the spelling needs."""
    region, number = draw(st.sampled_from(examples()))
    canonical = str(phonenumbers.format_number(number, PhoneNumberFormat.E164))
    kind = draw(st.sampled_from(["grouped", "trunk", "00", "011", "national", "no plus"]))
    country = None
    if kind == "trunk":
        text = _with_trunk_prefix(region, number)
    elif kind in ("00", "011"):
        text = kind + canonical[1:]
    elif kind == "national":
        text, country = str(phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)), region
    elif kind == "no plus":
        text, country = canonical[1:], region
    else:
        text = _grouped(number, draw)
    zero = ord(draw(st.sampled_from(ZEROS)))
    text = "".join(chr(zero + int(char)) if char.isdecimal() else char for char in text)
    junk = st.sampled_from(["", *INVISIBLE])
    if text.isdecimal():
        text = draw(st.sampled_from(SPACING)).join([text[:3], text[3:6], text[6:]])
    text = "".join(draw(junk) + char for char in text) + draw(junk)
    return canonical, text[:MAX_LENGTH], country


@given(spellings())
def test_every_spelling_of_a_valid_number_is_the_same_identity(spelling: tuple[str, str, str | None]) -> None:
    canonical, text, country = spelling
    assert normalize_phone(text, country) == canonical


def test_trunk_prefix_of_every_country_is_removed() -> None:
    for region, number in examples():
        canonical = phonenumbers.format_number(number, PhoneNumberFormat.E164)
        assert normalize_phone(_with_trunk_prefix(region, number)) == canonical


@given(
    st.one_of(
        st.text(alphabet="+0123456789 ()-./;,x#٠０\u200b", max_size=24),
        st.text(max_size=40),
        st.builds(lambda code, rest: f"+{code}{rest}", st.sampled_from(sorted(phone.COUNTRY_CODE_TO_REGION_CODE)),
                  st.from_regex(r"[0-9]{1,12}", fullmatch=True)),
    ),
    st.sampled_from([None, "US", "GB", "DE", "IT", "RU", "BR", "MX", "AR", "HU"]),
)  # fmt: skip
def test_normalized_number_stays_the_same_when_normalized_again(text: str, country: str | None) -> None:
    number = normalize_phone(text, country)
    assert (number is None) == bool(phone_problem(text, country))
    if number is not None:
        assert phone.PHONE_PATTERN.fullmatch(number)
        assert normalize_phone(number) == number
        assert normalize_phone(number, country) == number


@given(
    st.builds(
        lambda code, rest: f"+{code}{rest}",
        st.sampled_from(sorted(phone.COUNTRY_CODE_TO_REGION_CODE)),
        st.from_regex(r"[0-9]{1,12}", fullmatch=True),
    ).filter(phone.PHONE_PATTERN.fullmatch)
)
def test_fast_path_equals_the_parser(number: str) -> None:
    if phone._is_canonical(number):
        assert phone._international(number[1:], strict=False) == number


@given(st.text(max_size=40))
def test_problem_contains_no_part_of_the_value(text: str) -> None:
    problems = {phone_problem(text[:10] + str(index) * 9) for index in range(3)}
    assert all("00000000" not in problem and "11111111" not in problem for problem in problems)


def test_number_in_heppus_form_is_recognized_without_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = phonenumbers.parse
    monkeypatch.setattr(phonenumbers, "parse", lambda text, *rest: parsed.append(text) or parse(text, *rest))
    for index in range(100):
        assert normalize_phone(f"+4479110{index:05}") == f"+4479110{index:05}"
    assert parsed == []
    for _ in range(3):
        assert normalize_phone("07911 098765", "GB") == "+447911098765"
    assert len(parsed) <= 2, "a repeated number is cached"


@pytest.mark.parametrize(
    "text", ["ext" * 40, "+" * 120, "," * 120, "<sip:" * 24, "1 " * 60, "tel:;" + "a=;" * 40]
)
def test_hostile_text_is_rejected_quickly(text: str) -> None:
    started = thread_time()
    normalize_phone(text)
    assert thread_time() - started < 1
