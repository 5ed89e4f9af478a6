"""Arguments: help that commands share, and parsing of timestamps, durations and IDs.

An invalid value is wrong usage, exit code 2.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import typer

from bridge.clock import Clock

EVENT_HELP = "Sample name (call.busy), ID of a stored event (evt_...), path of a file, or - for stdin."
SET_HELP = "Field to change first, such as metadata.contactPhone=+14155550123. Repeatable."
"""Help of the EVENT argument and of --set. They are here, because `bridge.cli.event_input` loads the events."""

LISTING_COMMANDS = {
    "evt": "events",
    "dlv": "deliveries",
    "rej": "rejected",
    "aud": "audit",
    "opt": "opt-outs",
    "dup": "contacts duplicates",
}
"""The prefix of an ID -> the command that lists such IDs."""


def parse_time_option(text: str | None, option: str) -> datetime | None:
    """Return the time given as a duration before now (`2h`), an ISO 8601 timestamp, or a day in UTC.

    A day is a date, `today` or `yesterday`: its start, or its end for `--until`.
    """
    from bridge.clock import parse_timestamp
    from bridge.setting_types import parse_duration

    if text is None:
        return None
    start_of_day = _start_of_day(text)
    if start_of_day is not None:
        return start_of_day + timedelta(days=1) if option == "--until" else start_of_day
    timestamp = parse_timestamp(text)
    if timestamp is not None:
        return timestamp
    try:
        return Clock().now() - parse_duration(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"`{text}` is neither a duration like 2h or 7d nor a day (yesterday, 2026-03-02) nor a timestamp "
            "like 2026-03-02T21:30:00Z",
            param_hint=option,
        ) from None


def _start_of_day(text: str) -> datetime | None:
    """Return the start of a day in UTC, the zone of every list; None if the text is none."""
    today = Clock().now().date()
    days = {"today": today, "yesterday": today - timedelta(days=1)}
    try:
        day = days.get(text.strip().lower()) or date.fromisoformat(text.strip())
        return datetime.combine(day, time(), UTC) if day < date.max else None
    except ValueError:
        return None


def parse_duration_option(text: str, option: str) -> timedelta:
    """Return the duration (`90s`, `16h`, `7d`). Reject one that reaches back before year 1."""
    from bridge.setting_types import parse_duration

    try:
        duration = parse_duration(text)
        Clock().now() - duration
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    except OverflowError:
        raise typer.BadParameter(f"duration out of range: `{text}`", param_hint=option) from None
    return duration


def check_cursor(cursor: str | None, prefix: str) -> None:
    """Reject a `--cursor` that is not an ID with this prefix; any other string would hide rows or show all."""
    if cursor is not None and not _is_id(cursor, prefix):
        raise typer.BadParameter(
            f"invalid cursor `{cursor}`: expected an ID that starts with {prefix}_, taken from `next_cursor`; "
            f"without a cursor, `bridge {LISTING_COMMANDS[prefix]}` shows the first page",
            param_hint="--cursor",
        )


def id_prefix(record_id: str) -> str:
    """Return the prefix of an ID, which names its table: evt, dlv or rej."""
    prefix = record_id.partition("_")[0]
    if prefix not in ("evt", "dlv", "rej") or not _is_id(record_id, prefix):
        raise typer.BadParameter(
            f"invalid ID `{record_id}`: IDs start with evt_ (events), dlv_ (deliveries) or rej_ (rejected requests)"
        )
    return prefix


def _is_id(text: str, prefix: str) -> bool:
    return text.startswith(f"{prefix}_") and text[len(prefix) + 1 :].isalnum()
