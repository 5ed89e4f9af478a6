"""Idempotency records: decide between deliveries that have the same idempotency key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bridge.connector.callbacks import Channel
from bridge.policy.opt_outs import NOUNS

_FINAL_CHAT: Final = frozenset({"chat.resolved", "chat.abandoned"})


def event_precedence(event_type: str) -> int:
    """Return how final an event type is for its conversation.

    `chat.resolved` and `chat.abandoned` take precedence over `chat.completed`.
    """
    return 1 if event_type in _FINAL_CHAT else 0


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The delivery that reserved or completed an idempotency key.

    A confirmed failure releases the key, so an unused key has no record.
    """

    delivery_id: str
    completed: bool
    """True once the action took effect. False while the key is only reserved and the outcome is unknown."""
    precedence: int
    """`event_precedence` of the event that the delivery is about."""
    occurred_at: datetime
    """The timestamp of that event."""

    def is_newer_than(self, precedence: int, occurred_at: datetime) -> bool:
        """Return True if an event of this precedence and timestamp must not overwrite the existing record."""
        return (self.precedence, self.occurred_at) > (precedence, occurred_at)


def describe_duplicate(rule: str, action: str, channel: Channel | None) -> str:
    """Say why a delivery is a duplicate: the rule that sends the message, or does the action, already."""
    if channel is None:
        return f"rule `{rule}` already does `{action}` for this event"
    noun = NOUNS[channel]
    article = "an" if noun[0] in "aeiou" else "a"
    return f"rule `{rule}` already sends this person {article} {noun} for this event"
