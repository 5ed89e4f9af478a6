"""Contact details: who the person of an event is, with addresses, CRM records and opt-outs.

A person is identified by the ID of any event about them, so that no address stands in a URL. The person's events are
those with the same phone number or the same email address. Other addresses that occur with them are named, but never
taken for the same person: families share phone numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, select

from bridge.contacts.address import address_key
from bridge.contacts.parse import Contact
from bridge.contacts.same_name import same_name
from bridge.events import Event
from bridge.policy.zones import zones_of
from bridge.store import schema
from bridge.store.contact_cache import CrmRecord, cached_crm_records, cached_time_zones
from bridge.store.contact_links import linked_addresses
from bridge.store.contact_rows import events_of, narrow
from bridge.store.database import Database
from bridge.store.event_rows import event_from_row
from bridge.store.opt_out_list import show_opt_outs
from bridge.store.opt_outs import AddressHasher
from bridge.store.queries import NotFound

_READ_EVENTS: Final = 20
"""Newest events of a person from which names and other fields are read."""
_EVENTS, _CACHE = schema.events, schema.contact_cache


@dataclass(frozen=True)
class OtherAddress:
    """An address that occurs in events together with one of the person's."""

    address: str
    event_id: str | None
    """An event about it: `/contacts/{event_id}` shows the person of that event."""


@dataclass(frozen=True)
class PersonDetails:
    """A person."""

    event: Event
    """The newest event about the person whose body is kept; one without a body if there is none."""
    event_id: str | None
    """The ID of an event about the person. None if there is none."""
    contact: Contact
    """What the events say: each field as the event that names the person, or else the newest one with a value, says."""
    addresses: Sequence[str]
    """The phone number and the email address. Empty once the events were pruned or erased."""
    other_names: Sequence[str]
    """Further names that the newest events give."""
    other_addresses: Sequence[OtherAddress]
    records: Sequence[CrmRecord]
    opt_outs: Sequence[Mapping[str, Any]]
    """Entries of the opt-out list about the person's addresses and the other ones, which are marked."""
    zones: Sequence[str]
    """The time zones in which the person may be."""
    zone_source: str
    """Where the time zones come from, in words."""


def find_contact(
    database: Database, event_id: str, fallback_zone: str, hash_address: AddressHasher | None = None
) -> PersonDetails:
    """Return the person of an event. Raise NotFound if there is no such event."""
    with database.read() as conn:
        row = conn.execute(select(*_EVENTS.c["phone", "email"]).where(_EVENTS.c.id == event_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no event `{event_id}`")
    return describe_contact(
        database, [address for address in row if address], fallback_zone, hash_address, event_id
    )


def describe_contact(
    database: Database,
    addresses: Sequence[str],
    fallback_zone: str,
    hash_address: AddressHasher | None = None,
    event_id: str | None = None,
) -> PersonDetails:
    """Return the person with these stored addresses, about whom there may be no event. `event_id` is of one of them.

    `fallback_zone` is `messaging.time_zone`, for people whose time zone nothing tells.
    """
    with database.read() as conn:
        events = _newest_events(database, conn, addresses)
        keys = {address_key(address) for address in addresses}
        others = set[str]().union(*linked_addresses(conn, keys).values()) - keys
        other_addresses = [OtherAddress(other, _newest_id(conn, other)) for other in sorted(others)]
        records = cached_crm_records(conn, keys, database.now(conn))
        crm_zones = cached_time_zones(conn, keys, database.now(conn))
    found = [entry for address in addresses for entry in show_opt_outs(database, address, hash_address)]
    entries = {entry["id"]: entry for entry in sorted(found, key=lambda entry: not entry["other_address"])}
    # First the event that names the person, because others may have the same number.
    events.sort(key=lambda item: item.id != event_id)
    event = max(events, key=lambda item: item.id) if events else _placeholder(database, addresses)
    contact = _merged([item.contact for item in events], addresses)
    crm_zone = next(iter(crm_zones.values()), None)
    return PersonDetails(
        event=event,
        event_id=event_id or _page_of(events),
        contact=contact,
        addresses=addresses,
        other_names=_other_names(contact.name, events),
        other_addresses=other_addresses,
        records=records,
        opt_outs=list(entries.values()),
        zones=zones_of(contact, None, fallback_zone, crm_zone),
        zone_source=_zone_source(contact, crm_zone),
    )


def _newest_events(database: Database, conn: Connection, addresses: Collection[str]) -> list[Event]:
    """Return the newest events about these addresses whose bodies are kept, newest first."""
    if not addresses:
        return []
    ids = narrow(select(_EVENTS.c.id), events_of(addresses))
    newest = conn.execute(ids.order_by(ids.selected_columns.id.desc()).limit(_READ_EVENTS)).scalars().all()
    rows = conn.execute(select(_EVENTS).where(_EVENTS.c.id.in_(newest)).order_by(_EVENTS.c.id.desc())).all()
    return [event_from_row(row, database.default_country) for row in rows if row.body is not None]


def _page_of(events: Sequence[Event]) -> str | None:
    """Return the ID of the newest event with both kinds of addresses, or else of the newest one."""
    newest = sorted((event.id for event in events), reverse=True)
    full = [event.id for event in events if event.contact.phone and event.contact.email]
    return max(full, default=None) or (newest[0] if newest else None)


def _newest_id(conn: Connection, address: str) -> str | None:
    column = _EVENTS.c.email if "@" in address else _EVENTS.c.phone
    query = select(_EVENTS.c.id).where(column == address).order_by(_EVENTS.c.id.desc()).limit(1)
    return conn.execute(query).scalar_one_or_none()


def _placeholder(database: Database, addresses: Sequence[str]) -> Event:
    """Return an event that says no more than these addresses."""
    metadata = {"contactEmail" if "@" in item else "contactPhone": item for item in addresses}
    return Event({"metadata": metadata}, "", database.clock.now(), "", database.default_country)


def _merged(contacts: Sequence[Contact], addresses: Sequence[str]) -> Contact:
    """Return one contact: each field as the first of these that has it says, with these addresses."""
    merged: dict[str, Any] = {}
    for contact in contacts:
        merged = {name: value for name, value in vars(contact).items() if value is not None} | merged
    phone = next((item for item in addresses if "@" not in item), None)
    email = next((item for item in addresses if "@" in item), None)
    return replace(Contact(**merged), phone=phone, email=email)


def _other_names(name: str | None, events: Sequence[Event]) -> list[str]:
    names = dict.fromkeys(event.contact.name for event in events if event.contact.name)
    return [other for other in names if other != name and not (name and same_name(name, other))]


def _zone_source(contact: Contact, crm_zone: str | None) -> str:
    if contact.time_zone:
        return "from the event"
    if crm_zone:
        return "from the CRM"
    return "from the phone number" if contact.phone else "the default of messaging.time_zone"
