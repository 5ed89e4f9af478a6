"""Parser of `alerts`: the steps that notify the team of problems, and when problems of the service itself are some.

The value is a list of steps, or a mapping with the steps in `do:` and the settings next to them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from bridge.rules.alert_settings import NEVER, AlertSettings
from bridge.rules.keys import DURATION, Key, Section, ValueType, list_of
from bridge.rules.model import Step
from bridge.rules.parse_context import CONTEXT_NAMES, ParseContext, quote_value
from bridge.rules.parse_steps import read_steps
from bridge.rules.yaml import Node

_SIZE = re.compile(r"(\d{1,6}) ?(MB|GB|TB)", re.ASCII | re.IGNORECASE)
_UNITS: Final = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
_MIN_DURATION: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Alerts:
    """The value of `alerts`."""

    steps: tuple[Step, ...] = ()
    settings: AlertSettings = field(default_factory=AlertSettings)


def read_alerts(context: ParseContext, node: Node, label: str) -> Alerts | None:
    """Return the steps and the settings of the file's alerts."""
    if node.entries is None:
        return Alerts(_read_steps(context, node, label))
    entries = ALERTS.open(context, node)
    if entries is None:
        return None
    values = ALERTS.read(context, entries)
    return Alerts(values.pop("steps", ()), replace(AlertSettings(), **values))


def _read_steps(context: ParseContext, node: Node, label: str) -> tuple[Step, ...]:
    return read_steps(context.within(trigger="alert", names=CONTEXT_NAMES["alert"]), node, label)


def _duration_or_never(context: ParseContext, node: Node, label: str) -> timedelta | None:
    if node.value == "never":
        return NEVER
    duration: timedelta | None = context.duration(node, label)
    if duration is not None and duration < _MIN_DURATION:
        context.error(
            node, f"{label} is shorter than a minute", "the bridge checks once a minute: write 1m or more"
        )
        return None
    return duration


def _size_or_never(context: ParseContext, node: Node, label: str) -> int | None:
    if node.value == "never":
        return 0
    match = _SIZE.fullmatch(node.value) if isinstance(node.value, str) else None
    if match is None:
        text = f"{label} must be a size, not {quote_value(node.value)}"
        context.error(node, text, "write a number and a unit, such as `500 MB` or `2 GB`, or `never`")
        return None
    return int(match[1]) * _UNITS[match[2].upper()]


_NEVER_SCHEMA: Final = {"const": "never"}
_DURATION_OR_NEVER = ValueType(_duration_or_never, {"anyOf": [dict(DURATION.schema), _NEVER_SCHEMA]})
_SIZE_OR_NEVER = ValueType(
    _size_or_never,
    {"anyOf": [{"type": "string", "pattern": r"^\d{1,6} ?([MmGgTt][Bb])$"}, _NEVER_SCHEMA]},
)
ALERTS = Section(
    "`alerts`",
    hint="write a list of steps, or `do:` with the steps and the settings next to it",
    keys=(
        Key(
            "do",
            list_of("alert", _read_steps),
            "the [steps](#steps) that notify the team",
            required=True,
            attribute="steps",
        ),
        Key(
            "backlog_after",
            _DURATION_OR_NEVER,
            "alert when a delivery has been due for this long without a pause, or an event has been unrouted",
            default="15m",
        ),
        Key(
            "circuit_open_after",
            _DURATION_OR_NEVER,
            "alert again when the circuit breaker of a connection has been open for this long",
            default="15m",
        ),
        Key(
            "review_after",
            _DURATION_OR_NEVER,
            "remind of deliveries that have needed review for this long",
            default="24h",
        ),
        Key(
            "no_events_after",
            _DURATION_OR_NEVER,
            "alert when Heppu has sent nothing for this long, although it did at the same time in the weeks before",
            default="3h",
        ),
        Key(
            "disk_free_below",
            _SIZE_OR_NEVER,
            "alert when the disk of the SQLite database has less free space",
            example="2 GB",
            default="1 GB",
        ),
    ),
)
