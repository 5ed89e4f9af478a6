"""Heppu's seven documented events as samples: the documented fields, with words of our own."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any
from uuid import uuid4

from bridge.events import EVENT_NAMES, parse_instant


@cache
def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((files(__package__) / f"{name}.json").read_text("utf-8")))


def sample(name: str) -> dict[str, Any]:
    """A fresh copy of the sample called `name`; raises KeyError when there is none."""
    if name not in EVENT_NAMES:
        raise KeyError(name)
    return copy.deepcopy(_read(name))


def stamped(body: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The same payload as if it happened at `now`, with new ids, so that the bridge takes it as a new event.

    Events older than a rule's `expires` text nobody: a sample from the past would show nothing.
    """
    old = parse_instant(body.get("timestamp"))
    fresh = uuid4().hex[:12]
    body = copy.deepcopy(body)
    body["timestamp"] = iso(now)
    body["webhookId"] = f"whd_{fresh}"
    body["conversationId"] = f"conv_{fresh}"
    chat = body.get("chatMetadata")
    if old and isinstance(chat, dict):
        for key in ("firstMessageAt", "lastMessageAt"):
            instant = parse_instant(chat.get(key))
            if instant:
                chat[key] = iso(now - max(old - instant, timedelta(0)))
    return body


def iso(instant: datetime) -> str:
    """The instant as Heppu writes it: UTC, milliseconds, `Z`."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
