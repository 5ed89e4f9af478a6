"""Rejected requests: webhooks that were not accepted, and how to accept one."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from typing_extensions import TypedDict

from bridge.store import schema
from bridge.store.operator_actions import ActionResult
from bridge.store.queries import list_rejected_requests
from bridge.store.rejected_groups import group_rejected_requests
from bridge.web.api.endpoint import Call, Resource, require_done
from bridge.web.api.records import AuditEntry, PageOf, record
from bridge.web.query_params import RejectedQuery

REJECTED_REQUESTS = Resource("Rejected requests", "Webhook requests that were not accepted, and why.")


@record(schema.rejected_requests)
class RejectedRequestSummary(TypedDict):
    """A rejected request in a list."""

    id: str
    received_at: datetime
    reason: str
    detail: str
    status: int
    signature_valid: bool
    accepted_event_id: str | None


@record(schema.rejected_requests)
class RejectedRequestDetails(RejectedRequestSummary):
    """A rejected request with its body."""

    body: str | None
    audit: list[AuditEntry]


@record()
class RejectedRequestGroup(TypedDict):
    """Requests that were rejected for the same cause."""

    reason: str
    detail: str
    """Explanation of the newest request."""
    status: int
    signature_valid: bool
    total: int
    not_accepted: int
    """Those with a valid signature that nobody has accepted yet."""
    first_at: datetime
    last_at: datetime
    newest: list[RejectedRequestSummary]


@record()
class RejectedGroups(TypedDict):
    """The rejected requests by cause."""

    items: list[RejectedRequestGroup]
    next_cursor: None


@REJECTED_REQUESTS.get("/rejected-requests", response=PageOf[RejectedRequestSummary])
def list_all_rejected_requests(call: Call, query: RejectedQuery) -> Any:
    """List rejected webhook requests, newest first."""
    return list_rejected_requests(call.database, limit=query.limit, cursor=query.cursor)


@REJECTED_REQUESTS.get("/rejected-requests/groups", response=RejectedGroups)
def group_rejected(call: Call) -> Any:
    """List the rejected requests by cause, the newest group first."""
    return {"items": [asdict(group) for group in group_rejected_requests(call.database)], "next_cursor": None}


@REJECTED_REQUESTS.get("/rejected-requests/{id}", response=RejectedRequestDetails)
def get_rejected_request(call: Call) -> Any:
    """Get a rejected request with its body."""
    return call.service.show("rejected_request", call.id)


@REJECTED_REQUESTS.post(
    "/rejected-requests/{id}/accept",
    response=ActionResult,
    errors={409: "The signature is not valid, or the request was accepted before."},
)
def accept_rejected_request(call: Call) -> Any:
    """Accept a rejected request as an event."""
    return require_done(call.service.accept(call.id, call.actor))
