"""Effects: what happens when two deliveries want to bring about the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

_FINAL_CHAT: Final = frozenset({"chat.resolved", "chat.abandoned"})


def event_precedence(event: str) -> int:
    """How final an event's word on its conversation is: `chat.resolved` and `chat.abandoned` beat `chat.completed`."""
    return 1 if event in _FINAL_CHAT else 0


@dataclass(frozen=True)
class Held:
    """Who holds an effect key. A proven failure frees it, so a free key has no Held."""

    holder: str
    """The delivery that holds it."""
    done: bool
    """It took effect; False: it is reserved, and the outcome is not known yet."""
    precedence: int
    """`rank_of` the event that it tells."""
    at: datetime
    """The timestamp of that event."""

    def is_newer_than(self, precedence: int, at: datetime) -> bool:
        """Whether what is held must not be overwritten by an event of this rank and timestamp."""
        return (self.precedence, self.at) > (precedence, at)
