"""Notes of activities: HTML, with a reference by which a lookup recognizes the activity of a delivery."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

MAX_NOTE_BYTES = 60_000
"""UTF-8 bytes of a note. Pipedrive documents no limit; a text column of its kind holds 65,535."""
_MIN_LENGTH = 200
_REFERENCE = re.compile(r"Reference: ([0-9a-f]{32})")


def to_note(
    build: Callable[[int], str], transcript: str, recording: str | None, token: str
) -> tuple[str, bool]:
    """Return a note as HTML, and whether the whole transcript is in it.

    `build` makes the text for a maximum length. A summary that is too long is shortened, then the transcript.
    """
    ending = f"\nReference: {token}"
    size = MAX_NOTE_BYTES
    text = build(size)
    while (length := _length(text + ending)) > MAX_NOTE_BYTES and size > _MIN_LENGTH:
        size = max(_MIN_LENGTH, size * (MAX_NOTE_BYTES - 100) // length)
        text = build(size)
    heading = "\n\nTranscript:\n"
    room = MAX_NOTE_BYTES - _length(text + heading + ending)
    kept = _fitting(transcript, room) if transcript else ""
    body = _to_html(f"{text}{heading}{kept}" if kept else text) + _to_html(ending)
    if recording and recording.startswith(("https://", "http://")):
        address = html.escape(recording)
        body = body.replace(f"Recording: {address}", f'Recording: <a href="{address}">{address}</a>', 1)
    return body, kept == transcript


def reference_in(note: object) -> str | None:
    """Return the reference at the end of a note. A text above it may contain that of another delivery."""
    found = _REFERENCE.findall(note) if isinstance(note, str) else []
    return found[-1] if found else None


def _fitting(text: str, room: int) -> str:
    """Return as much of a text as fits, with an ellipsis if it was cut."""
    if _length(text) <= room:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _length(text[:middle]) <= room - 3 else (low, middle - 1)
    return f"{text[:low].rstrip()}…" if low else ""


def _to_html(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


def _length(text: str) -> int:
    return len(_to_html(text).encode())
