"""One person is one contact: matching in every CRM, through the real clients and the stored contact cache."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from bridge.connector import Success
from bridge.errors import LookupInconclusive, OutcomeUnknown
from bridge.events import Event
from bridge.sandbox import RunningSandbox
from bridge.store.contact_cache import StoredContactCache
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.possible_duplicates import (
    dismiss_possible_duplicate,
    list_possible_duplicates,
    save_possible_duplicate,
)
from bridge.store.queries import NotFound
from bridge.testing import build_context, event
from tests.integration.crm import CrmConnection, note_text

PHONE, EMAIL = "+12125550123", "maya.lindqvist@example.com"
PERSON = {"metadata.contactName": "Maya Lindqvist", "callMetadata.customer.company": "Lindqvist Cycles"}
BY_PHONE = {"metadata.contactPhone": PHONE}
BY_BOTH = {"metadata.contactPhone": PHONE, "metadata.contactEmail": EMAIL, **PERSON}
BY_EMAIL = {"metadata.contactEmail": EMAIL, "metadata.contactName": "Maya Lindqvist"}

FIELDS = {
    "hubspot": {
        "email": "email",
        "phone": "phone",
        "first": "firstname",
        "last": "lastname",
        "company": "company",
    },
    "salesforce": {"email": "Email", "phone": "Phone", "first": "FirstName", "last": "LastName"},
    "pipedrive": {"email": "email", "phone": "phone", "first": "first_name", "last": "last_name"},
}


class Crm:
    """A connection to one CRM whose contact cache is in the database."""

    def __init__(self, name: str, sandbox: RunningSandbox, database: Database) -> None:
        self.name = name
        self.database = database
        self.connection = CrmConnection(name, sandbox)
        self.sandbox = sandbox
        self.provider: Any = getattr(sandbox, name)
        self.numbers = itertools.count(1)

    def deliver(self, source_event: Event, params: dict[str, Any] | None = None) -> Success:
        [result] = self.deliver_all([source_event], params)
        if isinstance(result, Success):
            return result
        raise result

    def deliver_all(self, events: list[Event], params: dict[str, Any] | None = None) -> list[Any]:
        """Log calls or chats, in one batch if they are of one kind."""
        action = "log_chat" if events[0].type.startswith("chat") else "log_call"
        report = partial(save_possible_duplicate, self.database, self.name, "dlv_test")
        return self.connection.deliver_all(
            action,
            events,
            params,
            contact_cache=StoredContactCache(self.database, self.name),
            report_duplicate=report,
        )

    def settle(self, events: list[Event]) -> list[Any]:
        """Attempt deliveries until all have succeeded, and look up unknown outcomes as the bridge does."""
        results: list[Any] = []
        done: dict[int, Success] = {}
        for _ in range(20):
            pending = [number for number in range(len(events)) if number not in done]
            results = self.deliver_all([events[number] for number in pending])
            for number, result in zip(pending, results, strict=True):
                found = result if isinstance(result, Success) else self.find(events[number], result)
                if found is not None:
                    done[number] = found
            if len(done) == len(events):
                return list(done.values())
        return results

    def find(self, source_event: Event, failure: Any) -> Success | None:
        """Look up a delivery whose outcome is unknown, if its action has a lookup."""
        action = self.connection.connector.actions["log_call"]
        if not isinstance(failure, OutcomeUnknown) or action.run_lookup is None:
            return None
        cache = StoredContactCache(self.database, self.name)
        now = self.connection.clock.now()
        context = build_context(source_event, action, now=now, contact_cache=cache)
        return self.connection.connected.find("log_call", context=context)

    def call(self, contact: dict[str, Any], name: str = "call.completed") -> Event:
        """Return an event with only these fields of the contact."""
        number = next(self.numbers)
        empty = {"metadata.contactPhone": None, "metadata.contactEmail": None, "metadata.contactName": None}
        changes = empty | {"callMetadata.customer": {}} | contact | {"conversationId": f"conv_{number}"}
        return event(name, changes, clock=self.connection.clock)

    def chat(self, contact: dict[str, Any]) -> Event:
        return self.call(contact, "chat.completed")

    def add(self, **values: str) -> str:
        """Add a contact as a CRM user would, with this CRM's field names. Return its ID."""
        fields = {FIELDS[self.name][name]: value for name, value in values.items()}
        if self.name == "pipedrive":
            name = " ".join(values[part] for part in ("first", "last") if part in values) or "+12125550000"
            addresses = {kind: values[kind] for kind in ("email", "phone") if kind in values}
            return str(self.provider.add("person", name=name, **addresses).id)
        if self.name == "hubspot":
            return str(self.provider.add("contacts", **fields).id)
        return str(self.provider.add("Contact", **({"LastName": "Customer"} | fields)).id)

    def contacts(self) -> list[dict[str, Any]]:
        """Return all contacts, and leads, with neutral field names; None for an empty field."""
        return [
            {"id": str(record.id)}
            | {name: self.values(record).get(field) for name, field in FIELDS[self.name].items()}
            for record in self.people()
        ]

    def people(self) -> list[Any]:
        """Return the records of all contacts, and leads."""
        if self.name == "pipedrive":
            return list(self.provider.persons)
        return [*self.provider.contacts, *(self.provider.leads if self.name == "salesforce" else [])]

    def update(self, record: Any, kind: str = "", **values: str) -> None:
        """Change a contact as a CRM user would; `title` is the job, or anything else that is not the address."""
        if self.name == "pipedrive":
            title = {"visible_to": 7} if "title" in values else {}
            addresses = {"emails": [{"value": values["email"]}]} if "email" in values else {}
            self.provider.update(record, **title, **addresses)
            return
        kind = kind or ("contacts" if self.name == "hubspot" else "Contact")
        names = FIELDS[self.name] | {"title": "jobtitle" if self.name == "hubspot" else "Title"}
        changes = {names[name]: value for name, value in values.items()}
        crm = self.provider.crm
        crm.update(crm.types[kind], record, changes, self.connection.clock.now())

    def delete(self, record_id: str) -> None:
        """Delete a contact that the bridge has created, as a CRM user would."""
        kinds = {"hubspot": "contacts", "salesforce": "Lead", "pipedrive": "person"}
        self.provider.delete(kinds[self.name], record_id)

    def values(self, record: Any) -> dict[str, Any]:
        if self.name == "pipedrive":
            first = {"email": next(iter(record.emails), None), "phone": next(iter(record.phones), None)}
            has_name = record["name"] not in record.emails + record.phones + ["+12125550000"]
            return first | {
                part: (record[part] or None) if has_name else None for part in ("first_name", "last_name")
            }
        values: dict[str, Any] = record.properties if self.name == "hubspot" else record.fields
        return values

    def records(self) -> list[tuple[str | None, str]]:
        """Return the contact and the text of every logged call and chat, oldest first."""
        if self.name == "salesforce":
            return [(task["WhoId"], task["Description"]) for task in self.provider.tasks]
        if self.name == "pipedrive":
            activities = self.provider.activities
            return [(str(item["person_id"] or "") or None, note_text(item["note"])) for item in activities]
        result = []
        for kind, body in (("calls", "hs_call_body"), ("notes", "hs_note_body")):
            for record in self.provider.objects(kind):
                linked = self.provider.associated(kind, record.id, "contacts")
                result.append((linked[0] if linked else None, record.properties[body]))
        return result

    def duplicates(self) -> list[tuple[str, str]]:
        items = list_possible_duplicates(self.database).items
        return [(item["first_record"], item["second_record"]) for item in items]


