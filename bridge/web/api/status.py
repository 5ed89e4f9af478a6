"""Status: counts, the search and the audit log."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import Field
from typing_extensions import TypedDict

from bridge.store.search import SearchResult, search
from bridge.store.service_status import read_service_status
from bridge.web.api.endpoint import Call, Resource
from bridge.web.api.records import AuditEntry, DeliverySummary, EventSummary, PageOf, record
from bridge.web.query_params import AuditQuery, RequiredText
from bridge.web.validation import Parameters

STATUS = Resource("Status", "Counts, the search and the audit log.")


class SearchQuery(Parameters):
    """What to search for."""

    q: RequiredText = Field(description="What is known: an ID, a phone number, an email address or a name.")


@record()
class FoundContact(TypedDict):
    """A person that the found events are about."""

    event_id: str
    """The newest of the events: `/api/contacts/{event_id}` is the person."""
    name: str | None
    phones: list[str]
    emails: list[str]
    event_type: str
    """Type of the newest event."""
    last_seen_at: datetime
    """When the newest event was received."""
    events: int
    """How many of the events that the search examined are about the person."""


@record()
class Found(TypedDict):
    """What a search has found, newest first."""

    contacts: list[FoundContact]
    events: list[EventSummary]
    deliveries: list[DeliverySummary]


@record()
class Stats(TypedDict):
    """Counts, at most a few seconds old. Each is at most 10,000, which then stands for more."""

    deliveries: dict[str, int]
    """Number of deliveries by state."""
    unrouted: int
    """Events that wait to be routed."""
    oldest_due: datetime | None
    """When the oldest waiting delivery is or was due."""


@STATUS.get("/search", response=Found)
def search_all(call: Call, query: SearchQuery) -> Any:
    """Find people, events and deliveries by ID; send anything personal with POST instead.

    The URLs of requests are logged by proxies.
    """
    return _found(search(call.database, query.q))


@STATUS.post("/search", response=Found)
def find(call: Call, body: SearchQuery) -> Any:
    """Find people, events and deliveries by anything that is known.

    An ID, a phone number in any notation or its last 4 to 6 digits, an email address, a masked address, a conversation
    ID or its first 8 characters, or the beginning of a full name or last name.
    """
    return _found(search(call.database, body.q))


def _found(result: SearchResult) -> dict[str, Any]:
    return {
        "contacts": [asdict(contact) for contact in result.contacts],
        "events": result.events.items,
        "deliveries": result.deliveries.items,
    }


@STATUS.get("/stats", response=Stats)
def get_stats(call: Call) -> Any:
    """Count deliveries by state, and unrouted events, up to 10,000 of each."""
    return call.service.stats()


@record()
class WorkerRecord(TypedDict):
    """A process that carries out deliveries."""

    id: str
    host: str
    version: str
    started_at: datetime
    last_heartbeat_at: datetime
    is_alive: bool


@record()
class ServiceStatusRecord(TypedDict):
    """The processes, the database and what the service receives."""

    workers: list[WorkerRecord]
    database: str
    """Kind and version."""
    size: int
    """Bytes of the database."""
    disk_free: int | None
    """Free bytes where SQLite stores the file. Null for PostgreSQL."""
    revision: str | None
    """Version of the schema."""
    newest_revision: str
    """The version of the schema that this process expects."""
    clock_difference: float
    """Seconds that the clock of the database is ahead of this process's."""
    received: dict[str, int]
    """`event`, or why a request was rejected: number in the last 24 hours."""
    last_event_at: datetime | None
    oldest_event_at: datetime | None
    unrouted: int
    oldest_unrouted: datetime | None
    oldest_due: datetime | None
    """When the oldest delivery became due that no pause holds back."""


@STATUS.get("/status", response=ServiceStatusRecord)
def show_status(call: Call) -> Any:
    """Show the processes, the database and what the service receives."""
    return read_service_status(call.database)


@STATUS.get("/audit", response=PageOf[AuditEntry])
def list_audit_log(call: Call, query: AuditQuery) -> Any:
    """List operator actions, newest first."""
    items, next_cursor = call.service.audit(**dict(query))
    return {"items": items, "next_cursor": next_cursor}
