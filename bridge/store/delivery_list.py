"""Delivery lists: pages, counts and IDs of the deliveries that match a filter, newest first, whatever the table's size.

One criterion of a filter leads through an index whose entries are in order of creation: the state, the rule or the
connection; or the type of the event, if few events have it. The others are checked on the rows found. A rare value
would make that read the whole table, so at most `EXAMINED` rows of each index range are read at a time: `next_cursor`
then leads to the rows before them, even from a page that is not full.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, literal, or_, select, union

from bridge.ids import id_at, time_of_id
from bridge.lifecycle import DeliveryState, FailureReason, SuppressReason
from bridge.store import schema
from bridge.store.contact_rows import deliveries_of
from bridge.store.database import Database
from bridge.store.queries import DELIVERY_SUMMARY, Page, addresses_of_event
from bridge.store.unindexed import unindexed

EXAMINED: Final = 5_000
"""Rows of an index range that one query reads at most."""
COUNTED: Final = 1_000
"""Rows of an index range that one count reads at most, if the index alone does not tell which match."""
MAX_COUNT: Final = 10_000
"""Counts from an index alone end here."""

_MICROSECOND: Final = timedelta(microseconds=1)
_TABLE, _C = schema.deliveries, schema.deliveries.c
_FEW: Final = frozenset(DeliveryState) - {
    DeliveryState.SUCCEEDED, DeliveryState.SUPPRESSED, DeliveryState.CANCELLED,
}  # fmt: skip
"""States that deliveries leave again, or that operators clear: few rows, also in a large table."""
_STATES_OF_REASONS: Final[Mapping[str, Collection[DeliveryState]]] = {
    **dict.fromkeys(map(str, SuppressReason), (DeliveryState.SUPPRESSED,)),
    # The reason of the last failed attempt stays while the next one waits or runs.
    **dict.fromkeys(map(str, FailureReason), _FEW),
}

Condition = ColumnElement[bool]


@dataclass(frozen=True)
class DeliveryFilter:
    """Which deliveries are wanted: those that meet every criterion. Without any, all."""

    states: Sequence[str] = ()
    """Any of these; empty: any."""
    reason: str | None = None
    event: str | None = None
    """ID of the event."""
    connection: str | None = None
    rule: str | None = None
    event_type: str | None = None
    since: datetime | None = None
    """Created at this instant or later."""
    until: datetime | None = None
    """Created before this instant."""
    not_dismissed: bool = False
    """Without the failed deliveries that an operator has dismissed."""
    due: datetime | None = None
    """Due at this instant or earlier."""
    only_messages: bool = False
    """Messages to people, not CRM records and other actions."""
    contact: Collection[str] = ()
    """Stored addresses of a person; see `bridge.store.contact_rows`."""
    person: str | None = None
    """ID of an event: the deliveries of the person it is about, so that no address is needed."""
    ids: Collection[str] | None = None

    @property
    def possible_states(self) -> list[DeliveryState]:
        """The states that a delivery which matches can have."""
        of_reason = _STATES_OF_REASONS.get(self.reason or "", frozenset(DeliveryState))
        wanted = self.states or tuple(DeliveryState)
        return [state for state in DeliveryState if state in wanted and state in of_reason]

    def to_json(self) -> dict[str, Any]:
        """Return the criteria that are set, for the audit log: without addresses, which stay out of it."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["contact"] = f"{len(self.contact)} addresses of a person" if self.contact else None
        values["ids"] = len(self.ids or ())
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in values.items()
            if value
        }


class CappedCount(NamedTuple):
    """A number of deliveries; if it is not exact, there may be more."""

    number: int
    is_exact: bool = True


@dataclass(frozen=True)
class DeliveryPage(Page):
    """A page of deliveries."""

    has_newer: bool = False


@dataclass(frozen=True)
class _Search:
    """How the deliveries of a filter are found."""

    ranges: Sequence[Condition]
    """Each is a range of an index; together they contain every match."""
    rest: Sequence[Condition]
    """Checked on each row."""
    is_small: bool = False
    """The ranges are of one event or person, or IDs."""
    is_by_state: bool = False
    """Each range is a state."""


class _Span(NamedTuple):
    """A span of time of creation. It has one limit at each end, because SQLite uses only one of two for an index."""

    since: datetime | None
    """Inclusive."""
    until: datetime | None
    """Exclusive."""

    def beyond(self, instant: datetime, newest_first: bool) -> _Span:
        """Return the part that follows an instant in the order of the list, with the instant itself."""
        if newest_first:
            return self._replace(until=min(filter(None, (self.until, instant + _MICROSECOND))))
        return self._replace(since=max(filter(None, (self.since, instant))))

    def up_to(self, horizon: datetime | None, newest_first: bool = True) -> _Span:
        """Return the part that comes before an instant in the order of the list; None: everything."""
        if horizon is None:
            return self
        if newest_first:
            return self._replace(since=max(filter(None, (self.since, horizon + _MICROSECOND))))
        return self._replace(until=min(filter(None, (self.until, horizon))))

    @property
    def conditions(self) -> list[Condition]:
        """The conditions for the time of creation."""
        since = [] if self.since is None else [_C.created_at >= self.since]
        return since if self.until is None else [*since, _C.created_at < self.until]


