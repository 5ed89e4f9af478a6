"""HubSpot's communication preferences: whether an email address is unsubscribed from all email."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from bridge.sandbox.hubspot.crm import Crm
from bridge.sandbox.hubspot.errors import invalid
from bridge.sandbox.hubspot.schema import format_timestamp
from bridge.sandbox.provider import ProviderRequest


def unsubscribe_all(crm: Crm, request: ProviderRequest, now: datetime) -> dict[str, Any]:
    """Unsubscribe an address from all email. Its contacts, if there are any, get `hs_email_optout`."""
    email = _subscriber(request)
    is_change = email not in crm.unsubscribed
    crm.unsubscribe(email, now)
    reason = "UNSUBSCRIBE_FROM_ALL_OCCURRED" if is_change else "NO_STATUS_CHANGE"
    results = [_status(email, now) | {"setStatusSuccessReason": reason}]
    return _response(results if request.query.get("verbose") == "true" else [], now)


def unsubscribed_status(crm: Crm, request: ProviderRequest, now: datetime) -> dict[str, Any]:
    """Return the status of an address. The results are empty unless it is unsubscribed from all email."""
    email = _subscriber(request)
    return _response([_status(email, now)] if email in crm.unsubscribed else [], now)


def _subscriber(request: ProviderRequest) -> str:
    if request.query.get("channel") != "EMAIL":
        raise invalid("channel is required and must be EMAIL")
    email = request.path_params["subscriber"].lower()
    if not re.fullmatch(r"[^@\s,<>]+@[^@\s,<>]+\.[^@\s,<>]+", email):
        raise invalid(f"{email} is not a valid email address")
    return email


def _status(email: str, now: datetime) -> dict[str, Any]:
    return {
        "channel": "EMAIL",
        "status": "UNSUBSCRIBED",
        "subscriberIdString": email,
        "timestamp": format_timestamp(now),
        "wideStatusType": "PORTAL_WIDE",
    }


def _response(results: list[dict[str, Any]], now: datetime) -> dict[str, Any]:
    timestamp = format_timestamp(now)
    return {"status": "COMPLETE", "results": results, "startedAt": timestamp, "completedAt": timestamp}
