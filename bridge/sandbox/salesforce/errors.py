"""Salesforce's error responses: a list of errors with code, message and fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import ProviderError

_CODES = {
    400: ("MALFORMED_QUERY", "the request is malformed"),
    401: ("INVALID_SESSION_ID", "Session expired or invalid"),
    403: ("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
    404: ("NOT_FOUND", "The requested resource does not exist"),
    405: ("METHOD_NOT_ALLOWED", "HTTP Method not allowed"),
    500: ("UNKNOWN_EXCEPTION", "An unexpected error occurred."),
    503: ("SERVER_UNAVAILABLE", "Server Unavailable"),
}


class RecordError(Exception):
    """Salesforce rejected one record. A collection continues with the next record."""

    def __init__(
        self, code: str, message: str, fields: Sequence[str] = (), *, status: int = 400, **more: Any
    ) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.fields = list(fields)
        self.status = status
        self.more = more

    def response(self) -> Response:
        """Return the error as the response to a request for this record alone."""
        return JSONResponse([self.more | self.error("errorCode")], self.status)

    def error(self, key: str = "statusCode") -> dict[str, Any]:
        """Return the error as part of a collection's result, where the code is called `statusCode`."""
        return {key: self.code, "message": self.message, "fields": self.fields}


def error_response(status: int, code: str | None = None, message: str | None = None) -> Response:
    """Return one error in Salesforce's format."""
    default = _CODES.get(status, _CODES[500 if status >= 500 else 400])
    return JSONResponse([{"message": message or default[1], "errorCode": code or default[0]}], status)


def api_error(code: str, message: str, status: int = 400) -> ProviderError:
    """Return the error to raise if Salesforce rejects the whole request."""
    return ProviderError(error_response(status, code, message))
