"""Opt-out queries: messages that wait until a CRM has said whether the contact has an opt-out flag.

A claim writes a row for each message without a cached answer and each CRM. A worker claims the rows of a connection,
asks the CRM for all addresses together, and records the answers: they are cached for all workers, and the messages are
due again. Asking is repeatable, so a row that is not answered is simply claimed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, select, tuple_, update

from bridge.connector.callbacks import Channel, OptOutFlag
from bridge.contacts.address import address_key
from bridge.errors import DeliveryError
from bridge.events import Event
from bridge.lifecycle import Transition
from bridge.policy.zones import is_contacts_own_address
from bridge.store import schema
from bridge.store.bulk import bulk_insert
from bridge.store.connections import lock_connection, log_state_change, record_outcomes
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.deliveries import DELIVERY_COLUMNS, Delivery, lock_deliveries
from bridge.store.request_budget import acquire_budget
from bridge.store.routing import events_by_delivery
from bridge.store.transitions import Change, apply_transitions
from bridge.store.waiting import IS_WAITING

ANSWER_TTL: Final = timedelta(hours=1)
"""How long an answer is used, whether it has flags or not."""
BATCH_SIZE: Final = 100
"""Messages per call."""
MAX_AHEAD: Final = 400
"""Messages that are asked about before their claim, at most."""
BATCH_WINDOW: Final = timedelta(milliseconds=100)
"""How long a row waits for others: a backlog then takes few calls, and a single message is hardly delayed."""
QUERY_LEASE: Final = timedelta(seconds=30)
"""When rows are claimed again that a worker has claimed and not answered; every call is shorter."""
_TABLE, _CACHE = schema.opt_out_queries, schema.contact_cache
_CACHE_PREFIX: Final = "opt_out:"
_WAITING_FOR_CRM: Final = "messaging.crm_opt_outs:"
"""How the `detail` of a message starts that waits for a CRM."""

FlagsByChannel = Mapping[Channel, str]
"""Channel -> the field that says that the contact does not want it."""


@dataclass(frozen=True)
class OptOutQuery:
    """The messages whose addresses one call asks a CRM about."""

    connection: str
    deliveries: Sequence[Delivery]
    addresses: Mapping[str, Sequence[str]]
    """Delivery ID -> the addresses without a cached answer."""

    @property
    def emails(self) -> list[str]:
        """The email addresses to ask for, each once."""
        return sorted({address for address in self._unique if "@" in address})

    @property
    def phones(self) -> list[str]:
        """The phone numbers to ask for, each once."""
        return sorted({address for address in self._unique if "@" not in address})

    @property
    def _unique(self) -> set[str]:
        return {address for addresses in self.addresses.values() for address in addresses}

    def halves(self) -> tuple[OptOutQuery, OptOutQuery]:
        """Return two queries for half of the messages each, to find the one that the CRM rejects."""
        middle = len(self.deliveries) // 2
        parts = self.deliveries[:middle], self.deliveries[middle:]
        first, second = (
            OptOutQuery(self.connection, part, {item.id: self.addresses[item.id] for item in part})
            for part in parts
        )
        return first, second


@dataclass(frozen=True)
class ClaimedQuery:
    """The query to make now, if any, and when to poll again."""

    query: OptOutQuery | None = None
    next_poll_in: timedelta | None = None
    """None: not before something changes."""


def waits_for_crm(delivery: Delivery) -> bool:
    """Return whether a pending message was deferred until a CRM answers."""
    return (delivery.detail or "").startswith(_WAITING_FOR_CRM)


def addresses_to_query(delivery: Delivery, event: Event) -> list[str]:
    """Return the recipient, and the other address of the event's contact if the recipient is that contact."""
    addresses = [delivery.recipient]
    if is_contacts_own_address(event.contact, delivery.recipient):
        addresses += [event.contact.email, event.contact.phone]
    unique = {address_key(address): address for address in reversed(addresses) if address}
    return [*reversed(unique.values())]


def cached_flags(
    conn: Connection, connections: Collection[str], addresses: Iterable[str], now: datetime
) -> dict[tuple[str, str], FlagsByChannel]:
    """Return the cached answers of CRM connections by connection and `address_key`."""
    keys = {_cache_key(address) for address in addresses}
    if not connections or not keys:
        return {}
    rows = conn.execute(
        select(_CACHE.c.connection, _CACHE.c.lookup_key, _CACHE.c.value).where(
            _CACHE.c.connection.in_(connections), _CACHE.c.lookup_key.in_(keys), _CACHE.c.expires_at > now
        )
    )
    return {
        (row.connection, row.lookup_key.removeprefix(_CACHE_PREFIX)): json.loads(row.value) for row in rows
    }