@pytest.fixture
def store(sqlite_url: str, sandbox: RunningSandbox) -> Iterator[Database]:
    database = Database(sqlite_url, sandbox.clock)
    yield database
    database.close()


@pytest.fixture(params=["hubspot", "salesforce", "pipedrive"])
def crm(request: pytest.FixtureRequest, sandbox: RunningSandbox, store: Database) -> Iterator[Crm]:
    connected = Crm(request.param, sandbox, store)
    yield connected
    connected.connection.close()


@pytest.fixture(params=["hubspot", "salesforce"])
def strict_crm(request: pytest.FixtureRequest, sandbox: RunningSandbox, store: Database) -> Iterator[Crm]:
    """A CRM that validates addresses and has tasks: Pipedrive documents no validation."""
    connected = Crm(request.param, sandbox, store)
    yield connected
    connected.connection.close()


@pytest.mark.parametrize(
    "order", [(BY_PHONE, BY_BOTH, BY_EMAIL), (BY_BOTH, BY_PHONE, BY_EMAIL), (BY_EMAIL, BY_BOTH, BY_PHONE)]
)
def test_phone_first_and_email_later_is_one_complete_contact(
    crm: Crm, order: tuple[dict[str, Any], ...]
) -> None:
    for contact in order:
        source_event = crm.chat(contact) if contact is BY_EMAIL else crm.call(contact)
        crm.deliver(source_event)

    [contact] = crm.contacts()
    expected = {"email": EMAIL, "phone": PHONE, "first": "Maya", "last": "Lindqvist"}
    expected |= {"company": "Lindqvist Cycles"} if crm.name == "hubspot" else {}
    assert {name: contact[name] for name in expected} == expected
    assert {contact_id for contact_id, _ in crm.records()} == {contact["id"]}
    assert crm.duplicates() == []


