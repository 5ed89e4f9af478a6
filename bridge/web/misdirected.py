"""Requests of Heppu to another path than that of the webhook: a mistyped URL loses events without a word otherwise."""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

from bridge.signing import SIGNATURE_HEADER

WEBHOOK: Final = "/webhooks/heppu"
"""Path that receives Heppu's events."""
_SIGNATURE: Final = SIGNATURE_HEADER.encode()
_CALLBACK_SEGMENTS: Final = 3
"""Segments in the path of a provider's callback: `/webhooks/<connection>/<callback>`."""


def is_webhook(path: str) -> bool:
    """Return whether a path is that of the webhook, with further slashes before or after it."""
    return path.startswith("/") and path.strip("/") == WEBHOOK[1:]


def is_misdirected(scope: Scope) -> bool:
    """Return whether a request to another path has Heppu's signature header, unless it is a callback of a provider."""
    if scope["method"] != "POST" or not any(name == _SIGNATURE for name, _ in scope["headers"]):
        return False
    segments = scope["path"].strip("/").split("/")
    is_callback = (
        len(segments) == _CALLBACK_SEGMENTS and segments[0] == "webhooks" and segments[1] not in ("", "heppu")
    )
    return not is_callback


def describe_wrong_path(path: str) -> str:
    """Say to which path a request was sent, and which one is right."""
    shown = "".join(char if char.isprintable() else "?" for char in path[:100])
    return f"sent to {shown} instead of {WEBHOOK}: correct the URL of the webhook at Heppu"
