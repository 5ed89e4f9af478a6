"""Values of a ticket: names of the account become IDs, and custom fields get the type that they have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from bridge.connector import (
    Params,
    Properties,
    find_option,
    param,
    to_boolean,
    to_day,
    to_items,
    to_number,
    to_text,
)

from .account import Account

STATUS_CATEGORIES = ("new", "open", "pending", "hold", "solved")
_AGENT = r"^(\d+|[^@\s]+@[^@\s]+)$"
_BY_NAME = {"group": "groups", "brand": "brands", "form": "ticket_forms"}
"""Param -> kind of record that it names."""
_ID_FIELDS = {"group": "group_id", "brand": "brand_id", "form": "ticket_form_id"}
NUMBERS: Mapping[str, type] = {"integer": int, "decimal": float}
CHOICES = ("tagger", "multiselect")
"""Types of custom fields with a list of options."""


class TicketFieldsParams(Params):
    """Fields of a ticket that an action sets. Without a value, Zendesk or its triggers decide."""

    status: str | None = param(
        None,
        "Status: `open`, `pending`, `hold`, `solved`, or the name of one of the account's own statuses.",
        example="pending",
    )
    priority: Literal["low", "normal", "high", "urgent"] | None = param(None, "Priority.", example="high")
    type: Literal["problem", "incident", "question", "task"] | None = param(
        None, "Type of the ticket.", example="question"
    )
    group: str | None = param(None, "Name or ID of the group.", example="Support")
    assignee: str | None = param(
        None,
        "Email address or ID of the agent.",
        example="ada@harbourlight.example",
        pattern=_AGENT,
        must_be="an agent's email address or ID",
    )
    tags: list[str] = param([], "Tags to add. Spaces become underscores.", example=["heppu", "callback"])
    custom_fields: Properties = param(
        {},
        "Custom fields: `title or ID: value`. A choice is its name or its tag.",
        example={"Order number": "{{ event.metadata.orderNumber }}"},
    )


def ticket_values(account: Account, params: TicketFieldsParams) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of a ticket in Zendesk's form, without tags, and notes about values that do not fit.

    Zendesk would refuse the ticket for a value of the wrong type, and a structured result of a call, which a language
    model has filled in, must not cost the ticket. Raise PermanentError for an unknown name.
    """
    values: dict[str, Any] = {"priority": params.priority, "type": params.type}
    if params.status:
        values |= status_value(account, params.status)
    for name, kind in _BY_NAME.items():
        if wanted := getattr(params, name, None):
            values[_ID_FIELDS[name]] = int(account.find(kind, wanted)["id"])
    if params.assignee:
        values["assignee_id"] = account.find_agent(params.assignee)
    notes: list[str] = []
    fields: list[dict[str, Any]] = []
    for name, item in params.custom_fields.items():
        if item.value in (None, "", []):
            continue
        field = account.find("ticket_fields", name)
        converted = field_value(field, item.value)
        if converted is None:
            notes.append(f"without `{name}`, which takes {expectation(field)}")
        else:
            fields.append({"id": int(field["id"]), "value": converted})
    if fields:
        values["custom_fields"] = fields
    return {name: value for name, value in values.items() if value is not None}, notes


def status_value(account: Account, status: str) -> dict[str, Any]:
    """Return a status category, or the ID of one of the account's own statuses."""
    if status.lower() in STATUS_CATEGORIES:
        return {"status": status.lower()}
    return {"custom_status_id": int(account.find("custom_statuses", status)["id"])}


def field_value(field: Mapping[str, Any], value: Any) -> Any:
    """Return a value in the type of a custom field; None if it does not fit."""
    kind = field.get("type")
    if kind in CHOICES:
        options = field_options(field)
        chosen = [
            find_option(item, options)
            for item in (to_items(value, options) if kind == "multiselect" else [value])
        ]
        if None in chosen:
            return None
        return chosen if kind == "multiselect" else chosen[0]
    if kind == "checkbox":
        return to_boolean(value)
    if kind in NUMBERS:
        number = to_number(value)
        return None if number is None or (kind == "integer" and not isinstance(number, int)) else number
    if kind == "date":
        day = to_day(value)
        return None if day is None else day.isoformat()
    text = to_text(value)
    pattern = field.get("regexp_for_validation")
    if kind == "regexp" and isinstance(pattern, str) and not _matches(pattern, text):
        return None
    return text


def field_options(field: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of a field: tag -> name."""
    options = field.get("custom_field_options") or ()
    return {
        str(option["value"]): str(option["name"])
        for option in options
        if "value" in option and "name" in option
    }


def expectation(field: Mapping[str, Any]) -> str:
    """Return what a custom field accepts, for messages."""
    kind = field.get("type")
    if kind in CHOICES:
        names = list(field_options(field).values())
        return "one of " + ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    known = {
        "checkbox": "true or false",
        "integer": "a whole number",
        "decimal": "a number",
        "date": "a date",
    }
    return known.get(str(kind), "a text in the form that the field requires")


def normalize_tags(tags: list[str]) -> list[str]:
    """Return tags as Zendesk stores them."""
    return list(dict.fromkeys(re.sub(r"[\s,]+", "_", tag.strip().lower()) for tag in tags if tag.strip()))


def _matches(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return True  # Ruby's syntax differs: Zendesk decides
