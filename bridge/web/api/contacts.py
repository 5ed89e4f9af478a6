"""Contacts: why a person got a message or did not, and CRM records that may be the same person."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from bridge.connector import Channel
from bridge.store import schema
from bridge.store.contact_details import describe_contact
from bridge.store.contact_export import addresses_of_person, export_json
from bridge.store.erase import erase
from bridge.store.possible_duplicates import dismiss_possible_duplicate, list_possible_duplicates
from bridge.web.api.endpoint import Call, Resource
from bridge.web.api.opt_outs import OptOutListEntry
from bridge.web.api.records import DeliverySummary, PageOf, record
from bridge.web.query_params import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    DuplicateQuery,
    EventCursor,
    RequiredText,
    Time,
    instant,
)
from bridge.web.validation import Parameters

CONTACTS = Resource(
    "Contacts", "One person over all events and deliveries. Addresses are never part of a URL."
)
_UNKNOWN = {404: "Nothing is stored about this contact."}


class ContactReportBody(Parameters):
    """Whom to report about."""

    contact: RequiredText = Field(
        description="A phone number, an email address or a conversation ID.", examples=["+12125550167"]
    )
    since: Time | None = Field(None, description="Events received then or later.", examples=["7d"])
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = Field(
        DEFAULT_LIMIT, description="Events per page, at most."
    )
    cursor: EventCursor = None


@record(schema.deliveries)
class ReportedDelivery(DeliverySummary):
    """A delivery about the contact, with the decision in words."""

    local_time: str | None
    """When it finished or is due, at the contact's place."""
    answer: str
    """What became of it, and why."""


@record()
class ReportedRule(TypedDict):
    """A rule that did not fire."""

    rule: str
    enabled: bool
    answer: str
    """Why it did not fire."""


@record(schema.events)
class ReportedEvent(TypedDict):
    """An event about the contact, with every decision about it."""

    id: str
    type: str
    conversation_id: str
    occurred_at: datetime
    received_at: datetime
    routed_at: datetime | None
    local_time: str | None
    """When it happened, at the contact's place."""
    deliveries: list[ReportedDelivery]
    rules: list[ReportedRule]
    trace_kept: bool
    """False if the trace is no longer stored, or the event is not routed yet: `rules` is then empty."""
    other_address: bool
    """True if the event is about another address of the same contact."""


@record()
class OwnOptOut(OptOutListEntry):
    """An entry of the opt-out list about the contact."""

    other_address: bool
    """True if it is about another address of the same contact."""


@record()
class WhyReport(TypedDict):
    """Why a person got a message or did not."""

    items: list[ReportedEvent]
    """The events, oldest first."""
    next_cursor: str | None
    opt_outs: list[OwnOptOut]
    rejected_requests: int
    """Requests that were rejected in the same time. They are not attributed to anyone."""


class ContactBody(Parameters):
    """Who it is about."""

    contact: RequiredText = Field(
        description="A phone number or an email address, or the ID of an event about the person.",
        examples=["+12125550167"],
    )


class EraseBody(ContactBody):
    """Whom to erase."""

    confirm: Literal["erase permanently"] = Field(description="Confirms that it cannot be undone.")


@record()
class LinkedAddress(TypedDict):
    """An address that occurs in events with one of the person's."""

    address: str
    event_id: str | None


@record()
class PersonRecord(TypedDict):
    """A record of a CRM that was found for the person."""

    connection: str
    external_id: str
    addresses: list[str]


@record()
class ChannelPermission(TypedDict):
    """Whether a message would be allowed now."""

    channel: Channel
    address: str
    answer: Literal["yes", "not_now", "no"]
    detail: str
    """The setting that decides, and until when."""
    until: datetime | None
    is_opted_out: bool
    sent: int
    """Messages that count toward the cap."""
    cap: int | None
    cap_period: str


@record()
class Person(TypedDict):
    """A person, and whether they may be contacted now."""

    event_id: str | None
    """An event about the person; null if nothing is stored."""
    name: str | None
    other_names: list[str]
    addresses: list[str]
    other_addresses: list[LinkedAddress]
    records: list[PersonRecord]
    opt_outs: list[OwnOptOut]
    time_zones: list[str]
    """Where the person may be."""
    permissions: list[ChannelPermission]


