"""Total caps: counts the messages of a connection over all recipients, for `messaging.caps.total`.

A cap per recipient does not stop a rule that texts everybody, or a stranger who makes the bridge text numbers that cost
money. The counts live in the row of the connection, which every claim locks, so workers cannot exceed the cap together.
They are kept per period, a sixtieth of the cap's window. A period counts until all of it has left the window, so no
window contains more messages than the cap allows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from bridge.connector.callbacks import Channel
from bridge.rules.model import Cap

_PERIODS = 60


@dataclass
class MessageCounts:
    """The messages of one connection that were sent, or may have been, by channel and start of the period."""

    by_channel: dict[str, dict[int, int]] = field(default_factory=dict)
    """Channel -> start in seconds since 1970 -> messages."""

    @classmethod
    def from_json(cls, text: str | None) -> Self:
        """Read the form in which the store saves them; None: no messages."""
        stored = json.loads(text) if text else {}
        return cls(
            {
                channel: {int(start): count for start, count in counts.items()}
                for channel, counts in stored.items()
            }
        )

    def to_json(self) -> str:
        """Return the form in which the store saves them."""
        return json.dumps(self.by_channel, separators=(",", ":"))

    def within(self, channel: Channel, cap: Cap, now: datetime) -> int:
        """Return the number of messages that count toward the cap at `now`."""
        since = (now - cap.per).timestamp() - _period(cap)
        return sum(count for start, count in self.by_channel.get(channel, {}).items() if start > since)

    def totals(self, caps: Mapping[Channel, Cap], now: datetime) -> dict[Channel, int]:
        """Return the number of messages that count toward each of the caps at `now`."""
        return {channel: self.within(channel, cap, now) for channel, cap in caps.items()}

    def add(self, channel: Channel, cap: Cap, now: datetime) -> None:
        """Count a message that is sent at `now`, and forget those that no longer count."""
        since = (now - cap.per).timestamp() - _period(cap)
        counts = {start: count for start, count in self.by_channel.get(channel, {}).items() if start > since}
        seconds = int(now.timestamp())
        start = seconds - seconds % _period(cap)
        self.by_channel[channel] = counts | {start: counts.get(start, 0) + 1}

    def remove(self, channel: Channel, sent_at: datetime) -> None:
        """Take back a message that was counted at `sent_at` and certainly was not sent."""
        counts = self.by_channel.get(channel, {})
        start = max((start for start in counts if start <= sent_at.timestamp()), default=None)
        if start is not None and counts[start]:
            counts[start] -= 1


def _period(cap: Cap) -> int:
    """Return the length of a period, in seconds."""
    return max(1, int(cap.per / timedelta(seconds=_PERIODS)))
