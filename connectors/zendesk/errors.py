"""The meaning of Zendesk's error responses. Its messages are not repeated, because they may contain names."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bridge.connector import json_object, parse_retry_after
from bridge.errors import AccountError, DeliveryError, PermanentError, RateLimited, TransientError

from .settings import CLIENTS_PAGE

if TYPE_CHECKING:
    import httpx

CLOSED = "closed"
"""Code of the PermanentError for an update of a closed ticket."""
REQUESTER = "requester"
"""Code of the PermanentError for a requester who does not exist any more."""
MISSING = "not_found"
"""Code of the PermanentError for a record that does not exist, or that the agent may not see."""
OTHER_BODY = "idempotency_key"
"""Code of the PermanentError for a request whose idempotency key was used with another body."""
UPDATES_PER_TICKET = 30
"""Updates of one ticket that Zendesk accepts from one agent in ten minutes. The limits of all tickets together are 20
(trial), 100 or 300 a minute."""
_USED_UP = re.compile(r"total=(\d+); remaining=0\b")
_REACTIVATE = "reactivate the account or its subscription in Zendesk"


def refusal(response: httpx.Response) -> DeliveryError | None:
    """Return the error of a response that the status alone does not explain."""
    body = json_object(response) or {}
    match response.status_code:
        case 400 if body.get("error") == "IdempotentRequestError":
            return PermanentError("another request had this idempotency key", code=OTHER_BODY)
        case 402 | 423:
            return AccountError("the Zendesk account is suspended or has expired", fix=_REACTIVATE)
        case 403:
            return _forbidden(response, body)
        case 404 if body.get("error") == "RecordNotFound":
            return PermanentError("Zendesk has no record with this ID", code=MISSING)
        case 404 if "help desk" in response.text[:500].lower():
            return AccountError("there is no Zendesk account at this address", fix="correct ZENDESK_URL")
        case 409:
            return TransientError(
                "Zendesk: the record was changed at the same time", retry_after=timedelta(seconds=2)
            )
        case 422:
            return _invalid(body)
        case 429:
            return _rate_limited(response)
    return None


def _forbidden(response: httpx.Response, body: dict[str, Any]) -> DeliveryError | None:
    """Return the error of a missing scope or right. A 403 about one record does not pause the account."""
    if "scope" in str(body.get("description", "")):
        return AccountError(
            "the OAuth client lacks a scope", fix=f"allow it the scopes read and write ({CLIENTS_PAGE})"
        )
    if any(part.isdecimal() for part in response.request.url.path.split("/")):
        return None
    return AccountError(
        "the role of the bridge's agent in Zendesk lacks a permission",
        fix="let it create tickets and end users, and see the tickets of all groups",
    )


def _invalid(body: dict[str, Any]) -> PermanentError:
    """Return the error of a record that Zendesk refuses, with the names of the fields at fault."""
    details = body.get("details")
    fields = details if isinstance(details, dict) else {}
    reasons = " ".join(_texts(fields)).lower()
    if "closed prevents" in reasons:
        return PermanentError("the ticket is closed", code=CLOSED)
    if "requester" in fields and "suspended" in reasons:
        return PermanentError(
            "the requester is suspended in Zendesk: unsuspend the user, or leave their tickets out with `where`",
            code="suspended",
        )
    if "requester" in fields:
        return PermanentError("Zendesk does not accept the requester", code=REQUESTER)
    named = sorted(name for name in map(str, fields) if name.replace("_", "").isalnum())[:5]
    of_fields = f" of: {', '.join(named)}" if named else ""
    return PermanentError(
        f"Zendesk refuses the values{of_fields}; `bridge check --online` checks them",
        code=named[0][:40] if named else "422",
    )


def _texts(fields: dict[str, Any]) -> list[str]:
    items = [item for value in fields.values() if isinstance(value, list) for item in value]
    return [str(text) for item in items if isinstance(item, dict) for text in item.values()]


def _rate_limited(response: httpx.Response) -> RateLimited:
    """Return the error of a limit, which is that of one ticket or that of the account."""
    is_of_ticket = _is_limit_of_ticket(response)
    return RateLimited(
        "Zendesk: too many updates of this ticket" if is_of_ticket else "Zendesk: too many requests",
        retry_after=parse_retry_after(response.headers.get("Retry-After")),
        per_object=is_of_ticket,
    )


def _is_limit_of_ticket(response: httpx.Response) -> bool:
    """Return whether an update was refused because of its ticket: by the limit that is used up, if a header names it,
    else if the account has requests left."""
    if response.request.method != "PUT":
        return False
    used_up = _USED_UP.search(response.headers.get("Zendesk-RateLimit-tickets-update", ""))
    if used_up:
        return int(used_up[1]) == UPDATES_PER_TICKET
    remaining = response.headers.get("X-Rate-Limit-Remaining", "")
    return remaining.isdecimal() and int(remaining) > 0
