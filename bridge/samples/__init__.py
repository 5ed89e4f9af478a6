"""Samples of every event type: its documented fields with fictional values."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any
from uuid import uuid4

from bridge.clock import parse_timestamp
from bridge.events import EVENT_TYPES


@cache
def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((files(__package__) / f"{name}.json").read_text("utf-8")))


def sample(name: str) -> dict[str, Any]:
    """Return a new copy of the sample for an event type. Raise KeyError if there is none."""
    if name not in EVENT_TYPES:
        raise KeyError(name)
    return copy.deepcopy(_read(name))


def refresh_sample(body: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return the payload with the time `now` and new IDs, so that the bridge accepts it as a new event.

    With its original time, the `expires` of a rule would suppress every message.
    """
    original = parse_timestamp(body.get("timestamp"))
    suffix = uuid4().hex[:12]
    body = copy.deepcopy(body)
    body["timestamp"] = iso(now)
    body["webhookId"] = f"whd_{suffix}"
    body["conversationId"] = f"conv_{suffix}"
    if "messageId" in body:
        body["messageId"] = f"SM{uuid4().hex}"
    chat = body.get("chatMetadata")
    if original and isinstance(chat, dict):
        for key in ("firstMessageAt", "lastMessageAt"):
            timestamp = parse_timestamp(chat.get(key))
            if timestamp:
                chat[key] = iso(now - max(original - timestamp, timedelta(0)))
    return body


def iso(timestamp: datetime) -> str:
    """Return the timestamp in Heppu's format: UTC, milliseconds, `Z`."""
    return timestamp.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
