"""What an action learns about its delivery besides its params."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from bridge.errors import ConfigError
from bridge.events import Contact, Event


class ContactCache(Protocol):
    """What this connection remembers about people: `phone:+1415...` or `email:...` -> the partner's id.

    An empty id is a remembered "nobody", so that a stranger is not searched for again and again.
    """

    def get(self, keys: Iterable[str]) -> Mapping[str, str]:
        """The remembered ids of those `keys` that are known and not expired."""
        ...

    def remember(self, ids: Mapping[str, str], ttl: timedelta = timedelta(days=7)) -> None:
        """Keep these ids for `ttl`."""
        ...

    def remember_zones(self, zones: Mapping[str, str]) -> None:
        """Keep the time zones (IANA) in which people live, by phone or e-mail, as long as ids are kept.

        Quiet hours are kept by them where the event itself says no zone.
        """
        ...

    def forget(self, keys: Iterable[str]) -> None:
        """Drop ids that turned out deleted, merged or converted."""
        ...


class NullContactCache:
    """Remembers nothing: for tests, lookups and rehearsals."""

    def get(self, keys: Iterable[str]) -> Mapping[str, str]:
        """Nothing is known."""
        del keys
        return {}

    def remember(self, ids: Mapping[str, str], ttl: timedelta = timedelta(0)) -> None:
        """Nothing is kept."""

    def remember_zones(self, zones: Mapping[str, str]) -> None:
        """Nothing is kept."""

    def forget(self, keys: Iterable[str]) -> None:
        """Nothing is there to drop."""


@dataclass(frozen=True)
class Context:
    """One delivery, seen from inside its action."""

    delivery: str
    """Our id of the delivery (`dlv_...`)."""
    connection: str
    event: Event
    idempotency_key: str
    """The effect key: the same for every attempt, replay and replica. Partners are given `idempotency_token`."""
    now: datetime
    """The beginning of this attempt."""
    first_attempt_at: datetime
    """When the first attempt began; nothing of this delivery is older at the partner."""
    attempt: int = 1
    expires_at: datetime | None = None
    """After this instant the effect is no longer wanted; what a partner may hold back must not outlive it."""
    quiet_hours_start: datetime | None = None
    """When the person's quiet hours begin: what a partner holds back must not reach them after that. For channel
    actions only."""
    existing_id: str | None = None
    """The partner's id of the record that this effect already made, when it is to be updated."""
    contact_cache: ContactCache = field(default_factory=NullContactCache)
    public_url: str | None = None
    unsubscribe_url: str | None = None
    """A signed link that opts this recipient out; only for channel actions, and only with BRIDGE_PUBLIC_URL."""
    ids_used_by_others: Callable[[Iterable[str]], Set[str]] | None = None
    """Which of these partner ids other deliveries of the connection already hold. A lookup that cannot tell two
    alike messages apart must leave those alone; None: not known here, so it cannot tell at all."""

    @property
    def contact(self) -> Contact:
        """The person the event is about."""
        return self.event.contact

    @property
    def idempotency_token(self) -> str:
        """The effect key as a short text of hexadecimal digits, for a partner's field."""
        return hashlib.sha256(self.idempotency_key.encode()).hexdigest()[:32]

    @property
    def conversation_key(self) -> str:
        """What makes the conversation's record at the partner unique: its id.

        A rule author's `key:`, the last part of the effect key, asks for a record of its own.
        """
        conversation = self.event.conversation.id
        return (
            conversation
            if self.idempotency_key.endswith("|")
            else f"{conversation}:{self.idempotency_token[:12]}"
        )

    def callback_url(self, name: str) -> str | None:
        """Where the partner reports back about this delivery; None without BRIDGE_PUBLIC_URL."""
        if self.public_url is None:
            return None
        return f"{self.public_url.rstrip('/')}/webhooks/{self.connection}/{name}?delivery={self.delivery}"

    def require_public_url(self) -> str:
        """The public address, for connectors that cannot do without; raises ConfigError that says what to set."""
        if self.public_url is None:
            raise ConfigError("set BRIDGE_PUBLIC_URL to the address under which partners reach this service")
        return self.public_url
