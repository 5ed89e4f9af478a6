"""Parser of `messaging`: the policy for every text message, email and call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import time
from typing import cast

from bridge.area_codes import known_regions
from bridge.connector.api import Channel
from bridge.contacts.time_zone import normalize_time_zone, residence_time_zone
from bridge.rules.fields import did_you_mean
from bridge.rules.keys import CONDITION, STRING, Key, Section, ValueType
from bridge.rules.model import Cap, MessagingPolicy, QuietHours
from bridge.rules.parse_context import ParseContext, quote_value
from bridge.rules.yaml import Node
from bridge.settings import parse_duration

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s*-\s*([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
_CAP = re.compile(r"([1-9]\d{0,4})\s+per\s+(\S+)", re.ASCII)
_REGION = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?", re.ASCII)
_NO_QUIET_HOURS = QuietHours(time(0), time(0))


def read_messaging(context: ParseContext, node: Node, _label: str) -> MessagingPolicy | None:
    """Return the policy of the file. Keys that it does not set keep their defaults."""
    entries = MESSAGING.open(context, node)
    return MessagingPolicy(**MESSAGING.read(context, entries)) if entries is not None else None


def _time_zone(context: ParseContext, node: Node, label: str) -> str | None:
    zone = context.string(node, label)
    if zone is None:
        return None
    residence = residence_time_zone(zone)
    if residence is None:
        hint = "write a name such as `America/New_York` or `Europe/Berlin`"
        exists = normalize_time_zone(zone) is not None
        problem = f"`{zone}` is not the time zone of a place, so messages would be sent at night"
        context.error(node, problem if exists else f"no time zone `{zone[:60]}`", hint)
    return residence


def _consent(context: ParseContext, node: Node, label: str) -> str | None:
    compiled = context.condition(node, label)
    return compiled.source if compiled else None


def _quiet_hours(context: ParseContext, node: Node, _label: str) -> QuietHours | None:
    if node.value == "none":
        text = "without quiet hours, messages are sent at night"
        context.warning(node, text, "many jurisdictions prohibit messages at night")
        return _NO_QUIET_HOURS
    return _hours(context, node, ", or `none` to allow messages at any time")


def _hours(context: ParseContext, node: Node, alternative: str = "") -> QuietHours | None:
    hint = 'write a start and an end time, such as `"20:00-08:00"`' + alternative
    match = _HOURS.fullmatch(node.value.strip()) if isinstance(node.value, str) else None
    if match is None:
        context.error(node, f"invalid quiet hours: {quote_value(node.value)}", hint)
        return None
    start, end = time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))
    if start == end:
        context.error(node, "quiet hours start and end at the same time", hint)
        return None
    return QuietHours(start, end)


def _regions(context: ParseContext, node: Node, label: str) -> dict[str, QuietHours]:
    regions = {}
    for name, (key, value) in context.mapping(node, label).items():
        if not _REGION.fullmatch(name):
            hint = "write a country or a part of it: `US`, `US-FL`"
            context.error(key, f"invalid region `{name[:40]}`", hint)
            continue
        if name not in known_regions():
            hint = (
                did_you_mean(name, sorted(known_regions()))
                or "remove it: no phone number is known to belong to this region, so it has no effect"
            )
            context.error(key, f"no region `{name}`", hint)
            continue
        hours = _hours(context, value)
        if hours:
            regions[name] = hours
    return regions


def _caps(context: ParseContext, node: Node, _label: str) -> Mapping[Channel, Cap]:
    entries = CAPS.open(context, node)
    caps: dict[Channel, Cap] = {**MessagingPolicy().caps}
    caps.update(cast("dict[Channel, Cap]", CAPS.read(context, entries or {})))
    return caps


def _cap(context: ParseContext, node: Node, label: str) -> Cap | None:
    match = _CAP.fullmatch(node.value.strip()) if isinstance(node.value, str) else None
    try:
        per = parse_duration(match[2]) if match else None
    except ValueError:
        per = None
    if match is None or not per:
        hint = "write a count and a duration, such as `2 per 24h`"
        context.error(node, f"invalid cap for {label}: {quote_value(node.value)}", hint)
        return None
    return Cap(int(match[1]), per)


_HOURS_SCHEMA = {"type": "string", "examples": ["20:00-08:00"]}
_CAP_TYPE = ValueType(_cap, {"type": "string", "pattern": r"^\s*[1-9]\d{0,4}\s+per\s+\S+\s*$"})

CAPS = Section(
    "`caps`",
    hint="",
    keys=(
        Key("sms", _CAP_TYPE, "text messages per phone number", example="2 per 24h", default="2 per 24h"),
        Key("email", _CAP_TYPE, "emails per address", example="2 per 7d", default="2 per 7d"),
        Key("call", _CAP_TYPE, "calls per phone number", example="3 per 24h", default="3 per 24h"),
    ),
)
MESSAGING = Section(
    "`messaging`",
    hint="",
    keys=(
        Key(
            "quiet_hours",
            ValueType(_quiet_hours, _HOURS_SCHEMA),
            "no messages between these times in the recipient's time zone; `none` turns this off",
            default='"20:00-08:00"',
        ),
        Key(
            "regions",
            ValueType(_regions, {"type": "object", "additionalProperties": _HOURS_SCHEMA}),
            "stricter quiet hours for certain regions",
            example='{US-FL: "20:00-08:00"}',
        ),
        Key(
            "caps",
            ValueType(_caps, {"$ref": "#/$defs/caps"}),
            "maximum number of messages per channel and address",
            default="{sms: 2 per 24h, email: 2 per 7d, call: 3 per 24h}",
        ),
        Key(
            "time_zone",
            ValueType(_time_zone, STRING.schema),
            "the time zone to use if the recipient's country is unknown",
            default="America/New_York",
        ),
        Key(
            "consent",
            ValueType(_consent, CONDITION.schema),
            "an [expression](#expressions) that must be true for every message",
            example="event.metadata.consent == true",
        ),
    ),
)
