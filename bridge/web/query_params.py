"""What may stand behind the question mark, and in the forms: checked, with advice when it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from starlette.datastructures import QueryParams

from bridge.errors import BridgeError
from bridge.events import parse_instant
from bridge.settings import parse_duration
from bridge.store.queries import STATES, NotFound

MAX_LIMIT: Final = 500


class BadParameter(BridgeError):
    """A parameter is not as it must be; the text says what may stand there."""


def ident(value: str) -> str:
    """An id from a path; what no id can be is not found, before a database stumbles over it."""
    if "\x00" in value or len(value) > 200:
        raise NotFound("there is no such id")
    return value


def page_filter(query: QueryParams, default_limit: int = 50) -> dict[str, Any]:
    """`limit` and `before` alone."""
    return _page(_values(query, ("limit", "cursor")), default_limit)


def event_filter(query: QueryParams, now: datetime, default_limit: int = 50) -> dict[str, Any]:
    """What `list_events` takes."""
    values = _values(query, ("type", "since", "until", "limit", "cursor"))
    return {
        "event_type": values.get("type"),
        "since": _instant("since", values.get("since"), now),
        "until": _instant("until", values.get("until"), now),
        **_page(values, default_limit),
    }


def delivery_filter(query: QueryParams, default_limit: int = 50) -> dict[str, Any]:
    """What `list_deliveries` takes; `state` may stand there several times, or be a list with commas."""
    values = _values(query, ("state", "event", "connection", "rule", "limit", "cursor"))
    states = [word for value in query.getlist("state") for word in value.split(",") if word]
    for word in states:
        if word not in STATES:
            raise BadParameter(f"no state is called `{word[:40]}`; there are {', '.join(STATES)}")
    return {
        "states": states,
        "event": values.get("event"),
        "connection_name": values.get("connection"),
        "rule": values.get("rule"),
        **_page(values, default_limit),
    }


def one_of(name: str, value: Any, choices: Sequence[str]) -> Any:
    """`value`, which must be one of `choices`."""
    if value not in choices:
        raise BadParameter(f"`{name}` must be one of {', '.join(choices)}")
    return value


def text_or_none(name: str, value: Any) -> str | None:
    """`value`, which must be text or left out."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 500 or "\x00" in value:
        raise BadParameter(f"`{name}` must be a text of at most 500 characters")
    return value


def _values(query: QueryParams, known: Sequence[str]) -> dict[str, str]:
    """The parameters that are set; forms send empty ones, too."""
    for name, value in query.multi_items():
        if name not in known:
            raise BadParameter(f"there is no parameter `{name[:40]}`; there are {', '.join(known)}")
        text_or_none(name, value)
    return {name: value for name, value in query.items() if value}


def _page(values: dict[str, str], default_limit: int) -> dict[str, Any]:
    limit = values.get("limit", str(default_limit))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_LIMIT):
        raise BadParameter(f"`limit` must be a number from 1 to {MAX_LIMIT}")
    return {"limit": int(limit), "cursor": values.get("cursor")}


def _instant(name: str, value: str | None, now: datetime) -> datetime | None:
    if value is None:
        return None
    found = parse_instant(value)
    if found is not None:
        return found

    try:
        return now - parse_duration(value)
    except (ValueError, OverflowError):
        raise BadParameter(
            f"`{name}` must be an instant like 2026-03-02T21:30:00Z, or a time ago like 2h or 7d"
        ) from None
