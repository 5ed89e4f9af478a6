"""Contact resolution, independent of any CRM."""

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
    resolve_contacts,
    same_number,
    search_digits,
    write_for_contacts,
)
from bridge.contacts.same_name import same_name
from bridge.errors import DeliveryError, LookupInconclusive, PermanentError, TransientError
from bridge.testing import event
from tests.integration.crm import InMemoryContactCache

PHONE = "+12125550123"
PROPERTIES = TypeAdapter(Properties)


@pytest.mark.parametrize(
    ("typed", "number", "same"),
    [
        ("(212) 555-0123", PHONE, True),
        ("1-212-555-0123", PHONE, True),
        ("+1 212 555 0123 ext. 7", PHONE, True),
        ("0012125550123", PHONE, True),
        ("+44 212 555 0123", PHONE, False),
        ("2125550124", PHONE, False),
        ("ask at reception", PHONE, False),
        ("", PHONE, False),
        ("030 901820", "+4930901820", True),
        ("+49 (0)30 901820", "+4930901820", True),
        ("06 6982", "+39066982", True),  # in Italy the zero is part of the number
        ("6982", "+39066982", False),
        ("+99912345", "+99912345", True),  # in no numbering plan, but identical
    ],
)
def test_same_number_compares_as_e164(typed: str, number: str, same: bool) -> None:
    assert same_number(typed, number) is same


@pytest.mark.parametrize(
    ("number", "digits"),
    [
        (PHONE, ["2125550123"]),
        ("+39066982", ["066982", "66982"]),
        ("+525512345678", ["5512345678", "15512345678"]),
        ("+5531988887777", ["31988887777", "3188887777"]),
        ("+551133334444", ["1133334444"]),
        ("+99912345", ["99912345"]),
    ],
)
def test_search_digits_omit_the_country_code(number: str, digits: list[str]) -> None:
    assert list(search_digits(number)) == digits


def test_fields_to_write_skips_filled_fields_and_missing_values() -> None:
    properties = PROPERTIES.validate_python(
        {
            "city": "Boston",
            "title": {"value": "Buyer", "mode": "fill"},
            "phone": {"value": PHONE, "mode": "fill"},
            "score": 0,
            "active": False,
            "state": None,
            "zip": "",
        }
    )
    current = {"city": "New York", "title": "Owner", "phone": "", "score": "9"}
    assert fields_to_write(properties, current) == {
        "city": "Boston",
        "phone": PHONE,
        "score": 0,
        "active": False,
    }
    assert fields_to_write(properties, None)["title"] == "Buyer"


@pytest.mark.parametrize("properties", [{"a": {"value": 1, "mode": "merge"}}, {"a": {"valeu": 1}}, "text"])
def test_invalid_properties_are_rejected(properties: Any) -> None:
    with pytest.raises(ValidationError):
        PROPERTIES.validate_python(properties)


class FakeCrm:
    """A CRM with a few contacts. Like a real one, its search may return records that do not match."""

    def __init__(self, *contacts: ContactMatch) -> None:
        self.contacts = list(contacts)
        self.searches: list[Sequence[str]] = []
        self.create_error: DeliveryError | None = None

    def by_email(self, emails: Sequence[str]) -> list[ContactMatch]:
        self.searches.append(emails)
        return self.contacts

    def by_phone(self, phones: Sequence[str]) -> list[ContactMatch]:
        self.searches.append(phones)
        return self.contacts

    def create(self, queries: Sequence[ContactQuery]) -> list[str | DeliveryError]:
        return [self.create_error or f"new {query.phone or query.email}" for query in queries]


def query(
    cache: InMemoryContactCache,
    email: str | None = None,
    phone: str | None = None,
    *,
    name: str | None = None,
    report_duplicate: Any = lambda *_: None,
    **options: Any,
) -> ContactQuery:
    about = event(
        changes={
            "metadata.contactEmail": email,
            "metadata.contactPhone": phone,
            "metadata.contactName": name,
            "callMetadata.customer": None,
        }
    )
    now = about.received_at
    context = Context(
        "dlv", "crm", about, "key|", now, now, contact_cache=cache, report_duplicate=report_duplicate
    )
    return ContactQuery(email, phone, context, **options)