def test_events_of_one_person_in_one_batch_are_one_contact(crm: Crm) -> None:
    crm.deliver_all([crm.call(BY_PHONE), crm.call(BY_EMAIL), crm.call(BY_BOTH)])

    [contact] = crm.contacts()
    assert (contact["email"], contact["phone"], contact["last"]) == (EMAIL, PHONE, "Lindqvist")
    assert {contact_id for contact_id, _ in crm.records()} == {contact["id"]}


def test_filling_in_takes_no_request_when_an_event_adds_nothing(crm: Crm) -> None:
    for contact in (BY_PHONE, BY_BOTH):
        crm.deliver(crm.call(contact))
    crm.connection.requests()
    for contact in (BY_PHONE, BY_BOTH, BY_EMAIL):
        crm.deliver(crm.call(contact))
    assert len(crm.connection.requests()) == 3
    assert crm.records()[-1][0] == crm.contacts()[0]["id"]


def test_filled_fields_are_never_overwritten(crm: Crm) -> None:
    record = crm.add(email=EMAIL, first="M.", last="Lindqvist", phone="+13125550100")
    result = crm.deliver(crm.call(BY_BOTH))

    [contact] = crm.contacts()
    assert (contact["id"], contact["first"], contact["phone"]) == (record, "M.", "+13125550100")
    assert crm.records()[-1][0] == record
    crm.deliver(crm.call(BY_PHONE))  # no other record has the number, so it is this contact's
    assert len(crm.contacts()) == 1
    # Pipedrive has an organization in place of a company's name.
    assert "company" in result.detail if crm.name == "pipedrive" else result.detail == ""


@pytest.mark.parametrize(
    ("typed", "number"),
    [
        ("+44 (0)7911 123456", "+447911123456"),
        ("+39 02 1234567", "+39021234567"),
        ("+52 1 55 1234 5678", "+525512345678"),
        ("+55 31 8888-7777", "+5531988887777"),
    ],
)
def test_contact_is_found_however_a_user_typed_the_number(crm: Crm, typed: str, number: str) -> None:
    record = crm.add(phone=typed)
    crm.deliver(crm.call({"metadata.contactPhone": number}))
    assert (len(crm.contacts()), crm.records()[-1][0]) == (1, record)


def test_value_that_a_user_entered_meanwhile_is_kept(crm: Crm) -> None:
    crm.deliver(crm.call(BY_PHONE))
    [record] = crm.people()
    crm.update(record, "Lead" if crm.name == "salesforce" else "", email="entered@example.com")
    crm.deliver(crm.call(BY_BOTH))

    [contact] = crm.contacts()
    assert (contact["email"], contact["last"]) == ("entered@example.com", "Lindqvist")


def test_email_and_phone_of_two_records_are_listed_once_as_possible_duplicate(crm: Crm) -> None:
    by_phone, by_email = crm.add(phone=PHONE), crm.add(email=EMAIL)
    before = crm.contacts()
    first = crm.deliver(crm.call(BY_BOTH))
    crm.connection.requests()
    crm.deliver(crm.call(BY_BOTH))

    assert len(crm.connection.requests()) == 1
    assert [contact_id for contact_id, _ in crm.records()] == [by_email, by_email]  # created later
    assert "possible duplicate" in first.detail
    assert by_phone in first.detail
    assert crm.contacts() == before
    assert crm.duplicates() == [tuple(sorted((by_phone, by_email)))]

    [pair] = list_possible_duplicates(crm.database).items
    assert (pair["connection"], pair["delivery_id"]) == (crm.name, "dlv_test")
    dismiss_possible_duplicate(crm.database, "tester", pair["id"])
    save_possible_duplicate(crm.database, crm.name, "dlv_later", by_email, by_phone)
    assert crm.duplicates() == []
    with pytest.raises(NotFound):
        dismiss_possible_duplicate(crm.database, "tester", pair["id"])


