"""Reading `messaging`: the policy for every text, mail and call."""

from __future__ import annotations

import re
from datetime import time
from typing import Any, cast

from bridge.area_codes import known_regions
from bridge.connector.api import Channel
from bridge.events import known_zone
from bridge.rules.fields import did_you_mean
from bridge.rules.model import Cap, Messaging, QuietHours
from bridge.rules.parse_context import File
from bridge.rules.yaml import Node
from bridge.settings import parse_duration

KEYS = ("quiet_hours", "regions", "caps", "time_zone", "consent")
CHANNELS = ("sms", "email", "call")
NAMES = ("event", "contact", "now")

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s*-\s*([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
_CAP = re.compile(r"([1-9]\d{0,4})\s+per\s+(\S+)", re.ASCII)
_REGION = re.compile(r"[A-Z]{2}(-[A-Z0-9]{1,3})?", re.ASCII)
_NONE = QuietHours(time(0), time(0))


def read_messaging(file: File, node: Node) -> Messaging:
    """The policy of the file; what it does not name keeps its default."""
    nodes = {name: value for name, (_, value) in file.mapping(node, "`messaging`", KEYS).items()}
    found: dict[str, Any] = {}
    if "quiet_hours" in nodes:
        hours = _quiet_hours(file, nodes["quiet_hours"], allow_none=True)
        if hours:
            found["quiet_hours"] = hours
    if "regions" in nodes:
        found["regions"] = _regions(file, nodes["regions"])
    if "caps" in nodes:
        found["caps"] = {**Messaging().caps, **_caps(file, nodes["caps"])}
    if "time_zone" in nodes:
        zone = file.text(nodes["time_zone"], "`time_zone`")
        if zone is not None and known_zone(zone) is None:
            hint = "write a name such as `America/New_York` or `Europe/Berlin`"
            file.problems.error(nodes["time_zone"], f"no time zone `{zone[:60]}`", hint)
        elif zone is not None:
            found["time_zone"] = zone
    if "consent" in nodes and file.condition(nodes["consent"], "`consent`", (), NAMES):
        found["consent"] = nodes["consent"].value
    return Messaging(**found)


def _quiet_hours(file: File, node: Node, *, allow_none: bool) -> QuietHours | None:
    hint = 'write `"20:00-08:00"`' + (", or `none` for messages at any hour" if allow_none else "")
    if node.value == "none" and allow_none:
        text = "without quiet hours messages leave at night"
        file.problems.warning(node, text, "the law of many places forbids it")
        return _NONE
    match = _HOURS.fullmatch(node.value.strip()) if isinstance(node.value, str) else None
    if match is None:
        file.problems.error(node, "quiet hours are a time from and a time to", hint)
        return None
    start, end = time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))
    if start == end:
        file.problems.error(node, "quiet hours begin and end at the same time", hint)
        return None
    return QuietHours(start, end)


def _regions(file: File, node: Node) -> dict[str, QuietHours]:
    regions = {}
    for name, (key, value) in file.mapping(node, "`regions`").items():
        if not _REGION.fullmatch(name):
            hint = "a country or one of its parts: `US`, `US-FL`"
            file.problems.error(key, f"`{name[:40]}` is no region", hint)
            continue
        if name not in known_regions():
            hint = (
                did_you_mean(name, sorted(known_regions()))
                or "no number is known to belong there, so it stops nothing"
            )
            file.problems.error(key, f"no region `{name}`", hint)
            continue
        hours = _quiet_hours(file, value, allow_none=False)
        if hours:
            regions[name] = hours
    return regions


def _caps(file: File, node: Node) -> dict[Channel, Cap]:
    caps: dict[Channel, Cap] = {}
    for name, (_, value) in file.mapping(node, "`caps`", CHANNELS).items():
        match = _CAP.fullmatch(value.value.strip()) if isinstance(value.value, str) else None
        try:
            per = parse_duration(match[2]) if match else None
        except ValueError:
            per = None
        if match is None or not per:
            file.problems.error(value, f"a cap for `{name}` is a count and a time", "write `2 per 24h`")
        else:
            caps[cast(Channel, name)] = Cap(int(match[1]), per)
    return caps
