"""Retired words of rules.yaml: an old key, state or reason is an error that names the new one."""

from __future__ import annotations

from collections.abc import Mapping

KEYS: Mapping[str, str] = {
    "require": "consent",  # messaging
    "key": "idempotency_key",  # a step
    "ambiguous": "on_multiple",  # params of the CRM actions
    "several": "on_multiple",
    "unknown": "on_missing",
}
"""Retired key -> its new name. It applies only where the new name is a valid key."""

STATES: Mapping[str, str] = {
    "sent": "succeeded",
    "dead": "failed",
    "review": "needs_review",
    "sending": "running",
}
"""Retired delivery state -> its new name."""

REASONS: Mapping[str, str] = {
    "capped": "frequency_capped",
    "once": "cooldown",
    "already_done": "duplicate",
    "credentials": "auth",
    "server": "server_error",
    "render": "render_error",
    "bug": "internal_error",
}
"""Retired reason of a suppressed delivery or a failed attempt -> its new name."""


def renamed(old: str, new: str) -> str:
    """Return the error message for a retired word."""
    return f"`{old}` was renamed: write `{new}`"
