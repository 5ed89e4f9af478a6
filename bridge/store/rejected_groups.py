"""Rejected requests by reason: how many, since when, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Integer, case, func, select

from bridge.store import schema
from bridge.store.database import Database

RECENT: Final = timedelta(hours=24)
SHOWN: Final = 5
"""Newest requests of a group that are listed."""
_TABLE = schema.rejected_requests.c
_SAME_CAUSE: Final = ("conflict", "timestamp_off", "wrong_path")
"""Reasons whose details differ from request to request although their cause is the same."""


@dataclass(frozen=True)
class RejectedGroup:
    """Requests that were rejected for the same reason and with the same explanation."""

    reason: str
    detail: str
    """The explanation of the newest request."""
    status: int
    signature_valid: bool
    total: int
    not_accepted: int
    """Those with a valid signature that nobody has accepted yet."""
    first_at: datetime
    last_at: datetime
    newest: Sequence[dict[str, Any]]
    """The newest requests: `id`, `received_at`, `detail`, `accepted_event_id`."""


def group_rejected_requests(database: Database) -> list[RejectedGroup]:
    """Return the stored rejected requests, of which there are at most 10,000, by cause; the newest group first."""
    cause = case((_TABLE.reason.in_(_SAME_CAUSE), ""), else_=_TABLE.detail).label("cause")
    open_ones = case((_TABLE.signature_valid & _TABLE.accepted_event_id.is_(None), 1), else_=0)
    groups = (
        select(
            _TABLE.reason,
            cause,
            func.max(_TABLE.id).label("newest_id"),
            func.count().label("total"),
            func.sum(open_ones).cast(Integer).label("not_accepted"),
            func.min(_TABLE.received_at).label("first_at"),
            func.max(_TABLE.received_at).label("last_at"),
        )
        .group_by(_TABLE.reason, cause)
        .order_by(func.max(_TABLE.received_at).desc())
        .limit(100)
    )
    columns = schema.rejected_requests.c[
        "id", "received_at", "reason", "detail", "status", "signature_valid", "accepted_event_id"
    ]
    with database.read() as conn:
        found = conn.execute(groups).all()
        result = []
        for group in found:
            of_group = select(*columns).where(_TABLE.reason == group.reason)
            if group.cause:
                of_group = of_group.where(_TABLE.detail == group.cause)
            rows = [
                dict(row._mapping) for row in conn.execute(of_group.order_by(_TABLE.id.desc()).limit(SHOWN))
            ]
            newest = rows[0]
            result.append(
                RejectedGroup(
                    group.reason,
                    newest["detail"],
                    newest["status"],
                    newest["signature_valid"],
                    group.total,
                    group.not_accepted,
                    group.first_at,
                    group.last_at,
                    rows,
                )
            )
    return result


def recent_rejected_requests(database: Database) -> list[tuple[str, int]]:
    """Return how many requests were rejected within the last day, by reason, the most frequent first."""
    with database.read() as conn:
        rows = conn.execute(
            select(_TABLE.reason, func.count().label("total"))
            .where(_TABLE.received_at >= database.now(conn) - RECENT)
            .group_by(_TABLE.reason)
            .order_by(func.count().desc())
        )
        return [(row.reason, row.total) for row in rows]
