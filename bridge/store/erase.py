"""Erasing a person: everything that names a phone number or an address goes; that it was here stays countable.

Keys of events and effects stay, so that nothing is done twice; those that hold the address are replaced. An opt-out
stays too, as a keyed hash (`people.kept_as`), so that whoever wished for silence is not written to when the address
comes again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, literal, or_, select, text, update

from bridge.connector.api import Channel
from bridge.errors import ConfigError
from bridge.ids import new_id
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.database import Database, translate_errors
from bridge.store.idempotency import mark_completed_for, release_keys
from bridge.store.opt_outs import hash_address, recipient_lock_key
from bridge.store.retention import ERASED
from bridge.telemetry import mask_address

_EVENTS = schema.events
_DELIVERIES = schema.deliveries
_WAITING = ("pending", "retrying", "needs_review")


@dataclass(frozen=True)
class EraseResult:
    """How much of a person was erased."""

    events: int
    deliveries: int
    cancelled: int
    """Of the deliveries: those that were still to be carried out."""
    cached_contacts: int
    rejected_requests: int
    opt_outs: int
    """Kept, as a keyed hash."""
    under_way: int
    """Deliveries that were just being attempted; erase once more when they have ended."""


def erase(database: Database, actor: str, address: str, secret: bytes | None) -> EraseResult:
    """Erase one phone number (E.164) or e-mail address from every table, in one transaction.

    `secret` is BRIDGE_SECRET_KEY; without it ConfigError is raised when there is an opt-out to keep.
    """
    with database.write() as conn:
        now = database.now(conn)
        events = _matching_events(database, conn, address)
        rows = _matching_deliveries(conn, address, events)
        # Locks in the order of `claim`: deliveries, then names.
        database.lock(conn, [recipient_lock_key(channel, address) for channel in get_args(Channel)])
        waiting = [row for row in rows if row.state in _WAITING]
        under_way = [row for row in rows if row.state == "running"]
        gone = [row for row in rows if row.state != "running"]
        _cancel(database, conn, waiting, now)
        _empty_deliveries(conn, gone, address)
        held = {row.event_id for row in under_way}
        _empty_events(conn, [ident for ident in events if ident not in held], now)
        erased = EraseResult(
            events=len(events),
            deliveries=len(gone),
            cancelled=len(waiting),
            cached_contacts=_forget(conn, address),
            rejected_requests=_clear_rejected_requests(database, conn, address),
            opt_outs=_keep_opt_outs(database, conn, address, secret),
            under_way=len(under_way),
        )
        record_audit(conn, now, actor, "erase", [mask_address(address)], vars(erased))
    if database.is_sqlite:
        _empty_log(database)
    return erased


def _empty_log(database: Database) -> None:
    """Take the old pages out of SQLite's write-ahead log, too; where others are reading, they go a little later."""
    with translate_errors():
        raw = database.engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            raw.close()


def _matching_events(database: Database, conn: Connection, address: str) -> list[str]:
    """Events about the person, and those whose body holds the address anywhere."""
    lowered = address.casefold()
    found = conn.execute(
        select(_EVENTS.c.id)
        .where(
            or_(
                _EVENTS.c.phone == address,
                func.lower(_EVENTS.c.email) == lowered,
                _body_holds(database, "events", address),
            )
        )
        # One that is just being routed would get deliveries that nobody sees here.
        .order_by(_EVENTS.c.id)
        .with_for_update(key_share=True)
    )
    return list(found.scalars())


def _body_holds(database: Database, table: str, address: str) -> ColumnElement[bool]:
    search = "instr({0}.body, :needle) > 0" if database.is_sqlite else "position(:needle in {0}.body) > 0"
    return text(search.format(table)).bindparams(needle=address.encode())  # type: ignore[return-value]


def _matching_deliveries(conn: Connection, address: str, events: Sequence[str]) -> Sequence[Row[Any]]:
    lowered = address.casefold()
    mentions = [
        func.lower(column).contains(lowered, autoescape=True)
        for column in (_DELIVERIES.c.params, _DELIVERIES.c.idempotency_key, _DELIVERIES.c.concurrency_key)
    ]
    return conn.execute(
        select(_DELIVERIES)
        .where(
            or_(
                _DELIVERIES.c.event_id.in_(events),
                _DELIVERIES.c.recipient == lowered,
                func.lower(_DELIVERIES.c.contact) == lowered,
                *mentions,
            )
        )
        .order_by(_DELIVERIES.c.id)
        .with_for_update()
    ).all()


