"""Query parameters and form fields: parsing and validation, with errors that say what is expected."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from starlette.datastructures import QueryParams

from bridge.clock import parse_timestamp
from bridge.errors import BridgeError
from bridge.policy import CHANNELS
from bridge.settings import parse_duration
from bridge.store.opt_out_list import ENTRY_KINDS
from bridge.store.queries import REASONS, STATES, NotFound

MAX_LIMIT: Final = 500

PAGE_PARAMS: Final = ("limit", "cursor")
EVENT_PARAMS: Final = ("type", "since", "until", "unreadable", *PAGE_PARAMS)
DELIVERY_PARAMS: Final = ("state", "reason", "event", "connection", "rule", *PAGE_PARAMS)
DUPLICATE_PARAMS: Final = ("connection", *PAGE_PARAMS)
OPT_OUT_PARAMS: Final = ("channel", "kind", "source", *PAGE_PARAMS)
REPORT_FIELDS: Final = ("contact", "since", *PAGE_PARAMS)
_LIMIT: Final = re.compile("[0-9]{1,9}")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
"""Characters that no database stores; JSON can contain them."""


class InvalidParameter(BridgeError):
    """A parameter is invalid. The message says which values are valid."""


def check_id(value: str) -> str:
    """Return an ID from a path. Raise NotFound if it cannot be an ID and the database would reject it."""
    if "\x00" in value or len(value) > 200:
        raise NotFound("there is no such ID")
    return value


def page_filter(query: QueryParams, default_limit: int = 50) -> dict[str, Any]:
    """Return `limit` and `cursor`, for lists without other filters."""
    return _pagination(_values(query, PAGE_PARAMS), default_limit)


def duplicate_filter(query: QueryParams, default_limit: int = 50) -> dict[str, Any]:
    """Return the arguments of `list_possible_duplicates`."""
    values = _values(query, DUPLICATE_PARAMS)
    return {"connection": values.get("connection"), **_pagination(values, default_limit)}


def event_filter(query: QueryParams, now: datetime, default_limit: int = 50) -> dict[str, Any]:
    """Return the arguments of `list_events`."""
    values = _values(query, EVENT_PARAMS)
    return {
        "event_type": values.get("type"),
        "since": _timestamp("since", values.get("since"), now),
        "until": _timestamp("until", values.get("until"), now),
        "unreadable": one_of("unreadable", values.get("unreadable", "no"), ("yes", "no")) == "yes",
        **_pagination(values, default_limit),
    }


def delivery_filter(query: QueryParams, default_limit: int = 50) -> dict[str, Any]:
    """Return the arguments of `list_deliveries`. `state` may be repeated, or hold several states and commas."""
    values = _values(query, DELIVERY_PARAMS)
    states = [state for value in query.getlist("state") for state in value.split(",") if state]
    for state in states:
        if state not in STATES:
            raise InvalidParameter(f"unknown state `{state[:40]}`; use {', '.join(STATES)}")
    if "reason" in values:
        one_of("reason", values["reason"], REASONS)
    return {
        "states": states,
        "reason": values.get("reason"),
        "event": values.get("event"),
        "connection": values.get("connection"),
        "rule": values.get("rule"),
        **_pagination(values, default_limit),
    }


def opt_out_filter(query: QueryParams, default_limit: int = 50) -> dict[str, Any]:
    """Return the arguments of `list_opt_outs`."""
    values = _values(query, OPT_OUT_PARAMS)
    for name, choices in (("channel", CHANNELS), ("kind", ENTRY_KINDS)):
        if name in values:
            one_of(name, values[name], choices)
    return {
        "channel": values.get("channel"),
        "kind": values.get("kind"),
        "source": values.get("source"),
        **_pagination(values, default_limit),
    }


def report_filter(body: Mapping[str, Any], now: datetime, default_limit: int = 50) -> dict[str, Any]:
    """Return the arguments of `report_contact` from the fields of a POST, which keep the address out of URLs."""
    limit = body.get("limit", default_limit)
    values = {"limit": str(limit), "cursor": string_or_none("cursor", body.get("cursor"))}
    return {
        "since": _timestamp("since", string_or_none("since", body.get("since")), now),
        **_pagination(values, default_limit),
    }


def one_of(name: str, value: Any, choices: Sequence[str]) -> Any:
    """Return `value`. Raise InvalidParameter unless it is one of `choices`."""
    if value not in choices:
        raise InvalidParameter(f"`{name}` must be one of {', '.join(choices)}")
    return value


def string_or_none(name: str, value: Any) -> str | None:
    """Return `value`, or None if it is missing or empty. Raise InvalidParameter unless it is a short string."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 500 or _UNSTORABLE.search(value):
        raise InvalidParameter(f"`{name}` must be a string of at most 500 characters")
    return value


def _values(query: QueryParams, allowed: Sequence[str]) -> dict[str, str]:
    """Return the parameters that have a value; forms also send empty ones. Raise InvalidParameter."""
    for name, value in query.multi_items():
        if name not in allowed:
            raise InvalidParameter(f"unknown parameter `{name[:40]}`; use {', '.join(allowed)}")
        string_or_none(name, value)
    return {name: value for name, value in query.items() if value}


def _pagination(values: Mapping[str, Any], default_limit: int) -> dict[str, Any]:
    limit = values.get("limit", str(default_limit))
    if not (_LIMIT.fullmatch(limit) and 1 <= int(limit) <= MAX_LIMIT):
        raise InvalidParameter(f"`limit` must be a number from 1 to {MAX_LIMIT}")
    return {"limit": int(limit), "cursor": values.get("cursor")}


def _timestamp(name: str, value: str | None, now: datetime) -> datetime | None:
    if value is None:
        return None
    timestamp = parse_timestamp(value)
    if timestamp is not None:
        return timestamp

    try:
        return now - parse_duration(value)
    except (ValueError, OverflowError):
        raise InvalidParameter(
            f"`{name}` must be a time like 2026-03-02T21:30:00Z, or an age like 2h or 7d"
        ) from None
