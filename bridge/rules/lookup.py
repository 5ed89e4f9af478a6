"""Field lookup: the value of a dotted name in an event's context, for `where`, `if` and templates alike.

A field that is absent, null or cannot be read has no value. Each field is looked up once per event, however many rules
use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

from bridge.contacts.country import country_of
from bridge.json_values import describe_type, replace_unstorable

TemplateContext = Mapping[str, Any]
"""The names that a template or condition can use: `event`, `contact`, `now`, `delivery`."""

FIELD_CACHE = "field cache"
"""Context key of the fields that have been looked up. No template can name it, because it contains a space."""

SHOWN_FIELDS = "shown fields"
"""Context key of the texts of `show_fields`: many rules have the same fields in their `if`."""

UNREADABLE = "unreadable names"
"""Context key of the names without a value because the event's value cannot be read: path -> reason."""

UNREAD = "unread names"
"""Context key of the set of reasons of `UNREADABLE` that the lookups since it was cleared have met."""

_MAX_SHOWN = 80
"""Characters of a value that a trace shows."""


def look_up(context: TemplateContext, path: tuple[str, ...]) -> tuple[Any, str]:
    """Return a field's value and its form in a trace.

    Without a value, these are None and `missing`, `null` or `unreadable`.
    """
    cache: dict[tuple[str, ...], tuple[Any, str]] = context[FIELD_CACHE]
    entry = cache.get(path)
    if entry is None:
        value, absence = _find(context, path)
        entry = cache[path] = (value, absence or format_value(value))
    if entry[0] is None and (reason := unreadable(context, path)):
        context[UNREAD].add(reason)
    return entry


def show_fields(context: TemplateContext, paths: tuple[tuple[str, ...], ...]) -> str:
    """Return the values of several fields as a trace shows them: `event.duration is 3; event.outcome is missing`."""
    cache: dict[tuple[tuple[str, ...], ...], str] = context[SHOWN_FIELDS]
    text = cache.get(paths)
    if text is None:
        shown = [f"{'.'.join(path)} is {look_up(context, path)[1]}" for path in paths]
        text = cache[paths] = "; ".join(shown)
    return text


def unreadable(context: TemplateContext, path: tuple[str, ...]) -> str | None:
    """Return why the event's value of a field cannot be read; None if it can be, or if there is no value."""
    reasons: Mapping[tuple[str, ...], str] = context[UNREADABLE]
    if not reasons:
        return None
    return next((reasons[path[:depth]] for depth in range(2, len(path) + 1) if path[:depth] in reasons), None)


def describe_absence(context: TemplateContext, path: tuple[str, ...], actual: str) -> str:
    """Return why a field has no value, as a clause: `contact.phone is missing`. `actual` is its form in a trace."""
    name, reason = ".".join(path), unreadable(context, path)
    return f"{name} is {actual}" if reason is None else f"{name} cannot be read: {reason}"


_COUNTRY = ("contact", "country")


def _find(context: TemplateContext, path: tuple[str, ...]) -> tuple[Any, str]:
    if unreadable(context, path):
        return None, "unreadable"
    if path == _COUNTRY:  # computed when a rule asks for it
        phone, shown = look_up(context, ("contact", "phone"))
        country = country_of(phone) if phone else None
        return country, "" if country else "unknown" if phone else shown
    value: Any = context
    for depth, key in enumerate(path, start=1):
        if not isinstance(value, dict):
            return None, f"missing ({describe_type(value)} has no fields)"
        if key not in value:
            return None, _missing(key, value)
        value = value[key]
        if value is None:
            return None, "null" if depth == len(path) and path[0] == "event" else "missing"
    return value, ""


def _missing(key: str, fields: Any) -> str:
    """Return `missing`, with the name of a field that differs only in case, `_` and `-`, if any."""
    plain = key.lower().replace("_", "").replace("-", "")
    if len(fields) <= 100:
        for other in fields:
            if len(other) < 60 and other.lower().replace("_", "").replace("-", "") == plain:
                return f"missing (there is `{other}`)"
    return "missing"


def format_value(value: Any) -> str:
    """Return a JSON value as a trace shows it: short and on one line."""
    if isinstance(value, str):
        start = replace_unstorable(value[:_MAX_SHOWN])
        return encode_basestring(start) + ("…" if len(value) > len(start) else "")
    if value is None:
        return "null"
    if isinstance(value, dict):
        return f"an object with {len(value)} field{'' if len(value) == 1 else 's'}"
    if isinstance(value, list):
        return f"a list of {len(value)} item{'' if len(value) == 1 else 's'}"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:_MAX_SHOWN]
