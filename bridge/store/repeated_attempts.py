"""Repeated attempts: while a circuit breaker is open, the probes of a delivery share one row of `attempts`.

Each probe is recorded before its request leaves, as any attempt. Once it has failed in the same way as an earlier probe
of this outage, its row is removed and counted in that one's row, which otherwise would be one of thousands during a
long outage. An outcome that is unknown keeps its own row, and what comes later does not join a row before it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete, select, text, tuple_

from bridge.lifecycle import AttemptOutcome, PauseCause
from bridge.store import schema
from bridge.store.bulk import bulk_update

FOLDED: Final = (AttemptOutcome.FAILED, AttemptOutcome.LOOKUP_FAILED)
"""The outcomes of which it is certain that the probe changed nothing."""
MAX_ROWS: Final = 1000
"""Attempts that are looked at for one call."""
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
    earlier = _attempts_by_delivery(conn, [probe.delivery_id for probe in probes])
    kept: list[dict[str, Any]] = []
    repeated: list[tuple[str, int]] = []
    for probe in probes:
        since = outages.get(probe.connection)
        row = None if since is None else _same_attempt(probe, earlier[probe.delivery_id], since)
        if row is None:
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


def _attempts_by_delivery(conn: Connection, delivery_ids: Collection[str]) -> dict[str, list[Any]]:
    """Return the newest attempts of deliveries, the newest first."""
    columns = _TABLE.c["delivery_id", "fencing_token", "kind", "started_at", "outcome", "reason", "repeats"]
    newest = (
        select(*columns)
        .where(_TABLE.c.delivery_id.in_(delivery_ids))
        .order_by(_TABLE.c.fencing_token.desc())
        .limit(MAX_ROWS)
    )
    rows: dict[str, list[Any]] = {delivery_id: [] for delivery_id in delivery_ids}
    for row in conn.execute(newest):
        rows[row.delivery_id].append(row)
    return rows


def _same_attempt(probe: Probe, attempts: Sequence[Any], since: datetime) -> Any:
    """Return the attempt of this outage that failed in the same way; None if there is none to join."""
    for row in attempts:
        if row.fencing_token >= probe.fencing_token:
            continue
        if row.started_at < since or row.outcome not in FOLDED:
            return None
        if (row.kind, row.outcome, row.reason) == (probe.kind, probe.outcome, probe.reason):
            return row
    return None
