"""Comments of a ticket: the text for the agents, and the voice comment with the recording of a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from bridge.connector import Context, PhoneCallParams, param, text_with_details

MAX_COMMENT_BYTES = 64_000
"""Zendesk stores a comment in 64 KB."""
_MAX_DETAILS_LENGTH = 4_000
ELLIPSIS = "…"
_PLACEHOLDER = re.compile(r"\{(?=[{%])")
_PLAYABLE = re.compile(r"https?://\S+")
_TRANSCRIPT_HEADING = "Transcript:"


class CommentParams(PhoneCallParams):
    """What happened in a conversation, for a comment."""

    transcript: str | None = param(
        None,
        "Transcript of the conversation. Default: none; Heppu's is `{{ details.transcript }}`.",
        example="Agent: Good morning.",
    )
    public: bool = param(
        False,
        "Whether the requester sees the comment, and Zendesk's triggers email it to them. Default: internal.",
        example=True,
    )


@dataclass(frozen=True)
class Comment:
    """The comment of one delivery, and the voice comment that follows it."""

    text: str
    voice: Mapping[str, Any] | None
    notes: tuple[str, ...] = ()
    """What was left out, for the result's detail."""


def build_comment(
    params: CommentParams, context: Context, text: str | None, details: Mapping[str, object]
) -> Comment:
    """Return the comment with `text` and labeled details. The transcript follows, unless a voice comment has it.

    A voice comment needs a recording and both numbers: without a recording, Zendesk shows an empty player.
    """
    transcript = without_placeholders((params.transcript or "").strip())
    voice = _voice_comment(params, context)
    labeled = without_placeholders(
        text_with_details(
            "", {**details, "Recording": None if voice else params.recording_url}, _MAX_DETAILS_LENGTH
        )
    )
    stripped = without_placeholders((text or "").strip())
    shown = fit(stripped, MAX_COMMENT_BYTES - len(labeled.encode()))
    body = "\n\n".join(part for part in (shown, labeled) if part)
    if voice is not None:
        spoken = fit(transcript, MAX_COMMENT_BYTES)
        voice |= {"transcription_text": spoken} if spoken else {}
    else:
        heading = f"{body}\n\n{_TRANSCRIPT_HEADING}\n".lstrip()
        spoken = fit(transcript, MAX_COMMENT_BYTES - len(heading.encode()))
        body = f"{heading}{spoken}" if spoken else body
    cut = {"text": shown != stripped, "transcript": spoken != transcript}
    return Comment(body, voice, tuple(f"the {name} was shortened" for name, is_cut in cut.items() if is_cut))


def without_placeholders(text: str) -> str:
    """Return a text in which `{{ticket.comments}}` stays a text.

    Zendesk replaces placeholders in what an agent writes, so those of a visitor would show the ticket's internal data.
    """
    return _PLACEHOLDER.sub("{ ", text)


def fit(text: str, max_bytes: int) -> str:
    """Return a text in at most `max_bytes` of UTF-8. A longer one is cut and ends in `…`; empty without any room."""
    encoded = text.encode()
    if len(encoded) <= max_bytes:
        return text
    room = max_bytes - len(ELLIPSIS.encode())
    return encoded[:room].decode(errors="ignore") + ELLIPSIS if room > 0 else ""


def _voice_comment(params: CommentParams, context: Context) -> dict[str, Any] | None:
    caller, callee = params.caller_and_callee(context)
    recording = params.recording_url or ""
    if not (caller and callee and _PLAYABLE.fullmatch(recording)):
        return None
    return {
        "from": caller,
        "to": callee,
        "recording_url": recording,
        "started_at": params.start(context).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "call_duration": round(params.duration_seconds() or 0),
        "public": params.public,
    }
