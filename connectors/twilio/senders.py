"""What the check says about a sender."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Sender:
    """What the account knows of a sender: why it cannot be used and what to do, or notes for the operator."""

    problem: str = ""
    hint: str = ""
    notes: list[str] = field(default_factory=list)


def replies_note(url: str | None) -> list[str]:
    """Return the warning that replies do not reach the bridge. A new number sends them to a demo page of Twilio."""
    parts = urlsplit(url or "")
    if re.search(r"/webhooks/[^/]+/inbound$", parts.path):
        return []
    where = f"go to {parts.hostname}, not to the bridge" if parts.hostname else "are not forwarded"
    advice = "set the webhook for incoming messages to BRIDGE_PUBLIC_URL/webhooks/twilio/inbound"
    return [f"but replies {where}: {advice}, so that STOP works at once and the team sees every answer"]
