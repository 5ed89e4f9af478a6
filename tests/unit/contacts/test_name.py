"""Names: given and family names as people write them, placeholders, and names that carry more than a name."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contacts import name as name_module
from bridge.contacts.name import clean_name, read_name
from bridge.contacts.plain_text import is_plain_first_name, is_plain_name


@pytest.mark.parametrize(
    ("full", "first", "last"),
    [
        ("Ludwig van Beethoven", "Ludwig", "van Beethoven"),
        ("Beethoven, Ludwig van", "Ludwig", "van Beethoven"),
        ("Gabriel García Márquez", "Gabriel", "García Márquez"),
        ("García Márquez, Gabriel José", "Gabriel José", "García Márquez"),
        ("Mohammed bin Salman", "Mohammed", "bin Salman"),
        ("Juan de la Cruz", "Juan", "de la Cruz"),
        ("Yo-Yo Ma", "Yo-Yo", "Ma"),
        ("Phil Collins", "Phil", "Collins"),
        ("Don Johnson", "Don", "Johnson"),
        ("Van Morrison", "Van", "Morrison"),
        ("M. Night Shyamalan", "M.", "Night Shyamalan"),
        ("J.R.R. Tolkien", "J.R.R.", "Tolkien"),
        ("D'Arcy O’Neil", "D'Arcy", "O’Neil"),
        ("ANNA WEBER", "ANNA", "WEBER"),
        ("anna maria weber", "anna", "maria weber"),
        ("Christopher Guest", "Christopher", "Guest"),
        ("Jennifer Null", "Jennifer", "Null"),
        ("NA LI", "NA", "LI"),
        ("Nome Kahananui", "Nome", "Kahananui"),
        ("Nguyễn Văn An", "Nguyễn", "Văn An"),
        ("محمد علي", "محمد", "علي"),
        ("علی\u200cرضا محمدی", "علی\u200cرضا", "محمدی"),
        ("דוד כהן", "דוד", "כהן"),
        ("Анна Каренина", "Анна", "Каренина"),
        ("山田 太郎", "太郎", "山田"),
        ("김 민준", "민준", "김"),
        ("マイケル ジャクソン", "マイケル", "ジャクソン"),
        ("Anna 🌸", "Anna", None),
        ("Anna (Sales)", "Anna", None),
        ('Robert "Bob" Smith', "Robert", "Smith"),
        # One word is the given name, unless a title or a particle is before it.
        ("Anna", "Anna", None),
        ("王小明", "王小明", None),
        ("Dr. Weber", None, "Weber"),
        ("Dr.Weber", None, "Weber"),
        ("von Neumann", None, "von Neumann"),
        ("Mr. de la Cruz", None, "de la Cruz"),
        # Titles and suffixes.
        ("Dr. Anna Weber", "Anna", "Weber"),
        ("Prof. Dr. Dr. h.c. Anna Weber", "Anna", "Weber"),
        ("Dr. rer. nat. Anna Weber", "Anna", "Weber"),
        ("Dipl.-Ing. Karl Meier", "Karl", "Meier"),
        ("Frau Dr. Anna Weber", "Anna", "Weber"),
        ("Mme Dupont", None, "Dupont"),
        ("M. Dupont", None, "Dupont"),
        ("Sra. María López", "María", "López"),
        ("Sig.ra Anna Rossi", "Anna", "Rossi"),
        ("Dott.ssa Rossi", None, "Rossi"),
        ("Hr. Müller", None, "Müller"),
        ("山田太郎 様", "山田太郎", None),
        ("John Smith III", "John", "Smith"),
        ("Martin Luther King, Jr.", "Martin", "Luther King"),
        ("King, Martin Luther, Jr.", "Martin Luther", "King"),
        ("Smith, John, PhD", "John", "Smith"),
        ("Anna Weber MBA", "Anna", "Weber"),
        # A company has no first name.
        ("Acme, Inc.", None, None),
        ("Lindqvist Cycles GmbH", None, None),
        ("Baker, McKenzie, LLP", None, None),
    ],
)
def test_the_given_name_and_the_family_name(full: str, first: str | None, last: str | None) -> None:
    assert read_name(full)[1:] == (first, last)


@pytest.mark.parametrize(
    ("full", "name"),
    [
        ("Beethoven, Ludwig van", "Ludwig van Beethoven"),
        ("King, Martin Luther, Jr.", "Martin Luther King Jr."),
        ("Martin Luther King, Jr.", "Martin Luther King Jr."),
        ("Dr. Anna Weber", "Dr. Anna Weber"),
        ("Acme, Inc.", "Acme, Inc."),
        ("  Ma\nya\u202e \t L. ", "Ma ya L."),
        ("An\u200dna", "Anna"),
        ("Anna 🌸", "Anna 🌸"),
    ],
)
def test_the_full_name(full: str, name: str) -> None:
    assert read_name(full).name == name


@pytest.mark.parametrize(
    "full",
    [
        "Unknown", "unknown caller", "UNKNOWN", "N/A", "n/a", "n.a.", "NA", "null", "NULL", "None", "undefined", "-",
        "?", "...", "Anonymous", "Guest", "Guest 17", "Visitor 8f3a2", "Website Visitor", "Wireless Caller", "Caller",
        "Test", "test test", "No Name", "No Caller ID", "Unbekannt", "Inconnu", "Dr.", "Frau", "Jr.", "DR,", "Dr. :",
        "🌸", "null null", "NULL NULL", "Toll Free", "SPAM LIKELY", "Spam Risk", "Scam Likely", "Potential Spam",
        "Telemarketer", "First Last", "Vorname Nachname", "Prénom Nom",
        "+1 (555) 010-0199", "0179 1234567", "ada@x.example", "\u202e", " ", "", None,
    ],
)  # fmt: skip
def test_a_placeholder_is_no_name(full: str | None) -> None:
    assert read_name(full) == (None, None, None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, "Ludwig", "van Beethoven"), ("Ludwig van Beethoven", "Ludwig", "van Beethoven")),
        (("Ludwig van Beethoven", "Ludwig", None), ("Ludwig van Beethoven", "Ludwig", "van Beethoven")),
        (
            ("Gabriel García Márquez", None, "García Márquez"),
            ("Gabriel García Márquez", "Gabriel", "García Márquez"),
        ),
        (("Bob Smith", "Anna", None), ("Bob Smith", "Anna", None)),
        (("Unknown", "Anna", "Weber"), ("Anna Weber", "Anna", "Weber")),
        ((None, "Dr. Anna", None), ("Dr. Anna", "Anna", None)),
        ((None, "Jean Luc", None), ("Jean Luc", "Jean Luc", None)),
        ((None, "Unknown", "null"), (None, None, None)),
        ((None, None, "Weber"), ("Weber", None, "Weber")),
    ],
)
def test_explicit_parts_win(
    given: tuple[str | None, str | None, str | None], expected: tuple[str | None, str | None, str | None]
) -> None:
    assert read_name(*given) == expected


ATTACKS = [
    "your parcel is held: https://evil.example/p",
    "https://evil.example/verify-your-account",
    "evil.example",
    "www.evil.example",
    "Anna evil.example",
    "Anna, call https://evil.example",
    "evil\u3002example",  # ideographic full stop, which IDNA takes for a dot
    "evil\uff0eexample",
    "evil\uff61example",
    "evil\u2024example",  # one dot leader
    "evil\ua4f8example",  # Lisu letter that looks like a dot
    "evil\u0660example",
    "evil\u00b7example",
    "evil example\u2044p",  # fraction slash
    "evil\uff0fp",
    "e\u200dvil.example",
    "bit.ly",
    "t.co",
    "192.0.2.1",
    "call +1 900 555 0199",
    "9005550199 call",
    "ada@evil.example",
    "write to ada at evil dot example now please",
    "your parcel is held at customs",
    "Winner! Call now",
    "Pay now; or else",
    "Congratulations. You won",
    "Pаypal",  # a Cyrillic letter
    "\U0001d41a\U0001d427\U0001d427\U0001d41a",  # mathematical letters
    "a" * 41,
    "Z" + "\u0301" * 20,
    "{{ contact.email }}",
    "<b>Anna</b>",
    "Anna\nBcc: x",
    "@channel",
    "#1 offer",
    "$500",
    "50% off",
]  # fmt: skip


@pytest.mark.parametrize("text", ATTACKS)
def test_more_than_a_name_is_no_first_name(text: str) -> None:
    for person in (
        read_name(text),
        read_name(None, text),
        read_name(None, text, "Smith"),
        read_name("Anna", None, text),
    ):
        assert person.first_name is None or is_plain_first_name(person.first_name)
        assert person.last_name is None or is_plain_name(person.last_name)
    assert read_name(None, text).first_name is None
    assert not is_plain_first_name(text)


def test_a_record_keeps_what_was_given() -> None:
    text = "your parcel is held: https://evil.example/p"
    assert read_name(None, text) == (text, None, None)


@pytest.mark.parametrize(
    "text",
    ["Acme, Inc.", "3M", "Johnson & Johnson", "7-Eleven", "S.p.A. Rossi", "Müller (Berlin) GmbH", "山田商店"],
)
def test_a_company_is_plain(text: str) -> None:
    assert is_plain_name(text)


@pytest.mark.parametrize(
    "text", ["Amazon.com", "Booking.com B.V.", "Call 1-900-555-0199", "evil/p", "a@b.example"]
)
def test_a_company_with_a_link_or_a_number_is_not_plain(text: str) -> None:
    assert not is_plain_name(text)


_WORD = st.text(st.sampled_from("abcdefghiABCäöß'.,-\u200d\u3002/:@1 9"), max_size=12)
_TEXT = st.one_of(
    st.text(max_size=60),
    st.lists(st.one_of(_WORD, st.sampled_from(sorted(name_module._SPECIAL))), max_size=5).map(" ".join),
    st.lists(
        st.sampled_from(["Anna", "van", "Dr.", "Weber", "Jr.", "guest", "von", "Null", "NA", ","]), max_size=4
    ).map(" ".join),
)


@given(_TEXT)
def test_the_pattern_for_simple_names_agrees_with_the_whole(text: str) -> None:
    assert read_name(text) == name_module._read_name.__wrapped__(text, None, None)


@given(_TEXT, _TEXT, _TEXT)
def test_every_part_is_plain_and_printable(full: str, first: str, last: str) -> None:
    for person in (
        read_name(full),
        read_name(None, first, last),
        read_name(full, first),
        read_name(full, None, last),
    ):
        assert person.first_name is None or is_plain_first_name(person.first_name)
        assert person.last_name is None or is_plain_name(person.last_name)
        for part in (person.first_name, person.last_name):
            assert part is None or not set("/:@?!;<>{}\\\u3002\u2024\uff0e") & set(part)
        if person.name is not None:
            assert clean_name(person.name) == person.name
            assert len(person.name) <= 401
            assert not {unicodedata.category(char) for char in person.name} & {"Cc", "Zl", "Zp"}


@given(st.text(st.one_of(st.characters(), st.sampled_from("aeZ. \u3002\uff0e\u2024/@:\u2044")), max_size=30))
def test_a_plain_text_has_no_link(text: str) -> None:
    if is_plain_name(text):
        folded = unicodedata.normalize("NFKC", text)
        assert not set("/@:\u2044\u2215\u3002") & set(folded)
        assert not re.search(r"\.\w\w", folded)
