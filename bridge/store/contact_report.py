"""Contact report: why a person got a message or did not, from every stored event and delivery about them.

Each event has the decisions about it: the state of each delivery with the policy that decided, and for each rule that
did not fire the condition that was not met, or that it was disabled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, Row, exists, func, select

from bridge.contacts.address import address_key
from bridge.contacts.parse import Contact
from bridge.lifecycle import DeliveryState
from bridge.policy.idempotency import describe_duplicate
from bridge.policy.local_time import local_time
from bridge.policy.zones import zones_of
from bridge.rules.trace import Trace
from bridge.rules.unmet import is_disabled, is_for_other_events, unmet_conditions
from bridge.store import schema
from bridge.store.contact_cache import cached_time_zones
from bridge.store.contact_links import linked_addresses
from bridge.store.contact_rows import deliveries_of, events_of, narrow, stored_addresses
from bridge.store.database import Database
from bridge.store.event_rows import event_from_row
from bridge.store.opt_out_list import show_opt_outs
from bridge.store.opt_outs import AddressHasher
from bridge.store.queries import DELIVERY_SUMMARY, Page, read_page
from bridge.store.timeline import describe_state
from bridge.store.traces import TraceReader

_MAX_ADDRESSES: Final = 20
"""Addresses of a conversation whose opt-outs are read."""
_MAX_DELIVERIES: Final = 2000
"""Deliveries of a page: of events that were replayed many times, the newest."""
_EXAMINED: Final = 2_000
"""Events that a page with a filter reads at most; `next_cursor` then leads to those before them."""
_EVENTS, _DELIVERIES, _KEYS = schema.events, schema.deliveries, schema.idempotency_keys


ReportFilter = Literal["all", "messages", "records", "stopped"]
"""Which events and deliveries of a contact: all, with messages, with other actions, with what was not done."""
_STOPPED: Final = (
    DeliveryState.SUPPRESSED,
    DeliveryState.FAILED,
    DeliveryState.CANCELLED,
    DeliveryState.NEEDS_REVIEW,
)
_FILTERS: Final[Mapping[ReportFilter, ColumnElement[bool]]] = {
    "messages": _DELIVERIES.c.channel.is_not(None),
    "records": _DELIVERIES.c.channel.is_(None),
    # Not the column itself: its index would be preferred to that of the events.
    "stopped": func.coalesce(_DELIVERIES.c.state, "").in_(_STOPPED),
}
"""The condition for the deliveries that a filter shows."""


@dataclass(frozen=True)
class ContactReport:
    """The answer of `bridge why`."""

    items: Sequence[Mapping[str, Any]]
    """The events, newest last, each with its `deliveries` and with the `rules` that did not fire, nearest first."""
    next_cursor: str | None
    """Leads to the events before these."""
    opt_outs: Sequence[Mapping[str, Any]]
    """Opt-outs and undeliverable addresses, as on the opt-out list."""
    rejected_requests: int
    """Requests that were rejected in the same time. They are not attributed to anyone."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class _ReportedEvent:
    """An event of the report."""

    fields: Mapping[str, Any]
    """The columns that the report shows."""
    addresses: frozenset[str]
    contact: Contact
    traces: Sequence[Trace] | None
    """None if the trace is no longer kept, or the event is not routed."""


_SHOWN: Final = ("id", "type", "conversation_id", "occurred_at", "received_at", "routed_at")


def _reported_event_from_row(
    row: Row[Any], reader: TraceReader, default_country: str | None
) -> _ReportedEvent:
    contact = (
        Contact(phone=row.phone, email=row.email)
        if row.body is None
        else event_from_row(row, default_country).contact
    )
    return _ReportedEvent(
        {name: row._mapping[name] for name in _SHOWN},
        frozenset(address for address in (row.phone, row.email) if address),
        contact,
        reader.traces(row),
    )


@dataclass(frozen=True)
class _Clock:
    """What the recipient's time zone is read from."""

    crm_zones: Mapping[str, str]
    fallback: str

    def zones(self, contact: Contact) -> Sequence[str]:
        addresses = [address_key(item) for item in (contact.phone, contact.email) if item]
        crm_zone = next((self.crm_zones[item] for item in addresses if item in self.crm_zones), None)
        return zones_of(contact, None, self.fallback, crm_zone)


