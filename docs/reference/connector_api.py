"""The page of the connector author's API: what `bridge.connector`, `bridge.errors` and `bridge.testing` offer."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from api_source import Definition, defined_in, definition, exported, fields, methods, signature
from tables import table

from bridge.connector import Params, failure_from_status
from bridge.connector.params import template_of
from bridge.events import HEPPU_EVENTS
from bridge.lifecycle import FailureReason
from bridge.samples import sample

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Connectors and actions": ("api", "action", "idempotency"),
    "Context and event": ("context", "events", "steps"),
    "Params and settings": ("params", "setting_types"),
    "JSON over HTTP": ("json_api", "json_response", "request_path", "files"),
    "Tokens": ("tokens", "oauth"),
    "Other HTTP clients": (
        "transport", "requests_transport", "deadline", "response_limits", "egress", "public_addresses",
    ),
    "Checks of rules": ("rule_checks", "spelling"),
    "Callbacks and opt-outs": ("callbacks", "opt_outs"),
    "Pages of records": ("provider_records",),
    "Contacts of a CRM": ("contacts", "contact_filling", "contact_resolution", "contact_profile"),
    "Params of a CRM": ("crm", "meetings", "related_records", "search_limiter"),
    "Values of fields": ("typed_values", "address", "email", "phone"),
    "Texts": ("texts", "sms"),
}
"""Heading -> the modules whose exported names are under it, by their last name."""
OWN_SECTION: Mapping[str, str] = {"ProviderUrl": "Params and settings", "SecretUrl": "Params and settings"}
ERRORS = "Errors"
TESTING = "Tests"
FIELDS = "Fields of events"
DECORATORS_ONLY = {"Connector", "Action"}
"""Classes whose methods are for the bridge, except those that are decorators."""
STATUSES = (200, 302, 400, 401, 403, 404, 408, 409, 413, 422, 425, 429, 500, 502, 503, 504)


def connector_api() -> Iterator[str]:
    """Yield the page."""
    yield "# Connector API"
    yield ""
    yield "Everything that a connector imports from the bridge: `bridge.connector`, `bridge.errors`, and for its tests"
    yield "`bridge.testing`. [The guide](../connectors.md) shows how these work together."
    yield ""
    sections = sections_of_api()
    yield " · ".join(f"[{heading}](#{heading.lower().replace(' ', '-')})" for heading in (*sections, FIELDS))
    yield ""
    for heading, items in sections.items():
        yield f"## {heading}"
        yield ""
        if heading == ERRORS:
            yield from _errors()
        for item in items:
            yield from _entry(item)
    yield f"## {FIELDS}"
    yield ""
    yield from _fields_of_events()


def sections_of_api() -> dict[str, list[Definition]]:
    """Return every exported name under its heading. Raise LookupError for a module that has none."""
    headings = {module: heading for heading, modules in SECTIONS.items() for module in modules}
    sections: dict[str, list[Definition]] = {heading: [] for heading in SECTIONS}
    for item in sorted(exported("bridge.connector"), key=lambda item: item.name.casefold()):
        module = item.module.rpartition(".")[2]
        heading = OWN_SECTION.get(item.name) or headings.get(module)
        if heading is None:
            raise LookupError(f"docs/reference/connector_api.py: add {item.module} to a section")
        sections[heading].append(item)
    errors = [item for item in defined_in("bridge.errors") if item.name != "StoreUnavailable"]
    return {
        "Connectors and actions": sections.pop("Connectors and actions"),
        "Context and event": sections.pop("Context and event"),
        ERRORS: errors,
        **sections,
        TESTING: exported("bridge.testing"),
    }


def _entry(item: Definition) -> Iterator[str]:
    yield f"### `{item.name}`"
    yield ""
    if (shown := signature(item)) != f"class {item.name}":
        yield f"```python\n{shown}\n```"
        yield ""
    yield item.doc
    yield ""
    if item.name == "ConnectorConformance":
        item = definition("bridge.testing.suite_base", "SuiteBase")  # its hooks
    rows = list(_rows(item))
    if rows:
        headings = ("Field", "Type", "Default", "Meaning")
        used = [index for index in range(len(headings)) if any(row[index] for row in rows)]
        yield from table(
            tuple(headings[index] for index in used), (tuple(row[index] for index in used) for row in rows)
        )
    for call, doc in methods(item):
        if item.name in DECORATORS_ONLY and not doc.startswith("Decorator"):
            continue
        yield f"`{call}`" if "\n" not in call else f"```python\n{call}\n```"
        yield ""
        yield doc
        yield ""


def _rows(item: Definition) -> Iterator[tuple[str, str, str, str]]:
    described = _param_descriptions(item)
    for field in fields(item):
        name, type_ = f"`{field.name}`", f"`{field.type}`" if field.type else ""
        if field.name in described:
            yield name, type_, *described[field.name]
        else:
            yield name, type_, f"`{field.default}`" if field.default else "", " ".join(field.doc.split())


def _param_descriptions(item: Definition) -> dict[str, tuple[str, str]]:
    """Return default and description of each param of a class of params."""
    value: Any = getattr(importlib.import_module(item.module), item.name)
    if not (isinstance(value, type) and issubclass(value, Params)):
        return {}
    described = {}
    for name, info in value.model_fields.items():
        default = template_of(info) or ("" if info.is_required() or info.default is None else repr(info.default))
        described[name] = (f"`{default}`" if default else "", info.description or "")
    return described


def _errors() -> Iterator[str]:
    yield "What becomes of a delivery follows from the class of the error: see"
    yield "[Errors](../connectors.md#errors). `JsonApi` raises these by status, as `failure_from_status` does:"
    yield ""
    rows: dict[tuple[str, str], list[str]] = {}
    for status in STATUSES:
        outcomes = [
            type(failure_from_status(status, "", about_record=about_record)).__name__ for about_record in (False, True)
        ]
        rows.setdefault((outcomes[0], outcomes[1]), []).append(str(status))
    yield from table(
        ("Status", "Error", "With an ID in the path"),
        ((", ".join(statuses), f"`{first}`", f"`{second}`") for (first, second), statuses in rows.items()),
    )
    yield "For a read, `JsonApi` turns `OutcomeUnknown` into `TransientError`, unless the attempt has written before."
    yield ""
    yield "The `reason` of an error is one of these:"
    yield ""
    yield from table(("Reason", "Meaning"), ((f"`{reason}`", reason.description) for reason in FailureReason))


def _fields_of_events() -> Iterator[str]:
    yield "What Heppu's documented example of each event has, which `bridge.testing.event` returns. An event may lack"
    yield "any field but `event` and `timestamp`. [Event fields](../rules-reference.md#event-fields) has their meaning."
    yield ""
    paths = {name: dict.fromkeys(_paths(sample(name))) for name in HEPPU_EVENTS}
    every = dict.fromkeys(path for found in paths.values() for path in found)
    yield from table(
        ("Field", *(f"`{name}`" for name in HEPPU_EVENTS)),
        ((f"`{path}`", *("✓" if path in paths[name] else "" for name in HEPPU_EVENTS)) for path in every),
    )


def _paths(body: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in body.items():
        if isinstance(value, Mapping) and value:
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield prefix + name
