"""Phone numbers: one canonical E.164 form, which is the identity of a number everywhere.

`normalize_phone` reads a number as people and systems write it. What it decides:

- **Trunk prefixes** are removed (`+44 (0)7911 ...`, `+36 06 ...`, `+7 8 ...`) unless they belong to the number, as the
  zero of Italy does. Forms that were abolished become the current one (`+52 1 ...` of Mexico, Brazilian mobile numbers
  without their ninth digit), because people and WhatsApp still use them.
- **A number without `+`** starts with an international prefix (`00`, `011`), or is a national number of `country`, or
  lacks its `+`; the first that fits counts. Without `country`, only international prefixes are understood, because
  4235551234 is a number of Tennessee, and of Liechtenstein with a `+` in front.
- **A number that the numbering plan does not know** is kept as it is: plans change, and Heppu's own samples are such.
- **Two numbers in one text, and any word**, make a text unreadable. A vanity number (1-800-FLOWERS) has letters, too.
- **Extensions** are dropped: no message reaches one.
- **Short codes and alphanumeric senders** have no E.164 form and are unreadable.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

import phonenumbers
from phonenumbers import NumberParseException, PhoneMetadata, PhoneNumberFormat, ValidationResult
from phonenumbers.phonenumberutil import COUNTRY_CODE_TO_REGION_CODE

from bridge.contacts.phone_text import SIP_ADDRESS, split_uri, to_ascii, without_extension

PHONE_PATTERN: Final = re.compile(r"\+[1-9]\d{1,14}", re.ASCII)
"""A valid number according to Heppu's documentation of outbound calls; stricter numbering plans reject its samples."""
MAX_LENGTH: Final = 128
"""Characters. A longer text is not a phone number."""
_MIN_NATIONAL_DIGITS = 7
"""A shorter national number that the numbering plan does not know is a short code, not a phone number."""

_WITHHELD_DIGITS: Final = frozenset(
    [
        "266696687",  # ANONYMOUS on a keypad
        "2562533",  # BLOCKED
        "7378742833",  # RESTRICTED
        "7378742883",  # RESTRICTED, as Twilio's article spelled it for years
        "86282452253",  # UNAVAILABLE
        "8656696",  # UNKNOWN
        "464",  # no caller ID at all
    ]
)
_WITHHELD_WORDS: Final = frozenset(
    ["anonymous", "blocked", "hidden", "private", "restricted", "unavailable", "unknown", "withheld"]
)
_WITHHELD_PHRASES: Final = frozenset(["no caller id", "no number", "not available", "out of area"])
_FILLER_WORDS: Final = frozenset(["caller", "callers", "id", "number", "party", "name"])

_NO_COUNTRY_CODE = "has no country code: send + and the country code, or set BRIDGE_DEFAULT_COUNTRY"
_NOT_A_NUMBER = "is not a phone number: send + and the country code, like +14155550123"
_LETTERS = "contains letters or symbols: send only the number, like +14155550123"
_SEVERAL = "contains more than one number: send one"
_TOO_LONG = "is too long for a phone number: send + and the country code, like +14155550123"
_WITHHELD = "is a placeholder for a withheld number"


class _Reading(NamedTuple):
    number: str | None
    problem: str = ""


def normalize_phone(value: object, country: str | None = None) -> str | None:
    """Return the number as E.164, or None if it cannot be read or is a placeholder for a withheld number.

    `country` is the ISO 3166 code of the country whose national numbers are understood (BRIDGE_DEFAULT_COUNTRY). A
    normalized number stays the same when it is normalized again.
    """
    text = _text(value)
    return _read(text, country).number if text is not None and len(text) <= MAX_LENGTH else None


def phone_problem(value: object, country: str | None = None) -> str:
    """Return why `normalize_phone` returns None and what to send instead, or an empty string if it does not.

    A sentence without its subject (`has no country code: send ...`). It contains no part of the value.
    """
    text = _text(value)
    if text is None:
        return "is not a string: send + and the country code, like +14155550123"
    return _TOO_LONG if len(text) > MAX_LENGTH else _read(text, country).problem


