"""Contacts: why a person got a message or did not, and CRM records that may be the same person."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from bridge.store import schema
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
