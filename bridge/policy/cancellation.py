"""`cancel_on`: finds the later event that cancels a waiting delivery."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from bridge.contacts.address import address_key
from bridge.events import Event


@dataclass(frozen=True, slots=True)
class EventRef:
    """The fields of an accepted event that decide whether it concerns another event."""

    dedupe_key: str
    type: str
    occurred_at: datetime
    """The timestamp in the body, or the time of arrival if the body has none. Never mixed: clocks differ."""
    conversation_id: str
    phone: str | None = None
    email: str | None = None

    @classmethod
    def of(cls, event: Event) -> EventRef:
        """Build the reference to `event`."""
        return cls(
            event.dedupe_key,
            event.type,
            event.timestamp or event.received_at,
            event.conversation.id,
            event.contact.phone,
            event.contact.email,
        )

    def concerns(self, other: EventRef) -> bool:
        """Return True if both events share a conversation, a phone number or an email address."""
        return (
            self.conversation_id == other.conversation_id
            or (self.phone is not None and self.phone == other.phone)
            or (
                self.email is not None
                and other.email is not None
                and address_key(self.email) == address_key(other.email)
            )
        )


def find_cancelling_event(
    cancel_on: Collection[str], trigger: EventRef, accepted: Iterable[EventRef]
) -> EventRef | None:
    """Return the earliest accepted event that cancels a delivery triggered by `trigger`, or None.

    Such an event has a type listed in `cancel_on`, shares the conversation, phone number or email address, and is not
    older than the trigger by its timestamp. Routing and the order of arrival do not matter.
    """
    cancelling = (
        event
        for event in accepted
        if event.type in cancel_on
        and event.dedupe_key != trigger.dedupe_key
        and event.occurred_at >= trigger.occurred_at
        and event.concerns(trigger)
    )
    return min(cancelling, key=lambda event: event.occurred_at, default=None)
