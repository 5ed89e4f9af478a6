"""Twilio's error responses: a Twilio error code and a link to its documentation."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import ProviderError

_CODES = {401: 20003, 403: 20003, 404: 20404, 429: 20429}
_MESSAGES = {
    401: "Authenticate",
    404: "The requested resource was not found",
    405: "Method not allowed",
    429: "Too Many Requests",
}


def error_response(status: int, message: str | None = None, code: int | None = None) -> Response:
    """Return one error. Without a more specific code, the code is 20000 + the status."""
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


def api_error(code: int, message: str, status: int = 400) -> ProviderError:
    """Return the error to raise for an invalid request, with Twilio's `code` for it."""
    return ProviderError(error_response(status, message, code))
