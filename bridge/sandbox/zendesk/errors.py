"""Zendesk's error responses."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import ProviderError

_CODES = {
    400: "InvalidParameter",
    401: "Couldn't authenticate you",
    403: "Forbidden",
    404: "RecordNotFound",
    409: "DatabaseConflict",
    422: "RecordInvalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


def error_response(status: int, description: str | None = None, **more: Any) -> Response:
    """Return Zendesk's error object for a status."""
    body = {"error": _CODES.get(status, "Error"), "description": description or "The request failed", **more}
    response = JSONResponse(body, status)
    if status == 429:
        response.headers["Retry-After"] = "15"
    return response


def invalid(field: str, description: str, code: str | None = None) -> ProviderError:
    """Return the error of a record that is not valid, with the field at fault."""
    detail = {"description": description} | ({"error": code} if code else {})
    return ProviderError(error_response(422, "Record validation errors", details={field: [detail]}))


def not_found() -> ProviderError:
    """Return the error of a record that does not exist."""
    return ProviderError(error_response(404, "Not found"))


def too_many(seconds: int, remaining: int, description: str, updates: int | None = None) -> ProviderError:
    """Return the error of a limit, with the requests that the account has left in this minute.

    `updates` is the limit of an endpoint for updates, which has a header of its own.
    """
    response = error_response(429, description)
    response.headers["Retry-After"] = str(seconds)
    response.headers["X-Rate-Limit-Remaining"] = str(remaining)
    if updates is not None:
        response.headers["Zendesk-RateLimit-tickets-update"] = (
            f"total={updates}; remaining=0; resets={seconds}"
        )
    return ProviderError(response)
