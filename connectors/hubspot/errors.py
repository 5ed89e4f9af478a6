"""Classification of HubSpot's errors."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

from bridge.connector import failure_from_exception, failure_from_status, parse_retry_after
from bridge.errors import (
    AccountError,
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    TransientError,
)

from .settings import KEYS_PAGE, connector

_NEW_KEY = (
    f"the key has expired or was deleted, or the account is not active: see {KEYS_PAGE} in HubSpot, and set "
    "HUBSPOT_ACCESS_TOKEN to a valid key"
)
_ACCOUNT = (
    "HubSpot refuses the whole account: sign in to HubSpot and look at its subscription and its notices"
)


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Map HubSpot's status and codes. Its exception classes are of no use: each SDK package defines its own."""
    status = getattr(error, "status", None)
    if not isinstance(status, int):
        return failure_from_exception(error)
    if status == 0:  # the SDK's status for a TLS failure, whose cause it drops
        return failure_from_exception(error.__context__ or error) or TransientError(
            "no TLS connection to HubSpot", reason="network"
        )
    body = body_of(error)
    headers = getattr(error, "headers", None) or {}
    wait = parse_retry_after(headers.get("Retry-After"))
    detail = f"HubSpot answered {status} {' '.join(_codes(body))}".rstrip()
    policy = _field(body, "policyName")
    if status == 429:
        return RateLimited(detail, retry_after=wait or timedelta(seconds=1 if policy == "SECONDLY" else 10))
    if status == 401:
        return AuthenticationError(detail, fix=_NEW_KEY)
    if status == 403 and (scopes := required_scopes(error)):
        return AccountError(
            f"the HubSpot key lacks the scope {' or '.join(scopes)}",
            fix=f"add it in HubSpot under {KEYS_PAGE}",
        )
    if status in (402, 403):
        return AccountError(detail, fix=_ACCOUNT)
    if status in (423, 477):  # 423: locked by another write; 477: the account is being migrated
        return TransientError(detail, retry_after=wait or timedelta(seconds=2 if status == 423 else 60))
    return failure_from_status(status, detail, wait)


def status_of(error: Exception) -> int | None:
    """Return the HTTP status of an exception of the SDK, None for any other exception."""
    return getattr(error, "status", None)


def not_from_hubspot() -> OutcomeUnknown:
    """Return the error for a response that is not in HubSpot's format."""
    return OutcomeUnknown(
        "the response is not HubSpot's: check for a proxy in between", reason="server_error"
    )


def body_of(error: Exception) -> str:
    """Return the response body of an exception of the SDK, empty if there is none."""
    body = getattr(error, "body", None)
    return body if isinstance(body, str) else ""


def _field(body: str, name: str) -> str:
    try:
        return str(json.loads(body).get(name, ""))
    except (ValueError, AttributeError):
        return ""


def required_scopes(error: Exception) -> list[str]:
    """Return the scopes that HubSpot names in its response to a key that lacks one of them."""
    match = re.search(r'"(?:required(?:Granular)?|missing)Scopes":\s*\[([^\]]*)\]', body_of(error))
    return re.findall(r'"([\w.-]{1,80})"', match[1])[:4] if match else []


def _codes(body: str) -> list[str]:
    """Return HubSpot's error codes and property names only: its messages may repeat a contact's data."""
    codes = re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", body)
    codes += re.findall(r'"category":\s*"([A-Z]{1,40})"', body)
    names = re.findall(r'\\?"(?:name|propertyName|properties)\\?":\s*\[?\s*\\?"(\w{1,100})\\?"', body)
    return [*dict.fromkeys([*codes, *names])][:6]


def is_conflict(error: Exception) -> bool:
    """Return whether a unique value is in use: 409 for a contact's email, 400 for one of our unique properties."""
    status, body = status_of(error), body_of(error)
    return status == 409 or (
        status == 400 and ("CONFLICTING_UNIQUE_VALUE" in body or "already has that value" in body)
    )


def is_property_missing(error: Exception, name: str) -> bool:
    """Return whether HubSpot rejected a request because the account has no such property."""
    body = body_of(error)
    missing = "PROPERTY_DOESNT_EXIST" in body or "does not exist" in body
    return status_of(error) == 400 and missing and name in body


def existing_id(message: str) -> str | None:
    """Return the ID of the contact that has the email address or unique value, if HubSpot names it in its refusal."""
    match = re.search(r"Existing ID: (\d+)|\b(\d+) already has that value", message)
    return (match[1] or match[2]) if match else None


def refused_properties(message: str) -> dict[str, str]:
    """Return the properties whose values HubSpot refused, with its error codes. `message` may be a whole body."""
    text = message.replace('\\"', '"')
    start = text.find("Property values were not valid: ")
    if start < 0:
        return {}
    try:
        results, _ = json.JSONDecoder().raw_decode(text, text.index("[", start))
    except ValueError:
        return {}
    return {
        str(item["name"]): str(item.get("error") or "invalid")
        for item in results
        if isinstance(item, dict) and item.get("name") and item.get("isValid") is not True
    }


def failure_in_batch(response: Any) -> DeliveryError:
    """Return the error for the items that a partially successful batch (207) has no result for."""
    return _failure_of_categories({str(error.category) for error in getattr(response, "errors", None) or []})


def failure_of_batch_error(error: Any) -> DeliveryError:
    """Return the error for the item of a partially successful batch (207) that this entry is about."""
    names = ", ".join(refused_properties(str(error.message)))
    return _failure_of_categories({str(error.category)}, names)


def _failure_of_categories(categories: set[str], names: str = "") -> DeliveryError:
    detail = f"HubSpot rejected the record: {' '.join([*sorted(categories), names]).rstrip()}"
    if categories & {"RATE_LIMITS", "RATE_LIMIT"}:
        return RateLimited(detail)
    if categories & {"VALIDATION_ERROR", "OBJECT_NOT_FOUND", "CONFLICT", "OBJECT_ALREADY_EXISTS"}:
        return PermanentError(detail, code=min(categories))
    return OutcomeUnknown("HubSpot's response does not mention this record", reason="server_error")
