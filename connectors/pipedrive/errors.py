"""What Pipedrive's responses mean. Its messages are not repeated, because they may contain a contact's data."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from bridge.connector import json_object, parse_retry_after, report_quota
from bridge.errors import (
    AccountError,
    AuthenticationError,
    DeliveryError,
    PermanentError,
    QuotaExhausted,
    RateLimited,
)

if TYPE_CHECKING:
    import httpx

_BURST_WAIT = timedelta(seconds=2)
"""The length of the window in which requests are counted."""
_BLOCKED_WAIT = timedelta(minutes=10)
_KNOWN_NAMES = frozenset(
    {
        *("currency", "custom_fields", "deal_id", "due_date", "due_time", "duration", "emails", "label_ids"),
        *("marketing_status", "name", "note", "org_id", "outcome", "owner_id", "participants", "person_id"),
        *("phones", "pipeline_id", "priority", "stage_id", "subject", "title", "type", "value", "visible_to"),
        *("Activity", "Deal", "Organization", "Person", "Pipeline", "Stage"),
    }
)
"""Words of error messages that cannot be a contact's data."""


def refusal(response: httpx.Response) -> DeliveryError | None:
    """Return the error that a response proves; None to leave it to the HTTP status."""
    _observe_budget(response)
    status, body = response.status_code, json_object(response)
    if status == 429:
        return _too_many_requests(response, body)
    if status == 401:
        return AuthenticationError(
            "Pipedrive does not accept the API token",
            fix="copy it again from Personal preferences > API, and set PIPEDRIVE_API_TOKEN; a new token replaces the "
            "old one, and an administrator can switch off the API for users",
        )
    if status == 402:
        return AccountError(
            "Pipedrive says that the company's account is not open",
            fix="sign in to Pipedrive and look at its billing page",
        )
    if status == 403:
        return _forbidden(response, body)
    if status in (400, 409, 422) or (response.is_success and body.get("success") is False):
        code = _code(body) or str(status)
        names = ", ".join(_names(body))
        detail = (
            f"Pipedrive refused {response.request.method} {_kind(response)} ({code}{names and f': {names}'})"
        )
        return PermanentError(detail, code=code)
    return None


def _too_many_requests(response: httpx.Response, body: dict[str, object]) -> DeliveryError:
    left = response.headers.get("x-daily-ratelimit-token-remaining")
    if left == "0" or (left is None and "daily" in str(body.get("error", "")).lower()):
        # The day ends at midnight in the time zone of Pipedrive's servers, which it does not name. Zones differ by
        # whole hours, or by halves, so the first requests of each hour find out soon after.
        now = datetime.now(UTC)
        next_hour = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1, seconds=10)
        return QuotaExhausted(
            "Pipedrive's daily budget for API requests is used up; it is renewed at midnight in the time zone of "
            "Pipedrive's servers, so the bridge tries again at the start of every hour",
            until=next_hour,
        )
    wait = parse_retry_after(response.headers.get("Retry-After"))
    reset = response.headers.get("x-ratelimit-reset", "")
    seconds = timedelta(seconds=int(reset)) if reset.isdecimal() and int(reset) < 3600 else _BURST_WAIT
    return RateLimited("Pipedrive asks for fewer requests (429)", retry_after=wait or seconds)


def _forbidden(response: httpx.Response, body: dict[str, object]) -> DeliveryError | None:
    if not body:
        # Not Pipedrive's JSON: its firewall blocks a token that keeps sending requests over the limit.
        return RateLimited("Pipedrive's firewall blocks the requests (403)", retry_after=_BLOCKED_WAIT)
    if str(body.get("code", "")).startswith("feature_capping"):
        return AccountError(
            f"Pipedrive's plan has reached a limit ({_code(body)})",
            fix="delete what is not needed in Pipedrive, or change the plan",
        )
    if response.request.method != "GET":
        return PermanentError(
            f"the token's user may not {response.request.method} {_kind(response)} (403): look at the permissions and "
            "visibility groups of this user in Pipedrive",
            code="403",
        )
    return None


def _observe_budget(response: httpx.Response) -> None:
    limit = response.headers.get("x-daily-ratelimit-token-limit", "")
    left = response.headers.get("x-daily-ratelimit-token-remaining", "")
    if limit.isdecimal() and left.isdecimal():
        report_quota(int(limit) - int(left), int(limit))


def _kind(response: httpx.Response) -> str:
    found = re.search(r"/v[12]/(\w+)", response.request.url.path)
    return found[1] if found else "the request"


def _code(body: dict[str, object]) -> str:
    code = body.get("code")
    return code if isinstance(code, str) and re.fullmatch(r"[A-Za-z_]{1,60}", code) else ""


def _names(body: dict[str, object]) -> list[str]:
    """Return the fields that an error message names: known ones, and keys of custom fields."""
    words = re.findall(r"\b[0-9a-f]{40}\b|\b[A-Za-z_]{3,20}\b", str(body.get("error", "")))
    return list(dict.fromkeys(word for word in words if word in _KNOWN_NAMES or len(word) == 40))[:4]
