"""Email addresses: one canonical form, IDNA 2008, and the fast path that agrees with `email-validator`."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contacts import email as email_module
from bridge.contacts.address import address_key
from bridge.contacts.email import normalize_email


@pytest.mark.parametrize(
    ("raw", "email"),
    [
        # IDNA 2008 keeps ß and the final sigma, which IDNA 2003 replaced: other domains, of other people.
        ("info@straße.example", "info@xn--strae-oqa.example"),
        ("info@STRAẞE.example", "info@xn--strae-oqa.example"),
        ("info@xn--strae-oqa.Example", "info@xn--strae-oqa.example"),
        ("info@strasse.example", "info@strasse.example"),
        ("info@ς.example", "info@xn--3xa.example"),
        ("info@σ.example", "info@xn--4xa.example"),
        ("info@bücher.example", "info@xn--bcher-kva.example"),
        ("info@bu\u0308cher.example", "info@xn--bcher-kva.example"),
        ("info@例え。example", "info@xn--r8jz45g.example"),
        ("jo\u0308rg@x.example", "j\u00f6rg@x.example"),
        ("Straße@x.example", "Straße@x.example"),
        (" Maya.L@Example.COM ", "Maya.L@example.com"),
        ("Info@Example.com", "Info@example.com"),
        ("\u202ainfo@example.com\u202c", "info@example.com"),
        ("\u2066info@example.com\u2069\ufeff", "info@example.com"),
        ("\u200binfo@example.com\r\n", "info@example.com"),
        ("mailto:info@example.com", "info@example.com"),
        ("o'neil+tag@x.example", "o'neil+tag@x.example"),
        ("a@mail.test", "a@mail.test"),
    ],
)
def test_the_canonical_form_of_an_address(raw: str, email: str) -> None:
    assert normalize_email(raw) == email


@pytest.mark.parametrize(
    "raw",
    [
        "in..fo@example.com",
        ".info@example.com",
        "info.@example.com",
        "info@-example.com",
        "info@example-.com",
        "info@example..com",
        "info@.example.com",
        "info@example.com.",
        "info@exa_mple.com",
        "info@na\u200cme.example",  # removing the joiner would make it another domain
        "info@na\u200dme.example",
        "info@exam\u200bple.com",
        "info@xn--na-me-zz.example",
        "in\u202efo@example.com",
        "info@1.\u05d0\u05d1.com",
        "a@b.co, c@d.co",
        "a@b.co;c@d.co",
        "Maya <a@b.co>",
        "<a@b.co>",
        "a@b.co\nBcc: c@d.co",
        '"a b"@x.example',
        "a@[192.0.2.1]",
        "a@192.0.2.1",
        "a@b",
        "a@localhost",
        "a@test",
        "a@deleted.invalid",
        "a@printer.local",
        "a" * 65 + "@b.co",
        "a@" + "b" * 64 + ".co",
        "a@" + "b." * 126 + "co",
        "a" * 100_000,
        "\ud800@x.example",
        "@x.example",
        "a@",
        "@",
        "",
        None,
        7,
        ["a@b.co"],
    ],
)
def test_an_invalid_form_is_no_address(raw: object) -> None:
    assert normalize_email(raw) is None


_ADDRESS_LIKE = st.one_of(
    st.emails(),
    st.text(max_size=40),
    st.from_regex(r"[A-Za-z0-9.!+_'-]{0,8}@[A-Za-z0-9.-]{1,12}\.[A-Za-z0-9-]{1,5}", fullmatch=True),
    st.from_regex(
        r"[a-z]{1,3}@[a-z-]{1,6}\.(arpa|invalid|local|localhost|onion|test|xn--p1ai|LOCAL)", fullmatch=True
    ),
    st.from_regex(r"[a-zßςİıΣé]{1,4}@[a-zßςéäא-ת\u200c\u200d]{1,6}\.(example|рф)", fullmatch=True),
    st.tuples(st.text("ab.", min_size=60, max_size=66), st.text("ab.-", min_size=60, max_size=200)).map(
        "@".join
    ),
)


@given(_ADDRESS_LIKE)
def test_the_patterns_for_plain_addresses_agree_with_the_library(raw: str) -> None:
    library = email_module._validate.__wrapped__(raw)
    local, _, domain = raw.rpartition("@")
    if email_module._plain_domain(domain) and email_module._PLAIN_LOCAL.fullmatch(local):
        assert normalize_email(raw) == library
    elif library is not None and raw.isascii() and "xn--" not in raw.lower():
        # Everything else that the library accepts had something around the address.
        assert normalize_email(raw) == library
        assert raw.strip().lower().removeprefix("mailto:") != raw.lower()


@given(_ADDRESS_LIKE)
def test_the_canonical_form_and_the_key_are_stable(raw: str) -> None:
    email = normalize_email(raw)
    if email is not None:
        assert normalize_email(email) == email
        assert unicodedata.is_normalized("NFC", email)
        assert email.rpartition("@")[2].isascii()
        key = address_key(email)
        assert address_key(key) == key
        assert normalize_email(key) in (key, None)


@given(_ADDRESS_LIKE)
def test_case_and_wrapping_do_not_make_another_person(raw: str) -> None:
    email = normalize_email(raw)
    if email is not None and email.isascii():
        assert address_key(normalize_email(f"\u2068{email.upper()}\u2069 ") or "") == address_key(email)


@pytest.mark.parametrize(
    ("one", "other"), [("straße@x.example", "strasse@x.example"), ("ﬁ@x.example", "fi@x.example")]
)
def test_the_key_does_not_make_two_people_one(one: str, other: str) -> None:
    assert address_key(normalize_email(one) or "") != address_key(normalize_email(other) or "")


def test_the_key_of_an_address_in_another_spelling() -> None:
    assert address_key("Info@straße.example") == "info@xn--strae-oqa.example"
    assert address_key("+447911123456") == "+447911123456"
