"""Held deliveries: what waits while sending is stopped, and what leaves when it starts again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select, text

from bridge.lifecycle import StopScope
from bridge.store import schema
from bridge.store.bulk_actions import BulkResult, change_all
from bridge.store.database import Database
from bridge.store.delivery_list import DeliveryFilter
from bridge.store.rule_deliveries import IS_WAITING

MAX_COUNTED: Final = 20_000
"""Waiting deliveries are counted up to this number, so that the page is quick however many wait."""
MAX_RUNNING: Final = 1_000

_TABLE = schema.deliveries


@dataclass
class HeldGroup:
    """Waiting deliveries of one connection and kind."""

    connection: str
    kind: str
    """The channel of a message, or the full name of another action."""
    is_message: bool
    due: int = 0
    """Those that leave at once when sending starts."""
    expired: int = 0
    """Those that expired while they waited, and are not sent."""
    later: int = 0
    """Those whose time has not come."""
    oldest: datetime | None = None
    """When the oldest of those that are due was created."""


@dataclass
class HeldDeliveries:
    """What waits, and for how long."""

    groups: list[HeldGroup] = field(default_factory=list)
    older: Counter[timedelta] = field(default_factory=Counter)
    """Age -> number of due deliveries that were created longer ago."""
    running: int = 0
    """Deliveries that have left the queue: they cannot be called back."""
    is_complete: bool = True
    """False if more than `MAX_COUNTED` deliveries wait."""

    def waiting(self, *, only_messages: bool = False) -> int:
        """Return the number of waiting deliveries."""
        return sum(
            group.due + group.expired + group.later
            for group in self.groups
            if group.is_message or not only_messages
        )

    @property
    def due(self) -> int:
        """The number of deliveries that leave at once."""
        return sum(group.due for group in self.groups)


def held_deliveries(
    database: Database,
    ages: Sequence[timedelta] = (),
    *,
    only_messages: bool = False,
    connection: str | None = None,
) -> HeldDeliveries:
    """Return what waits, of all connections or one, by connection and kind. Alerts are not counted."""
    columns = _TABLE.c["connection", "channel", "action", "run_at", "expires_at", "created_at"]
    query = select(*columns).where(IS_WAITING, _TABLE.c.trigger != "alert").limit(MAX_COUNTED + 1)
    if connection is not None:
        # In the order of the index of waiting deliveries, so that it is chosen and not one of all deliveries.
        query = query.where(_TABLE.c.connection == connection).order_by(_TABLE.c.run_at)
    if only_messages:
        query = query.where(_TABLE.c.channel.is_not(None))
    running = select(_TABLE.c.id).where(text("deliveries.state = 'running'")).limit(MAX_RUNNING).subquery()
    held = HeldDeliveries()
    groups: dict[tuple[str, str], HeldGroup] = {}
    with database.read() as conn:
        now = database.now(conn)
        held.running = conn.execute(select(func.count()).select_from(running)).scalar_one()
        rows = conn.execute(query).all()
    held.is_complete = len(rows) <= MAX_COUNTED
    for row in rows[:MAX_COUNTED]:
        kind = row.channel or row.action
        group = groups.setdefault(
            (row.connection, kind), HeldGroup(row.connection, kind, row.channel is not None)
        )
        if row.expires_at is not None and row.expires_at <= now:
            group.expired += 1
        elif row.run_at > now:
            group.later += 1
        else:
            group.due += 1
            group.oldest = min(group.oldest or row.created_at, row.created_at)
            held.older.update(age for age in ages if row.created_at < now - age)
    held.groups = sorted(groups.values(), key=lambda group: (-group.due, group.connection, group.kind))
    return held


def cancel_held(database: Database, actor: str, age: timedelta, scope: StopScope) -> BulkResult:
    """Cancel the due deliveries that were created longer ago than `age` and that the stop holds back.

    Raise TooManyDeliveries.
    """
    now = database.clock.now()
    matching = DeliveryFilter(until=now - age, due=now, only_messages=scope is StopScope.MESSAGES)
    return change_all(database, actor, "cancel", matching)
