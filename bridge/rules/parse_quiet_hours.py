"""Parser of quiet hours: one window, or windows by channel and by day of the week."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import time, timedelta
from typing import Any

from bridge.clock import format_duration
from bridge.connector.callbacks import Channel
from bridge.rules.model import MessagingPolicy, Rule
from bridge.rules.parse_context import ParseContext, quote_value
from bridge.rules.quiet_hours import (
    ALL_DAY,
    CHANNELS,
    DAYS,
    HOLIDAYS,
    NIGHT,
    NO_WINDOW,
    ONE_DAY,
    QuietHours,
    QuietWindow,
)
from bridge.rules.route import MESSAGE_EXPIRY
from bridge.rules.yaml import Node
from bridge.spelling import did_you_mean

SETTING = "messaging.quiet_hours"
_TIME = r"(2[0-3]|[01]?\d):([0-5]\d)"
_WINDOW = re.compile(rf"{_TIME}\s*[-–]\s*(?:{_TIME}|(24):(00))", re.ASCII)
_DAY_RANGE = re.compile(r"([a-z]{3})(?:-([a-z]{3}))?", re.ASCII)
_SPOKEN_TIME = r"(\d{1,2})(?:[:.h](\d\d))?\s*([ap](?=\.?m\b))?(?:\.?m\.?)?"
_SPOKEN = re.compile(
    rf"(?:(?P<days>[a-z]{{3,9}}(?:\s*-\s*[a-z]{{3,9}})?)\s+)?{_SPOKEN_TIME}\s*(?:-|–|to|until|till)\s*{_SPOKEN_TIME}",
    re.ASCII | re.IGNORECASE,
)
"""A window as people say it, from which a hint is made: `8pm to 8am`, `Mon-Fri 17-9`."""
_OFFICE_HOURS = 11 * 60, 15 * 60
"""Hours that nobody means to be quiet: a window that covers them probably says when messages are to be sent."""
_DAYS_HINT = "name days as `mon`, `mon-fri`, `sat-sun` or `holidays`"
_HINT = 'write a start and an end time, such as `"20:00-08:00"`, or `all day`'

_WINDOW_SCHEMA: dict[str, Any] = {"type": "string", "examples": ["20:00-08:00", "all day", "none"]}
_DAY = "|".join(DAYS)
_BY_DAY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "minProperties": 1,
    "properties": dict.fromkeys(("mon-fri", *DAYS, HOLIDAYS), _WINDOW_SCHEMA),
    "patternProperties": {f"^({_DAY})(-({_DAY}))?$": _WINDOW_SCHEMA},
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "anyOf": [
        _WINDOW_SCHEMA,
        _BY_DAY_SCHEMA,
        {
            "type": "object",
            "minProperties": 1,
            "properties": {channel: {"anyOf": [_WINDOW_SCHEMA, _BY_DAY_SCHEMA]} for channel in CHANNELS},
            "additionalProperties": False,
        },
    ]
}


def read_quiet_hours(context: ParseContext, node: Node, _label: str) -> Mapping[Channel, QuietHours] | None:
    """Return the quiet hours of every channel. Those of channels and days that are not named are the usual night."""
    return _read(context, node, SETTING, NIGHT)


def read_region_hours(context: ParseContext, node: Node, region: str) -> Mapping[Channel, QuietHours] | None:
    """Return the stricter quiet hours of a region. Channels and days that are not named have no stricter ones."""
    return _read(context, node, f"messaging.regions.{region}", NO_WINDOW)


def is_always_quiet(hours: Iterable[QuietHours]) -> bool:
    """Return True if no time of the week is outside all of these quiet hours, apart from holidays."""
    weeks = [item.week for item in hours]
    return not any(_is_open(weeks, day, minute) for day in range(len(DAYS)) for minute in _ends(weeks, day))


def warn_about_expiry(context: ParseContext, rules: Iterable[Rule], messaging: MessagingPolicy) -> None:
    """Report the messages that quiet hours can outlast because their rule does not say when they expire."""
    longest = {channel: _longest(hours) for channel, hours in messaging.quiet_hours.items()}
    for rule in rules:
        for step in rule.steps:
            channel = step.action.channel
            if channel is None or step.internal or step.expires is not None or not rule.enabled:
                continue
            if MESSAGE_EXPIRY < longest[channel] < timedelta(weeks=1):
                text = (
                    f"quiet hours last up to {format_duration(longest[channel])}, but messages expire after "
                    f"{format_duration(MESSAGE_EXPIRY)}: some of these are never sent"
                )
                place = context.locate(Node(step.line, 1, step.line, None, step.path), step.use)
                hint = f"write `expires: {longest[channel].days + 2}d`, or a shorter time if they should not be late"
                context.warning(place, text, hint)


def _longest(hours: QuietHours) -> timedelta:
    """Return the longest time of a week without messages, apart from holidays."""
    if hours.is_daily:
        return timedelta(0)
    longest = current = 0
    for day in (*range(len(DAYS)), *range(len(DAYS))):
        for minute in range(ONE_DAY):
            current = 0 if _is_open([hours.week], day, minute) else current + 1
            longest = max(longest, current)
    return timedelta(minutes=longest)


def _ends(weeks: Iterable[tuple[QuietWindow, ...]], day: int) -> set[int]:
    """Return the minutes of a day at which quiet hours can end."""
    ends = {week[index].end for week in weeks for index in (day - 1, day)}
    return {0} | {end % ONE_DAY for end in ends}


def _is_open(weeks: Iterable[tuple[QuietWindow, ...]], day: int, minute: int) -> bool:
    return all(
        week[day].end_after(minute) is None and week[day - 1].end_on_next_day(minute) is None
        for week in weeks
    )


def _read(
    context: ParseContext, node: Node, setting: str, usual: QuietWindow
) -> Mapping[Channel, QuietHours] | None:
    if node.entries is None or not any(name in CHANNELS for name in node.entries):
        hours = _by_day(context, node, setting, usual)
        _warn_about_nights(context, node, hours, usual)
        return dict.fromkeys(CHANNELS, hours) if hours else None
    channels = {channel: QuietHours((usual,) * len(DAYS), setting=setting) for channel in CHANNELS}
    for name, (key, value) in node.entries.items():
        if name not in CHANNELS:
            hint = did_you_mean(name, CHANNELS)
            if _days_of(name):
                hint = f"write the days under a channel: `sms: {{{name}: ...}}`"
            context.error(key, f"unknown channel `{name[:60]}`", hint)
            continue
        hours = _by_day(context, value, f"{setting}.{name}", usual)
        channels |= {channel: hours for channel in CHANNELS if channel == name and hours is not None}
        if name != "email":
            _warn_about_nights(context, value, hours, usual)
    return channels


def _warn_about_nights(
    context: ParseContext, node: Node, hours: QuietHours | None, usual: QuietWindow
) -> None:
    if hours is not None and hours.is_empty and usual != NO_WINDOW:
        text = "without quiet hours, messages are sent at night"
        context.warning(node, text, "many jurisdictions prohibit messages at night")


def _by_day(context: ParseContext, node: Node, setting: str, usual: QuietWindow) -> QuietHours | None:
    if node.entries is None:
        window = _window(context, node, usual)
        hours = QuietHours((window,) * len(DAYS), setting=setting) if window else None
    else:
        windows = _windows(context, node, usual)
        week = tuple(windows.get(day, usual) for day in DAYS)
        hours = QuietHours(week, windows.get(HOLIDAYS), setting) if windows else None
    if hours is not None and is_always_quiet([hours]):
        context.error(node, "no message could ever be sent: every hour of the week is quiet")
    return hours


def _windows(context: ParseContext, node: Node, usual: QuietWindow) -> dict[str, QuietWindow]:
    windows: dict[str, QuietWindow] = {}
    named: dict[str, str] = {}
    if not node.entries:
        context.error(node, "quiet hours are empty", _DAYS_HINT)
    for name, (key, value) in (node.entries or {}).items():
        days = _days_of(name)
        if not days:
            guess = _days_of(name.lower()) or _days_of(_short(name))
            hint = f"did you mean `{_name_of(guess)}`?" if guess else _DAYS_HINT
            channel = did_you_mean(name, CHANNELS) if not guess else ""
            context.error(key, f"no day `{name[:60]}`", channel if channel.startswith("did") else hint)
            continue
        window = _window(context, value, usual)
        for day in days:
            if day in named:
                context.error(
                    key, f"`{day}` is set twice: by `{named[day]}` and `{name}`", "name each day once"
                )
                break
            named[day] = name
            if window is not None:
                windows[day] = window
    return windows


def _days_of(name: str) -> tuple[str, ...]:
    """Return the days that a key names, in the order of the week from its first day; empty if it names none."""
    if name == HOLIDAYS:
        return (HOLIDAYS,)
    match = _DAY_RANGE.fullmatch(name)
    if match is None or match[1] not in DAYS or (match[2] or match[1]) not in DAYS:
        return ()
    first, last = DAYS.index(match[1]), DAYS.index(match[2] or match[1])
    length = (last - first) % len(DAYS) + 1
    return tuple(DAYS[(first + index) % len(DAYS)] for index in range(length))


def _name_of(days: tuple[str, ...]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]}-{days[-1]}"


def _short(name: str) -> str:
    """Return the key that probably was meant: `mon-fri` for `Monday - Friday` or `weekdays`."""
    plain = name.strip().lower()
    if plain in ("weekday", "weekdays", "workdays", "working days"):
        return "mon-fri"
    if plain in ("weekend", "weekends"):
        return "sat-sun"
    if "holiday" in plain:
        return HOLIDAYS
    return "-".join(word.strip()[:3] for word in re.split(r"-|–|\bto\b", plain))


def _window(context: ParseContext, node: Node, usual: QuietWindow) -> QuietWindow | None:
    text = node.value.strip() if isinstance(node.value, str) else None
    if text == "all day":
        return ALL_DAY
    is_general = usual != NO_WINDOW
    if text == "none":
        if is_general:
            return NO_WINDOW
        context.error(
            node, "the general quiet hours apply in every region", "remove it, or write stricter hours"
        )
        return None
    match = _WINDOW.fullmatch(text) if text else None
    if match is None:
        hint = _HINT + (", or `none` to allow messages at any time" if is_general else "")
        context.error(node, f"invalid quiet hours: {quote_value(node.value)}", _spoken(text or "") or hint)
        return None
    start, end = time(int(match[1]), int(match[2])), time(int(match[3] or 0), int(match[4] or 0))
    if start == end and match[5] is None:
        context.error(node, "quiet hours start and end at the same time", _HINT)
        return None
    window = QuietWindow.between(start, end)
    if window.start <= _OFFICE_HOURS[0] and _OFFICE_HOURS[1] <= window.end < ONE_DAY:
        context.warning(
            node,
            f"messages are sent only between {end:%H:%M} and {start:%H:%M}, because quiet hours are those without "
            "messages",
            f'did you mean `"{end:%H:%M}-{start:%H:%M}"`?',
        )
    return window


def _spoken(text: str) -> str:
    """Return a hint with the window that a text such as `8pm-8am` probably means; empty if there is none."""
    match = _SPOKEN.fullmatch(text[:60])
    if match is None:
        return ""
    start, end = _hour(*match.group(2, 3, 4)), _hour(*match.group(5, 6, 7))
    if start is None or end is None or (match[4] is None) != (match[7] is None):
        return ""
    days = _days_of(_short(match["days"])) if match["days"] else ()
    window = f'"{start:%H:%M}-{end:%H:%M}"'
    return f"write `{{{_name_of(days)}: {window}}}`" if days else f"write `{window}`"


def _hour(hour: str, minute: str | None, half: str | None) -> time | None:
    hours = int(hour) % 12 + (12 if half in ("p", "P") else 0) if half and int(hour) <= 12 else int(hour)
    return time(hours % 24, int(minute or 0)) if hours <= 24 and int(minute or 0) < 60 else None
