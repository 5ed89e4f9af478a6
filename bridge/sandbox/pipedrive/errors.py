"""Pipedrive's error responses."""

from __future__ import annotations

from starlette.responses import HTMLResponse, JSONResponse, Response

from bridge.sandbox.provider import ProviderError

_CODES = {
    400: ("Bad request", "ERR_BAD_REQUEST"),
    402: ("The company account is not open", "ERR_PAYMENT_REQUIRED"),
    403: ("You do not have permission to do this", "ERR_FORBIDDEN"),
    404: ("Not found", "ERR_NOT_FOUND"),
    405: ("Method not allowed", "ERR_METHOD_NOT_ALLOWED"),
    429: ("Rate limit exceeded", "ERR_RATE_LIMIT"),
    500: ("Internal server error", "ERR_INTERNAL"),
}


def error_response(status: int, message: str | None = None) -> Response:
    """Return the response of API v2 for an HTTP status."""
    if status == 401:
        info = "Please check developers.pipedrive.com"
        body = {"success": False, "error": "unauthorized access", "errorCode": 401, "error_info": info}
        return JSONResponse(body, 401)
    default, code = _CODES.get(status, _CODES[500])
    return JSONResponse({"success": False, "error": message or default, "code": code}, status)


def blocked_response() -> Response:
    """Return what an account gets that keeps sending requests over the limit."""
    return HTMLResponse("<html><title>Access denied</title>You have been blocked</html>", 403)


def invalid(message: str) -> ProviderError:
    """Return the error for a request that is not valid."""
    return ProviderError(error_response(400, message))


def not_found(kind: str) -> ProviderError:
    """Return the error for a record that does not exist."""
    return ProviderError(error_response(404, f"{kind.capitalize()} not found"))


def forbidden(message: str) -> ProviderError:
    """Return the error for a request that the account may not make."""
    return ProviderError(error_response(403, message))
