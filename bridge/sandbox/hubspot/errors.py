"""HubSpot's error responses."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import ProviderError

_CATEGORIES = {
    400: "VALIDATION_ERROR",
    401: "EXPIRED_AUTHENTICATION",
    403: "MISSING_SCOPES",
    404: "OBJECT_NOT_FOUND",
    409: "CONFLICT",
    423: "LOCKED",
    429: "RATE_LIMITS",
}
_MESSAGES = {
    401: "The OAuth token used to make this call expired.",
    403: "This app hasn't been granted all required scopes to make this call.",
    404: "resource not found",
    405: "Method not allowed",
    423: "The object is locked, try again later.",
    429: "You have reached your ten_secondly_rolling limit.",
    477: "This account is being migrated, try again later.",
}


def error_response(
    status: int,
    message: str | None = None,
    *,
    category: str | None = None,
    errors: Iterable[Mapping[str, Any]] = (),
    context: Mapping[str, list[str]] | None = None,
    **more: Any,
) -> Response:
    """Return one error in HubSpot's format."""
    body: dict[str, Any] = {
        "status": "error",
        "message": message or _MESSAGES.get(status, "internal error"),
        "correlationId": str(uuid.uuid4()),
        "category": category or _CATEGORIES.get(status, "INTERNAL_ERROR"),
    }
    if errors:
        body["errors"] = list(errors)
    if context:
        body["context"] = context
    return JSONResponse(body | more, status)


def rate_limited(policy: str) -> Response:
    """Return a 429 response with the exceeded policy: TEN_SECONDLY_ROLLING, SECONDLY or DAILY."""
    return error_response(
        429,
        f"You have reached your {policy.lower()} limit.",
        errorType="RATE_LIMIT",
        policyName=policy,
        groupName="privateapp",
    )


def invalid(message: str, **context: str) -> ProviderError:
    """Return the 400 error of an invalid request."""
    return ProviderError(
        error_response(
            400,
            message,
            errors=[{"message": message, "context": {name: [value] for name, value in context.items()}}],
        )
    )


def invalid_properties(errors: list[dict[str, str]]) -> ProviderError:
    """Return the 400 error that lists each invalid property and the reason."""
    validation_results = [
        {"isValid": False, "message": error["message"], "error": error["error"], "name": error["name"]}
        for error in errors
    ]
    return ProviderError(
        error_response(
            400,
            f"Property values were not valid: {json.dumps(validation_results)}",
            errors=[
                {
                    "message": error["message"],
                    "code": error["error"],
                    "context": {"propertyName": [error["name"]]},
                }
                for error in errors
            ],
        )
    )


def not_found(identifier: str) -> ProviderError:
    """Return the 404 error of an object that does not exist."""
    return ProviderError(
        error_response(404, "Object not found.  objectId are usually numeric.", context={"id": [identifier]})
    )


def batch_error(category: str, message: str, ids: list[str], key: str = "ids") -> dict[str, Any]:
    """Return one error of a partially successful batch."""
    return {
        "status": "error",
        "category": category,
        "message": message,
        "context": {key: ids},
        "errors": [],
        "links": {},
    }
