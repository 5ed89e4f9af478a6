"""Twilio's error bodies: a code of its own, and where to read about it."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import Refusal

_CODES = {401: 20003, 403: 20003, 404: 20404, 429: 20429}
_MESSAGES = {
    401: "Authenticate",
    404: "The requested resource was not found",
    405: "Method not allowed",
    429: "Too Many Requests",
}


def error_body(status: int, message: str | None = None, code: int | None = None) -> Response:
    """One error; without a finer code it is 20000 + the status."""
    code = code or _CODES.get(status, 20_000 + status)
    return JSONResponse(
        {
            "code": code,
            "message": message or _MESSAGES.get(status, "Internal Server Error"),
            "more_info": f"https://www.twilio.com/docs/errors/{code}",
            "status": status,
        },
        status,
    )


def refuse(code: int, message: str, status: int = 400) -> Refusal:
    """The request is wrong in the way that `code` names."""
    return Refusal(error_body(status, message, code))