def test_the_more_recently_active_of_two_records_is_used(crm: Crm) -> None:
    by_phone = crm.add(phone=PHONE)
    crm.add(email=EMAIL)
    crm.connection.clock.advance(days=1)
    crm.update(crm.people()[0], title="Buyer")
    crm.deliver(crm.call(BY_BOTH))
    assert crm.records()[0][0] == by_phone


@pytest.mark.parametrize(
    "other", [{"metadata.contactPhone": "+12125550188"}, {"metadata.contactEmail": "maya@work.example.com"}]
)
def test_second_address_leads_to_the_contact_after_the_cache_has_expired(
    crm: Crm, other: dict[str, str]
) -> None:
    crm.deliver(crm.call(BY_BOTH))
    crm.deliver(crm.call(BY_BOTH | other))
    for _ in range(3):
        crm.sandbox.clock.advance(days=8)
        crm.deliver(crm.call(other))
    [contact] = crm.contacts()
    assert {record for record, _ in crm.records()} == {contact["id"]}


def test_second_address_of_one_batch_leads_to_the_contact_after_the_cache_has_expired(crm: Crm) -> None:
    other = {"metadata.contactEmail": "maya@work.example.com"}
    crm.deliver_all([crm.call(BY_BOTH), crm.call(BY_BOTH | other)])
    crm.sandbox.clock.advance(days=8)
    crm.deliver_all([crm.call(BY_EMAIL), crm.call(other)])
    assert len(crm.contacts()) == 1


def test_address_that_a_user_gave_to_another_contact_leads_there(crm: Crm) -> None:
    crm.deliver(crm.call(BY_BOTH))
    crm.deliver(crm.call(BY_BOTH | {"metadata.contactPhone": "+12125550188"}))
    crm.sandbox.clock.advance(days=8)
    owner = crm.add(phone="+12125550188", last="Okafor")
    crm.deliver(crm.call({"metadata.contactPhone": "+12125550188"}))
    assert crm.records()[-1][0] == owner


def test_second_address_of_a_deleted_contact_leads_to_a_new_one(crm: Crm) -> None:
    crm.deliver(crm.call(BY_BOTH))
    crm.deliver(crm.call(BY_BOTH | {"metadata.contactPhone": "+12125550188"}))
    crm.sandbox.clock.advance(days=8)
    crm.delete(crm.contacts()[0]["id"])
    crm.deliver(crm.call({"metadata.contactPhone": "+12125550188"}))
    [contact] = crm.contacts()
    assert contact["phone"] == "+12125550188"


def test_two_records_need_review_with_on_multiple_review(crm: Crm) -> None:
    crm.add(phone=PHONE)
    crm.add(email=EMAIL)
    [result] = crm.deliver_all([crm.call(BY_BOTH)], {"on_multiple": "review"})
    assert isinstance(result, LookupInconclusive)
    assert len(crm.duplicates()) == 1


def test_record_names_the_second_person_on_a_number(crm: Crm) -> None:
    record = crm.add(phone=PHONE, first="Maya", last="Lindqvist")
    crm.deliver(crm.call(BY_PHONE | {"metadata.contactName": "LINDQVIST, Maya"}))
    crm.deliver(
        crm.call(
            BY_PHONE | {"metadata.contactName": "Tomas Poe", "metadata.contactEmail": "tomas@example.com"}
        )
    )
    [contact] = crm.contacts()
    assert (contact["first"], contact["last"], contact["email"]) == ("Maya", "Lindqvist", None)
    (first, text), (second, other_text) = crm.records()
    assert first == second == record
    assert "Name given" not in text
    assert "Name given: Tomas Poe" in other_text

    crm.deliver(crm.call({"metadata.contactEmail": "tomas@example.com", "metadata.contactName": "Tomas Poe"}))
    assert [contact["last"] for contact in crm.contacts()] == ["Lindqvist", "Poe"]


