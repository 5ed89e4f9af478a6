"""Problems of the service: the facts that the database knows, and the alerts about them.

What the team was told is kept in `alert_groups`, so that of several processes only one alerts. A problem's row has the
cause `problem: ...`, and `latest` is since when it is announced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, func, select, text, update

from bridge.events import Event
from bridge.ids import new_id
from bridge.lifecycle import DeliveryState, PauseCause
from bridge.policy.alert_groups import ALERT_INTERVAL
from bridge.policy.service_problems import (
    Announcement,
    DueDeliveries,
    Outage,
    ProblemCause,
    ServiceProblem,
    Watched,
    is_over,
)
from bridge.rules.alert_settings import AlertSettings
from bridge.store import schema
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.follow_ups import FollowUpPlanner
from bridge.store.gauges import read_gauges
from bridge.store.routing import delivery_row
from bridge.store.silence import is_silence_unusual

_GROUPS, _DELIVERIES = schema.alert_groups, schema.deliveries
_PAUSES = schema.connection_pauses
_PREFIX: Final = "problem: "
_OUTAGE: Final = "outage"
FORGET_AFTER: Final = timedelta(days=90)
"""The time after the last alert about a problem, when its row is deleted: hosts come and go."""
MAX_REVIEWS: Final = 1000
"""Deliveries that need review, of which the oldest are looked at."""


def read_facts(database: Database, settings: AlertSettings, host: str) -> Watched:
    """Return the facts that the database knows. Raise StoreUnavailable."""
    gauges = read_gauges(database)
    with database.read() as conn:
        now = gauges.at
        reviews, oldest_review = conn.execute(_reviews()).one()
        silent = is_silence_unusual(conn, gauges.last_event_at, settings.no_events_after, now)
        circuits = conn.execute(
            select(_PAUSES.c.connection, _PAUSES.c.started_at).where(
                text("connection_pauses.drained_at IS NULL"),  # the index of present pauses
                _PAUSES.c.ended_at.is_(None),
                _PAUSES.c.cause == PauseCause.CIRCUIT_OPEN,
            )
        )
        return Watched(
            now,
            host,
            gauges.workers,
            [
                DueDeliveries(backlog.connection, backlog.due, backlog.oldest)
                for backlog in gauges.backlogs
                if backlog.pause is None and backlog.oldest is not None
            ],
            gauges.unrouted,
            gauges.oldest_unrouted,
            [(row.connection, row.started_at) for row in circuits],
            reviews,
            oldest_review,
            gauges.last_event_at,
            silent,
        )


def _reviews() -> Any:
    """Return the query of the deliveries that need review: how many, and since when the first of them does."""
    attempts = schema.attempts
    last_attempt = (
        select(func.max(attempts.c.finished_at))
        .where(attempts.c.delivery_id == _DELIVERIES.c.id)
        .scalar_subquery()
        .label("since")
    )
    rows = (
        select(last_attempt)
        .where(_DELIVERIES.c.state == DeliveryState.NEEDS_REVIEW)
        .order_by(_DELIVERIES.c.created_at)
        .limit(MAX_REVIEWS)
        .subquery()
    )
    return select(func.count(), func.min(rows.c.since))


def announce(
    database: Database,
    problems: Sequence[ServiceProblem],
    judged: Callable[[Announcement], bool],
    plan: FollowUpPlanner,
) -> list[str]:
    """Create the alerts that are due, and return their messages.

    `judged` says of an announced problem that is not in `problems` whether it is over: a process does not know about
    the problems of another host.
    """
    found = {problem.key: problem for problem in problems}
    with database.read() as conn:
        if not any(
            announcement.update(found.get(key), database.clock.now())
            for key, announcement in _announcements(conn, found, judged).items()
        ):
            return []
    messages = []
    with database.write() as conn:
        rows = [{"connection": subject, "cause": _PREFIX + cause} for subject, cause in sorted(found)]
        if rows:
            conn.execute(database.insert_new(_GROUPS), rows)
        now = database.now(conn)
        is_forgotten = _GROUPS.c.cause.startswith(_PREFIX) & (_GROUPS.c.last_alert_at < now - FORGET_AFTER)
        conn.execute(delete(_GROUPS).where(is_forgotten))
        for key, announcement in _announcements(conn, found, judged, lock=True).items():
            problem = found.get(key)
            recovery = announcement.recovery_message(now)
            state = announcement.update(problem, now)
            if state is None:
                continue
            _save(conn, announcement)
            message = problem.message if problem else recovery
            _create(database, conn, plan, _template_vars(announcement, state, message), now)
            messages.append(message)
    return messages


def announce_outage(database: Database, outage: Outage, host: str, plan: FollowUpPlanner) -> bool:
    """Create the alert about an outage that is over. Return False if the last one is too recent: try again later."""
    with database.write() as conn:
        key = {"connection": host, "cause": _PREFIX + _OUTAGE}
        conn.execute(database.insert_new(_GROUPS), [key])
        is_row = (_GROUPS.c.connection == host) & (_GROUPS.c.cause == _PREFIX + _OUTAGE)
        last_alert_at = conn.execute(
            select(_GROUPS.c.last_alert_at).where(is_row).with_for_update()
        ).scalar_one()
        now = database.now(conn)
        if not is_over(ALERT_INTERVAL, last_alert_at, now):
            return False
        conn.execute(update(_GROUPS).where(is_row).values(last_alert_at=now))
        variables = _problem_template_vars(host, "recovered", outage.kind, outage.message, now)
        _create(database, conn, plan, variables, now)
    return True


def _announcements(
    conn: Connection,
    found: Collection[tuple[str, str]],
    judged: Callable[[Announcement], bool],
    *,
    lock: bool = False,
) -> dict[tuple[str, str], Announcement]:
    """Return what was told about the problems that were found, and about those that are over."""
    causes = [_PREFIX + cause for cause in ProblemCause]
    query = select(*_GROUPS.c["connection", "cause", "last_alert_at", "latest"]).where(
        _GROUPS.c.cause.in_(causes)
    )
    rows = conn.execute(
        query.order_by(_GROUPS.c.connection, _GROUPS.c.cause).with_for_update() if lock else query
    )
    announcements = {key: Announcement(key[0], ProblemCause(key[1])) for key in found}
    for row in rows:
        cause = ProblemCause(row.cause.removeprefix(_PREFIX))
        since = datetime.fromisoformat(row.latest) if row.latest else None
        announcement = Announcement(row.connection, cause, row.last_alert_at, since)
        key = (row.connection, cause)
        if key in found or (since is not None and judged(announcement)):
            announcements[key] = announcement
    return announcements


def _save(conn: Connection, announcement: Announcement) -> None:
    conn.execute(
        update(_GROUPS)
        .where(_GROUPS.c.connection == announcement.subject, _GROUPS.c.cause == _PREFIX + announcement.cause)
        .values(
            last_alert_at=announcement.last_alert_at,
            latest=announcement.since.isoformat() if announcement.since else None,
        )
    )


def _template_vars(announcement: Announcement, state: str, message: str) -> dict[str, Any]:
    assert announcement.last_alert_at is not None  # noqa: S101 - `update` has set it
    return _problem_template_vars(
        announcement.subject, state, announcement.cause, message, announcement.last_alert_at
    )


def _problem_template_vars(
    subject: str, state: str, reason: str, message: str, now: datetime
) -> dict[str, Any]:
    """Return `delivery` for the templates of an alert about the service."""
    return {
        "id": new_id("prb"),
        "connection": subject or None,
        "state": state,
        "reason": reason,
        "detail": message,
        "message": message,
        "count": 1,
        "outcome_id": f"{subject} {reason} {state} {now.isoformat()}",
    }


def _create(
    database: Database, conn: Connection, plan: FollowUpPlanner, variables: Mapping[str, Any], now: datetime
) -> None:
    event = Event({}, str(variables["id"]), now)
    rules_hash, planned = plan(event, variables, now)
    rows = [delivery_row(item, event, rules_hash, now, parent_id=str(variables["id"])) for item in planned]
    if rows:
        conn.execute(_DELIVERIES.insert(), rows)
        database.publish(conn, [EVENTS_TOPIC, *(row["connection"] for row in rows)])