def _cancel(database: Database, conn: Connection, rows: Sequence[Row[Any]], now: datetime) -> None:
    """End what waits. Where it may have gone out already, its effect stays held."""
    unknown = [row for row in rows if row.state == "needs_review" or row.outcome_unknown_since is not None]
    release_keys(conn, {row.id: row.idempotency_key for row in rows if row not in unknown})
    for row in unknown:
        mark_completed_for(database, conn, row, None, now)
    conn.execute(
        update(_DELIVERIES)
        .where(_DELIVERIES.c.id.in_([row.id for row in rows]))
        .values(state="cancelled", outcome_unknown_since=None, finished_at=now, needs_follow_up=False)
    )


def _empty_deliveries(conn: Connection, rows: Sequence[Row[Any]], address: str) -> None:
    idents = [row.id for row in rows]
    conn.execute(
        update(_DELIVERIES)
        .where(_DELIVERIES.c.id.in_(idents))
        .values(
            params=ERASED,
            recipient=None,
            contact=None,
            concurrency_key=None,
            detail="erased",
            external_id=None,
        )
    )
    conn.execute(update(schema.attempts).where(schema.attempts.c.delivery_id.in_(idents)).values(detail=None))
    for idempotency_key in sorted(
        {row.idempotency_key for row in rows if address.casefold() in row.idempotency_key.casefold()}
    ):
        key = new_id("erased")
        conn.execute(
            update(schema.idempotency_keys)
            .where(schema.idempotency_keys.c.key == idempotency_key)
            .values(key=key)
        )
        conn.execute(
            update(_DELIVERIES)
            .where(and_(_DELIVERIES.c.idempotency_key == idempotency_key, _DELIVERIES.c.id.in_(idents)))
            .values(idempotency_key=key)
        )


def _empty_events(conn: Connection, idents: Sequence[str], now: datetime) -> None:
    """Take bodies away; what was not routed yet never will be."""
    conn.execute(
        update(_EVENTS)
        .where(_EVENTS.c.id.in_(idents))
        .values(
            body=None,
            phone=None,
            email=None,
            trace=None,
            routed_at=func.coalesce(_EVENTS.c.routed_at, literal(now, schema.Instant())),
        )
    )


def _forget(conn: Connection, address: str) -> int:
    table = schema.contact_cache
    ends = func.lower(table.c.lookup_key).endswith(f":{address.casefold()}", autoescape=True)
    return conn.execute(delete(table).where(ends)).rowcount


def _clear_rejected_requests(database: Database, conn: Connection, address: str) -> int:
    table = schema.rejected_requests
    found = conn.execute(
        select(table.c.id).where(
            table.c.body.is_not(None), _body_holds(database, "rejected_requests", address)
        )
    )
    idents = list(found.scalars())
    conn.execute(update(table).where(table.c.id.in_(idents)).values(body=None))
    return len(idents)


def _keep_opt_outs(database: Database, conn: Connection, address: str, secret: bytes | None) -> int:
    """Replace the address in its wishes by what stands for it; wishes that were taken back just go."""
    table = schema.opt_outs
    mine = table.c.address == address.casefold()
    rows = conn.execute(select(table).where(mine)).all()
    wishes = [row for row in rows if row.opted_out_at is not None]
    if wishes and secret is None:
        raise ConfigError(
            "set BRIDGE_SECRET_KEY first: this person opted out, and that wish is kept as a hash under this secret"
        )
    conn.execute(delete(table).where(mine))
    for row in wishes:
        kept = dict(row._mapping) | {"address": hash_address(secret or b"", address)}
        statement = database.insert(table)
        conn.execute(
            statement.on_conflict_do_update(
                index_elements=["channel", "address"],
                set_={name: statement.excluded[name] for name in ("opted_out_at", "source", "changed_at")},
            ),
            [kept],
        )
    return len(wishes)
