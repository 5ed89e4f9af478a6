"""Follow-ups: turns results into deliveries of `on_success` and `on_failure` steps and of alerts to the team.

A delivery that failed or needs review, or succeeded in a rule with `on_success`, is flagged until its follow-ups have
been created. Both change in one transaction, so a kill leaves either the flag or the follow-ups, never neither or
both. If a batch cannot be written, its follow-ups are created one by one; one that fails alone loses its flag and
records the error. Follow-ups have no follow-ups: an alert that fails is visible on the dashboard.

Alerts are grouped (`bridge.policy.alert_groups`): of those that `plan` returns for a delivery, only an admitted one is
created. The delivery is counted otherwise, and `follow_up_alert_groups` alerts about it later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, exists, func, literal, or_, select, text, update

from bridge.errors import StoreUnavailable
from bridge.events import Event
from bridge.lifecycle import DeliveryState, StopScope
from bridge.policy.alert_groups import AlertGroup, cause_of
from bridge.rules.model import PlannedDelivery
from bridge.store import schema
from bridge.store.alert_groups import (
    ANY_GROUP_IS_DUE,
    Problem,
    admit_alerts,
    due_parameters,
    lock_due_groups,
    save_groups,
)
from bridge.store.connections import CONNECTION_COLUMNS, ConnectionState
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.deliveries import DELIVERY_COLUMNS, Delivery
from bridge.store.pauses import ALL_CONNECTIONS
from bridge.store.results import UNDELIVERED_STATUSES
from bridge.store.routing import delivery_row, events_by_delivery
from bridge.store.transitions import finish_follow_ups

FollowUpPlanner = Callable[[Event, Mapping[str, Any], datetime], tuple[str, Sequence[PlannedDelivery]]]
"""Plans follow-ups: event, value of `delivery` in templates, now -> hash of the rules, planned deliveries."""

_DELIVERIES, _CONNECTIONS = schema.deliveries, schema.connections
_ANY_PENDING = select(
    or_(
        exists(select(literal(1)).select_from(_DELIVERIES).where(text("needs_follow_up"))),
        exists(select(literal(1)).select_from(_CONNECTIONS).where(_CONNECTIONS.c.alert_due.is_(True))),
        ANY_GROUP_IS_DUE,
    )
)
"""Built once, because every batch of the router uses it."""


def has_pending_follow_ups(database: Database) -> bool:
    """True if there is anything to follow up; a read, so that it does not wait in the write queue."""
    with database.read() as conn:
        return bool(conn.execute(_ANY_PENDING, due_parameters(database.clock.now())).scalar_one())


def follow_up_deliveries(database: Database, plan: FollowUpPlanner, limit: int = 50) -> tuple[int, list[str]]:
    """Create the follow-ups of flagged deliveries; return the number of deliveries that were processed.

    The returned IDs are those of deliveries whose follow-ups could not be created.
    """
    return _run_batch(database, partial(_follow_up_deliveries, plan=plan), finish_follow_ups, limit)


def follow_up_pauses(database: Database, plan: FollowUpPlanner, limit: int = 50) -> tuple[int, list[str]]:
    """Create the alerts about paused connections; return the number of connections that were processed.

    The returned names are those of connections whose alerts could not be created.
    """

    def give_up(conn: Connection, names: Sequence[str], error: str) -> None:
        conn.execute(
            update(_CONNECTIONS)
            .where(_CONNECTIONS.c.name.in_(names))
            .values(
                alert_due=False,
                pause_reason=func.coalesce(_CONNECTIONS.c.pause_reason + "; ", "") + literal(error),
            )
        )

    return _run_batch(database, partial(_follow_up_pauses, plan=plan), give_up, limit)


def follow_up_alert_groups(
    database: Database, plan: FollowUpPlanner, limit: int = 50
) -> tuple[int, list[str]]:
    """Create the due alerts about counted problems; return the number of groups that were processed.

    The returned names are those of groups whose alerts could not be created.
    """

    def give_up(conn: Connection, names: Sequence[str], error: str) -> None:
        del error  # the caller logs it; the problems themselves are visible in their own lists
        for group in lock_due_groups(conn, database.now(conn), limit):
            if group.name in names:
                group.waiting.clear()
                save_groups(conn, [group])

    return _run_batch(database, partial(_follow_up_alert_groups, plan=plan), give_up, limit)


def _run_batch(
    database: Database,
    create: Callable[..., int],
    give_up: Callable[[Connection, Sequence[str], str], None],
    limit: int,
) -> tuple[int, list[str]]:
    """Create the follow-ups of up to `limit` flagged rows, and give up on one that fails alone."""
    locked: list[str] = []
    try:
        with database.write() as conn:
            return create(database, conn, limit=limit, locked=locked), []
    except StoreUnavailable:
        raise
    except Exception as error:
        if limit > 1:
            return _run_batch(database, create, give_up, 1)
        if not locked:
            raise
        with database.write() as conn:
            give_up(conn, locked, f"follow-up failed ({type(error).__name__})")
        return len(locked), locked


def _follow_up_deliveries(
    database: Database, conn: Connection, *, plan: FollowUpPlanner, limit: int, locked: list[str]
) -> int:
    flagged = select(*DELIVERY_COLUMNS).where(text("needs_follow_up"))
    rows = conn.execute(flagged.limit(limit).with_for_update(skip_locked=True))
    deliveries = [Delivery.from_row(row) for row in rows]
    if not deliveries:
        return 0
    locked += [delivery.id for delivery in deliveries]
    now = database.now(conn)
    events = events_by_delivery(database, conn, deliveries)
    created: list[dict[str, Any]] = []
    alerts: dict[str, list[dict[str, Any]]] = {}
    problems: list[Problem] = []
    for delivery in deliveries:
        event, template_vars = events[delivery.id], delivery_template_vars(delivery)
        rules_hash, planned = plan(event, template_vars, now)
        for item in planned:
            row = delivery_row(item, event, rules_hash, now, parent_id=delivery.id)
            (alerts.setdefault(delivery.id, []) if item.trigger == "alert" else created).append(row)
        if delivery.id in alerts:
            problems.append(Problem(delivery.connection, cause_of(template_vars), delivery.rule, delivery.id))
    for delivery_id in admit_alerts(database, conn, problems, now):
        created += alerts[delivery_id]
    if created:
        conn.execute(_DELIVERIES.insert(), created)
    finish_follow_ups(conn, locked)
    database.publish(conn, [EVENTS_TOPIC, *(row["connection"] for row in created)])
    return len(deliveries)


def _follow_up_pauses(
    database: Database, conn: Connection, *, plan: FollowUpPlanner, limit: int, locked: list[str]
) -> int:
    rows = conn.execute(
        select(*CONNECTION_COLUMNS)
        .where(_CONNECTIONS.c.alert_due.is_(True))
        .order_by(_CONNECTIONS.c.name)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    connections = [ConnectionState.from_row(row) for row in rows]
    if not connections:
        return 0
    locked += [connection.name for connection in connections]
    now = database.now(conn)
    created: list[dict[str, Any]] = []
    problems = [
        Problem(item.name, cause_of(pause_template_vars(item)), "", item.pause_id or item.name)
        for item in connections
    ]
    admitted = admit_alerts(database, conn, problems, now)
    for connection in connections:
        pause_id = connection.pause_id or connection.name
        if pause_id in admitted:
            event = Event({}, pause_id, now)
            variables = pause_template_vars(connection, _operator(conn, connection))
            rules_hash, planned = plan(event, variables, now)
            created += [delivery_row(item, event, rules_hash, now, parent_id=pause_id) for item in planned]
    if created:
        conn.execute(_DELIVERIES.insert(), created)
    conn.execute(update(_CONNECTIONS).where(_CONNECTIONS.c.name.in_(locked)).values(alert_due=False))
    database.publish(conn, [row["connection"] for row in created])
    return len(connections)


def _follow_up_alert_groups(
    database: Database, conn: Connection, *, plan: FollowUpPlanner, limit: int, locked: list[str]
) -> int:
    now = database.now(conn)
    groups = lock_due_groups(conn, now, limit)
    if not groups:
        return 0
    locked += [group.name for group in groups]
    created: list[dict[str, Any]] = []
    for group in groups:
        parent_id = group.latest or ""
        event, latest = _latest_problem(database, conn, group, now)
        rules_hash, planned = plan(event, group.summarize(latest, now), now)
        created += [delivery_row(item, event, rules_hash, now, parent_id=parent_id) for item in planned]
    if created:
        conn.execute(_DELIVERIES.insert(), created)
    save_groups(conn, groups)
    database.publish(conn, {row["connection"] for row in created})
    return len(groups)


def _latest_problem(
    database: Database, conn: Connection, group: AlertGroup, now: datetime
) -> tuple[Event, dict[str, Any]]:
    """Return the event of a group's last problem, and `delivery` for an alert about it."""
    problem_id = group.latest or ""
    row = conn.execute(select(*DELIVERY_COLUMNS).where(_DELIVERIES.c.id == problem_id)).one_or_none()
    if row is not None:
        delivery = Delivery.from_row(row)
        [event] = events_by_delivery(database, conn, [delivery]).values()
        return event, delivery_template_vars(delivery)
    event = Event({}, problem_id, now)
    row = conn.execute(select(*CONNECTION_COLUMNS).where(_CONNECTIONS.c.pause_id == problem_id)).one_or_none()
    if row is not None:
        connection = ConnectionState.from_row(row)
        return event, pause_template_vars(connection, _operator(conn, connection))
    return event, _past_problem_template_vars(group)


