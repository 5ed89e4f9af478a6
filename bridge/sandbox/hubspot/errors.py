"""HubSpot's error bodies."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import Refusal

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


def error_body(
    status: int,
    message: str | None = None,
    *,
    category: str | None = None,
    errors: Iterable[Mapping[str, Any]] = (),
    context: Mapping[str, list[str]] | None = None,
    **more: Any,
) -> Response:
    """One error as HubSpot words it."""
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
    """429 with the policy that was hit: TEN_SECONDLY_ROLLING, SECONDLY or DAILY."""
    return error_body(
        429,
        f"You have reached your {policy.lower()} limit.",
        errorType="RATE_LIMIT",
        policyName=policy,
        groupName="privateapp",
    )


def invalid(message: str, **context: str) -> Refusal:
    """400: the request itself is wrong."""
    return Refusal(
        error_body(
            400,
            message,
            errors=[{"message": message, "context": {name: [value] for name, value in context.items()}}],
        )
    )


def invalid_properties(problems: list[dict[str, str]]) -> Refusal:
    """400: what is wrong with which property."""
    listed = [
        {"isValid": False, "message": p["message"], "error": p["error"], "name": p["name"]} for p in problems
    ]
    return Refusal(
        error_body(
            400,
            f"Property values were not valid: {json.dumps(listed)}",
            errors=[
                {"message": p["message"], "code": p["error"], "context": {"propertyName": [p["name"]]}}
                for p in problems
            ],
        )
    )


def not_found(identifier: str) -> Refusal:
    """404: no such object."""
    return Refusal(
        error_body(404, "Object not found.  objectId are usually numeric.", context={"id": [identifier]})
    )


def batch_error(category: str, message: str, ids: list[str], key: str = "ids") -> dict[str, Any]:
    """One error of a batch that went through in part."""
    return {
        "status": "error",
        "category": category,
        "message": message,
        "context": {key: ids},
        "errors": [],
        "links": {},
    }
