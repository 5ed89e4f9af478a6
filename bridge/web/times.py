"""Times on pages: relative if they are near, else absolute in the reader's time zone, always with the time in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from bridge.clock import format_timestamp


@pass_context
def time_filter(context: Context, value: datetime | None) -> Markup:
    """Return a `<time>`, relative if it is at most a day away: for lists. Nothing for None."""
    frame = context["frame"]
    return _element(value, frame.zone, relative_time(value, frame.now, frame.zone) if value else "")


@pass_context
def exact_time_filter(context: Context, value: datetime | None) -> Markup:
    """Return a `<time>` with date, seconds and zone in the reader's zone: for details. Nothing for None."""
    zone = context["frame"].zone
    return _element(value, zone, exact_time(value, zone) if value else "")


def exact_time(value: datetime, zone: tzinfo) -> str:
    """Return a time to the second with its zone: `2026-11-28 06:02:17 CET`."""
    return f"{value.astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


def relative_time(value: datetime, now: datetime, zone: tzinfo = UTC) -> str:
    """Return a time relative to now, such as `5 min ago` or `in 2 h`; the local date if it is more than a day away."""
    seconds = (now - value).total_seconds()
    distance = abs(seconds)
    if distance >= 86_400:
        local = value.astimezone(zone)
        is_this_year = local.year == now.astimezone(zone).year
        return f"{local:%d %b %H:%M}" if is_this_year else f"{local:%d %b %Y}"
    if distance < 1:
        return "now"
    size, unit = next(pair for pair in ((3600, "h"), (60, "min"), (1, "s")) if distance >= pair[0])
    duration = f"{int(distance // size)} {unit}"
    return f"{duration} ago" if seconds > 0 else f"in {duration}"


def short_time(value: datetime, now: datetime, zone: tzinfo) -> str:
    """Return a time to the minute, with the date unless it is today: `14:02`, `27 Nov 14:02`."""
    local = value.astimezone(zone)
    return f"{local:%H:%M}" if local.date() == now.astimezone(zone).date() else f"{local:%d %b %H:%M}"


def _element(value: datetime | None, zone: tzinfo, text: str) -> Markup:
    if value is None:
        return Markup("")
    title = exact_time(value, zone) if zone is not UTC else f"{format_timestamp(value)} UTC"
    if zone is not UTC:
        title += f" ({format_timestamp(value)} UTC)"
    instant = value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(instant, title, text)
