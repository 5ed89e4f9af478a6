"""Pause history: the table of present and past pauses, so that an outage stays visible after it is over.

Every change of a connection's pause is recorded in the transaction that makes it. An open circuit breaker is one pause,
from its opening to the success that closes it, however many probes fail. Short pauses after a 429 are part of normal
work and are not recorded; longer ones that follow each other closely are one pause.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, literal, select, text, update

from bridge.ids import new_id
from bridge.lifecycle import PauseCause
from bridge.store import schema
from bridge.store.audit_log import BRIDGE, record_audit
from bridge.store.bulk import bulk_insert
from bridge.store.database import Database
from bridge.store.pauses import ALL_CONNECTIONS

HISTORY_AGE: Final = timedelta(days=62)
"""How long the history of connections and the counts per hour are kept: 30 days, and the 30 days before them."""
MIN_RATE_LIMIT: Final = timedelta(seconds=10)
"""Shorter pauses after a 429 are not recorded."""
JOIN_WITHIN: Final = timedelta(minutes=1)
"""An automatic pause that starts this soon after one with the same cause continues it: a provider that recovers for a
few seconds, or answers every second minute with a 429, does not add a row each time."""
MAX_WAITED: Final = 10_000
"""Waiting deliveries are counted up to this number, because the count is part of a transaction."""

_TABLE = schema.connection_pauses
_JOINED: Final = (PauseCause.RATE_LIMIT, PauseCause.CIRCUIT_OPEN)
_IS_OPEN = _TABLE.c.ended_at.is_(None)
_NOT_DRAINED = text("connection_pauses.drained_at IS NULL")


class PausedConnection(Protocol):
    """The pause of a connection before a change."""

    @property
    def name(self) -> str:
        """Name of the connection."""

    @property
    def pause_cause(self) -> str | None:
        """Cause of the pause, or None."""


def record_pause_change(
    conn: Connection,
    before: PausedConnection,
    columns: Mapping[str, Any],
    now: datetime,
    actor: str | None = None,
) -> None:
    """Record the change of a locked connection's pause; `columns` are the changed columns of `connections`.

    Columns without `pause_cause` do not change the pause, and the same cause again continues it.
    """
    if "pause_cause" not in columns:
        return
    cause: str | None = columns["pause_cause"]
    if cause == before.pause_cause and cause != PauseCause.RATE_LIMIT:
        if cause == PauseCause.OPERATOR:
            _replace_reason(conn, before.name, columns["pause_reason"], actor)
        return
    if before.pause_cause not in (None, cause):
        end_pause(conn, before.name, now, by_operator=actor is not None)
    if cause is not None:
        _start(conn, before.name, columns, now, actor)


def _start(conn: Connection, name: str, columns: Mapping[str, Any], now: datetime, actor: str | None) -> None:
    """Start a pause, or continue the one that has just ended with the same cause."""
    cause = columns["pause_cause"]
    if cause == PauseCause.RATE_LIMIT and columns["paused_until"] - now < MIN_RATE_LIMIT:
        return
    same = (_TABLE.c.connection == name) & (_TABLE.c.cause == cause)
    if cause in _JOINED:
        ended = (
            same
            & (_TABLE.c.started_at >= now - HISTORY_AGE)
            & (_IS_OPEN | (_TABLE.c.ended_at >= now - JOIN_WITHIN))
        )
        continued = update(_TABLE).where(ended).values(ended_at=None, waited=None, drained_at=None)
        if conn.execute(continued).rowcount:
            return
    row = {
        "id": columns.get("pause_id") or new_id("pau"),
        "connection": name,
        "cause": str(cause),
        "reason": columns["pause_reason"],
        "actor": actor,
        "started_at": now,
    }
    bulk_insert(conn, _TABLE, [row])
    if cause != PauseCause.OPERATOR:
        record_audit(
            conn, now, BRIDGE, "pause", [name], {"cause": str(cause), "reason": columns["pause_reason"]}
        )


def _replace_reason(conn: Connection, name: str, reason: str, actor: str | None) -> None:
    is_current = _NOT_DRAINED & _IS_OPEN & (_TABLE.c.connection == name)
    conn.execute(update(_TABLE).where(is_current).values(reason=reason, actor=actor))


def end_pause(conn: Connection, name: str, ended_at: datetime, *, by_operator: bool = False) -> None:
    """Record the end of a connection's pause, if one is recorded, with the number of deliveries that waited for it.

    The operator's action has an audit entry of its own.
    """
    ids = (
        conn.execute(select(_TABLE.c.id).where(_NOT_DRAINED, _IS_OPEN, _TABLE.c.connection == name))
        .scalars()
        .all()
    )
    if not ids:
        return
    due = (
        select(literal(1))
        .where(_is_waiting_since(name, literal(ended_at, schema.Instant())))
        .limit(MAX_WAITED + 1)
    )
    waited = conn.execute(select(func.count()).select_from(due.subquery())).scalar_one()
    ended = {"ended_at": ended_at, "waited": waited, "drained_at": None if waited else ended_at}
    conn.execute(update(_TABLE).where(_TABLE.c.id.in_(ids)).values(ended))
    if not by_operator:
        record_audit(conn, ended_at, BRIDGE, "recover", [name], {"waited": waited} if waited else None)


def note_drained(database: Database) -> None:
    """Note of ended pauses that all deliveries that waited for their end have been attempted since, or rescheduled."""
    with database.read() as conn:
        draining = conn.execute(
            select(*_TABLE.c["id", "connection", "ended_at"]).where(
                _NOT_DRAINED, _TABLE.c.ended_at.is_not(None)
            )
        ).all()
        drained = [
            item.id
            for item in draining
            if not conn.execute(
                select(
                    exists().where(
                        _is_waiting_since(item.connection, literal(item.ended_at, schema.Instant()))
                    )
                )
            ).scalar_one()
        ]
    if drained:
        with database.write() as conn:
            conn.execute(update(_TABLE).where(_TABLE.c.id.in_(drained)).values(drained_at=database.now(conn)))


def _is_waiting_since(name: str, instant: ColumnElement[datetime]) -> ColumnElement[bool]:
    """Return the condition of deliveries that have been due since `instant`, of one connection or of all."""
    deliveries, names = schema.deliveries, schema.connections.c.name
    is_due = and_(text("deliveries.state IN ('pending', 'retrying')"), deliveries.c.run_at <= instant)
    is_of_all = name == ALL_CONNECTIONS
    return and_(
        is_due, deliveries.c.connection.in_(select(names)) if is_of_all else deliveries.c.connection == name
    )


def remove_old_pauses(conn: Connection, before: datetime) -> None:
    """Delete the pauses that ended before an instant."""
    conn.execute(delete(_TABLE).where(_TABLE.c.started_at < before, _TABLE.c.ended_at < before))