def report_contact(
    database: Database,
    subject: str | Collection[str],
    *,
    shown: ReportFilter = "all",
    since: datetime | None = None,
    time_zone: str,
    hash_address: AddressHasher | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> ContactReport:
    """Report on a phone number or email address in any notation, or on a conversation ID.

    `time_zone` is `messaging.time_zone`, for contacts whose time zone nothing tells. Other addresses of the same
    contact (`bridge.store.contact_links`) are included, and marked `other_address`; not so if `subject` is a list of
    stored addresses. `shown` selects events by their deliveries.
    """
    term = subject.strip() if isinstance(subject, str) else ""
    own = stored_addresses(term, database.default_country) if isinstance(subject, str) else subject
    with database.read() as conn:
        own_keys = {address_key(address) for address in own}
        linked = set[str]()
        if isinstance(subject, str):
            linked = linked.union(*linked_addresses(conn, own_keys).values()) - own_keys
        about = {*own, *own_keys, *linked}
        events, next_cursor = _events(
            conn, term, about, since, limit, cursor, database.default_country, _FILTERS.get(shown)
        )
        addresses = own_keys or set[str]().union(*(event.addresses for event in events))
        clock = _Clock(cached_time_zones(conn, {*addresses, *linked}, database.now(conn)), time_zone)
        deliveries = _deliveries(conn, [event.fields["id"] for event in events], _FILTERS.get(shown))
        rejected = _count_rejected(conn, since)
        items = [
            _item(event, deliveries.get(event.fields["id"], ()), clock)
            | {"other_address": bool(own_keys) and not own_keys & event.addresses}
            for event in reversed(events)
        ]
    entries = {
        entry["id"]: entry
        for address in sorted(addresses)[:_MAX_ADDRESSES]
        for entry in show_opt_outs(database, address, hash_address)
    }
    return ContactReport(items, next_cursor, list(entries.values()), rejected)


def _events(
    conn: Connection,
    term: str,
    addresses: Collection[str],
    since: datetime | None,
    limit: int,
    cursor: str | None,
    default_country: str | None,
    with_delivery: ColumnElement[bool] | None,
) -> tuple[Sequence[_ReportedEvent], str | None]:
    """Return a page of events, newest first: about the addresses, of the conversation, or with a message to them."""
    ids = select(_EVENTS.c.id)
    if since is not None:
        ids = ids.where(_EVENTS.c.received_at >= since)
    conditions = [_EVENTS.c.conversation_id == term] if term else []
    if addresses:
        to_contact = [
            _EVENTS.c.id.in_(select(_DELIVERIES.c.event_id).where(condition))
            for condition in deliveries_of(addresses)[:2]
        ]
        conditions = [*events_of(addresses), *to_contact]
    query = narrow(ids, conditions)
    if with_delivery is None:
        page = read_page(conn, query, query.selected_columns.id, limit, cursor)
    else:
        page = _read_filtered(conn, query, with_delivery, limit, cursor)
    found = [item["id"] for item in page.items]
    rows = conn.execute(select(_EVENTS).where(_EVENTS.c.id.in_(found)).order_by(_EVENTS.c.id.desc())).all()
    reader = TraceReader(conn)
    return [_reported_event_from_row(row, reader, default_country) for row in rows], page.next_cursor


def _read_filtered(
    conn: Connection, query: Any, with_delivery: ColumnElement[bool], limit: int, cursor: str | None
) -> Page:
    """Return a page of those of the next `_EXAMINED` events that have such a delivery."""
    examined = read_page(conn, query, query.selected_columns.id, _EXAMINED, cursor)
    candidates = [item["id"] for item in examined.items]
    has_delivery = exists().where(_DELIVERIES.c.event_id == _EVENTS.c.id, with_delivery)
    matching = select(_EVENTS.c.id).where(_EVENTS.c.id.in_(candidates), has_delivery)
    page = read_page(conn, matching, _EVENTS.c.id, limit, None)
    return Page(page.items, page.next_cursor or examined.next_cursor)


def _count_rejected(conn: Connection, since: datetime | None) -> int:
    table = schema.rejected_requests
    query = select(func.count()).select_from(table)
    if since is not None:
        query = query.where(table.c.received_at >= since)
    count: int = conn.execute(query).scalar_one()
    return count


def _deliveries(
    conn: Connection, event_ids: Sequence[str], condition: ColumnElement[bool] | None
) -> Mapping[str, Sequence[dict[str, Any]]]:
    """Return the deliveries of these events, oldest first; of a duplicate, what the completed delivery has done."""
    query = select(*_DELIVERIES.c[DELIVERY_SUMMARY]).where(_DELIVERIES.c.event_id.in_(event_ids))
    if condition is not None:
        query = query.where(condition)
    page = read_page(conn, query, _DELIVERIES.c.id, _MAX_DELIVERIES, None)
    duplicates = [item["id"] for item in page.items if item["reason"] == "duplicate"]
    first = _DELIVERIES.alias("first")
    completed = conn.execute(
        select(_DELIVERIES.c.id, first.c.rule, first.c.id.label("first_id"))
        .join(_KEYS, _KEYS.c.key == _DELIVERIES.c.idempotency_key)
        .join(first, first.c.id == _KEYS.c.completed_by)
        .where(_DELIVERIES.c.id.in_(duplicates))
    )
    firsts = {row.id: row for row in completed}
    by_event: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for item in reversed(page.items):
        if found := firsts.get(item["id"]):
            described = describe_duplicate(found.rule, item["action"], item["channel"])
            item["detail"] = f"{described} ({found.first_id})"
        by_event[item["event_id"]].append(item)
    return by_event


def _item(event: _ReportedEvent, deliveries: Sequence[dict[str, Any]], clock: _Clock) -> dict[str, Any]:
    zones = clock.zones(event.contact)
    for item in deliveries:
        item["local_time"] = local_time(item["finished_at"] or item["run_at"], zones)
        item["answer"] = ": ".join(filter(None, (describe_state(item), item["detail"])))
    rules = [trace for trace in event.traces or () if not trace.fired and not is_for_other_events(trace)]
    rules.sort(key=lambda trace: (is_disabled(trace), len(unmet_conditions(trace))))
    return {
        **event.fields,
        "local_time": local_time(event.fields["occurred_at"], zones),
        "deliveries": deliveries,
        "rules": [_rule(trace) for trace in rules],
        "trace_kept": event.traces is not None,
    }


def _rule(trace: Trace) -> dict[str, Any]:
    """Return a rule that did not fire, and why."""
    if is_disabled(trace):
        return {"rule": trace.rule, "enabled": False, "answer": "was disabled (`enabled: false`)"}
    return {
        "rule": trace.rule,
        "enabled": True,
        "answer": f"did not fire: {trace.error or '; '.join(unmet_conditions(trace))}",
    }
