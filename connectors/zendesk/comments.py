"""Comments of a ticket: the text for the agents, and the voice comment with the recording of a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from bridge.connector import Context, PhoneCallParams, param, shorten, text_with_details

MAX_COMMENT_LENGTH = 60_000
"""Zendesk accepts 65,535 characters, and may count bytes of some."""
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
    voice = _voice_comment(params, context)
    recording = params.recording_url if voice is None else None
    body = text_with_details(text, {**details, "Recording": recording}, MAX_COMMENT_LENGTH, separator="\n\n")
    notes = []
    if (text or "").strip() not in body:
        notes.append("the text was shortened")
    if params.transcript and voice is None:
        whole = f"{body}\n\n{_TRANSCRIPT_HEADING}\n{params.transcript.strip()}".strip()
        body = shorten(whole, MAX_COMMENT_LENGTH)
        if len(whole) > MAX_COMMENT_LENGTH:
            notes.append("the transcript was shortened")
    if voice is not None and len(params.transcript or "") > MAX_COMMENT_LENGTH:
        notes.append("the transcript was shortened")
    return Comment(body, voice, tuple(notes))


def _voice_comment(params: CommentParams, context: Context) -> dict[str, Any] | None:
    caller, callee = params.caller_and_callee(context)
    recording = params.recording_url or ""
    if not (caller and callee and _PLAYABLE.fullmatch(recording)):
        return None
    voice = {
        "from": caller,
        "to": callee,
        "recording_url": recording,
        "started_at": params.start(context).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "call_duration": round(params.duration_seconds() or 0),
        "public": params.public,
    }
    if params.transcript:
        voice["transcription_text"] = shorten(params.transcript.strip(), MAX_COMMENT_LENGTH)
    return voice