def test_search_result_without_the_address_is_ignored() -> None:
    crm = FakeCrm(ContactMatch("1", ["Ann@Example.com"]), ContactMatch("2", phones=["212 555 0124"]))
    cache = InMemoryContactCache()
    [ann, bob] = resolve_contacts(crm, [query(cache, "ann@example.com"), query(cache, phone=PHONE)])

    assert ann == ContactRef("1")
    assert bob == ContactRef(f"new {PHONE}", "created a new contact", created=True)
    assert cache.ids == {"email:ann@example.com": "1", f"phone:{PHONE}": f"new {PHONE}"}


def test_time_zone_is_cached_for_the_contacts_own_addresses() -> None:
    ann = ContactMatch("1", ["ann@example.com"], ["212 555 0123"], zone="america/chicago")
    cache = InMemoryContactCache()
    resolve_contacts(FakeCrm(ann), [query(cache, "ann@example.com", PHONE)])
    assert cache.zones == {"ann@example.com": "America/Chicago", PHONE: "America/Chicago"}
    resolve_contacts(
        FakeCrm(ann), [query(other := InMemoryContactCache(), "ann@example.com", "+13125550100")]
    )
    assert other.zones == {"ann@example.com": "America/Chicago"}  # the number may be another contact's


@pytest.mark.parametrize(
    "zone", [None, "", "Mars/Olympus", "../../etc/passwd", "US/Pacific-New", "UTC", "est"]
)
def test_invalid_time_zone_is_not_cached(zone: str | None) -> None:
    cache = InMemoryContactCache()
    resolve_contacts(
        FakeCrm(ContactMatch("1", ["ann@example.com"], zone=zone)), [query(cache, "ann@example.com")]
    )
    assert cache.zones == {}


def test_cached_contact_is_not_searched_for() -> None:
    crm, cache = FakeCrm(), InMemoryContactCache()
    cache.ids = {"email:ann@example.com": "1", f"phone:{PHONE}": "1"}
    contacts = resolve_contacts(crm, [query(cache, "ann@example.com", PHONE), query(cache, phone=PHONE)])
    assert contacts == [ContactRef("1", cached=True), ContactRef("1", cached=True)]
    assert (crm.searches, cache.lookup_count) == ([], 1)


def test_cached_phone_is_used_for_an_email_that_no_record_has() -> None:
    crm, cache = FakeCrm(), InMemoryContactCache()
    cache.ids = {f"phone:{PHONE}": "2"}
    assert resolve_contacts(crm, [query(cache, "ann@example.com", PHONE)]) == [ContactRef("2", cached=True)]
    assert crm.searches == [["ann@example.com"]]
    assert resolve_contacts(crm, [query(cache, "ann@example.com")]) == [ContactRef("2", cached=True)]


def test_record_with_both_addresses_is_used_without_a_search_for_the_phone_number() -> None:
    crm = FakeCrm(
        ContactMatch("1", ["ann@example.com"], ["212 555 0123"], activity=("2025",)),
        ContactMatch("2", phones=["212 555 0123"], activity=("2026",)),
    )
    assert resolve_contacts(crm, [query(InMemoryContactCache(), "ann@example.com", PHONE)]) == [
        ContactRef("1")
    ]
    assert crm.searches == [["ann@example.com"]]


def test_email_and_phone_of_two_records_lead_to_the_most_recently_active_one() -> None:
    crm = FakeCrm(
        ContactMatch("1", ["ann@example.com"], activity=("2025",)),
        ContactMatch("2", phones=["212 555 0123"], activity=("2026",)),
    )
    cache, duplicates = InMemoryContactCache(), []
    report = {"report_duplicate": lambda *ids: duplicates.append(ids)}
    [pair] = resolve_contacts(crm, [query(cache, "ann@example.com", PHONE, **report)])
    assert isinstance(pair, ContactRef)
    assert (pair.id, "possible duplicate" in pair.detail, duplicates) == ("2", True, [("1", "2")])

    crm.searches.clear()
    addresses = [("ann@example.com", PHONE), ("ann@example.com", None), (None, PHONE)]
    later = resolve_contacts(crm, [query(cache, *each, **report) for each in addresses])
    assert [contact.id for contact in later if isinstance(contact, ContactRef)] == ["2", "1", "2"]
    assert (crm.searches, len(duplicates)) == ([], 1)

    cache.forget([f"pair:ann@example.com:{PHONE}"])
    [review] = resolve_contacts(crm, [query(cache, "ann@example.com", PHONE, on_multiple="review", **report)])
    assert isinstance(review, LookupInconclusive)


