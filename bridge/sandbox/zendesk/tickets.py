"""Tickets of the mock Zendesk: creation with an idempotency key, updates and their limits, and audits."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import MAX_RECORDS, Handler, ProviderError, ProviderRequest
from bridge.sandbox.zendesk.errors import error_response, invalid, not_found, too_many
from bridge.sandbox.zendesk.setup import Record
from bridge.sandbox.zendesk.ticket_values import apply_values, comment_event
from bridge.sandbox.zendesk.users import UserApi

IDEMPOTENCY_WINDOW = timedelta(hours=2)
UPDATES_PER_TICKET, TICKET_WINDOW = 30, timedelta(minutes=10)
UPDATES_PER_MINUTE = 100
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class _Idempotent:
    body_hash: str
    response: Record
    created_at: datetime


class TicketApi(UserApi):
    """The endpoints of tickets. A closed ticket cannot be changed; nothing about it is said to be a duplicate."""

    setup: dict[str, list[Record]]

    def ticket_routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the routes."""
        return [
            ("GET", "/api/v2/tickets", self._list),
            ("POST", "/api/v2/tickets", self._create),
            ("GET", "/api/v2/tickets/{id}", self._show_ticket),
            ("PUT", "/api/v2/tickets/{id}", self._update),
            ("GET", "/api/v2/tickets/{id}/audits", self._list_audits),
        ]

    def reset_tickets(self) -> None:
        """Remove all tickets."""
        self.tickets: dict[int, Record] = {}
        self._last_id = 0
        self.audits: dict[int, list[Record]] = {}
        self._idempotent: dict[str, _Idempotent] = {}
        self._updates: dict[int, deque[datetime]] = {}

    def comments(self, ticket_id: int) -> list[Record]:
        """Return the comments of a ticket, oldest first, voice comments included."""
        with self.lock:
            return [
                event
                for audit in self.audits[ticket_id]
                for event in audit["events"]
                if event["type"] in ("Comment", "VoiceComment")
            ]

    def add_ticket(self, **values: Any) -> Record:
        """Create an existing ticket for a test."""
        with self.lock:
            return self._new_ticket({"comment": {"body": "Help"}, **values})

    def close(self, ticket_id: int) -> None:
        """Close a ticket, as an automation does some days after it was solved."""
        with self.lock:
            self.tickets[ticket_id]["status"] = "closed"

    def delete(self, ticket_id: int) -> None:
        """Delete a ticket, as an agent would."""
        with self.lock:
            del self.tickets[ticket_id], self.audits[ticket_id]

    def _list(self, request: ProviderRequest) -> Response:
        external_id = request.query.get("external_id")
        tickets = [ticket for ticket in self.tickets.values() if external_id in (None, ticket["external_id"])]
        return self.page(request, "tickets", tickets)

    def _create(self, request: ProviderRequest) -> Response:
        key = request.headers.get("idempotency-key")
        values = _ticket_of(request)
        if key is None:
            return JSONResponse({"ticket": self._new_ticket(values)}, 201)
        if len(key) > 255:
            return error_response(400, "The idempotency key is too long")
        stored = self._idempotent.get(key)
        if stored is not None and self.now() - stored.created_at >= IDEMPOTENCY_WINDOW:
            stored = None
        body_hash = hashlib.sha256(request.body).hexdigest()
        if stored is not None and stored.body_hash != body_hash:
            return JSONResponse(
                {
                    "error": "IdempotentRequestError",
                    "description": "Request parameters don't match the given idempotency key",
                },
                400,
            )
        lookup = "miss" if stored is None else "hit"
        if stored is None:
            stored = _Idempotent(body_hash, {"ticket": dict(self._new_ticket(values))}, self.now())
            self._idempotent[key] = stored
        return JSONResponse(stored.response, 201, {"x-idempotency-lookup": lookup})

    def _new_ticket(self, values: Record) -> Record:
        if len(self.tickets) >= MAX_RECORDS:
            raise self.storage_full_error()
        requester = self._requester(values)
        source_id = values.get("via_followup_source_id")
        if source_id is not None and self.tickets.get(source_id, {}).get("status") != "closed":
            raise invalid("base", "Followup source: must be a closed ticket", "InvalidValue")
        comment = comment_event(values)
        if comment is None:
            raise invalid("base", "Description: cannot be blank", "BlankValue")
        now = self.timestamp()
        ticket_id = self._last_id = self._last_id + 1
        ticket: Record = {
            "id": ticket_id, "subject": None, "description": comment["body"], "status": "new", "priority": None,
            "type": None, "requester_id": requester, "assignee_id": None, "group_id": None, "tags": [],
            "custom_status_id": None, "brand_id": 401, "ticket_form_id": 501, "custom_fields": [],
            "external_id": None, "created_at": now, "updated_at": now, "is_public": comment["public"],
            "via": {"channel": "api", "source": {"from": {"ticket_id": source_id} if source_id else {}}},
        }  # fmt: skip
        apply_values(ticket, values, self.setup, self.users)
        if source_id is not None:
            self.tickets[source_id].setdefault("followup_ids", []).append(ticket_id)
        self.tickets[ticket_id] = ticket
        self.audits[ticket_id] = []
        self._audit(ticket, values, [comment, {"type": "Create", "field_name": "status"}])
        return ticket

    def _requester(self, values: Record) -> int:
        user_id = values.get("requester_id", self.acting_user()["id"])
        user = self.users.get(user_id) if isinstance(user_id, int) else None
        if user is None or not user["active"]:
            raise invalid("requester", "Requester: is invalid", "InvalidValue")
        if user["suspended"]:
            raise invalid("requester", f"Requester: {user['name']} is suspended.", "RequesterSuspended")
        return int(user["id"])

    def _show_ticket(self, request: ProviderRequest) -> Response:
        return JSONResponse({"ticket": self._ticket(request)})

    def _update(self, request: ProviderRequest) -> Response:
        ticket = self._ticket(request)
        values = _ticket_of(request)
        self.count_update(ticket["id"])
        if ticket["status"] == "closed":
            raise invalid("status", "Status: closed prevents ticket update")
        if values.get("safe_update") and values.get("updated_stamp") != ticket["updated_at"]:
            return JSONResponse(
                {"error": "UpdateConflict", "description": "Safe Update prevented the ticket update"}, 409
            )
        changed = dict(ticket)
        events = apply_values(changed, values, self.setup, self.users)
        comment = comment_event(values)
        if comment is not None:
            events.insert(0, comment)
        ticket.update(changed, updated_at=self.timestamp())
        self._audit(ticket, values, events)
        return JSONResponse({"ticket": ticket, "audit": self.audits[ticket["id"]][-1]})

    def count_update(self, ticket_id: int) -> None:
        """Count an update. Raise ProviderError if it is one too many."""
        now = self.now()
        recent = self._updates.setdefault(ticket_id, deque())
        while recent and recent[0] <= now - TICKET_WINDOW:
            recent.popleft()
        if len(recent) >= UPDATES_PER_TICKET:
            wait = int((recent[0] + TICKET_WINDOW - now).total_seconds()) + 1
            raise too_many(wait, 180, "Number of allowed updates of this ticket exceeded", UPDATES_PER_TICKET)
        in_minute = sum(time > now - _MINUTE for times in self._updates.values() for time in times)
        if in_minute >= UPDATES_PER_MINUTE:
            raise too_many(60, 180, "Number of allowed ticket updates exceeded", UPDATES_PER_MINUTE)
        recent.append(now)

    def _audit(self, ticket: Record, values: Record, events: list[Record]) -> None:
        audits = self.audits[ticket["id"]]
        custom = values.get("metadata") or {}
        if not isinstance(custom, dict):
            raise ProviderError(error_response(400, "metadata must be an object"))
        audits.append(
            {
                "id": 10_000 * ticket["id"] + len(audits),
                "ticket_id": ticket["id"],
                "created_at": self.timestamp(),
                "author_id": self.acting_user()["id"],
                "metadata": {"system": {"client": "bridge"}, "custom": custom},
                "events": events,
            }
        )

    def _list_audits(self, request: ProviderRequest) -> Response:
        return self.page(request, "audits", self.audits[self._ticket(request)["id"]])

    def _ticket(self, request: ProviderRequest) -> Record:
        ticket_id = request.path_params["id"]
        if not ticket_id.isdecimal() or int(ticket_id) not in self.tickets:
            raise not_found()
        return self.tickets[int(ticket_id)]


def _ticket_of(request: ProviderRequest) -> Record:
    """Return the ticket object of a request."""
    try:
        values = request.json()["ticket"]
    except (ValueError, KeyError, TypeError):
        values = None
    if not isinstance(values, dict):
        raise ProviderError(error_response(400, "Parameter ticket is required"))
    return values
