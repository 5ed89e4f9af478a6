"""Status: counts, the search and the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field
from typing_extensions import TypedDict

from bridge.store.search import search
from bridge.web.api.endpoint import Call, Resource
from bridge.web.api.records import AuditEntry, DeliverySummary, EventSummary, PageOf, record
from bridge.web.query_params import AuditQuery, RequiredText
from bridge.web.validation import Parameters

STATUS = Resource("Status", "Counts, the search and the audit log.")


class SearchQuery(Parameters):
    """What to search for."""

    q: RequiredText = Field(description="An ID, a phone number, an email address or a conversation ID.")


@record()
class Found(TypedDict):
    """What a search has found, newest first."""

    events: list[EventSummary]
    deliveries: list[DeliverySummary]


@record()
class Stats(TypedDict):
    """Counts, at most a few seconds old."""

    deliveries: dict[str, int]
    """Number of deliveries by state."""
    unrouted: int
    """Events that wait to be routed."""
    oldest_due: datetime | None
    """When the oldest waiting delivery is or was due."""


@STATUS.get("/search", response=Found)
def search_all(call: Call, query: SearchQuery) -> Any:
    """Find events and deliveries by ID, phone, email or conversation."""
    found = search(call.database, query.q)
    return {"events": found.events.items, "deliveries": found.deliveries.items}


@STATUS.get("/stats", response=Stats)
def get_stats(call: Call) -> Any:
    """Count deliveries by state, and unrouted events."""
    return call.service.stats()


@STATUS.get("/audit", response=PageOf[AuditEntry])
def list_audit_log(call: Call, query: AuditQuery) -> Any:
    """List operator actions, newest first."""
    items, next_cursor = call.service.audit(query.limit, query.cursor)
    return {"items": items, "next_cursor": next_cursor}