def is_withheld(value: object, country: str | None = None) -> bool:
    """Return True for what carriers send in place of the number of a caller who withheld it.

    Twilio documents the numbers, which spell ANONYMOUS, BLOCKED, RESTRICTED, UNAVAILABLE and UNKNOWN on a keypad
    (https://support.twilio.com/hc/en-us/articles/223179988). They also arrive without `+` and with a `+1` in front;
    without `+`, a national number of `country` takes precedence.
    The SIP addresses are those of RFC 3323 (`anonymous@anonymous.invalid`) and 3GPP TS 23.003, section 13.7
    (`unavailable@unknown.invalid`). A number of zeros is a placeholder of telephone exchanges.
    """
    return phone_problem(value, country) == _WITHHELD


def impossible_number(number: str) -> str:
    """Return why no phone can have this E.164 number (`is too short for a number of +1`), or an empty string.

    For numbers that an operator types. Events keep such numbers, because numbering plans change.
    """
    try:
        parsed = phonenumbers.parse(number)
    except NumberParseException:
        return "has a country code that does not exist"
    if phonenumbers.is_valid_number(parsed):  # such as +1 310 1234, of which the lengths of +1 say otherwise
        return ""
    result = phonenumbers.is_possible_number_with_reason(parsed)
    reasons = {
        ValidationResult.TOO_SHORT: "is too short for",
        ValidationResult.IS_POSSIBLE_LOCAL_ONLY: "is too short for",
        ValidationResult.TOO_LONG: "is too long for",
        ValidationResult.INVALID_LENGTH: "has the wrong length for",
    }
    return f"{reasons[result]} a number of +{parsed.country_code}" if result in reasons else ""


def same_number(typed: str, number: str) -> bool:
    """Return whether `typed`, in any format, is the E.164 `number`. Without a country code, its country is assumed."""
    return typed == number or normalize_phone(typed, _region(number)) == number


def search_digits(number: str) -> tuple[str, ...]:
    """Return the digits under which CRMs index an E.164 number: those without the country code.

    Indexes differ about the leading zero of an Italian number, and records may have a form that was abolished, so these
    are included.
    """
    code = country_code(number)
    national = number[1 + len(code) :]
    digits = [national, national.lstrip("0")]
    if old_form := _OLD_FORMS.get(code):
        digits.append(old_form[0].sub(old_form[1], national))
    return tuple(dict.fromkeys(digits))


def shared_digits(number: str) -> str:
    """Return the digits with which every spelling of an E.164 number ends: most often, its national number.

    All digits of a short number, because its national number alone is too little to search for.
    """
    try:
        parsed = phonenumbers.parse(number)
    except NumberParseException:
        return number[1:]
    if len(phonenumbers.national_significant_number(parsed)) < _MIN_NATIONAL_DIGITS:
        return number[1:]
    # Argentina writes +54 9 11 ... as 011 15-....
    written = str(phonenumbers.format_number(parsed, PhoneNumberFormat.NATIONAL))
    forms = {*search_digits(number), re.sub(r"\D", "", written).lstrip("0")}
    shortest = min(forms, key=len)
    ends = (shortest[start:] for start in range(len(shortest) + 1))
    return next(end for end in ends if all(form.endswith(end) for form in forms))


def is_country(code: str) -> bool:
    """Return whether this is the ISO 3166 code of a country (`US`) with a numbering plan."""
    return code in phonenumbers.SUPPORTED_REGIONS


def country_code(number: str) -> str:
    """Return the digits of the country code of an E.164 number (`44`), or an empty string if it does not exist."""
    for end in (2, 3, 4):
        if number[1:end] in _COUNTRY_CODES:
            return number[1:end]
    return ""


@lru_cache(maxsize=16384)
def _region(number: str) -> str | None:
    code = country_code(number)
    return phonenumbers.region_code_for_country_code(int(code)) if code else None


