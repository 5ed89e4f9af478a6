"""Parser of `messaging`: the policy for every text message, email and call."""

from __future__ import annotations

import re
from datetime import time
from typing import Any, cast

from bridge.area_codes import known_regions
from bridge.connector.api import Channel
from bridge.events import normalize_time_zone
from bridge.rules.fields import did_you_mean
from bridge.rules.model import Cap, MessagingPolicy, QuietHours
from bridge.rules.parse_context import ParseContext, quote_value
from bridge.rules.yaml import Node
from bridge.settings import parse_duration

KEYS = ("quiet_hours", "regions", "caps", "time_zone", "consent")
CHANNELS = ("sms", "email", "call")
CONTEXT_NAMES = ("event", "contact", "now")

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s*-\s*([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
_CAP = re.compile(r"([1-9]\d{0,4})\s+per\s+(\S+)", re.ASCII)
_REGION = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?", re.ASCII)
_NO_QUIET_HOURS = QuietHours(time(0), time(0))


def read_messaging(context: ParseContext, node: Node) -> MessagingPolicy:
    """Return the policy of the file. Keys that it does not set keep their defaults."""
    nodes = {name: value for name, (_, value) in context.mapping(node, "`messaging`", KEYS).items()}
    settings: dict[str, Any] = {}
    if "quiet_hours" in nodes:
        hours = _quiet_hours(context, nodes["quiet_hours"], allow_none=True)
        if hours:
            settings["quiet_hours"] = hours
    if "regions" in nodes:
        settings["regions"] = _regions(context, nodes["regions"])
    if "caps" in nodes:
        settings["caps"] = {**MessagingPolicy().caps, **_caps(context, nodes["caps"])}
    if "time_zone" in nodes:
        zone = context.string(nodes["time_zone"], "`time_zone`")
        if zone is not None and normalize_time_zone(zone) is None:
            hint = "write a name such as `America/New_York` or `Europe/Berlin`"
            context.error(nodes["time_zone"], f"no time zone `{zone[:60]}`", hint)
        elif zone is not None:
            settings["time_zone"] = zone
    if "consent" in nodes and context.condition(nodes["consent"], "`consent`", (), CONTEXT_NAMES):
        settings["consent"] = nodes["consent"].value
    return MessagingPolicy(**settings)


def _quiet_hours(context: ParseContext, node: Node, *, allow_none: bool) -> QuietHours | None:
    hint = 'write a start and an end time, such as `"20:00-08:00"`' + (
        ", or `none` to allow messages at any time" if allow_none else ""
    )
    if node.value == "none" and allow_none:
        text = "without quiet hours, messages are sent at night"
        context.warning(node, text, "many jurisdictions prohibit messages at night")
        return _NO_QUIET_HOURS
    match = _HOURS.fullmatch(node.value.strip()) if isinstance(node.value, str) else None
    if match is None:
        context.error(node, f"invalid quiet hours: {quote_value(node.value)}", hint)
        return None
    start, end = time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))
    if start == end:
        context.error(node, "quiet hours start and end at the same time", hint)
        return None
    return QuietHours(start, end)


def _regions(context: ParseContext, node: Node) -> dict[str, QuietHours]:
    regions = {}
    for name, (key, value) in context.mapping(node, "`regions`").items():
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
        hours = _quiet_hours(context, value, allow_none=False)
        if hours:
            regions[name] = hours
    return regions


def _caps(context: ParseContext, node: Node) -> dict[Channel, Cap]:
    caps: dict[Channel, Cap] = {}
    for name, (_, value) in context.mapping(node, "`caps`", CHANNELS).items():
        match = _CAP.fullmatch(value.value.strip()) if isinstance(value.value, str) else None
        try:
            per = parse_duration(match[2]) if match else None
        except ValueError:
            per = None
        if match is None or not per:
            hint = "write a count and a duration, such as `2 per 24h`"
            context.error(value, f"invalid cap for `{name}`: {quote_value(value.value)}", hint)
        else:
            caps[cast(Channel, name)] = Cap(int(match[1]), per)
    return caps