def test_two_people_on_one_number_in_one_batch_are_not_mixed(crm: Crm) -> None:
    bob = {"metadata.contactName": "Bob Okafor"}
    by_email = bob | {"metadata.contactEmail": "bob@okafor.example"}
    maya = BY_PHONE | {"metadata.contactName": "Maya Lindqvist"}
    crm.deliver_all([crm.call(maya), crm.call(BY_PHONE | by_email), crm.call(by_email)])
    first, second = crm.contacts()
    assert (first["first"], first["email"], first["phone"]) == ("Maya", None, PHONE)
    assert (second["first"], second["email"], second["phone"]) == ("Bob", "bob@okafor.example", None)
    assert [record for record, _ in crm.records()] == [first["id"], first["id"], second["id"]]
    for days in (0, 8):
        crm.sandbox.clock.advance(days=days)
        crm.deliver(crm.call(by_email))
        assert crm.records()[-1][0] == second["id"]


def test_task_names_the_second_person_on_a_number(strict_crm: Crm) -> None:
    strict_crm.add(phone=PHONE, first="Maya", last="Lindqvist")
    source_event = strict_crm.call(BY_PHONE | {"metadata.contactName": "Tomas Poe"})
    strict_crm.connection.deliver("create_task", source_event)
    [task] = strict_crm.provider.tasks
    assert (
        "Name given: Tomas Poe"
        in strict_crm.values(task)["hs_task_body" if strict_crm.name == "hubspot" else "Description"]
    )


def test_upsert_does_not_mix_two_people(crm: Crm) -> None:
    crm.add(phone=PHONE, last="Lindqvist")
    source_event = crm.call(
        BY_PHONE | {"metadata.contactName": "Tomas Poe", "metadata.contactEmail": "tomas@example.com"}
    )
    result = crm.connection.deliver(
        "upsert_person" if crm.name == "pipedrive" else "upsert_contact", source_event
    )
    [contact] = crm.contacts()
    assert "Lindqvist" in (contact["first"], contact["last"])
    assert "Poe" not in (contact["first"], contact["last"])
    assert contact["email"] is None
    assert "another person" in result.detail


@pytest.mark.parametrize(
    ("contact", "reason"),
    [
        ({"metadata.contactPhone": "anonymous"}, "the caller withheld the number"),
        ({"metadata.contactPhone": "+266696687"}, "the caller withheld the number"),
        ({}, "the event has neither phone nor email"),
        ({"metadata.contactPhone": "extension seven"}, "the event's phone cannot be read"),
        ({"metadata": ["+12125550123"]}, "the event's metadata cannot be read"),
    ],
)
def test_call_of_nobody_is_logged_without_a_contact(crm: Crm, contact: dict[str, Any], reason: str) -> None:
    source_event = crm.call(contact)
    result = crm.deliver(source_event)
    assert result.detail == f"without a contact: {reason}"
    assert result.id
    [(contact_id, text)] = crm.records()
    assert contact_id is None
    assert source_event.conversation.id in text
    assert crm.contacts() == []
    if crm.name != "pipedrive":  # which has no unique field: a lookup recognizes the record
        assert crm.deliver(source_event).id == result.id


def test_refused_email_does_not_lose_the_call(strict_crm: Crm) -> None:
    _refuse_email(strict_crm)
    first, refused, third = strict_crm.deliver_all(
        [
            strict_crm.call(
                {"metadata.contactPhone": "+12125550150", "metadata.contactEmail": "one@example.com"}
            ),
            strict_crm.call(BY_BOTH | {"metadata.contactEmail": "refused@example.com"}),
            strict_crm.call(
                {"metadata.contactPhone": "+12125550151", "metadata.contactEmail": "three@example.com"}
            ),
        ]
    )
    created = f"created a new {'contact' if strict_crm.name == 'hubspot' else 'lead'}"
    assert (first.detail, third.detail) == (created, created)
    assert f"{created}; without the email address, which the CRM refused" in refused.detail
    contacts = {contact["phone"]: contact["email"] for contact in strict_crm.contacts()}
    assert contacts == {"+12125550150": "one@example.com", PHONE: None, "+12125550151": "three@example.com"}
    assert len(strict_crm.records()) == 3

    strict_crm.deliver(strict_crm.call(BY_BOTH | {"metadata.contactEmail": "refused@example.com"}))
    strict_crm.connection.requests()  # the refusal is remembered, as is what belongs to the contact
    strict_crm.deliver(strict_crm.call(BY_BOTH | {"metadata.contactEmail": "refused@example.com"}))
    assert len(strict_crm.connection.requests()) == 1


