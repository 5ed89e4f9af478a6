"""What an operator's action would do, before it is confirmed: how many messages and records, and what is held back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.connector.callbacks import Channel
from bridge.lifecycle import SuppressReason
from bridge.policy.opt_outs import NOUNS

ALWAYS_NAMED: Final[tuple[Channel, ...]] = ("sms", "email")
"""Kinds of messages whose number is stated even if it is 0, so that nobody wonders."""
_REASONS: Final = {SuppressReason.COOLDOWN.value: "once"}
"""Reason -> the key of the rule that causes it, where people know that better."""


@dataclass(frozen=True)
class Effects:
    """The deliveries that a command would carry out, and those that it would not."""

    sent: Mapping[str, int] = field(default_factory=dict)
    """Channel of the messages, or full name of another action -> number."""
    held_back: Mapping[str, int] = field(default_factory=dict)
    """State or reason -> number of deliveries that would not be carried out."""
    events: int = 0
    """For a replay: the events that lead to any delivery."""
    later: int = 0
    """Those of `sent` that wait for a delay or for quiet hours to end."""
    people: int = 0
    """For a replay: the recipients of the messages, each once."""
    again: int = 0
    """Those of `people` who have got such a message before, and get it once more with `force`."""

    @property
    def messages(self) -> int:
        """The number of messages to recipients."""
        return sum(count for kind, count in self.sent.items() if kind in NOUNS)

    @property
    def text(self) -> str:
        """One sentence: `7 text messages, 0 emails, 3 hubspot.log_call; 1 expired, 2 suppressed (once)`."""
        kinds = [*ALWAYS_NAMED, *sorted(set(self.sent) - set(ALWAYS_NAMED), key=_messages_first)]
        parts = [_counted(self.sent.get(kind, 0), kind) for kind in kinds]
        later = f" ({self.later:,} of them later)" if self.later else ""
        held_back = [_held_back(reason, count) for reason, count in sorted(self.held_back.items())]
        return ", ".join(parts) + later + (f"; {', '.join(held_back)}" if held_back else "")

    def to_json(self) -> dict[str, Any]:
        """Return the effects as plain data."""
        return {
            "messages": {kind: count for kind, count in self.sent.items() if kind in NOUNS},
            "actions": {kind: count for kind, count in self.sent.items() if kind not in NOUNS},
            "later": self.later,
            "held_back": dict(self.held_back),
        }


def count_people(number: int) -> str:
    """Return a number of people in words: `1 person`, `2,000 people`."""
    return "1 person" if number == 1 else f"{number:,} people"


def _messages_first(kind: str) -> tuple[bool, str]:
    return kind not in NOUNS, kind


def _counted(count: int, kind: str) -> str:
    noun = {str(channel): noun for channel, noun in NOUNS.items()}.get(kind)
    return f"{count:,} {noun}{'' if count == 1 else 's'}" if noun else f"{count:,} {kind}"


def _held_back(reason: str, count: int) -> str:
    if reason in ("expired", "cancelled"):
        return f"{count:,} {reason}"
    if reason == "render_error":
        return f"{count:,} cannot be rendered"
    return f"{count:,} suppressed ({_REASONS.get(reason, reason)})"