def _search(conn: Connection, matching: DeliveryFilter) -> _Search:
    """Choose the criterion that leads to the deliveries: the one with the fewest rows."""
    states = matching.possible_states
    # Only what leads to the rows may use an index: the database could choose the index of a much longer range.
    rest: dict[str, Condition] = {"state": unindexed(_C.state).in_(states)}
    if matching.reason is not None:
        rest["reason"] = _C.reason == matching.reason
    if matching.rule is not None:
        rest["rule"] = unindexed(_C.rule) == matching.rule
    if matching.connection is not None:
        rest["connection"] = unindexed(_C.connection) == matching.connection
    if matching.not_dismissed:
        rest["dismissed"] = _C.dismissed_at.is_(None)
    if matching.due is not None:
        rest["due"] = _C.run_at <= matching.due
    if matching.only_messages:
        rest["channel"] = _C.channel.is_not(None)
    if matching.event_type is not None:
        # Not a join or `IN`, because the database might then start from the events, of which there may be many.
        type_of = select(schema.events.c.type).where(schema.events.c.id == _C.event_id).scalar_subquery()
        rest["type"] = type_of == matching.event_type
    if not matching.states and matching.reason is None:
        del rest["state"]
    if matching.ids is not None or matching.event is not None:
        if matching.event is not None:
            rest["event"] = _C.event_id == matching.event
        lead = rest.pop("event") if matching.ids is None else _C.id.in_(matching.ids)
        return _Search([lead], list(rest.values()), is_small=True)
    contact = matching.contact
    if matching.person is not None:
        contact = addresses_of_event(conn, matching.person)
    if contact:
        return _Search(deliveries_of(contact), list(rest.values()), is_small=True)
    if matching.event_type is not None and _is_rare(conn, matching.event_type):
        del rest["type"]
        return _Search([_C.event_id.in_(_events_of(matching.event_type))], list(rest.values()), is_small=True)
    if not _FEW.issuperset(states):
        for column in (_C.rule, _C.connection):
            if column.name in rest:
                del rest[column.name]
                return _Search([column == getattr(matching, column.name)], list(rest.values()))
    rest.pop("state", None)
    return _Search([_C.state == state for state in states], list(rest.values()), is_by_state=True)


def _events_of(event_type: str) -> Select[Any]:
    events = schema.events.c
    return select(events.id).where(events.type == event_type, events.routed_at.is_not(None))


def _is_rare(conn: Connection, event_type: str) -> bool:
    """Return whether so few events have this type that they lead to the deliveries."""
    return conn.execute(_events_of(event_type).offset(COUNTED).limit(1)).first() is None


def list_deliveries(
    database: Database,
    matching: DeliveryFilter = DeliveryFilter(),
    *,
    limit: int = 50,
    cursor: str | None = None,
    newer_than: str | None = None,
) -> DeliveryPage:
    """List deliveries, newest first.

    `cursor` is the `next_cursor` of the page before; `newer_than` is the ID of a delivery, for the page just above it.
    """
    newest_first = newer_than is None
    span, ties = _Span(matching.since, matching.until), list[Condition]()
    with database.read() as conn:
        search = _search(conn, matching)
        start = newer_than or cursor
        if start is not None:
            position = _position(conn, start)
            span, ties = span.beyond(position[0], newest_first), [_is_beyond(position, newest_first)]
        is_bounded = bool(search.rest) and not search.is_small
        horizon = _horizon(conn, search, span, EXAMINED, newest_first) if is_bounded else None
        span = span.up_to(horizon, newest_first)
        rows = _merged(conn, search, [*span.conditions, *ties], limit + 1, newest_first)
    items, is_more = rows[:limit], len(rows) > limit
    if not newest_first:
        items.reverse()
        return DeliveryPage(items, items[-1]["id"] if items else None, is_more)
    next_cursor = items[-1]["id"] if is_more else None if horizon is None else _cursor_below(horizon)
    return DeliveryPage(items, next_cursor, cursor is not None)