def _past_problem_template_vars(group: AlertGroup) -> dict[str, Any]:
    """Return `delivery` for an alert about a pause that is over, or about a delivery that was pruned."""
    state, _, reason = group.cause.partition(": ")
    what = "a pause that is over" if state == "paused" else "a delivery that was pruned"
    return {
        "id": group.latest,
        "connection": group.connection,
        "state": state,
        "reason": reason,
        "message": f"{what} (connection {group.connection}, {reason})",
    }


_OUTCOMES = {DeliveryState.NEEDS_REVIEW: "needs review", DeliveryState.SUCCEEDED: "succeeded"}
"""What `delivery.message` says about a delivery; any other has failed."""


def delivery_template_vars(delivery: Delivery) -> dict[str, Any]:
    """Return `delivery` for the templates of follow-ups: see `DELIVERY_FIELDS`; and its `params`."""
    outcome = _OUTCOMES.get(delivery.state, "failed")
    undelivered = (
        delivery.message_status
        if delivery.state == "succeeded" and delivery.message_status in UNDELIVERED_STATUSES
        else None
    )
    if undelivered:
        outcome = f"was {undelivered}"
    cause = delivery.detail or delivery.reason or ("" if outcome == "succeeded" else "no reason given")
    explanation = f": {cause}" if cause else ""
    return {
        "id": delivery.id,
        "rule": delivery.rule,
        "trigger": delivery.trigger,
        "action": delivery.action,
        "connection": delivery.connection,
        "state": delivery.state,
        "reason": delivery.reason or undelivered,
        "detail": delivery.detail,
        "message_status": delivery.message_status,
        "channel": delivery.channel,
        "recipient": delivery.recipient,
        "params": json.loads(delivery.params),
        "external_id": delivery.external_id,
        "sent_at": delivery.possibly_sent_at.isoformat() if delivery.possibly_sent_at else None,
        "attempts": delivery.attempts,
        "count": 1,
        # A delivery that an operator retries may fail or succeed again.
        "outcome_id": f"{delivery.id} {delivery.fencing_token}",
        "message": f"{delivery.action} of rule {delivery.rule} {outcome}{explanation} ({delivery.id})",
    }