@record()
class ContactData(TypedDict):
    """Everything that is stored about a person."""

    exported_at: datetime
    addresses: list[str]
    events: list[dict[str, Any]]
    deliveries: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    opt_outs: list[dict[str, Any]]
    cached_contacts: list[dict[str, Any]]
    conversation_details: list[dict[str, Any]]
    rejected_requests: list[dict[str, Any]]
    operator_actions: list[dict[str, Any]]


@record()
class ErasedAddress(TypedDict):
    """What was erased for one address."""

    address: str
    events: int
    deliveries: int
    cancelled: int
    """Deliveries that had not been sent."""
    cached_contacts: int
    rejected_requests: int
    opt_outs: int
    """Opt-outs that are kept as a hash."""
    in_progress: int
    """Deliveries that were running: erase again once they have finished."""


@record()
class ErasedContact(TypedDict):
    """What was erased, by address."""

    items: list[ErasedAddress]


@record(schema.possible_duplicates)
class PossibleDuplicate(TypedDict):
    """Two CRM records that may be the same person."""

    id: str
    connection: str
    first_record: str
    second_record: str
    delivery_id: str
    found_at: datetime
    last_seen_at: datetime


@record()
class DismissedDuplicate(TypedDict):
    """A pair that is no longer listed."""

    id: str
    dismissed: bool


@CONTACTS.post("/why", response=WhyReport)
def report_contact(call: Call, body: ContactReportBody) -> Any:
    """Say why a person got a message or did not, for every event."""
    since = instant(body.since, call.database.clock.now())
    return call.service.report_contact(body.contact, since=since, limit=body.limit, cursor=body.cursor)


@CONTACTS.post("/contacts", response=Person, errors=_UNKNOWN)
def find_person(call: Call, body: ContactBody) -> Any:
    """Get a person by an address or an event, and whether they may be contacted now.

    A person is everything with the same phone number or email address. Other addresses that occur with them are listed.
    """
    service = call.service
    addresses = addresses_of_person(call.database, body.contact)
    details = describe_contact(
        call.database, addresses, service.rules.current.messaging.time_zone, service.hash_address
    )
    return {
        "event_id": details.event_id,
        "name": details.contact.name,
        "other_names": details.other_names,
        "addresses": details.addresses,
        "other_addresses": [asdict(item) for item in details.other_addresses],
        "records": [asdict(item) for item in details.records],
        "opt_outs": details.opt_outs,
        "time_zones": details.zones,
        "permissions": [asdict(item) for item in service.permissions(details.event, details.addresses)],
    }


@CONTACTS.post("/contacts/export", response=ContactData, errors=_UNKNOWN)
def export_contact(call: Call, body: ContactBody) -> Any:
    """Get everything that is stored about a person, as `bridge contacts export` prints it."""
    addresses = addresses_of_person(call.database, body.contact)
    return json.loads("".join(export_json(call.database, addresses, call.service.hash_address)))


@CONTACTS.post("/contacts/erase", response=ErasedContact, errors=_UNKNOWN)
def erase_contact(call: Call, body: EraseBody) -> Any:
    """Erase a person from every event and delivery. It cannot be undone."""
    addresses = addresses_of_person(call.database, body.contact)
    erased = [(item, erase(call.database, call.actor, item, call.service.erase_keys)) for item in addresses]
    return {"items": [{"address": address} | asdict(result) for address, result in erased]}


@CONTACTS.get("/contacts/duplicates", response=PageOf[PossibleDuplicate])
def list_duplicates(call: Call, query: DuplicateQuery) -> Any:
    """List pairs of CRM records that may be the same person, newest first."""
    return list_possible_duplicates(
        call.database, connection=query.connection, limit=query.limit, cursor=query.cursor
    )


@CONTACTS.post("/contacts/duplicates/{id}/dismiss", response=DismissedDuplicate)
def dismiss_duplicate(call: Call) -> Any:
    """Remove a pair from the possible duplicates."""
    dismiss_possible_duplicate(call.database, call.actor, call.id)
    return {"id": call.id, "dismissed": True}
