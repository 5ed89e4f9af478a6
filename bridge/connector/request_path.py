"""Paths of requests: fills IDs into them, so that no ID can lead a request to another endpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from bridge.errors import PermanentError

MAX_ID_LENGTH = 500
"""Characters of an ID in a path."""
_TEMPLATE = re.compile(r"(?:/(?!\.{1,2}(?:/|$))(?:[A-Za-z0-9_.~!$&'()*+,;=:@-]|\{\})+)*/?")
"""A path as connectors write it. A `{}` stands for an ID."""


def fill_path(path: str, ids: Sequence[str | int | None]) -> str:
    """Return the path with each `{}` replaced by an ID, percent-encoded.

    Raise PermanentError for an ID that is empty, too long, or a way to another endpoint: `../users/1`. An encoded slash
    is not safe either, because many servers decode the path before they look at it.
    """
    if not _TEMPLATE.fullmatch(path):
        raise PermanentError(
            "nothing was sent, because the path of the request is not valid: a connector passes IDs as arguments, "
            'as in read("/tickets/{}", ticket_id)',
            code="path",
        )
    if path.count("{}") != len(ids):
        raise TypeError(f"{path} has {path.count('{}')} placeholders for {len(ids)} IDs")
    parts = path.split("{}")
    return parts[0] + "".join(
        quote_id(value, path) + part for value, part in zip(ids, parts[1:], strict=True)
    )


def quote_id(value: str | int | None, path: str) -> str:
    """Return an ID, percent-encoded for a path that is not JsonApi's. `path` names the request in the message.

    Raise PermanentError for the same IDs as `fill_path`.
    """
    text = "" if value is None else str(value)
    problem = _problem_of(text)
    if problem:
        raise PermanentError(
            f"nothing was sent, because an ID in {path} {problem}: check the param or the field of the event that it "
            "comes from",
            code="id",
        )
    return quote(text, safe="")


def _problem_of(text: str) -> str:
    if not text.strip():
        return "is empty"
    if len(text) > MAX_ID_LENGTH:
        return f"has more than {MAX_ID_LENGTH} characters"
    if "/" in text or "\\" in text or text in (".", ".."):
        return "is a path, not an ID"
    if not text.isprintable():
        return "has characters that no ID has"
    return ""
