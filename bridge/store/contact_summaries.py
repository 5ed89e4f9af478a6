"""Contact summaries: the people that a set of events is about, one line for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from bridge.store import schema
from bridge.store.event_rows import event_from_row


@dataclass(frozen=True)
class ContactSummary:
    """A person, as lists show them."""

    event_id: str
    """The newest event with both a phone number and an email address, or else the newest one:
    `/contacts/{event_id}` is the person's page."""
    name: str | None
    """As the newest event with a name gives it."""
    phones: Sequence[str]
    emails: Sequence[str]
    event_type: str
    """Type of the newest event."""
    last_seen_at: datetime
    """When the newest event was received."""
    events: int
    """How many of the given events are about the person."""


@dataclass
class _Person:
    """The events about one person, newest first."""

    ids: list[str] = field(default_factory=list)
    named_id: str = ""
    """The newest one with a name."""
    full_id: str = ""
    """The newest one with both a phone number and an email address."""
    addresses: set[str] = field(default_factory=set)

    def add(self, row: Any) -> None:
        self.ids.append(row.id)
        self.named_id = self.named_id or (row.id if row.contact_name else "")
        self.full_id = self.full_id or (row.id if row.phone and row.email else "")
        self.addresses |= {address for address in (row.phone, row.email) if address}

    def absorb(self, other: _Person) -> None:
        self.ids = sorted({*self.ids, *other.ids}, reverse=True)
        self.named_id = max(self.named_id, other.named_id)


def summarize_contacts(
    conn: Connection, rows: Sequence[Any], default_country: str | None, limit: int
) -> list[ContactSummary]:
    """Return the people of these event rows (`id`, `phone`, `email`, `contact_name`), newest first.

    Events with the same phone number are about one person; those with an email address alone are about the person who
    has it, if there is only one. Events without both are left out.
    """
    groups = _groups(rows)[:limit]
    ids = {event_id for group in groups for event_id in (group.ids[0], group.named_id) if event_id}
    table = schema.events
    columns = table.c["id", "type", "conversation_id", "dedupe_key", "received_at", "body"]
    events = {row.id: row for row in conn.execute(select(*columns).where(table.c.id.in_(ids)))}
    return [_summary(group, events, default_country) for group in groups]


def _summary(group: _Person, events: Mapping[str, Any], default_country: str | None) -> ContactSummary:
    newest = events[group.ids[0]]
    named = events.get(group.named_id)
    return ContactSummary(
        event_id=group.full_id or newest.id,
        name=None if named is None else event_from_row(named, default_country).contact.name,
        phones=sorted(address for address in group.addresses if "@" not in address),
        emails=sorted(address for address in group.addresses if "@" in address),
        event_type=newest.type,
        last_seen_at=newest.received_at,
        events=len(group.ids),
    )


def _groups(rows: Sequence[Any]) -> list[_Person]:
    groups: dict[str, _Person] = {}
    for row in rows:
        if row.phone or row.email:
            groups.setdefault(row.phone or row.email, _Person()).add(row)
    by_email: dict[str, list[_Person]] = {}
    for group in groups.values():
        for address in group.addresses:
            by_email.setdefault(address, []).append(group)
    for email in [key for key in groups if "@" in key]:
        others = [group for group in by_email[email] if group is not groups[email]]
        if len(others) == 1:
            others[0].absorb(groups.pop(email))
    return sorted(groups.values(), key=lambda group: group.ids[0], reverse=True)