def add_queries(
    database: Database, conn: Connection, source: str, crms: Mapping[str, Sequence[str]], now: datetime
) -> None:
    """Store which CRM connections to ask about which deliveries, given by delivery ID, and wake their workers.

    Further messages of the `source` connection that are due are asked about as well: a claim takes only as many as the
    provider can send, and a CRM call can carry more.
    """
    connections = {connection for each in crms.values() for connection in each}
    for connection in sorted(connections):
        delivery_ids = [delivery_id for delivery_id, each in crms.items() if connection in each]
        delivery_ids += _due_messages(conn, source, connection, now)
        rows = [
            {"connection": connection, "delivery_id": delivery_id, "asked_at": now, "run_at": now}
            for delivery_id in dict.fromkeys(delivery_ids)
        ]
        bulk_insert(conn, _TABLE, rows, "ON CONFLICT DO NOTHING")
    database.publish(conn, connections)


def _due_messages(conn: Connection, source: str, connection: str, now: datetime) -> list[str]:
    """Return the IDs of messages of a connection that are due and that no row asks this CRM about, oldest first."""
    table = schema.deliveries
    is_asked = exists().where(_TABLE.c.connection == connection, _TABLE.c.delivery_id == table.c.id)
    rows = conn.execute(
        select(table.c.id)
        .where(
            table.c.connection == source,
            IS_WAITING,
            table.c.run_at <= now,
            table.c.recipient.is_not(None),
        )
        .where(~is_asked)
        .order_by(table.c.run_at)
        .limit(MAX_AHEAD)
    )
    return [*rows.scalars()]


def claim_query(database: Database, connection: str, per_second: float | None) -> ClaimedQuery:
    """Claim up to `BATCH_SIZE` due rows of a CRM connection, if it may make a call now."""
    is_due = _TABLE.c.connection == connection
    with database.read() as conn:
        now = database.now(conn)
        due = (
            select(_TABLE.c.asked_at)
            .where(is_due, _TABLE.c.run_at <= now)
            .order_by(_TABLE.c.run_at)
            .limit(BATCH_SIZE)
        )
        asked_at = [*conn.execute(due).scalars()]
        if not asked_at:
            return ClaimedQuery(None, _next_poll_delay(conn, connection, now))
        window_ends_in = min(asked_at) + BATCH_WINDOW - now
        if len(asked_at) < BATCH_SIZE and window_ends_in > timedelta(0):
            return ClaimedQuery(None, window_ends_in)
    with database.write() as conn:
        account = lock_connection(database, conn, connection)
        now = database.now(conn)
        budget = acquire_budget(conn, account, now, 1, per_second)
        if not budget.calls or account.all_are_paused:
            return ClaimedQuery(None, budget.available_at - now if budget.available_at else None)
        rows = conn.execute(
            select(_TABLE.c.delivery_id)
            .where(is_due, _TABLE.c.run_at <= now)
            .order_by(_TABLE.c.run_at)
            .limit(BATCH_SIZE)
            .with_for_update(skip_locked=True)
        )
        query = _build_query(database, conn, connection, [*rows.scalars()], now)
        if not query.deliveries:
            return ClaimedQuery(None, timedelta(0))
        conn.execute(
            update(_TABLE).where(_has_ids(connection, query.deliveries)).values(run_at=now + QUERY_LEASE)
        )
        budget.spend(conn, 1, now, {})
    return ClaimedQuery(query, timedelta(0))


def _build_query(
    database: Database, conn: Connection, connection: str, delivery_ids: Sequence[str], now: datetime
) -> OptOutQuery:
    """Return the query for those of these deliveries that still wait, and delete the rows of the others."""
    table = schema.deliveries
    rows = conn.execute(select(*DELIVERY_COLUMNS).where(table.c.id.in_(delivery_ids), IS_WAITING))
    deliveries = [
        delivery
        for row in rows
        if (delivery := Delivery.from_row(row)).recipient and not delivery.options.internal
    ]
    if len(deliveries) < len(delivery_ids):
        done = set(delivery_ids) - {item.id for item in deliveries}
        conn.execute(delete(_TABLE).where(_TABLE.c.connection == connection, _TABLE.c.delivery_id.in_(done)))
    events = events_by_delivery(database, conn, deliveries)
    addresses = {item.id: addresses_to_query(item, events[item.id]) for item in deliveries}
    cached = cached_flags(conn, [connection], {one for each in addresses.values() for one in each}, now)
    return OptOutQuery(
        connection,
        deliveries,
        {
            delivery_id: [one for one in each if (connection, address_key(one)) not in cached]
            for delivery_id, each in addresses.items()
        },
    )


