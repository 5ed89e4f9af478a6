"""`cancel_on`: which later event makes a waiting delivery pointless."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from bridge.events import Event


@dataclass(frozen=True)
class EventRef:
    """As much of an accepted event as tells whether it concerns another one."""

    dedupe_key: str
    type: str
    at: datetime
    """The body's own timestamp; the receipt where there is none. Never a mix: clocks differ."""
    conversation: str
    phone: str | None = None
    email: str | None = None

    @classmethod
    def of(cls, event: Event) -> EventRef:
        """What of `event` counts."""
        return cls(
            event.dedupe_key,
            event.type,
            event.timestamp or event.received_at,
            event.conversation.id,
            event.contact.phone,
            event.contact.email,
        )

    def concerns(self, other: EventRef) -> bool:
        """Whether both are about one conversation, one phone or one e-mail address."""
        return (
            self.conversation == other.conversation
            or (self.phone is not None and self.phone == other.phone)
            or (
                self.email is not None
                and other.email is not None
                and self.email.casefold() == other.email.casefold()
            )
        )


def find_cancelling_event(
    cancel_on: Collection[str], cause: EventRef, accepted: Iterable[EventRef]
) -> EventRef | None:
    """The earliest accepted event that cancels a delivery caused by `cause`; None when there is none.

    It is named in `cancel_on`, concerns the same conversation, phone or e-mail, and its timestamp is not older
    than the cause's. Whether it was routed, and in which order the two arrived, does not matter.
    """
    found = (
        event
        for event in accepted
        if event.type in cancel_on
        and event.dedupe_key != cause.dedupe_key
        and event.at >= cause.at
        and event.concerns(cause)
    )
    return min(found, key=lambda event: event.at, default=None)
