"""Text of a logged call or chat: summary, details, time of day and transcript."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from bridge.connector import ContactRef, Context, split_text

from .org import Org
from .task_records import MAX_LENGTH, local_time, zone_of


class Conversation(Protocol):
    """The params of a call or chat."""

    @property
    def transcript(self) -> str | None:
        """The transcript, if the rule asks for it."""
        ...

    def start(self, context: Context) -> datetime:
        """Return when it began."""
        ...

    def body_text(self, context: Context, contact: ContactRef | None, max_length: int) -> str:
        """Return summary and details."""
        ...


def description(
    org: Org, params: Conversation, context: Context, contact: ContactRef | None
) -> tuple[str, Sequence[str]]:
    """Return the Description of a Task, and the parts of a transcript that it has no room for.

    A Task has a date but no time of day, so the Description says it, with the time zone that the date is in.
    """
    limit = MAX_LENGTH["Description"]
    time = (
        f"\nTime: {local_time(org, context, params.start(context)):%Y-%m-%d %H:%M} ({zone_of(org, context)})"
    )
    transcript = (params.transcript or "").strip()
    text = params.body_text(context, contact, limit - len(time)) + time
    if not transcript:
        return text, ()
    whole = f"{text}\n\nTranscript:\n{transcript}"
    if len(whole) <= limit:
        return whole, ()
    parts = split_text(transcript, limit)
    note = f"{time}\nTranscript: in {len(parts)} further Task{'s' if len(parts) > 1 else ''}"
    return params.body_text(context, contact, limit - len(note)) + note, parts
