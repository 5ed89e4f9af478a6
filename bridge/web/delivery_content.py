"""What a delivery says, as the person who gets it sees it: a text, an email, a message to the team, or CRM fields."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from bridge.connector import segments
from bridge.store.schema import ERASED

_TAG: Final = re.compile(r"<(style|script|head)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_BREAK: Final = re.compile(r"<(?:br|/p|/div|/li|/tr|/h[1-6])\b[^>]*>", re.IGNORECASE)
_ESCAPES: Final = re.compile(r"\\([\\`*_~{}\[\]()<>&|#.=+-])|\u200b")
"""What keeps a value of an event from being markup in a message to the team."""
_MAX_DEPTH: Final = 3


@dataclass(frozen=True)
class Content:
    """The content of a delivery."""

    kind: Literal["text", "email", "post", "fields", "erased"]
    text: str = ""
    subject: str = ""
    to: str = ""
    """The recipients of a message, in full."""
    size: str = ""
    """Size of a text message: `52 characters, 1 segment`."""
    fields: Sequence[tuple[str, str]] = ()
    """The other params by name: fields of a record, or options of a message."""


def content_of(delivery: Mapping[str, Any]) -> Content:
    """Return what a delivery (with its parsed `params` and `options`) says."""
    if delivery["params"] == json.loads(ERASED):
        return Content("erased")
    params = {**delivery["params"], **delivery["options"].get("late", {})}
    to = params.pop("to", None) or delivery["recipient"] or ""
    to = ", ".join(to) if isinstance(to, list | tuple) else str(to)
    if delivery["channel"] in ("sms", "whatsapp") and isinstance(params.get("body"), str):
        text = params.pop("body")
        size = f"{len(text):,} characters, {segments(text)}" if delivery["channel"] == "sms" else ""
        return Content("text", text, to=to, size=size, fields=_fields(params))
    if delivery["channel"] == "email" and isinstance(params.get("subject"), str):
        subject, page = params.pop("subject"), params.pop("html", None)
        text = params.pop("text", None) or plain_text(page or "")
        return Content("email", text, subject, to, fields=_fields(params))
    if isinstance(params.get("text"), str) and delivery["action"].endswith((".post", ".notify")):
        return Content("post", _as_read(params.pop("text")), to=to, fields=_fields(params))
    return Content("fields", to=to, fields=_fields(params))


def plain_text(page: str) -> str:
    """Return the text of an HTML message."""
    text = html.unescape(_TAG.sub("", _BREAK.sub("\n", page)))
    return re.sub(r"\n\s*\n\s*", "\n\n", text).strip()


def _as_read(text: str) -> str:
    """Return a message to the team without the escapes of its values: `Smith & Sons` instead of `Smith &amp; Sons`."""
    return _ESCAPES.sub(lambda found: found[1] or "", html.unescape(text))


def _fields(params: Mapping[str, Any], prefix: str = "", depth: int = 0) -> list[tuple[str, str]]:
    return list(_each_field(params, prefix, depth))


def _each_field(params: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    for name, value in params.items():
        if value in (None, "", [], {}):
            continue
        if isinstance(value, Mapping) and set(value) <= {"value", "mode"}:  # a property of a CRM
            value = value.get("value")
        if isinstance(value, Mapping) and depth < _MAX_DEPTH:
            inner = prefix if name == "properties" else f"{prefix}{name}."
            yield from _each_field(value, inner, depth + 1)
        elif value is not None:
            yield (
                f"{prefix}{name}",
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
            )
