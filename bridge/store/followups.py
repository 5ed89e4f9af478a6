"""What a failure leads to: the rule's `on_failure`, and alerts to the team.

A delivery that was given up on, or waits for a person, carries a mark until its follow-ups are deliveries of their
own; both change in one transaction, so a kill leaves either the mark or the follow-ups, never neither or both.
Follow-ups of follow-ups are not made: an alert that fails is seen on the log page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, text, update

from bridge.events import Event
from bridge.rules.model import Planned
from bridge.store import schema
from bridge.store.claim import events_of
from bridge.store.database import EVENTS, Database
from bridge.store.outcome import NOT_RECEIVED
from bridge.store.routing import delivery_row

Plan = Callable[[Event, Mapping[str, Any], datetime], tuple[str, Sequence[Planned]]]
"""The follow-ups of a failure: event, what `delivery` is, now -> the rules' hash and what to do."""

_TABLE = schema.deliveries


def follow_up_deliveries(database: Database, plan: Plan, limit: int = 50) -> int:
    """Make the follow-ups of deliveries that carry the mark; returns how many deliveries that were."""
    with database.write() as connection:
        rows = connection.execute(
            select(_TABLE).where(text("follow_up")).limit(limit).with_for_update(skip_locked=True)
        ).all()
        if not rows:
            return 0
        now = database.now(connection)
        events = events_of(connection, rows)
        made = []
        for row in rows:
            event = events[row.id]
            rules_hash, planned = plan(event, about(row), now)
            made += [delivery_row(item, event, rules_hash, now, cause_id=row.id) for item in planned]
        if made:
            connection.execute(_TABLE.insert(), made)
        connection.execute(
            update(_TABLE).where(_TABLE.c.id.in_([row.id for row in rows])).values(follow_up=False)
        )
        database.changed(connection, [EVENTS, *(row["connection"] for row in made)])
        return len(rows)


def follow_up_pauses(database: Database, plan: Plan) -> int:
    """Make the alerts of connections that were paused; returns how many connections that were."""
    table = schema.connections
    with database.write() as connection:
        rows = connection.execute(
            select(table)
            .where(table.c.alert_due.is_(True))
            .order_by(table.c.name)
            .with_for_update(skip_locked=True)
        ).all()
        if not rows:
            return 0
        now = database.now(connection)
        made = []
        for row in rows:
            event = Event({}, row.pause_id or row.name, now)
            rules_hash, planned = plan(event, about_pause(row), now)
            made += [delivery_row(item, event, rules_hash, now, cause_id=row.pause_id) for item in planned]
        if made:
            connection.execute(_TABLE.insert(), made)
        connection.execute(
            update(table).where(table.c.name.in_([row.name for row in rows])).values(alert_due=False)
        )
        database.changed(connection, [row["connection"] for row in made])
        return len(rows)


def about(row: Row[Any]) -> dict[str, Any]:
    """What `delivery` is in the templates of `on_failure` and `alerts`: see `DELIVERY_FIELDS`."""
    done = "waits for a person" if row.state == "review" else "failed"
    not_received = row.receipt if row.state == "sent" and row.receipt in NOT_RECEIVED else None
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
        "receipt": row.receipt,
        "recipient": row.recipient,
        "attempts": row.attempts,
        "message": f"{row.action} of rule {row.rule} {done}: {why} ({row.id})",
    }


def about_pause(row: Row[Any]) -> dict[str, Any]:
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
        "reason": row.paused_by,
        "detail": row.paused_why,
        "message": f"connection {row.name} is paused{until} ({row.paused_by}): {row.paused_why}",
    }