def _operator(conn: Connection, connection: ConnectionState) -> str | None:
    """Return who paused all connections; None for a pause of one connection."""
    if connection.name != ALL_CONNECTIONS:
        return None
    pauses = schema.connection_pauses.c
    query = select(pauses.actor).where(pauses.connection == ALL_CONNECTIONS, pauses.ended_at.is_(None))
    actor: str | None = conn.execute(query.order_by(pauses.started_at.desc()).limit(1)).scalar()
    return actor


def pause_template_vars(connection: ConnectionState, actor: str | None = None) -> dict[str, Any]:
    """Return `delivery` for alerts about a paused connection, or about all connections that `actor` has paused."""
    pause = connection.pause
    if connection.name == ALL_CONNECTIONS:
        what = StopScope(connection.stop_scope or StopScope.DELIVERIES).description
        reason = f": {connection.pause_reason}" if connection.pause_reason else ""
        message = (
            f"sending was stopped by {actor or 'an operator'}{reason}. {what} Start it on the dashboard,"
        )
        return _paused_template_vars(connection, f"{message} or with `bridge resume --all`")
    until = f" until {pause.until:%H:%M} UTC" if pause and pause.until else ""
    cause, detail = connection.pause_cause, connection.pause_reason
    hint = f"; {pause.hint}" if pause else ""
    return _paused_template_vars(
        connection, f"connection {connection.name} is paused{until} ({cause}): {detail}{hint}"
    )


def _paused_template_vars(connection: ConnectionState, message: str) -> dict[str, Any]:
    return {
        "id": connection.pause_id,
        "count": 1,
        "connection": connection.name,
        "state": "paused",
        "reason": connection.pause_cause,
        "detail": connection.pause_reason,
        "message": message,
    }