def matching_ids(database: Database, matching: DeliveryFilter, limit: int) -> list[str]:
    """Return the IDs of the newest deliveries that match, at most `limit`."""
    ids: list[str] = []
    cursor: str | None = None
    while len(ids) < limit:
        page = list_deliveries(database, matching, limit=min(limit - len(ids), 1000), cursor=cursor)
        ids += [item["id"] for item in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    return ids


def count_by_state(database: Database, matching: DeliveryFilter) -> dict[DeliveryState, CappedCount]:
    """Return how many deliveries match in each state, whatever states the filter asks for.

    If rows have to be read for it, only the newest `COUNTED` of each index range are.
    """
    matching = replace(matching, states=())
    counts = dict.fromkeys(DeliveryState, CappedCount(0))
    with database.read() as conn:
        search = _search(conn, matching)
        if not search.is_by_state:
            counts |= _grouped_counts(conn, matching, search)
        for state in matching.possible_states:
            if search.is_by_state or (state in _FEW and not search.is_small):
                counts[state] = _count(conn, replace(matching, states=(state,)))
    return counts


def _grouped_counts(
    conn: Connection, matching: DeliveryFilter, search: _Search
) -> dict[DeliveryState, CappedCount]:
    """CappedCount the newest deliveries of ranges that contain all states, with one reading."""
    span = _Span(matching.since, matching.until)
    horizon = None if search.is_small else _horizon(conn, search, span, COUNTED)
    conditions = [*span.up_to(horizon).conditions, *search.rest]
    # With statistics, SQLite would read the index of states from end to end, only because it is sorted by them.
    columns = (_C.id, unindexed(_C.state).label("state"))
    found = union(*(select(*columns).where(lead, *conditions) for lead in search.ranges)).subquery()
    rows = conn.execute(select(found.c.state, func.count().label("number")).group_by(found.c.state))
    totals: dict[str, int] = {row.state: row.number for row in rows}
    return {state: CappedCount(totals.get(state, 0), horizon is None) for state in matching.possible_states}


def _count(conn: Connection, matching: DeliveryFilter) -> CappedCount:
    """CappedCount the deliveries in one state, to which its index leads."""
    search, span = _search(conn, matching), _Span(matching.since, matching.until)
    horizon = _horizon(conn, search, span, COUNTED) if search.rest else None
    conditions = [*span.up_to(horizon).conditions, *search.rest]
    # Without columns, so that the index alone is read if there is nothing to check.
    found = select(literal(1)).select_from(_TABLE).where(search.ranges[0], *conditions).limit(MAX_COUNT + 1)
    number = conn.execute(select(func.count()).select_from(found.subquery("found"))).scalar_one()
    return CappedCount(min(number, MAX_COUNT), horizon is None and number <= MAX_COUNT)


def _position(conn: Connection, delivery_id: str) -> tuple[datetime, str]:
    """Return the place of a delivery in the order of creation. If it is no longer stored, its ID tells the time."""
    created_at = conn.execute(select(_C.created_at).where(_C.id == delivery_id)).scalar_one_or_none()
    return created_at or time_of_id(delivery_id), delivery_id


def _is_beyond(position: tuple[datetime, str], newest_first: bool) -> Condition:
    """Return the condition for the deliveries after this place, of those in the span that ends there."""
    created_at, delivery_id = position
    if newest_first:
        return or_(_C.created_at < created_at, _C.id < delivery_id)
    return or_(_C.created_at > created_at, _C.id > delivery_id)


def _horizon(
    conn: Connection, search: _Search, span: _Span, most: int, newest_first: bool = True
) -> datetime | None:
    """Return up to when rows are read, exclusively, so that it is at most `most` of each range; None: to the end."""
    order = _C.created_at.desc() if newest_first else _C.created_at
    ends = [
        conn.execute(
            select(_C.created_at).where(lead, *span.conditions).order_by(order).limit(1).offset(most)
        ).scalar_one_or_none()
        for lead in search.ranges
    ]
    found = [end for end in ends if end is not None]
    return (max if newest_first else min)(found) if found else None


def _cursor_below(horizon: datetime) -> str:
    """Return the cursor of the page that starts with the deliveries created at this instant."""
    return id_at("dlv", horizon + _MICROSECOND)


def _merged(
    conn: Connection, search: _Search, conditions: Sequence[Condition], limit: int, newest_first: bool
) -> list[dict[str, Any]]:
    """Return the first rows of all ranges together."""
    order = [column.desc() if newest_first else column for column in (_C.created_at, _C.id)]
    rows: dict[str, dict[str, Any]] = {}
    for lead in search.ranges:
        query = (
            select(*_C[DELIVERY_SUMMARY]).where(lead, *search.rest, *conditions).order_by(*order).limit(limit)
        )
        # `zip`: the mapping of a row takes four times as long, which counts for a thousand rows.
        rows |= {row.id: dict(zip(DELIVERY_SUMMARY, row, strict=True)) for row in conn.execute(query)}
    ordered = sorted(rows.values(), key=lambda row: (row["created_at"], row["id"]), reverse=newest_first)
    return ordered[:limit]
