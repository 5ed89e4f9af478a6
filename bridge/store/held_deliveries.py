"""Held deliveries: what waits while sending is stopped, and what leaves when it starts again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, and_, case, func, select, text

from bridge.lifecycle import StopScope
from bridge.store import schema
from bridge.store.bulk_actions import BulkResult, change_all
from bridge.store.database import Database
from bridge.store.delivery_list import DeliveryFilter
from bridge.store.waiting import IS_WAITING

MAX_COUNTED: Final = 10_000
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
    """Those that leave as soon as sending starts."""
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
    """False if `MAX_COUNTED` or more deliveries wait."""

    def waiting(self, *, only_messages: bool = False) -> int:
        """Return the number of waiting deliveries."""
        return sum(
            group.due + group.expired + group.later
            for group in self.groups
            if group.is_message or not only_messages
        )

    @property
    def due(self) -> int:
        """The number of deliveries that leave as soon as sending starts."""
        return sum(group.due for group in self.groups)


def held_deliveries(
    database: Database,
    ages: Sequence[timedelta] = (),
    *,
    only_messages: bool = False,
    connection: str | None = None,
) -> HeldDeliveries:
    """Return what waits, by connection and kind, the largest group first, or for one connection only.

    Alerts are not counted.
    """
    columns = _TABLE.c["connection", "channel", "action", "run_at", "expires_at", "created_at"]
    query = select(*columns).where(IS_WAITING, _TABLE.c.trigger != "alert").limit(MAX_COUNTED)
    if only_messages:
        query = query.where(_TABLE.c.channel.is_not(None))
    if connection is not None:
        # In the order of the index of waiting deliveries, so that it is chosen and not one of all deliveries.
        query = query.where(_TABLE.c.connection == connection).order_by(_TABLE.c.run_at)
    waiting = query.subquery()
    running = select(_TABLE.c.id).where(text("deliveries.state = 'running'")).limit(MAX_RUNNING).subquery()
    held = HeldDeliveries()
    with database.read() as conn:
        now = database.now(conn)
        held.running = conn.execute(select(func.count()).select_from(running)).scalar_one()
        is_expired = func.coalesce(waiting.c.expires_at <= now, False)
        is_due = and_(~is_expired, waiting.c.run_at <= now)
        kind = func.coalesce(waiting.c.channel, waiting.c.action)
        groups = select(
            waiting.c.connection,
            kind,
            func.count(waiting.c.channel),
            _count(is_due),
            _count(is_expired),
            _count(and_(~is_expired, waiting.c.run_at > now)),
            func.min(case((is_due, waiting.c.created_at))),
            *(_count(and_(is_due, waiting.c.created_at < now - age)) for age in ages),
        )
        for row in conn.execute(groups.group_by(waiting.c.connection, kind)):
            name, kind_name, messages, due, expired, later, oldest, *older = row
            held.groups.append(HeldGroup(name, kind_name, messages > 0, due, expired, later, oldest))
            held.older.update(dict(zip(ages, older, strict=True)))
    held.is_complete = held.waiting() < MAX_COUNTED
    held.groups.sort(key=lambda group: (-group.due, group.connection, group.kind))
    return held


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count(case((condition, 1)))


def cancel_held(database: Database, actor: str, age: timedelta, scope: StopScope) -> BulkResult:
    """Cancel the due deliveries that were created longer ago than `age` and that the stop holds back.

    Raise TooManyDeliveries.
    """
    now = database.clock.now()
    matching = DeliveryFilter(until=now - age, due=now, only_messages=scope is StopScope.MESSAGES)
    return change_all(database, actor, "cancel", matching)
