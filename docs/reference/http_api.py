"""The page of every HTTP endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tables import plain, table

from bridge import lifecycle
from bridge.web.access import Access
from bridge.web.api import ALL, openapi
from bridge.web.api.endpoint import Endpoint
from bridge.web.query_params import MAX_LIMIT

OPEN_ENDPOINTS = (
    ("POST", "/webhooks/heppu", "Receive an event from Heppu.", "Heppu's signature"),
    (
        "POST",
        "/webhooks/{connection}/{callback}",
        "Receive a provider's callback.",
        "the provider's signature",
    ),
    ("GET, POST", "/unsubscribe/{token}", "Show and confirm an email opt-out.", "the signed link"),
    ("GET", "/healthz", "Report that the process is running.", "none"),
    ("GET", "/readyz", "Report whether the service can store events; 503 if not.", "none"),
    ("GET", "/metrics", "Get the [Prometheus metrics](metrics.md).", "admin token"),
    ("GET", "/metrics/webhooks", "Get webhook counts in the format that Heppu documents.", "admin token"),
)
"""Method, path, purpose and authentication of each endpoint outside `/api`."""

WEBHOOK_RESPONSES = (
    ("200", '`{"received": true}`; a duplicate also has `"duplicate": true`.'),
    (
        "400",
        "The body is not a JSON object or has no event type. The request is listed in `bridge rejected`.",
    ),
    ("401", "The signature is missing or wrong, or the timestamp is too old or too far in the future."),
    ("413", "The body is larger than 1 MiB."),
    ("503", "The event was not stored. Heppu sends it again."),
)


def _endpoint(endpoint: Endpoint) -> Iterator[str]:
    document = openapi.openapi_document()
    operation = document["paths"][endpoint.full_path][endpoint.method.lower()]
    yield f"### `{endpoint.method} {endpoint.full_path}`"
    yield ""
    needed = " *(read)*" if endpoint.access is Access.READ and not endpoint.has_query else ""
    yield " ".join(filter(None, [endpoint.summary + needed, " ".join(endpoint.description.split())]))
    for status, text in endpoint.errors.items():
        yield f"Status {status}: {text[0].lower() + text[1:]}"
    yield ""
    rows = [
        (
            f"`{name}`",
            _type_name(schema),
            "required" if required else plain(schema.get("default")),
            description,
        )
        for name, schema, required, description in _parameters(operation, document)
    ]
    if rows:
        yield from table(
            ("Parameter" if endpoint.has_query else "Field", "Type", "Default", "Meaning"), iter(rows)
        )


def _parameters(
    operation: Mapping[str, Any], document: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any], bool, str]]:
    """Yield the name, the schema, whether it is required, and the meaning of each parameter or field."""
    for item in operation["parameters"]:
        if item["in"] == "query":
            yield item["name"], item["schema"], item["required"], item["description"]
    if body := operation.get("requestBody"):
        name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        model = document["components"]["schemas"][name]
        for field, schema in model["properties"].items():
            yield field, schema, field in model.get("required", ()), schema.get("description", "")


def _type_name(schema: Mapping[str, Any]) -> str:
    """Return a schema in a few words, for the reference."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](delivery-states.md)" if name in vars(lifecycle) else name
    if "enum" in schema:
        return ", ".join(f"`{item}`" for item in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(
            dict.fromkeys(_type_name(item) for item in schema["anyOf"] if item != {"type": "null"})
        )
    if schema.get("type") == "array":
        return f"list of {_type_name(schema['items'])}"
    if schema.get("format") == "date-time":
        return "time"
    if schema.get("pattern", "").endswith("[smhdw]){1,3}$"):
        return "age"
    return str(schema.get("type", "any"))


def http_api() -> Iterator[str]:
    """Yield the page of every HTTP endpoint."""
    yield "# HTTP API"
    yield ""
    yield "Send the admin token as `Authorization: Bearer $BRIDGE_ADMIN_TOKEN`. For `GET`, and for requests marked"
    yield "*read*, BRIDGE_READ_TOKEN is enough. `GET /api/openapi.json` describes the API in the format of OpenAPI 3.1,"
    yield "with the types of all responses, for clients and generators."
    yield ""
    yield 'A list is `{"items": [...], "next_cursor": null}`; pass `next_cursor` as `cursor` to get the next page.'
    yield f"`limit` is 1 to {MAX_LIMIT}."
    yield ""
    yield 'An error is `{"error": "..."}`, with a message that says what to do. Any request can have these:'
    yield ""
    yield from table(("Status", "Meaning"), ((str(status), text) for status, text in openapi.ERRORS.items()))
    for resource in ALL:
        yield f"## {resource.tag}"
        yield ""
        yield resource.description
        yield ""
        for endpoint in resource.endpoints:
            yield from _endpoint(endpoint)
    yield "## Other endpoints"
    yield ""
    yield from table(
        ("Request", "Authentication", "Meaning"),
        ((f"`{method} {path}`", access, meaning) for method, path, meaning, access in OPEN_ENDPOINTS),
    )
    yield "## Responses of `POST /webhooks/heppu`"
    yield ""
    yield from table(("Status", "Meaning"), iter(WEBHOOK_RESPONSES))
