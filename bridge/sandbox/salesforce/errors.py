"""Salesforce's errors: a list of code, message and fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import Refusal

_CODES = {
    400: ("MALFORMED_QUERY", "the request is malformed"),
    401: ("INVALID_SESSION_ID", "Session expired or invalid"),
    403: ("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
    404: ("NOT_FOUND", "The requested resource does not exist"),
    405: ("METHOD_NOT_ALLOWED", "HTTP Method not allowed"),
    500: ("UNKNOWN_EXCEPTION", "An unexpected error occurred."),
    503: ("SERVER_UNAVAILABLE", "Server Unavailable"),
}


class RecordRefusal(Exception):
    """One record is refused; a collection goes on with the next one."""

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
        """As the answer to a request for this record alone."""
        return JSONResponse([self.more | self.error("errorCode")], self.status)

    def error(self, key: str = "statusCode") -> dict[str, Any]:
        """As one of the errors of a collection's record, which call the code `statusCode`."""
        return {key: self.code, "message": self.message, "fields": self.fields}


def error_body(status: int, code: str | None = None, message: str | None = None) -> Response:
    """One error as Salesforce words it."""
    known = _CODES.get(status, _CODES[500 if status >= 500 else 400])
    return JSONResponse([{"message": message or known[1], "errorCode": code or known[0]}], status)


def refuse(code: str, message: str, status: int = 400) -> Refusal:
    """The whole request is refused."""
    return Refusal(error_body(status, code, message))
