"""What a failure leads to: the rule's `on_failure`, and alerts to the team.

A delivery that was given up on, or waits for a person, carries a mark until its follow-ups are deliveries of their
own; both change in one transaction, so a kill leaves either the mark or the follow-ups, never neither or both.
When a group cannot be written, its follow-ups are made one by one, and one that fails alone loses its mark and says so.
Follow-ups of follow-ups are not made: an alert that fails is seen on the log page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, exists, func, literal, or_, select, text, update

from bridge.errors import StoreUnavailable
from bridge.events import Event
from bridge.rules.model import PlannedDelivery
from bridge.store import schema
from bridge.store.claim import events_by_delivery
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.results import UNDELIVERED_STATUSES
from bridge.store.routing import delivery_row

FollowUpPlanner = Callable[[Event, Mapping[str, Any], datetime], tuple[str, Sequence[PlannedDelivery]]]
"""The follow-ups of a failure: event, what `delivery` is, now -> the rules' hash and what to do."""

_TABLE, _PAUSED = schema.deliveries, schema.connections


def has_pending_follow_ups(database: Database) -> bool:
    """Whether there is anything to follow up; who only asks takes no writer's turn."""
    delivery = select(literal(1)).select_from(_TABLE).where(text("needs_follow_up"))
    pause = select(literal(1)).select_from(_PAUSED).where(_PAUSED.c.alert_due.is_(True))
    with database.read() as conn:
        return bool(conn.execute(select(or_(exists(delivery), exists(pause)))).scalar_one())


def follow_up_deliveries(database: Database, plan: FollowUpPlanner, limit: int = 50) -> tuple[int, list[str]]:
    """Make the follow-ups of deliveries that carry the mark; returns how many deliveries that were.

    The ids are of those whose follow-ups could not be made.
    """

    def give_up(conn: Connection, idents: Sequence[str], why: str) -> None:
        conn.execute(
            update(_TABLE)
            .where(_TABLE.c.id.in_(idents))
            .values(needs_follow_up=False, detail=func.coalesce(_TABLE.c.detail + "; ", "") + literal(why))
        )

    return _make(database, partial(_follow_up_deliveries, plan=plan), give_up, limit)


def follow_up_pauses(database: Database, plan: FollowUpPlanner, limit: int = 50) -> tuple[int, list[str]]:
    """Make the alerts of connections that were paused; returns how many connections that were.

    The names are of those whose alerts could not be made.
    """

    def give_up(conn: Connection, names: Sequence[str], why: str) -> None:
        conn.execute(
            update(_PAUSED)
            .where(_PAUSED.c.name.in_(names))
            .values(
                alert_due=False, pause_reason=func.coalesce(_PAUSED.c.pause_reason + "; ", "") + literal(why)
            )
        )

    return _make(database, partial(_follow_up_pauses, plan=plan), give_up, limit)


def _make(
    database: Database,
    make: Callable[..., int],
    give_up: Callable[[Connection, Sequence[str], str], None],
    limit: int,
) -> tuple[int, list[str]]:
    """Make the follow-ups of up to `limit` of what carries the mark, and give up on one that fails alone."""
    taken: list[str] = []
    try:
        with database.write() as conn:
            return make(database, conn, limit=limit, taken=taken), []
    except StoreUnavailable:
        raise
    except Exception as error:
        if limit > 1:
            return _make(database, make, give_up, 1)
        if not taken:
            raise
        with database.write() as conn:
            give_up(conn, taken, f"no follow-up could be made ({type(error).__name__})")
        return len(taken), taken


def _follow_up_deliveries(
    database: Database, conn: Connection, *, plan: FollowUpPlanner, limit: int, taken: list[str]
) -> int:
    rows = conn.execute(
        select(_TABLE).where(text("needs_follow_up")).limit(limit).with_for_update(skip_locked=True)
    ).all()
    if not rows:
        return 0
    taken += [row.id for row in rows]
    now = database.now(conn)
    events = events_by_delivery(conn, rows)
    made = []
    for row in rows:
        event = events[row.id]
        rules_hash, planned = plan(event, failure_template_vars(row), now)
        made += [delivery_row(item, event, rules_hash, now, parent_id=row.id) for item in planned]
    if made:
        conn.execute(_TABLE.insert(), made)
    conn.execute(update(_TABLE).where(_TABLE.c.id.in_(taken)).values(needs_follow_up=False))
    database.publish(conn, [EVENTS_TOPIC, *(row["connection"] for row in made)])
    return len(rows)


def _follow_up_pauses(
    database: Database, conn: Connection, *, plan: FollowUpPlanner, limit: int, taken: list[str]
) -> int:
    rows = conn.execute(
        select(_PAUSED)
        .where(_PAUSED.c.alert_due.is_(True))
        .order_by(_PAUSED.c.name)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    if not rows:
        return 0
    taken += [row.name for row in rows]
    now = database.now(conn)
    made = []
    for row in rows:
        event = Event({}, row.pause_id or row.name, now)
        rules_hash, planned = plan(event, pause_template_vars(row), now)
        made += [delivery_row(item, event, rules_hash, now, parent_id=row.pause_id) for item in planned]
    if made:
        conn.execute(_TABLE.insert(), made)
    conn.execute(update(_PAUSED).where(_PAUSED.c.name.in_(taken)).values(alert_due=False))
    database.publish(conn, [row["connection"] for row in made])
    return len(rows)


def failure_template_vars(row: Row[Any]) -> dict[str, Any]:
    """What `delivery` is in the templates of `on_failure` and `alerts`: see `DELIVERY_FIELDS`."""
    done = "waits for a person" if row.state == "needs_review" else "failed"
    not_received = (
        row.message_status
        if row.state == "succeeded" and row.message_status in UNDELIVERED_STATUSES
        else None
    )
    if not_received:
        done = f"was {not_received}"
    why = row.detail or row.reason or "no reason given"
    return {
        "id": row.id,
        "rule": row.rule,
        "action": row.action,
        "connection": row.connection,
        "state": row.state,
        "reason": row.reason or not_received,
        "detail": row.detail,
        "message_status": row.message_status,
        "recipient": row.recipient,
        "attempts": row.attempts,
        "message": f"{row.action} of rule {row.rule} {done}: {why} ({row.id})",
    }


def pause_template_vars(row: Row[Any]) -> dict[str, Any]:
    """The same for a connection that was paused."""
    until = (
        ""
        if row.paused_until is None or row.paused_until.year == 9999
        else f" until {row.paused_until:%H:%M} UTC"
    )
    return {
        "id": row.pause_id,
        "connection": row.name,
        "state": "paused",
        "reason": row.pause_cause,
        "detail": row.pause_reason,
        "message": f"connection {row.name} is paused{until} ({row.pause_cause}): {row.pause_reason}",
    }
