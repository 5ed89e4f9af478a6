"""Requests to the mock Heppu API: authentication, error responses, and how fields are checked."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import MockProvider, ProviderError, ProviderRequest, parse_whole_number

API_KEY = "heppu_sandbox_key"
EVENT_TYPES = {
    "call.completed",
    "call.failed",
    "call.busy",
    "call.no-answer",
    "chat.completed",
    "chat.resolved",
    "chat.abandoned",
    "chat.message.received",
}
_ERROR_CODES = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "insufficient_permissions",
    404: "not_found",
    409: "conflict",
    422: "validation_failed",
    429: "rate_limited",
}


class HeppuRequests(MockProvider):
    """The part of the mock provider that reads requests and builds responses."""

    name = "heppu"

    def error_response(self, status: int, message: str | None = None, details: Any = None) -> Response:
        """Return Heppu's error response with every documented field."""
        error: dict[str, Any] = {
            "message": message or _ERROR_CODES.get(status, "internal_error").replace("_", " "),
            "status": status,
            "code": _ERROR_CODES.get(status, "internal_error"),
            "timestamp": self.now().isoformat(),
        }
        if details is not None:
            error["details"] = details
        return JSONResponse({"error": error}, status)

    def quota_error_response(self) -> Response:
        """Return the response to too many requests."""
        return self.error_response(429)

    def authorize(self, request: ProviderRequest) -> None:
        """Check the API key, which is sent in `x-api-key` or as a bearer token."""
        if API_KEY not in (request.headers.get("x-api-key"), request.bearer_token()):
            raise ProviderError(self.error_response(401, "Invalid or missing API key"))

    def _data_response(self, data: Any, status: int = 200, message: str | None = None) -> Response:
        meta = {"timestamp": self.now().isoformat()}
        if message:
            meta["message"] = message
        return JSONResponse({"data": data, "meta": meta}, status)

    def _require(self, table: dict[str, Any], request: ProviderRequest) -> Any:
        item = table.get(request.path_params["id"])
        if item is None:
            raise ProviderError(self.error_response(404))
        return item

    def _json_object(self, request: ProviderRequest) -> dict[str, Any]:
        try:
            body = request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise ProviderError(self.error_response(400, "The request body must be a JSON object"))
        return body

    def _limit_and_offset(self, request: ProviderRequest) -> tuple[int, int]:
        numbers = []
        for name, default, maximum in (("limit", "50", 100), ("offset", "0", 10**9)):
            number = parse_whole_number(request.query.get(name, default), 0, maximum)
            if number is None:
                raise self._invalid_field(name, f"must be a number of at most {maximum}", 400)
            numbers.append(number)
        return numbers[0], numbers[1]

    def _invalid_field(self, name: str, reason: str, status: int = 422) -> ProviderError:
        return ProviderError(
            self.error_response(status, f"{name}: {reason}", {"field": name, "reason": reason})
        )

    def _parse_agent_id(self, value: Any) -> str:
        try:
            return str(uuid.UUID(value))
        except (ValueError, AttributeError, TypeError):
            raise self._invalid_field("agentId", "Invalid agent ID format") from None

    def _optional_string(self, value: Any, name: str) -> str | None:
        if value is not None and (not isinstance(value, str) or not value):
            raise self._invalid_field(name, "must be a string")
        return value

    def _check_whole_number(self, value: Any, name: str, maximum: int | None) -> None:
        if value is None:
            return
        if type(value) is not int or value < 0 or (maximum is not None and value > maximum):
            raise self._invalid_field(
                name, f"must be a whole number from 0 to {maximum}" if maximum else "must be >= 0"
            )

    def _parse_timestamp(self, value: Any, name: str) -> datetime | None:
        if value is None:
            return None
        try:
            timestamp = datetime.fromisoformat(value)
        except (ValueError, TypeError):
            raise self._invalid_field(name, "must be an ISO 8601 date") from None
        if timestamp.tzinfo is None:
            raise self._invalid_field(name, "must have an offset")
        return timestamp

    def _parse_webhook_url(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"https://[^/\s@]+(/\S*)?", value):
            raise self._invalid_field("url", "must be a public HTTPS URL")
        return value

    def _parse_event_types(self, value: Any) -> list[str]:
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise self._invalid_field("events", "must be a list of event types")
        for unknown in sorted(set(value) - EVENT_TYPES):
            raise self._invalid_field("events", f"unknown event type {unknown}")
        return value