def test_refused_email_of_a_known_contact_does_not_lose_the_call(strict_crm: Crm) -> None:
    record = strict_crm.add(phone=PHONE, last="Lindqvist")
    _refuse_email(strict_crm)
    result = strict_crm.deliver(strict_crm.call(BY_BOTH | {"metadata.contactEmail": "refused@example.com"}))
    assert "without the email address, which the CRM refused" in result.detail
    assert strict_crm.records()[0][0] == record


def test_only_address_refused_logs_the_call_without_a_contact(strict_crm: Crm) -> None:
    _refuse_email(strict_crm)
    result = strict_crm.deliver(strict_crm.call({"metadata.contactEmail": "refused@example.com"}))
    assert result.detail.startswith("without a contact: the CRM refused the email address (")
    assert (strict_crm.contacts(), len(strict_crm.records())) == ([], 1)


def _refuse_email(crm: Crm) -> None:
    """Let the CRM refuse `refused@example.com`."""
    if crm.name == "salesforce":
        for kind in ("Contact", "Lead"):
            crm.provider.add_rule(
                kind,
                lambda values: (
                    ("no such domain", "Email") if "refused" in (values.get("Email") or "") else None
                ),
            )
    else:
        crm.provider.crm.refused_emails = {"refused@example.com"}


# ------------------------------------------------------------------------------------------------ HubSpot


@pytest.fixture
def hubspot(sandbox: RunningSandbox, store: Database) -> Iterator[Crm]:
    connected = Crm("hubspot", sandbox, store)
    yield connected
    connected.connection.close()


def test_contact_named_in_a_conflict_is_used(hubspot: Crm) -> None:
    """A secondary email address: reading by email finds nothing, and creating a contact is refused."""
    record = str(hubspot.provider.add("contacts", email="old@example.com", hs_additional_emails=EMAIL).id)
    result = hubspot.deliver(hubspot.call(BY_BOTH))
    [contact] = hubspot.contacts()
    assert (contact["id"], contact["email"], contact["phone"]) == (record, "old@example.com", PHONE)
    assert hubspot.records()[0][0] == record
    assert "reported an existing contact" in result.detail


def test_contact_named_in_a_conflict_of_a_batch_is_used(hubspot: Crm) -> None:
    record = str(hubspot.provider.add("contacts", email="old@example.com", hs_additional_emails=EMAIL).id)
    others = [
        hubspot.call(
            {
                "metadata.contactPhone": f"+1212555016{number}",
                "metadata.contactEmail": f"{number}@example.com",
            }
        )
        for number in range(3)
    ]
    hubspot.connection.requests()
    results = hubspot.deliver_all([*others, hubspot.call(BY_BOTH)])
    assert all(isinstance(result, Success) for result in results)
    assert len(hubspot.contacts()) == 4
    assert hubspot.records()[-1][0] == record
    creations = [path for path in hubspot.connection.requests() if path.endswith("contacts/batch/create")]
    assert len(creations) <= 3  # not one per contact


def test_contact_is_found_by_secondary_email(hubspot: Crm) -> None:
    record = str(hubspot.provider.add("contacts", email="old@example.com", hs_additional_emails=EMAIL).id)
    hubspot.deliver(hubspot.call(BY_EMAIL), {"on_missing": "skip"})
    assert hubspot.records()[0][0] == record


def test_secondary_email_and_phone_of_two_contacts_are_a_possible_duplicate(hubspot: Crm) -> None:
    record = str(hubspot.provider.add("contacts", email="old@example.com", hs_additional_emails=EMAIL).id)
    by_phone = hubspot.add(phone=PHONE)
    hubspot.deliver(hubspot.call(BY_BOTH))
    assert hubspot.duplicates() == [(record, by_phone)]


def test_email_that_another_contact_gets_meanwhile_is_a_possible_duplicate(hubspot: Crm) -> None:
    by_phone = hubspot.add(phone=PHONE)
    other = hubspot.add(email=EMAIL)
    body = {"status": "COMPLETE", "results": [], "startedAt": "2026-03-02T15:00:00Z"}
    body |= {"completedAt": "2026-03-02T15:00:00Z"}
    hubspot.sandbox.fault("hubspot", path="/crm/objects/2026-03/contacts/batch/read", body=body)
    result = hubspot.deliver(hubspot.call(BY_BOTH))
    assert hubspot.duplicates() == [(by_phone, other)]
    assert "possible duplicate" in result.detail
    assert [contact["last"] for contact in hubspot.contacts()] == ["Lindqvist", None]


