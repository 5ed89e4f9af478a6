"""Search: finds contacts, events and deliveries by any identifier an operator has at hand."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, select, union

from bridge.store import schema
from bridge.store.contact_rows import deliveries_of, events_of, stored_addresses
from bridge.store.contact_summaries import ContactSummary, summarize_contacts
from bridge.store.database import Database
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.queries import Page, list_events
from bridge.store.search_terms import conditions, is_national_number, most_frequent_country

LIMIT: Final = 200
"""The number of events, and of deliveries, of an ID or an address that a search examines: the newest."""
LOOSE_LIMIT: Final = 1000
"""The number of events that a search by a name or a part of an address examines, in the order of the index."""
MIN_LENGTH: Final = 2
_EVENTS, _DELIVERIES = schema.events.c, schema.deliveries.c


@dataclass(frozen=True)
class SearchResult:
    """What a search found."""

    events: Page
    deliveries: Page
    contacts: Sequence[ContactSummary]
    """The people that the events are about, with the newest event of each first."""
    match: str
    """What the text is: `id`, `address`, `part` (of an address, a name or a conversation ID), or empty if nothing was
    found."""
    country: str | None = None
    """The country whose national number the text was read as, if BRIDGE_DEFAULT_COUNTRY is not set."""
    is_complete: bool = True
    """False if more was found than a search examines."""
    rejected_request: str | None = None
    """The ID of a rejected request, if that is what the text is."""

    @property
    def only_match(self) -> tuple[str, str] | None:
        """The page and the ID of the one record or contact that was found; None for none or several."""
        events, deliveries = self.events.items, self.deliveries.items
        if self.rejected_request is not None:
            return "rejected", self.rejected_request
        if self.match == "id":
            if len(events) == 1:
                return "events", events[0]["id"]
            return ("deliveries", deliveries[0]["id"]) if len(deliveries) == 1 and not events else None
        if len(self.contacts) == 1:
            return "contacts", self.contacts[0].event_id
        return ("events", events[0]["id"]) if len(events) == 1 and not self.contacts else None


def search(database: Database, text: str, limit: int = 50) -> SearchResult:
    """Return what `text` finds, newest first, at most `limit` of each kind.

    `text` may be an ID of the bridge, an external ID, Heppu's webhook ID, a conversation ID or its first 8 characters,
    a phone number in any notation or its last 4 to 6 digits, an email address, an address as lists mask it, or the
    beginning of a full name or of a last name, in any case and with or without accents. A national number belongs to
    BRIDGE_DEFAULT_COUNTRY, otherwise to the most frequent country of the stored numbers.
    """
    term = text.strip()
    with database.read() as conn:
        found = _find(conn, term, database.default_country)
        contacts = summarize_contacts(conn, found.events, database.default_country, limit)
    events = list_events(database, ids=found.event_ids[:LIMIT], limit=limit)
    return SearchResult(
        events,
        list_deliveries(database, DeliveryFilter(ids=found.delivery_ids), limit=limit),
        contacts,
        found.match,
        found.country,
        len(found.events) < LOOSE_LIMIT and not events.next_cursor,
        found.rejected_request,
    )


@dataclass(frozen=True)
class _Found:
    match: str = ""
    events: Sequence[Any] = ()
    """Rows with `id`, `phone`, `email` and `contact_name`, newest first."""
    delivery_ids: Sequence[str] = ()
    country: str | None = None
    rejected_request: str | None = None

    @property
    def event_ids(self) -> list[str]:
        return [row.id for row in self.events]


def _find(conn: Connection, term: str, default_country: str | None) -> _Found:
    if not term:
        return _Found()
    if found := _by_id(conn, term):
        return found
    country = default_country
    if country is None and is_national_number(term):
        country = most_frequent_country(conn)
    addresses = stored_addresses(term, country)
    found = _by_address(conn, addresses, None if country == default_country else country)
    if found.match or len(term) < MIN_LENGTH:
        return found
    events = _events(conn, conditions(conn, term), LOOSE_LIMIT)
    if not events:
        return found
    newest = [row.id for row in events[:LIMIT]]
    return _Found("part", events, _delivery_ids(conn, [_DELIVERIES.event_id.in_(newest)]))


def _by_id(conn: Connection, term: str) -> _Found | None:
    """Return what has this ID: of ours, of a provider, of Heppu, or of a conversation."""
    if term.startswith(("evt_", "dlv_")):
        event_conditions = [_EVENTS.id == term] if term.startswith("evt_") else []
        delivery_conditions = [_DELIVERIES.id == term] if term.startswith("dlv_") else []
    else:
        event_conditions = [_EVENTS.dedupe_key == term, _EVENTS.conversation_id == term]
        delivery_conditions = [_DELIVERIES.external_id == term, _DELIVERIES.conversation == term]
    events = _events(conn, event_conditions)
    of_events = [_DELIVERIES.event_id.in_([row.id for row in events])] if events else []
    delivery_ids = _delivery_ids(conn, [*delivery_conditions, *of_events])
    if events or delivery_ids:
        return _Found("id", events, delivery_ids)
    if term.startswith("rej_"):
        table = schema.rejected_requests.c
        if conn.execute(select(table.id).where(table.id == term)).first():
            return _Found("id", rejected_request=term)
    return None


def _by_address(conn: Connection, addresses: Sequence[str], country: str | None) -> _Found:
    """Return the events about a phone number or an email address, and the deliveries to it."""
    if not addresses:
        return _Found()
    events = _events(conn, events_of(addresses))
    direct = deliveries_of(addresses)[:2]  # the third is covered by the events found
    delivery_ids = _delivery_ids(conn, [*direct, _DELIVERIES.event_id.in_([row.id for row in events])])
    return _Found(
        "address" if events or delivery_ids else "", events, delivery_ids, country if events else None
    )


def _events(conn: Connection, found_by: Iterable[ColumnElement[bool]], limit: int = LIMIT) -> Sequence[Any]:
    """Return the events that meet one of the conditions, each found by its own index, newest first."""
    columns = _EVENTS.id, _EVENTS.phone, _EVENTS.email, _EVENTS.contact_name
    queries = [select(*columns).where(condition) for condition in found_by]
    if not queries:
        return []
    if limit == LOOSE_LIMIT:  # without an order that would read all of them
        queries = [select(query.limit(limit).subquery()) for query in queries]
    rows = union(*queries).subquery()
    return conn.execute(select(rows).order_by(rows.c.id.desc()).limit(limit)).all()


def _delivery_ids(conn: Connection, found_by: Collection[ColumnElement[bool]]) -> Sequence[str]:
    if not found_by:
        return []
    rows = union(*(select(_DELIVERIES.id).where(condition) for condition in found_by)).subquery()
    return conn.execute(select(rows.c.id).order_by(rows.c.id.desc()).limit(LIMIT)).scalars().all()
