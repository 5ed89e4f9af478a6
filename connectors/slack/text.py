"""The text of a message: what in it is markup, its links, and its length."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bridge.connector import RecordLink

MAX_TEXT_LENGTH = 40_000
"""Characters. Slack silently truncates longer messages; the connector truncates them with a visible ellipsis."""

_MARKUP = re.compile(r"<(?:https?://|mailto:|tel:|[!@#])[^<>\s][^<>]*>")
"""A link or a mention. Values of events are escaped and contain no angle brackets: only a rule's own text has any."""


def mrkdwn(text: str, links: Sequence[RecordLink] = ()) -> str:
    """Return the text with only links and mentions as markup, truncated, and with a last line of `links`."""
    parts, end = [], 0
    for markup in _MARKUP.finditer(text):
        parts += [_escape(text[end : markup.start()]), markup[0]]
        end = markup.end()
    escaped = "".join([*parts, _escape(text[end:])])
    last_line = "\n" + " · ".join(map(_link, links)) if links else ""
    return _truncate(escaped, MAX_TEXT_LENGTH - len(last_line)) + last_line


def _truncate(escaped: str, length: int) -> str:
    if len(escaped) <= length:
        return escaped
    return re.sub(r"(?:&[a-z]*|<[^<>]*)$", "", escaped[: length - 1]) + "…"


def _escape(text: str) -> str:
    """Escape the characters that are markup to Slack, unless they are escaped already, as values of events are."""
    text = re.sub(r"&(?!(?:amp|lt|gt);)", "&amp;", text)
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _link(link: RecordLink) -> str:
    url = re.sub(r"[<>|]", lambda match: f"%{ord(match[0]):02X}", link.url)
    return f"<{url}|{_escape(link.label)}>"
