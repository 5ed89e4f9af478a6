"""Finding a person, apart from any CRM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from bridge.connector import (
    Context,
    Match,
    Person,
    PersonGone,
    Properties,
    Seeker,
    Sent,
    changes,
    find_people,
    national_digits,
    same_number,
    with_people,
)
from bridge.errors import CannotTell, Failure, Rejected, Temporary
from bridge.testing import event
from tests.integration.crm import Memory

PERSON = "+12125550123"
PROPERTIES = TypeAdapter(Properties)


@pytest.mark.parametrize(
    ("typed", "number", "same"),
    [
        ("(212) 555-0123", PERSON, True),
        ("1-212-555-0123", PERSON, True),
        ("+1 212 555 0123 ext. 7", PERSON, True),
        ("0012125550123", PERSON, True),
        ("+44 212 555 0123", PERSON, False),
        ("2125550124", PERSON, False),
        ("ask at the desk", PERSON, False),
        ("", PERSON, False),
        ("030 901820", "+4930901820", True),
        ("+49 (0)30 901820", "+4930901820", True),
        ("06 6982", "+39066982", True),  # in Italy the zero belongs to the number
        ("6982", "+39066982", False),
        ("+99912345", "+99912345", True),  # in no number plan, but the same
    ],
)
def test_numbers_are_the_same_when_they_reach_the_same_line(typed: str, number: str, same: bool) -> None:
    assert same_number(typed, number) is same


@pytest.mark.parametrize(
    ("number", "digits"), [(PERSON, "2125550123"), ("+39066982", "066982"), ("+99912345", "99912345")]
)
def test_national_digits_leave_the_country_out(number: str, digits: str) -> None:
    assert national_digits(number) == digits


def test_a_field_that_is_filled_is_left_alone_and_a_missing_value_blanks_nothing() -> None:
    properties = PROPERTIES.validate_python(
        {
            "city": "Boston",
            "title": {"value": "Buyer", "mode": "fill"},
            "phone": {"value": PERSON, "mode": "fill"},
            "score": 0,
            "active": False,
            "state": None,
            "zip": "",
        }
    )
    current = {"city": "New York", "title": "Owner", "phone": "", "score": "9"}
    assert changes(properties, current) == {"city": "Boston", "phone": PERSON, "score": 0, "active": False}
    assert changes(properties, None)["title"] == "Buyer"


@pytest.mark.parametrize(
    "wrong", [{"a": {"value": 1, "mode": "merge"}}, {"a": {"valeu": 1}}, {"a": ["x"]}, "text"]
)
def test_properties_that_make_no_sense_are_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        PROPERTIES.validate_python(wrong)


class Phonebook:
    """A CRM with a few people."""

    def __init__(self, *people: Match) -> None:
        self.people = list(people)
        self.asked: list[Sequence[str]] = []
        self.refuse: Failure | None = None

    def by_email(self, emails: Sequence[str]) -> list[Match]:
        self.asked.append(emails)
        return self.people

    def by_phone(self, phones: Sequence[str]) -> list[Match]:
        self.asked.append(phones)
        return self.people

    def create(self, strangers: Sequence[Seeker]) -> list[str | Failure]:
        return [self.refuse or f"new {stranger.phone or stranger.email}" for stranger in strangers]


def seeker(memory: Memory, email: str | None = None, phone: str | None = None, **more: Any) -> Seeker:
    about = event()
    now = about.received_at
    context = Context("dlv", "crm", about, "effect|", now, now, identities=memory)
    return Seeker(email, phone, context, **more)


def test_only_what_really_fits_is_taken_of_what_a_search_brings() -> None:
    book = Phonebook(Match("1", ["Ann@Example.com"]), Match("2", phones=["212 555 0124"]))
    memory = Memory()
    [ann, bob] = find_people(book, [seeker(memory, "ann@example.com"), seeker(memory, phone=PERSON)])

    assert ann == Person("1")
    assert bob == Person(f"new {PERSON}", "a new person", made=True)
    assert memory.ids == {"email:ann@example.com": "1", f"phone:{PERSON}": f"new {PERSON}"}


def test_a_zone_that_the_crm_knows_is_remembered_for_the_addresses_of_its_person() -> None:
    ann = Match("1", ["ann@example.com"], ["212 555 0123"], zone="america/chicago")
    memory = Memory()
    find_people(Phonebook(ann), [seeker(memory, "ann@example.com", PERSON)])
    assert memory.zones == {"ann@example.com": "America/Chicago", PERSON: "America/Chicago"}
    find_people(Phonebook(ann), [seeker(other := Memory(), "ann@example.com", "+13125550100")])
    assert other.zones == {"ann@example.com": "America/Chicago"}  # the number may be somebody else's


@pytest.mark.parametrize("zone", [None, "", "Mars/Olympus", "../../etc/passwd", "US/Pacific-New"])
def test_what_is_no_zone_is_not_remembered(zone: str | None) -> None:
    memory = Memory()
    find_people(Phonebook(Match("1", ["ann@example.com"], zone=zone)), [seeker(memory, "ann@example.com")])
    assert memory.zones == {}


def test_what_is_remembered_is_not_asked_for() -> None:
    book, memory = Phonebook(), Memory()
    memory.ids = {"email:ann@example.com": "1", f"phone:{PERSON}": "2"}
    found = find_people(book, [seeker(memory, "ann@example.com", PERSON), seeker(memory, phone=PERSON)])
    assert found == [Person("1", remembered=True), Person("2", remembered=True)]
    assert (book.asked, memory.asked) == ([], 1)


def test_deliveries_of_one_batch_about_one_stranger_make_one_record() -> None:
    memory = Memory()
    people = find_people(
        Phonebook(),
        [
            seeker(memory, "ann@example.com"),
            seeker(memory, "ann@example.com", PERSON),
            seeker(memory, phone=PERSON),
        ],
    )
    assert {person.id for person in people if isinstance(person, Person)} == {"new ann@example.com"}
    assert set(memory.ids.values()) == {"new ann@example.com"}


def test_a_refusal_to_make_one_person_is_theirs_alone_and_is_not_remembered() -> None:
    book, memory = Phonebook(Match("1", ["ann@example.com"])), Memory()
    book.refuse = Rejected("no")
    ann, bob, nobody = find_people(
        book, [seeker(memory, "ann@example.com"), seeker(memory, phone=PERSON), seeker(memory)]
    )
    assert (ann, bob, nobody) == (Person("1"), book.refuse, None)
    assert memory.ids == {"email:ann@example.com": "1"}


def test_a_choice_between_several_is_asked_of_a_person_when_the_rule_says_so() -> None:
    book = Phonebook(
        Match("1", ["ann@example.com"], activity=("2026",)),
        Match("2", ["ann@example.com"], activity=("2025",)),
    )
    memory = Memory()
    newest, review = find_people(
        book, [seeker(memory, "ann@example.com"), seeker(memory, "ann@example.com", ambiguous="review")]
    )
    assert newest == Person("1", "2 records have this email, the most recently active was taken")
    assert isinstance(review, CannotTell)
    assert "ann" not in str(review)


def test_a_record_that_is_gone_is_looked_for_once_more_and_then_waited_for() -> None:
    book, memory = Phonebook(Match("2", ["ann@example.com"])), Memory()
    memory.ids = {"email:ann@example.com": "1"}
    alive = {"2"}
    written: list[str] = []

    def write(people: Any) -> dict[str, Sent | Failure]:
        written.extend(person.id for person in people.values())
        return {
            key: Sent(person.id) if person.id in alive else PersonGone() for key, person in people.items()
        }

    assert with_people(book, {"a": seeker(memory, "ann@example.com")}, write) == {"a": Sent("2")}
    assert written == ["1", "2"]

    alive.clear()
    [answer] = with_people(book, {"a": seeker(memory, "ann@example.com")}, write).values()
    assert type(answer) is Temporary
    assert written == ["1", "2", "2", "2"]
    assert memory.ids == {}
