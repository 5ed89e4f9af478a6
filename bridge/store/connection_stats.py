"""Connection stats: the number and duration of the attempts per connection, in periods of five minutes.

They are added up in the transaction that records the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection

from bridge.errors import DeliveryError, PermanentError
from bridge.store import schema
from bridge.store.bulk import bulk_insert

PERIOD: Final = timedelta(minutes=5)
"""The length of a period; each starts at a multiple of it."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_COUNTS: Final = ("succeeded", "failed", "rejected", "milliseconds")
_ADD: Final = "ON CONFLICT (connection, started_at) DO UPDATE SET " + ", ".join(
    f"{name} = connection_stats.{name} + excluded.{name}" for name in _COUNTS
)


class FinishedAttempt(NamedTuple):
    """What is counted of an attempt."""

    connection: str
    started_at: datetime
    """When the delivery was claimed for the attempt."""
    failure: DeliveryError | None
    """None if it succeeded."""


def period_start(instant: datetime, period: timedelta = PERIOD) -> datetime:
    """Return the start of the period that contains an instant."""
    return instant - (instant - _EPOCH) % period


def count_attempts(conn: Connection, attempts: Sequence[FinishedAttempt], now: datetime) -> None:
    """Add finished attempts to the current period of their connections. Their rows are locked in one order."""
    rows: dict[str, dict[str, object]] = {}
    started_at = period_start(now)
    for item in attempts:
        row = rows.get(item.connection)
        if row is None:
            row = {"connection": item.connection, "started_at": started_at} | dict.fromkeys(_COUNTS, 0)
            rows[item.connection] = row
        row[_column(item.failure)] += 1  # type: ignore[operator]
        row["milliseconds"] += max(0, (now - item.started_at) // timedelta(milliseconds=1))  # type: ignore[operator]
    if rows:
        bulk_insert(conn, schema.connection_stats, [rows[name] for name in sorted(rows)], _ADD)


def _column(failure: DeliveryError | None) -> str:
    if failure is None:
        return "succeeded"
    return "rejected" if isinstance(failure, PermanentError) else "failed"