def test_name_given_by_another_person_is_noted_and_the_address_is_not_shared() -> None:
    ann = ContactMatch("1", phones=[PHONE], first_name="Ann", last_name="Lee", company="")
    crm, cache = FakeCrm(ann), InMemoryContactCache()
    [same, other] = resolve_contacts(
        crm,
        [
            query(cache, phone=PHONE, name="LEE, Dr. Ann"),
            query(cache, "bob@example.com", PHONE, name="Bob Poe"),
        ],
    )
    assert (same, other) == (ContactRef("1"), ContactRef("1", given_name="Bob Poe"))
    assert "email:bob@example.com" not in cache.ids

    crm.searches.clear()
    [again] = resolve_contacts(crm, [query(cache, "bob@example.com", PHONE, name="Bob Poe")])
    assert again == ContactRef("1", cached=True, given_name="Bob Poe")
    assert crm.searches == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Maya Lindqvist", "LINDQVIST, Maya", True),
        ("Zoë Müller", "zoe muller", True),
        ("Dr. Ludwig van Beethoven", "Beethoven, Ludwig van", True),
        ("Maya", "Maya Lindqvist", True),
        ("M. Lindqvist", "Maya Lindqvist", True),
        ("Siân O\u2019Brien", "Sian O'Brien Jr.", True),
        ("Łukasz Øst", "Lukasz Ost", True),
        ("Bill Lee", "William Lee", False),
        ("Ann Lee", "Bob Lee", False),
        ("李雷", "李雷", True),
        ("李雷", "韩梅梅", False),
    ],
)
def test_same_name_ignores_case_order_accents_and_titles(one: str, other: str, same: bool) -> None:
    assert same_name(one, other) is same_name(other, one) is same


def test_batch_creates_a_missing_contact_once() -> None:
    cache = InMemoryContactCache()
    contacts = resolve_contacts(
        FakeCrm(),
        [
            query(cache, "ann@example.com"),
            query(cache, phone=PHONE),
            query(cache, "ann@example.com", PHONE),
        ],
    )
    assert {contact.id for contact in contacts if isinstance(contact, ContactRef)} == {f"new {PHONE}"}
    assert set(cache.ids.values()) == {f"new {PHONE}"}


def test_failed_creation_affects_only_its_query_and_is_not_cached() -> None:
    crm, cache = FakeCrm(ContactMatch("1", ["ann@example.com"])), InMemoryContactCache()
    crm.create_error = PermanentError("no")
    ann, bob, without_address = resolve_contacts(
        crm, [query(cache, "ann@example.com"), query(cache, phone=PHONE), query(cache)]
    )
    assert (ann, bob, without_address) == (ContactRef("1"), crm.create_error, None)
    assert cache.ids == {"email:ann@example.com": "1"}


def test_multiple_matches_are_inconclusive_with_on_multiple_review() -> None:
    crm = FakeCrm(
        ContactMatch("1", ["ann@example.com"], activity=("2026",)),
        ContactMatch("2", ["ann@example.com"], activity=("2025",)),
    )
    cache = InMemoryContactCache()
    newest, review = resolve_contacts(
        crm, [query(cache, "ann@example.com"), query(cache, "ann@example.com", on_multiple="review")]
    )
    assert newest == ContactRef("1", "2 records have this email, the most recently active was used")
    assert isinstance(review, LookupInconclusive)
    assert "ann" not in str(review)


def test_deleted_record_is_resolved_once_more_and_then_retried_later() -> None:
    crm, cache = FakeCrm(ContactMatch("2", ["ann@example.com"])), InMemoryContactCache()
    cache.ids = {"email:ann@example.com": "1"}
    existing = {"2"}
    written: list[str] = []

    def write(contacts: Any) -> dict[str, Success | DeliveryError]:
        written.extend(contact.id for contact in contacts.values())
        return {
            key: Success(contact.id) if contact.id in existing else ContactDeleted()
            for key, contact in contacts.items()
        }

    assert write_for_contacts(crm, {"a": query(cache, "ann@example.com")}, write) == {"a": Success("2")}
    assert written == ["1", "2"]

    existing.clear()
    [result] = write_for_contacts(crm, {"a": query(cache, "ann@example.com")}, write).values()
    assert type(result) is TransientError
    assert written == ["1", "2", "2", "2"]
    assert cache.ids == {}
