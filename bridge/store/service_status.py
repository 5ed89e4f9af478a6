"""Service status: the processes, the database and what the service receives, as an operator checks them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import func, literal, select, text

from bridge.store import schema
from bridge.store.database import Database
from bridge.store.gauges import MAX_COUNTED, database_size, read_gauges
from bridge.store.migrate import current_revision, newest_revision
from bridge.store.workers import ALIVE_WINDOW

RECEIVED_WITHIN: Final = timedelta(hours=24)


class WorkerHeartbeat(NamedTuple):
    """A process that works on the database."""

    id: str
    host: str
    version: str
    started_at: datetime
    last_heartbeat_at: datetime
    is_alive: bool


class ReceivedCount(NamedTuple):
    """Number of requests with one result in the last 24 hours."""

    result: str
    """`event`, or why a request was rejected."""
    total: int
    """At most `MAX_COUNTED`."""


@dataclass(frozen=True)
class ServiceStatus:
    """The status at one time."""

    workers: Sequence[WorkerHeartbeat]
    database: str
    """`SQLite` or `PostgreSQL`, with its version."""
    size: int
    """Bytes of the database."""
    disk_free: int | None
    """Free bytes where SQLite stores the file. None for PostgreSQL."""
    revision: str | None
    newest_revision: str
    clock_difference: timedelta
    """How far the clock of the database is ahead of this process's."""
    received: Sequence[ReceivedCount]
    last_event_at: datetime | None
    oldest_event_at: datetime | None
    """When the oldest stored event was received."""
    unrouted: int
    """At most `MAX_COUNTED`."""
    oldest_unrouted: datetime | None
    oldest_due: datetime | None
    """When the oldest delivery became due that no pause holds back."""

    def to_json(self) -> dict[str, Any]:
        """Return the record of the API."""
        record = asdict(self) | {"clock_difference": self.clock_difference.total_seconds()}
        record["workers"] = [worker._asdict() for worker in self.workers]
        record["received"] = {count.result: count.total for count in self.received}
        return record


def _file_size(file: Path) -> int:
    """Return the bytes of a SQLite database with its log."""
    log = file.with_name(f"{file.name}-wal")
    return file.stat().st_size + (log.stat().st_size if log.exists() else 0)


def read_service_status(database: Database) -> ServiceStatus:
    """Return the status now. Raise StoreUnavailable."""
    gauges = read_gauges(database)
    events, rejected, workers = schema.events.c, schema.rejected_requests.c, schema.workers
    with database.read() as conn:
        local = database.clock.now()
        now = database.now(conn)
        version = conn.execute(
            text("SELECT sqlite_version()" if database.is_sqlite else "SHOW server_version")
        ).scalar_one()
        alive = [
            WorkerHeartbeat(
                row.id, row.host, row.version, row.started_at, row.last_heartbeat_at,
                row.last_heartbeat_at >= now - ALIVE_WINDOW,
            )
            for row in conn.execute(select(workers).order_by(workers.c.started_at))
        ]  # fmt: skip
        since = now - RECEIVED_WITHIN
        recent = select(literal("event")).where(events.received_at >= since).limit(MAX_COUNTED).subquery()
        refused = select(rejected.reason).where(rejected.received_at >= since).limit(MAX_COUNTED).subquery()
        received = [
            ReceivedCount("event", conn.execute(select(func.count()).select_from(recent)).scalar_one())
        ]
        received += [
            ReceivedCount(*row)
            for row in conn.execute(
                select(refused.c.reason, func.count()).group_by(refused.c.reason).order_by(refused.c.reason)
            )
        ]
        oldest = conn.execute(select(func.min(events.received_at))).scalar_one()
    due = [item.oldest for item in gauges.backlogs if item.pause is None and item.oldest is not None]
    file = database.file
    return ServiceStatus(
        workers=alive,
        database=f"{'SQLite' if database.is_sqlite else 'PostgreSQL'} {version}",
        size=database_size(database) if file is None else _file_size(file),
        disk_free=None if file is None else shutil.disk_usage(file.resolve().parent).free,
        revision=current_revision(database),
        newest_revision=newest_revision(),
        clock_difference=now - local,
        received=received,
        last_event_at=gauges.last_event_at,
        oldest_event_at=oldest,
        unrouted=gauges.unrouted,
        oldest_unrouted=gauges.oldest_unrouted,
        oldest_due=min(due, default=None),
    )