def test_chat_of_nobody_states_why_it_is_not_logged(hubspot: Crm) -> None:
    result = hubspot.deliver(hubspot.chat({}))
    assert (result.id, result.detail) == (None, "not logged: the event has neither phone nor email")


# --------------------------------------------------------------------------------------------- Salesforce


@pytest.fixture
def salesforce(sandbox: RunningSandbox, store: Database) -> Iterator[Crm]:
    connected = Crm("salesforce", sandbox, store)
    yield connected
    connected.connection.close()


@pytest.mark.parametrize("rule", [("must have ten digits", "Phone"), "Enter a phone number with ten digits"])
def test_phone_refused_by_a_validation_rule_does_not_lose_the_call(salesforce: Crm, rule: Any) -> None:
    salesforce.provider.add_rule("Lead", lambda values: rule if values.get("Phone") else None)
    result = salesforce.deliver(salesforce.call(BY_BOTH))
    [contact] = salesforce.contacts()
    assert (contact["email"], contact["phone"]) == (EMAIL, None)
    assert (
        "without the phone number, which the CRM refused (FIELD_CUSTOM_VALIDATION_EXCEPTION)" in result.detail
    )
    salesforce.deliver(salesforce.call(BY_PHONE))
    assert len(salesforce.contacts()) == 1


def test_lead_is_completed(salesforce: Crm) -> None:
    lead = salesforce.provider.add("Lead", LastName="+12125550123", Company="[not provided]", Phone=PHONE)
    salesforce.deliver(salesforce.call(BY_BOTH))
    fields = salesforce.values(salesforce.provider.leads[0])
    assert (fields["FirstName"], fields["LastName"], fields["Company"], fields["Email"]) == (
        "Maya",
        "Lindqvist",
        "Lindqvist Cycles",
        EMAIL,
    )
    assert salesforce.records()[0][0] == lead.id


def test_only_name_replaces_the_placeholder(salesforce: Crm) -> None:
    salesforce.deliver(salesforce.call(BY_PHONE))
    assert salesforce.contacts()[0]["last"] == PHONE
    salesforce.deliver(salesforce.call(BY_PHONE | {"metadata.contactName": "Maya"}))
    assert (salesforce.contacts()[0]["first"], salesforce.contacts()[0]["last"]) == (None, "Maya")


def test_duplicate_rule_on_completion_lists_the_pair(salesforce: Crm) -> None:
    by_phone, other = salesforce.add(phone=PHONE, last="Lindqvist"), salesforce.add(email=EMAIL)
    salesforce.provider.set_duplicate_rule("block")
    salesforce.deliver(salesforce.call({}))  # reads the name of the closed status
    empty = {"totalSize": 0, "done": True, "records": []}
    salesforce.sandbox.fault("salesforce", path="/services/data/v66.0/query/", body=empty, times=2)
    result = salesforce.deliver(salesforce.call(BY_BOTH))
    assert salesforce.records()[-1][0] == by_phone
    assert salesforce.duplicates() == [tuple(sorted((by_phone, other)))]
    assert "possible duplicate" in result.detail


# ------------------------------------------------------------------------------------------ personal data


def test_erasure_removes_the_name_and_every_address_of_the_cache(crm: Crm) -> None:
    crm.add(phone=PHONE)
    crm.add(email=EMAIL)
    crm.deliver(crm.call(BY_BOTH))
    erase(crm.database, "tester", PHONE, [b"secret"])
    erase(crm.database, "tester", EMAIL, [b"secret"])
    keys = [*StoredContactCache(crm.database, crm.name).get([f"phone:{PHONE}", f"email:{EMAIL}"])]
    assert keys == []
    pair = f"pair:{EMAIL}:{PHONE}"
    assert StoredContactCache(crm.database, crm.name).get([pair]) == {}


def test_name_of_an_event_belongs_to_its_own_addresses_only(crm: Crm) -> None:
    """A rule that logs the call on another contact does not give that contact the caller's name."""
    record = crm.add(phone="+12125550199")
    crm.deliver(crm.call(BY_BOTH), {"phone": "+12125550199", "email": None})
    [contact] = crm.contacts()
    assert (contact["id"], contact["email"]) == (record, None)
    assert contact["first"] is None