def record_answer(
    database: Database,
    query: OptOutQuery,
    flags: Mapping[str, Sequence[OptOutFlag]],
    fingerprint_of: Callable[[str], str],
) -> None:
    """Cache the answer for every address of the query, and make its messages due again."""
    with database.write() as conn:
        now = database.now(conn)
        answers = {
            address: {channel: flag.field for flag in flags.get(address, ()) for channel in flag.channels}
            for address in (*query.emails, *query.phones)
        }
        # Without addresses, no request was made that would say something about the CRM.
        outcomes = [None] if answers else []
        changed = record_outcomes(database, conn, query.connection, outcomes, now, fingerprint_of)
        waiting = _lock_waiting(conn, query)
        _store_answers(database, conn, query.connection, answers, now + ANSWER_TTL)
        conn.execute(delete(_TABLE).where(_has_ids(query.connection, query.deliveries)))
        changes = [Change(item, Transition.rescheduled(item, now, None)) for item in waiting]
        apply_transitions(database, conn, changes, now)
        database.publish(conn, {query.connection, *(item.connection for item in waiting)})
    log_state_change(query.connection, changed)


def record_failure(
    database: Database,
    query: OptOutQuery,
    failure: DeliveryError,
    retry_in: timedelta,
    fingerprint_of: Callable[[str], str],
) -> None:
    """Ask again after `retry_in`, or once the connection is available again; the messages keep waiting and say why."""
    with database.write() as conn:
        now = database.now(conn)
        changed = record_outcomes(database, conn, query.connection, [failure], now, fingerprint_of)
        waiting = _lock_waiting(conn, query)
        conn.execute(
            update(_TABLE).where(_has_ids(query.connection, query.deliveries)).values(run_at=now + retry_in)
        )
        detail = f"{_WAITING_FOR_CRM} no answer from {query.connection} yet: {failure.detail}"[:500]
        changes = [Change(item, Transition.rescheduled(item, item.run_at, detail)) for item in waiting]
        apply_transitions(database, conn, changes, now)
        database.publish(conn, {query.connection} | ({EVENTS_TOPIC} if changed.get("alert_due") else set()))
    log_state_change(query.connection, changed)


def _cache_key(address: str) -> str:
    return f"{_CACHE_PREFIX}{address_key(address)}"


def _has_ids(connection: str, deliveries: Sequence[Delivery]) -> ColumnElement[bool]:
    return tuple_(_TABLE.c.connection, _TABLE.c.delivery_id).in_(
        [(connection, item.id) for item in deliveries]
    )


def _lock_waiting(conn: Connection, query: OptOutQuery) -> list[Delivery]:
    """Return the deliveries of a query that wait for its answer. The others were asked about ahead.

    All of them are locked, before their rows in `opt_out_queries`: a claim takes its locks in the same order.
    """
    ids = [item.id for item in query.deliveries]
    locked = lock_deliveries(conn, and_(schema.deliveries.c.id.in_(ids), IS_WAITING))
    return [delivery for delivery in locked.values() if waits_for_crm(delivery)]


def _store_answers(
    database: Database,
    conn: Connection,
    connection: str,
    answers: Mapping[str, FlagsByChannel],
    expires_at: datetime,
) -> None:
    if not answers:
        return
    statement = database.insert(_CACHE)
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=["connection", "lookup_key"],
            set_={name: statement.excluded[name] for name in ("value", "expires_at")},
        ),
        [
            {
                "connection": connection,
                "lookup_key": _cache_key(address),
                "value": json.dumps(flags),
                "expires_at": expires_at,
            }
            for address, flags in sorted(answers.items())
        ],
    )


def _next_poll_delay(conn: Connection, connection: str, now: datetime) -> timedelta | None:
    next_at = conn.execute(
        select(_TABLE.c.run_at).where(_TABLE.c.connection == connection).order_by(_TABLE.c.run_at).limit(1)
    ).scalar_one_or_none()
    return None if next_at is None else max(next_at - now, BATCH_WINDOW)
