"""Action that updates a ticket: its status and other fields, a comment, tags."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bridge.connector import Context, OnMissing, Success, param, per_event
from bridge.errors import PermanentError

from .account import Account
from .comments import CommentParams, build_comment
from .errors import MISSING
from .fields import TicketFieldsParams, normalize_tags, ticket_values
from .settings import connector
from .tickets import LOOKUP_DELAY, ON_CLOSED, OnClosed, TicketWriter, unless_closed


class UpdateTicketParams(CommentParams, TicketFieldsParams):
    """Changes of a ticket."""

    ticket: str | None = param(
        "{{ event.metadata.ticketId }}",
        "Ticket ID, from the event's metadata by default.",
        example="35436",
        pattern=r"^\d{1,15}$",
        must_be="a Zendesk ticket ID (digits only)",
    )
    comment: str | None = param(None, "Comment to add.", example="The caller asks for a new date.")
    on_missing: OnMissing = param(
        "skip", "If Zendesk has no such ticket: `skip` the action, or fail with an `error`.", example="error"
    )
    on_closed: OnClosed = ON_CLOSED


@connector.action(
    idempotency=per_event,
    serialize_by="ticket",
    dedupe_by=(
        "ticket",
        "comment",
        "status",
        "priority",
        "type",
        "group",
        "assignee",
        "tags",
        "custom_fields",
    ),
    lookup_delay=LOOKUP_DELAY,
)
def update_ticket(account: Account, params: UpdateTicketParams, context: Context) -> Success:
    """Change the fields of a ticket and add a comment."""
    ticket_id = _require_ticket(params)
    comment = build_comment(params, context, params.comment, {})
    values, left_out = ticket_values(account, params)
    if not (values or params.tags or comment.text or comment.voice):
        advice = "; ".join(left_out) or "set `status`, `comment`, `tags` or another field"
        raise PermanentError(f"nothing to update: {advice}", code="empty")
    writer = TicketWriter(account, context, comment, params.public)

    def write() -> Success:
        changes = dict(values)
        if comment.text:
            changes["comment"] = {"body": comment.text, "public": params.public}
        if params.tags:
            changes |= _with_tags(account, ticket_id, params.tags)
        if changes:
            writer.update(ticket_id, changes)
        notes = writer.add_recording(ticket_id, is_all=not changes)
        detail = "updated" if changes or comment.voice else "nothing to change: the ticket has these tags"
        return Success(id=ticket_id, detail="; ".join([detail, *notes, *left_out]))

    def closed() -> Success:
        """Follow the ticket up if there is something to say. A ticket that is to be solved is so already."""
        if _solves(account, values) or not (comment.text or comment.voice):
            return Success(id=ticket_id, detail="nothing was written: the ticket is closed")
        tags = normalize_tags(params.tags)
        result = writer.follow_up(ticket_id, values | ({"tags": tags} if tags else {}))
        return replace(result, detail="; ".join([result.detail, *left_out]))

    try:
        return unless_closed(write, closed, params.on_closed, ticket_id)
    except PermanentError as error:
        if error.code != MISSING or params.on_missing == "error":
            raise
        return Success(detail="nothing was written: Zendesk has no ticket with this ID")


@update_ticket.lookup
def find_changes(account: Account, params: UpdateTicketParams, context: Context) -> Success | None:
    """Find what an attempt wrote that ended before its first step was recorded."""
    comment = build_comment(params, context, params.comment, {})
    return TicketWriter(account, context, comment, params.public).find_update(_require_ticket(params))


def _require_ticket(params: UpdateTicketParams) -> str:
    if params.ticket is None:
        raise PermanentError(
            "the event has no ticket ID: set `ticket`, or skip such events with `where`", code="no_ticket_id"
        )
    return params.ticket


def _solves(account: Account, values: dict[str, Any]) -> bool:
    """Return whether the values solve a ticket, perhaps with one of the account's own statuses."""
    own = values.get("custom_status_id")
    if own is None:
        return values.get("status") == "solved"
    return any(
        status["id"] == own and status.get("status_category") == "solved"
        for _, status in account.named("custom_statuses")
    )


def _with_tags(account: Account, ticket_id: str, tags: list[str]) -> dict[str, Any]:
    """Return the ticket's tags with the new ones. The update fails if the ticket is changed in between."""
    ticket = account.api.read("/api/v2/tickets/{}", ticket_id, holds="ticket", kind=dict)
    current = [str(tag) for tag in ticket.get("tags") or ()]
    merged = list(dict.fromkeys([*current, *normalize_tags(tags)]))
    if merged == current:
        return {}
    return {"tags": merged, "safe_update": True, "updated_stamp": ticket.get("updated_at")}