def _text(value: object) -> str | None:
    """Return a string as it is and an integer as a string. None for anything else."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


# ---------------------------------------------------------------- reading

_DIALED = re.compile(r"[( ]*(\+*)([\d ().\-/]*)", re.ASCII)
_MAX_DIALED_DIGITS = 15 + len("0011") + len("0")
"""Of an E.164 number with an international prefix and a trunk prefix."""
_MIN_DIGITS_AFTER_SLASH = 4
_MAX_ROUNDS = 3
"""Removing one prefix may reveal another, as in `+44 (0)0 7911 ...`."""


@lru_cache(maxsize=16384)
def _read(text: str, country: str | None) -> _Reading:
    if PHONE_PATTERN.fullmatch(text) and not _spells_withheld(text[1:]) and _is_canonical(text):
        return _Reading(text)
    text = to_ascii(text)
    if _looks_withheld(text, country):
        return _Reading(None, _WITHHELD)
    return _read_dialed(*split_uri(text), country)


def _read_dialed(text: str, context: str, country: str | None) -> _Reading:
    """Read the text of a number. `context` is the prefix of a local number (RFC 3966), or empty."""
    text = without_extension(text)
    match = _DIALED.fullmatch(text)
    if match is None:
        return _Reading(None, _SEVERAL if text.count("+") > 1 else _LETTERS if text else _NOT_A_NUMBER)
    digits = re.sub(r"\D", "", match[2])
    is_international = bool(match[1])
    if context and not is_international:
        digits, is_international = context + digits, True
    if len(digits) < 2:
        return _Reading(None, _NOT_A_NUMBER)
    if len(digits) > _MAX_DIALED_DIGITS:
        return _Reading(None, _SEVERAL)
    strict = "/" in text
    if strict and not _is_area_code_slash(text, country):
        return _Reading(None, _SEVERAL)
    if is_international and digits[0] != "0":
        number = _international(digits, strict=strict)
    else:
        number = _without_plus(digits, country, strict=strict)
    number = _without_inner_prefixes(number) if number else None
    if number:
        return _Reading(None, _WITHHELD) if _spells_withheld(number[1:]) else _Reading(number)
    if len(digits) > 15:
        return _Reading(None, _SEVERAL)
    if country is None and not is_international:
        return _Reading(None, _NO_COUNTRY_CODE)
    return _Reading(None, _NOT_A_NUMBER)


def _without_inner_prefixes(number: str) -> str:
    for _ in range(_MAX_ROUNDS):
        if _is_canonical(number):
            break
        inner = _international(number[1:], strict=False)
        if inner is None or inner == number:
            break
        number = inner
    return number


def _is_area_code_slash(text: str, country: str | None) -> bool:
    """Return whether the slash follows an area code (`030/123456`). Otherwise it separates two numbers."""
    before, _, after = text.partition("/")
    return (
        "/" not in after
        and len(re.sub(r"\D", "", after)) >= _MIN_DIGITS_AFTER_SLASH
        and _valid_number(before, country) is None
    )


def _without_plus(digits: str, country: str | None, *, strict: bool) -> str | None:
    """Read digits that do not start with a country code: a national number, or one with an international prefix."""
    if country and (number := _national(digits, country)):
        return number
    for prefix in ("0011", "011"):
        if digits.startswith(prefix) and (number := _international(digits[len(prefix) :], strict=True)):
            return number
    if digits.startswith("00"):
        return _international(digits.lstrip("0"), strict=strict)
    if country is None:
        return None
    return _international(digits, strict=True) or (None if strict else _possible_number(digits, country))


def _national(digits: str, country: str) -> str | None:
    code = str(phonenumbers.country_code_for_region(country))
    number = _valid_number("+" + digits, None) if digits.startswith(code) else None  # only the `+` is missing
    number = number or _valid_number(digits, country)
    form = _RETIRED_FORMS.get(code)
    return number or (_valid_number(form[0].sub(form[1], digits), country) if form else None)


def _international(digits: str, *, strict: bool) -> str | None:
    """Read digits that start with a country code. With `strict`, a number unknown to the numbering plan is None."""
    code = country_code("+" + digits)
    national = digits[len(code) :]
    candidates = ["+" + digits]
    if code and national.startswith("0"):
        candidates.append(f"+{code}{national.lstrip('0')}")
    if form := _RETIRED_FORMS.get(code):
        candidates.append(f"+{code}{form[0].sub(form[1], national)}")
    for candidate in candidates:
        if number := _valid_number(candidate, None):
            return number
    if strict:
        return None
    if code and national.startswith("0") and _national_prefix(code) == "0":
        digits = code + national.lstrip("0")
    return "+" + digits if PHONE_PATTERN.fullmatch("+" + digits) else None


_RETIRED_FORMS: Final = {
    "52": (re.compile(r"^(?:1|01|04[45])(\d{10})$"), r"\1"),
    "55": (re.compile(r"^0?(\d\d)([6-9]\d{7})$"), r"\g<1>9\2"),
}
"""Country code -> a form of its national numbers that was abolished, and the current form."""
_OLD_FORMS: Final = {
    "52": (re.compile(r"^(\d{10})$"), r"1\1"),
    "55": (re.compile(r"^(\d\d)9([6-9]\d{7})$"), r"\1\2"),
}
"""Country code -> the current form, and the form that was abolished."""


def _valid_number(text: str, country: str | None) -> str | None:
    """Return the E.164 form of a number that the numbering plan knows, else None."""
    try:
        parsed = phonenumbers.parse(text, country)
    except NumberParseException:
        return None
    if not phonenumbers.is_valid_number(parsed):
        return None
    return str(phonenumbers.format_number(parsed, PhoneNumberFormat.E164))


def _possible_number(digits: str, country: str) -> str | None:
    """Return the E.164 form of a national number that the numbering plan does not know, but whose length it allows."""
    if len(digits) < _MIN_NATIONAL_DIGITS:
        return None
    try:
        parsed = phonenumbers.parse(digits, country)
    except NumberParseException:
        return None
    if phonenumbers.is_possible_number_with_reason(parsed) != ValidationResult.IS_POSSIBLE:
        return None
    number = phonenumbers.format_number(parsed, PhoneNumberFormat.E164)
    return _international(number[1:], strict=False)


# ---------------------------------------------------------------- withheld numbers


def _looks_withheld(text: str, country: str | None) -> bool:
    lowered = text.lower()
    if sip := SIP_ADDRESS.fullmatch(lowered):
        return sip[1] in _WITHHELD_WORDS or (sip[2] or "").endswith(".invalid")
    user, at, host = lowered.partition("@")
    if at:
        return host.endswith(".invalid") and user.isalpha()
    if any(char.isdigit() for char in lowered):
        dialed = re.sub(r"[ ().\-]", "", lowered.removeprefix("tel:"))
        digits = dialed.lstrip("+").removeprefix("00")
        if not digits.strip("0"):
            return True
        is_national = country is not None and phonenumbers.country_code_for_region(country) != 1
        return _spells_withheld(digits) and not (
            is_national and not dialed.startswith("+") and _valid_number(dialed, country)
        )
    words = re.findall(r"[a-z]+", lowered)
    is_placeholder = _WITHHELD_WORDS.intersection(words) and (_WITHHELD_WORDS | _FILLER_WORDS).issuperset(
        words
    )
    return bool(is_placeholder) or " ".join(words) in _WITHHELD_PHRASES


def _spells_withheld(digits: str) -> bool:
    return digits in _WITHHELD_DIGITS or (digits[0] == "1" and digits[1:] in _WITHHELD_DIGITS)


# ---------------------------------------------------------------- numbering plans


_COUNTRY_CODES: Final = frozenset(map(str, COUNTRY_CODE_TO_REGION_CODE))


def _is_canonical(number: str) -> bool:
    """Return whether an E.164 number has no prefix that could have to be removed, without parsing it."""
    code = country_code(number)
    if not code:
        return True
    national = number[1 + len(code) :]
    if code in _RETIRED_FORMS and _RETIRED_FORMS[code][0].fullmatch(national):
        return False
    if national.startswith("0"):
        return False
    prefix = _prefix_pattern(code)
    match = prefix.match(national) if prefix else None
    return not (match and match.end())


@lru_cache(maxsize=512)
def _metadata(code: str) -> PhoneMetadata | None:
    region = phonenumbers.region_code_for_country_code(int(code))
    return PhoneMetadata.metadata_for_region_or_calling_code(int(code), region)


@lru_cache(maxsize=512)
def _prefix_pattern(code: str) -> re.Pattern[str] | None:
    metadata = _metadata(code)
    pattern = metadata.national_prefix_for_parsing if metadata else None
    return re.compile(pattern) if pattern else None


def _national_prefix(code: str) -> str | None:
    metadata = _metadata(code)
    return metadata.national_prefix if metadata else None
