"""The context of a delivery: everything an action knows about it besides its params."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from bridge.connector.contact_profile import ContactProfile
from bridge.connector.provider_records import RecordLink
from bridge.connector.steps import Steps
from bridge.contacts.parse import Contact
from bridge.errors import ConfigError
from bridge.events import Event


class ContactCache(Protocol):
    """A connection's cache of contacts: `phone:+1415...` or `email:...` -> external ID.

    An empty ID is a cached "not found", so that an unknown contact is not searched for repeatedly.
    """

    def get(self, keys: Iterable[str]) -> Mapping[str, str]:
        """Return the cached IDs of those `keys` that are present and not expired."""
        ...

    def remember(self, ids: Mapping[str, str], ttl: timedelta = timedelta(days=7)) -> None:
        """Store these IDs for `ttl`."""
        ...

    def profiles(self, ids: Iterable[str]) -> Mapping[str, ContactProfile]:
        """Return the cached profiles of those records that have one, by external ID."""
        ...

    def remember_profiles(self, profiles: Mapping[str, ContactProfile]) -> None:
        """Store the profiles of records by external ID, for as long as IDs."""
        ...

    def remember_zones(self, zones: Mapping[str, str]) -> None:
        """Store the contacts' IANA time zones by phone number or email address, for as long as IDs.

        Quiet hours follow these zones if the event itself has none.
        """
        ...

    def forget(self, keys: Iterable[str]) -> None:
        """Remove IDs whose records have been deleted, merged or converted."""
        ...


class NullContactCache:
    """A cache that stores nothing: for tests, lookups and dry runs."""

    def get(self, keys: Iterable[str]) -> Mapping[str, str]:
        """Return an empty mapping."""
        del keys
        return {}

    def remember(self, ids: Mapping[str, str], ttl: timedelta = timedelta(0)) -> None:
        """Store nothing."""

    def profiles(self, ids: Iterable[str]) -> Mapping[str, ContactProfile]:
        """Return an empty mapping."""
        del ids
        return {}

    def remember_profiles(self, profiles: Mapping[str, ContactProfile]) -> None:
        """Store nothing."""

    def remember_zones(self, zones: Mapping[str, str]) -> None:
        """Store nothing."""

    def forget(self, keys: Iterable[str]) -> None:
        """Do nothing."""


def idempotency_token(idempotency_key: str) -> str:
    """Return an idempotency key as 32 hexadecimal digits."""
    return hashlib.sha256(idempotency_key.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Context:
    """One attempt at a delivery, as its action sees it."""

    delivery: str
    """The delivery ID (`dlv_...`)."""
    connection: str
    """Name of the connection: `twilio`, `twilio_eu`."""
    event: Event
    """The event; `event.fields` has every documented field in its type, `event.body` the webhook as it was sent."""
    idempotency_key: str
    """The same for every attempt, replay and worker. Give the provider `idempotency_token` instead."""
    now: datetime
    """The start of this attempt."""
    first_attempt_at: datetime
    """The start of the first attempt; the provider has nothing of this delivery that is older."""
    attempt: int = 1
    """The number of this attempt, from 1."""
    expires_at: datetime | None = None
    """When the delivery expires. A provider that queues messages must not send this one later."""
    quiet_hours_start: datetime | None = None
    """When the recipient's quiet hours start, for channel actions only. A provider that queues messages must not
    send this one later."""
    existing_id: str | None = None
    """External ID of the record that an earlier delivery with this idempotency key created; update that record."""
    contact_cache: ContactCache = field(default_factory=NullContactCache)
    """The connection's cache of contacts, which contact resolution uses."""
    report_duplicate: Callable[[str, str], None] = lambda _first, _second: None
    """List two records, by external ID, as a possible duplicate: an event's email and phone belong to one each."""
    public_url: str | None = None
    """BRIDGE_PUBLIC_URL, None if it is not set; see `callback_url`."""
    unsubscribe_url: str | None = None
    """Signed link that opts the recipient out. Only for channel actions that are not `internal`, and only with
    BRIDGE_PUBLIC_URL."""
    internal: bool = False
    """The recipient is a literal of the rules file: a message to the team, without unsubscribe link or quiet hours."""
    traceparent: str | None = None
    """Header by which a service of your own continues the trace of this attempt; None if traces are off."""
    find_crm_record: Callable[[], RecordLink | None] = lambda: None
    """Return the contact's record in a CRM, if a connection has found it before. It takes one query of the database."""
    results: Mapping[str, str] = field(default_factory=dict)
    """`connector.action` -> external ID, of the actions of the same rule that have succeeded for this event. A rule
    uses them as `{{ results.zendesk.create_ticket.id }}`, and its delivery waits for them."""
    steps: Steps = field(default_factory=Steps.in_memory)
    """The steps of this delivery; use `step`."""
    ids_used_by_others: Callable[[Iterable[str]], Set[str]] | None = None
    """Return those of the given external IDs that belong to other deliveries of the connection.

    A lookup that cannot tell two similar messages apart must ignore those. None: unavailable, so such a lookup is
    inconclusive."""
    last_inbound_at: Callable[[str, str | None], datetime | None] = lambda _phone, _to: None
    """Return when a phone number last sent a message on the action's channel, to this number of the connection (to any,
    if None). None: it has not within 7 days, or nothing is stored of it. Channels such as WhatsApp take free text only
    for some time after it."""

    def step(
        self,
        name: str,
        function: Callable[[], str | int | None],
        lookup: Callable[[], str | int | None] | None = None,
    ) -> str | None:
        """Make one of several writes of an action, once; return the ID that `function` returned.

        The ID is stored under the idempotency key before this returns. A later attempt, in whichever worker, returns
        it without calling the function. If the outcome of the step is unknown (a lost response, a killed worker), the
        next attempt runs the action again and calls `lookup` first: it returns the ID of the record (or any text), None
        if the step provably did not take effect, or raises LookupInconclusive. Without a `lookup`, the delivery needs
        review. An action that takes steps makes every write in one. A step that each event of a conversation needs has
        the event's ID in its name. Raise TypeError for a name that is not unique in the attempt.
        """
        return self.steps.take(name, function, lookup)

    @property
    def contact(self) -> Contact:
        """The contact that the event is about."""
        return self.event.contact

    @property
    def idempotency_token(self) -> str:
        """The idempotency key as 32 hexadecimal digits, for a field of the provider."""
        return idempotency_token(self.idempotency_key)

    @property
    def event_url(self) -> str | None:
        """The event's page in the dashboard; None without BRIDGE_PUBLIC_URL, and for an alert without an event."""
        if self.public_url is None or not self.event.id:
            return None
        return f"{self.public_url.rstrip('/')}/events/{self.event.id}"

    def team_links(self) -> list[RecordLink]:
        """Return the links of a message to the team: the event in the dashboard, and the contact in the CRM."""
        event = RecordLink("Open event", self.event_url) if self.event_url else None
        return [link for link in (event, self.find_crm_record()) if link is not None]

    @property
    def conversation_key(self) -> str:
        """The unique key of the conversation's record at the provider: the conversation ID.

        A rule's `idempotency_key:`, the last part of the idempotency key, requests a separate record.
        """
        conversation = self.event.conversation.id
        return (
            conversation
            if self.idempotency_key.endswith("|")
            else f"{conversation}:{self.idempotency_token[:12]}"
        )

    def callback_url(self, name: str) -> str | None:
        """Return the URL where the provider reports the status of this delivery; None without BRIDGE_PUBLIC_URL."""
        if self.public_url is None:
            return None
        return f"{self.public_url.rstrip('/')}/webhooks/{self.connection}/{name}?delivery={self.delivery}"

    def require_public_url(self) -> str:
        """Return the service's public URL, for connectors that require one. Raise ConfigError if it is not set."""
        if self.public_url is None:
            raise ConfigError("set BRIDGE_PUBLIC_URL to the URL under which providers reach this service")
        return self.public_url
