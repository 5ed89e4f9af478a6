"""Repeated attempts: while a circuit breaker is open, the probes of a delivery share one row of `attempts`.

Each probe is recorded before its request leaves, as any attempt. Once it has failed in the same way as the probe
before it, its row is removed and counted in that one's row, which otherwise would be one of thousands during a long
outage. An outcome that is unknown, and a different one, keep their own row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete, func, or_, select, text, tuple_

from bridge.lifecycle import AttemptOutcome, PauseCause
from bridge.store import schema
from bridge.store.bulk import bulk_update

FOLDED: Final = (AttemptOutcome.FAILED, AttemptOutcome.LOOKUP_FAILED)
"""The outcomes of which it is certain that the probe changed nothing."""
_TABLE = schema.attempts
_PAUSES = schema.connection_pauses


class Probe(NamedTuple):
    """A probe with its result, whose row has been written."""

    delivery_id: str
    fencing_token: int
    connection: str
    kind: str
    outcome: AttemptOutcome
    reason: str | None
    detail: str | None


def fold_repeats(conn: Connection, probes: Sequence[Probe], now: datetime) -> None:
    """Remove the rows of probes that repeat the previous attempt of their delivery in this outage; count them there."""
    probes = [probe for probe in probes if probe.outcome in FOLDED]
    if not probes:
        return
    outages = _open_outages(conn, {probe.connection for probe in probes})
    previous = _previous_attempts(conn, probes)
    kept: list[dict[str, Any]] = []
    repeated: list[tuple[str, int]] = []
    for probe in probes:
        row, since = previous.get(probe.delivery_id), outages.get(probe.connection)
        if row is None or since is None or row.started_at < since:
            continue
        if (row.kind, row.outcome, row.reason) != (probe.kind, probe.outcome, probe.reason):
            continue
        repeated.append((probe.delivery_id, probe.fencing_token))
        kept.append(
            {
                "delivery_id": probe.delivery_id,
                "fencing_token": row.fencing_token,
                "repeats": row.repeats + 1,
                "detail": probe.detail,
                "finished_at": now,
            }
        )
    if kept:
        key = tuple_(_TABLE.c.delivery_id, _TABLE.c.fencing_token)
        conn.execute(delete(_TABLE).where(key.in_(repeated)))
        bulk_update(conn, _TABLE, ["delivery_id", "fencing_token"], kept)


def _open_outages(conn: Connection, names: Collection[str]) -> dict[str, datetime]:
    """Return since when the circuit breakers of these connections are open."""
    is_outage = _PAUSES.c.ended_at.is_(None) & (_PAUSES.c.cause == PauseCause.CIRCUIT_OPEN)
    rows = conn.execute(
        select(_PAUSES.c.connection, _PAUSES.c.started_at).where(
            text("connection_pauses.drained_at IS NULL"), is_outage, _PAUSES.c.connection.in_(names)
        )
    )
    return {row.connection: row.started_at for row in rows}


def _previous_attempts(conn: Connection, probes: Sequence[Probe]) -> dict[str, Any]:
    """Return the row before each probe's own, by delivery."""
    earlier = _TABLE.alias("earlier")
    newest = (
        select(func.max(earlier.c.fencing_token))
        .where(
            earlier.c.delivery_id == _TABLE.c.delivery_id, earlier.c.fencing_token < _TABLE.c.fencing_token
        )
        .scalar_subquery()
    )
    own = or_(
        *(
            (_TABLE.c.delivery_id == probe.delivery_id) & (_TABLE.c.fencing_token == probe.fencing_token)
            for probe in probes
        )
    )
    tokens = {row[0]: row[1] for row in conn.execute(select(_TABLE.c.delivery_id, newest).where(own))}
    keys = [(delivery_id, token) for delivery_id, token in tokens.items() if token is not None]
    if not keys:
        return {}
    columns = _TABLE.c["delivery_id", "fencing_token", "kind", "started_at", "outcome", "reason", "repeats"]
    rows = conn.execute(
        select(*columns).where(tuple_(_TABLE.c.delivery_id, _TABLE.c.fencing_token).in_(keys))
    )
    return {row.delivery_id: row for row in rows}
