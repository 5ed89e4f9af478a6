"""Finding a person, apart from any CRM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from bridge.connector import (
    ContactDeleted,
    ContactMatch,
    ContactQuery,
    ContactRef,
    Context,
    Properties,
    Success,
    fields_to_write,
    national_digits,
    resolve_contacts,
    same_number,
    write_for_contacts,
)
from bridge.errors import DeliveryError, LookupInconclusive, PermanentError, TransientError
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
    assert fields_to_write(properties, current) == {"city": "Boston", "phone": PERSON, "score": 0, "active": False}
    assert fields_to_write(properties, None)["title"] == "Buyer"


@pytest.mark.parametrize(
    "wrong", [{"a": {"value": 1, "mode": "merge"}}, {"a": {"valeu": 1}}, {"a": ["x"]}, "text"]
)
def test_properties_that_make_no_sense_are_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        PROPERTIES.validate_python(wrong)


class Phonebook:
    """A CRM with a few people."""

    def __init__(self, *people: ContactMatch) -> None:
        self.people = list(people)
        self.asked: list[Sequence[str]] = []
        self.refuse: DeliveryError | None = None

    def by_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        self.asked.append(emails)
        return self.people

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        self.asked.append(phones)
        return self.people

    def create(self, strangers: Sequence[ContactQuery]) -> list[str | DeliveryError]:
        return [self.refuse or f"new {stranger.phone or stranger.email}" for stranger in strangers]


def query(memory: Memory, email: str | None = None, phone: str | None = None, **more: Any) -> ContactQuery:
    about = event()
    now = about.received_at
    context = Context("dlv", "crm", about, "effect|", now, now, contact_cache=memory)
    return ContactQuery(email, phone, context, **more)


def test_only_what_really_fits_is_taken_of_what_a_search_brings() -> None:
    book = Phonebook(ContactMatch("1", ["Ann@Example.com"]), ContactMatch("2", phones=["212 555 0124"]))
    memory = Memory()
    [ann, bob] = resolve_contacts(book, [query(memory, "ann@example.com"), query(memory, phone=PERSON)])

    assert ann == ContactRef("1")
    assert bob == ContactRef(f"new {PERSON}", "a new person", made=True)
    assert memory.ids == {"email:ann@example.com": "1", f"phone:{PERSON}": f"new {PERSON}"}


def test_a_zone_that_the_crm_knows_is_remembered_for_the_addresses_of_its_person() -> None:
    ann = ContactMatch("1", ["ann@example.com"], ["212 555 0123"], zone="america/chicago")
    memory = Memory()
    resolve_contacts(Phonebook(ann), [query(memory, "ann@example.com", PERSON)])
    assert memory.zones == {"ann@example.com": "America/Chicago", PERSON: "America/Chicago"}
    resolve_contacts(Phonebook(ann), [query(other := Memory(), "ann@example.com", "+13125550100")])
    assert other.zones == {"ann@example.com": "America/Chicago"}  # the number may be somebody else's


@pytest.mark.parametrize("zone", [None, "", "Mars/Olympus", "../../etc/passwd", "US/Pacific-New"])
def test_what_is_no_zone_is_not_remembered(zone: str | None) -> None:
    memory = Memory()
    resolve_contacts(
        Phonebook(ContactMatch("1", ["ann@example.com"], zone=zone)), [query(memory, "ann@example.com")]
    )
    assert memory.zones == {}


def test_what_is_remembered_is_not_asked_for() -> None:
    book, memory = Phonebook(), Memory()
    memory.ids = {"email:ann@example.com": "1", f"phone:{PERSON}": "2"}
    found = resolve_contacts(book, [query(memory, "ann@example.com", PERSON), query(memory, phone=PERSON)])
    assert found == [ContactRef("1", remembered=True), ContactRef("2", remembered=True)]
    assert (book.asked, memory.asked) == ([], 1)


def test_deliveries_of_one_batch_about_one_stranger_make_one_record() -> None:
    memory = Memory()
    people = resolve_contacts(
        Phonebook(),
        [
            query(memory, "ann@example.com"),
            query(memory, "ann@example.com", PERSON),
            query(memory, phone=PERSON),
        ],
    )
    assert {person.id for person in people if isinstance(person, ContactRef)} == {"new ann@example.com"}
    assert set(memory.ids.values()) == {"new ann@example.com"}


def test_a_refusal_to_make_one_person_is_theirs_alone_and_is_not_remembered() -> None:
    book, memory = Phonebook(ContactMatch("1", ["ann@example.com"])), Memory()
    book.refuse = PermanentError("no")
    ann, bob, nobody = resolve_contacts(
        book, [query(memory, "ann@example.com"), query(memory, phone=PERSON), query(memory)]
    )
    assert (ann, bob, nobody) == (ContactRef("1"), book.refuse, None)
    assert memory.ids == {"email:ann@example.com": "1"}


def test_a_choice_between_several_is_asked_of_a_person_when_the_rule_says_so() -> None:
    book = Phonebook(
        ContactMatch("1", ["ann@example.com"], activity=("2026",)),
        ContactMatch("2", ["ann@example.com"], activity=("2025",)),
    )
    memory = Memory()
    newest, review = resolve_contacts(
        book, [query(memory, "ann@example.com"), query(memory, "ann@example.com", on_multiple="review")]
    )
    assert newest == ContactRef("1", "2 records have this email, the most recently active was taken")
    assert isinstance(review, LookupInconclusive)
    assert "ann" not in str(review)


def test_a_record_that_is_gone_is_looked_for_once_more_and_then_waited_for() -> None:
    book, memory = Phonebook(ContactMatch("2", ["ann@example.com"])), Memory()
    memory.ids = {"email:ann@example.com": "1"}
    alive = {"2"}
    written: list[str] = []

    def write(people: Any) -> dict[str, Success | DeliveryError]:
        written.extend(person.id for person in people.values())
        return {
            key: Success(person.id) if person.id in alive else ContactDeleted()
            for key, person in people.items()
        }

    assert write_for_contacts(book, {"a": query(memory, "ann@example.com")}, write) == {"a": Success("2")}
    assert written == ["1", "2"]

    alive.clear()
    [answer] = write_for_contacts(book, {"a": query(memory, "ann@example.com")}, write).values()
    assert type(answer) is TransientError
    assert written == ["1", "2", "2", "2"]
    assert memory.ids == {}
