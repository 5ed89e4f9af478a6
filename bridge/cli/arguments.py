"""Reading what people type: instants, durations and ids. What cannot be read is wrong usage, exit code 2."""

from __future__ import annotations

from datetime import datetime, timedelta

import typer

from bridge.clock import Clock

KINDS = {"evt": "events", "dlv": "deliveries", "rej": "rejected", "aud": "audit"}
"""What an id's first word names: the command that lists them."""


def instant_of(text: str | None, option: str) -> datetime | None:
    """`2h` ago, or an ISO instant."""
    from bridge.events import parse_instant
    from bridge.settings import parse_duration

    if text is None:
        return None
    found = parse_instant(text)
    if found is not None:
        return found
    try:
        return Clock().now() - parse_duration(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"`{text}` is neither a duration like 2h or 7d nor an instant like 2026-03-02T21:30:00Z",
            param_hint=option,
        ) from None


def duration_of(text: str, option: str) -> timedelta:
    """`90s`, `16h`, `7d`: one that reaches back to a year that there was."""
    from bridge.settings import parse_duration

    try:
        found = parse_duration(text)
        Clock().now() - found
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
    except OverflowError:
        raise typer.BadParameter(f"`{text}` is longer than there were years", param_hint=option) from None
    return found


def check_cursor(text: str | None, kind: str) -> None:
    """Let `--cursor` name only an id of the kind that is listed: any other text would hide rows or show all."""
    if text is not None and not _is_id(text, kind):
        raise typer.BadParameter(
            f"`{text}` is not a valid cursor: expected an ID that starts with {kind}_, taken from `next_cursor`, "
            f"or leave it out for the newest of `bridge {KINDS[kind]}`",
            param_hint="--cursor",
        )


def kind_of(ident: str) -> str:
    """What an id names: evt, dlv or rej."""
    kind = ident.partition("_")[0]
    if kind not in ("evt", "dlv", "rej") or not _is_id(ident, kind):
        raise typer.BadParameter(
            f"`{ident}` is no id: ids begin with evt_ (events), dlv_ (deliveries) or rej_ (rejected requests)"
        )
    return kind


def _is_id(text: str, kind: str) -> bool:
    return text.startswith(f"{kind}_") and text[len(kind) + 1 :].isalnum()
