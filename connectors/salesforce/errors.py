"""Classification of Salesforce's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from bridge.connector import BatchResult, Success, failure_from_exception, failure_from_status
from bridge.errors import (
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)

from . import sdk
from .account_errors import account_failure, missing_field
from .login_errors import login_failure
from .settings import connector

DELETED_CODES = {
    "ENTITY_IS_DELETED",
    "INVALID_CROSS_REFERENCE_KEY",
    "CANNOT_UPDATE_CONVERTED_LEAD",
    "NOT_FOUND",
}
"""Error codes for a cached record that was deleted, merged or converted."""
_MAINTENANCE_CODES = (
    "INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE",
    "FUNCTIONALITY_TEMPORARILY_UNAVAILABLE",
)
_MAINTENANCE_WAIT = timedelta(minutes=5)


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Map Salesforce's error code rather than the status: a locked row is a 400, an exhausted quota a 403."""
    if not sdk.is_loaded():  # to import it may be what failed
        return failure_from_exception(error)
    if isinstance(error, sdk.SalesforceAuthenticationFailed):
        return login_failure(error)
    if not isinstance(error, sdk.SalesforceError):
        return failure_from_exception(error)
    for code, message, fields in errors_in(error):
        return _failure_from_code(code, message, fields, error.status)
    return failure_from_status(error.status, f"Salesforce answered {error.status}")


def _failure_from_code(code: str, message: str, fields: Sequence[str], status: int) -> DeliveryError:
    """Map an error code. Only code and field names are kept: messages repeat values, except in validation rules."""
    missing = missing_field(code, message)
    names = list(fields) or ([missing] if missing else [])
    detail = f"Salesforce answered {code}" + (f" ({', '.join(names)})" if names else "")
    if code == "UNABLE_TO_LOCK_ROW":
        return TransientError(detail, retry_after=timedelta(seconds=3))
    if code == "REQUEST_LIMIT_EXCEEDED" and "oncurrent" in message:
        return RateLimited(detail, retry_after=timedelta(seconds=5))
    if code == "REQUEST_LIMIT_EXCEEDED":
        return QuotaExhausted("the org's daily request quota is used up (last 24 hours)")
    if code in _MAINTENANCE_CODES:
        return TransientError(f"{detail}: the org is in maintenance", retry_after=_MAINTENANCE_WAIT)
    account_error = account_failure(code, message, fields, detail)
    if account_error is not None:
        return account_error
    if status == 401:
        return AuthenticationError(detail)
    if status >= 500 or code in (
        "SERVER_UNAVAILABLE",
        "QUERY_TIMEOUT",
        "REQUEST_RUNNING_TOO_LONG",
        "UNKNOWN_EXCEPTION",
    ):
        return OutcomeUnknown(detail, reason="server_error")
    if code == "FIELD_CUSTOM_VALIDATION_EXCEPTION":
        return PermanentError(f"a validation rule of the org rejects the record: {message[:200]}", code=code)
    if code == "ENTITY_IS_LOCKED" or code.startswith("INSUFFICIENT_ACCESS"):
        return PermanentError(
            f"{detail}: the record is locked, for example by an approval process", code=code
        )
    return PermanentError(detail, code=code)


def errors_in(error: sdk.SalesforceError) -> list[tuple[str, str, list[str]]]:
    """Return code, message and field names of each error in a response."""
    content: Any = error.content
    items = content if isinstance(content, list) else []
    return [
        (
            str(item["errorCode"]),
            str(item.get("message", "")),
            [str(name) for name in item.get("fields") or ()],
        )
        for item in items
        if isinstance(item, Mapping) and item.get("errorCode")
    ]


def record_result(item: Mapping[str, Any], detail: str = "") -> Success | DeliveryError:
    """Return the result of one record in a collection."""
    if item.get("success"):
        return Success(
            id=str(item["id"]), detail=detail or ("updated" if item.get("created") is False else "")
        )
    for error in item.get("errors") or ():
        fields = [str(name) for name in error.get("fields") or ()]
        return _failure_from_code(str(error.get("statusCode")), str(error.get("message", "")), fields, 400)
    return OutcomeUnknown("Salesforce's response has no result for this record", reason="server_error")


def refused_fields(item: Mapping[str, Any]) -> set[str]:
    """Return the fields that Salesforce names in the errors of one record of a collection."""
    names = {str(name) for error in item.get("errors") or () for name in error.get("fields") or ()}
    is_owner = any(error.get("statusCode") == "INACTIVE_OWNER_OR_USER" for error in item.get("errors") or ())
    return names | ({"OwnerId"} if is_owner else set())


def error_code(result: BatchResult) -> str:
    """Return Salesforce's error code for a rejected record, empty for any other result."""
    return result.code if isinstance(result, PermanentError) else ""
