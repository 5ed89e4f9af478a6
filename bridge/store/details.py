"""Details of conversations: deliveries with late params wait until Heppu has returned the conversation's details.

A claim writes a row for the conversation of each such delivery. A worker claims the row, reads the details over the
connection of Heppu's API, and records them: they are kept for a day, and the delivery's late params are rendered.
Reading is repeatable, so a row that is not answered is simply claimed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    case,
    delete,
    func,
    select,
    text,
    update,
)

from bridge.contacts.mentions import mention_test
from bridge.errors import DeliveryError
from bridge.events import Event
from bridge.lifecycle import Transition
from bridge.rules.counting import History
from bridge.rules.late import DETAILS_CONNECTION, Details, detail_fields
from bridge.rules.render import RenderedParams
from bridge.store import schema
from bridge.store.batches import in_batches
from bridge.store.connections import lock_connection, log_state_change, record_outcomes
from bridge.store.contact_history import history_in
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.deliveries import DELIVERY_COLUMNS, Delivery, lock_deliveries
from bridge.store.request_budget import acquire_budget
from bridge.store.routing import events_by_delivery, read_events
from bridge.store.transitions import Change, apply_transitions

MAX_WAIT: Final = timedelta(minutes=10)
"""How long a delivery waits for a transcript or recording that Heppu does not have yet."""
RECHECK_INTERVAL: Final = timedelta(minutes=5)
"""How soon a waiting delivery is decided again if nothing happens meanwhile."""
KEPT_FOR: Final = timedelta(days=1)
"""How long details are kept: later deliveries of the conversation use them."""
MAX_SIZE: Final = 1024 * 1024
"""Characters of the details as JSON, at most."""
WAITING_FOR_DETAILS: Final = f"details: waits for the conversation's details from {DETAILS_CONNECTION}"
"""The `detail` of a delivery that waits; with the last problem, it starts in the same way."""
_PREFIX: Final = "details:"
_READ_AT_A_TIME: Final = 100
"""Details of at most `MAX_SIZE` that are in memory while they are searched."""
_LEASE: Final = timedelta(seconds=30)
"""When a row is claimed again that a worker has claimed and not answered; every call is shorter."""
_INTERVALS: Final = (5, 15, 30, 60, 120)
"""Seconds until a conversation is read again whose transcript is not there yet; the last one repeats."""
_COME_LATER: Final = {"transcript": "transcript", "recordingUrl": "recording"}
"""Fields that Heppu may add after the event, and what they are called."""
_TABLE = schema.conversation_details
_WAITING: Final = text("deliveries.state IN ('pending', 'retrying')")

RenderLate = Callable[[Delivery, Event, Details, History], RenderedParams | None]
"""Renders the late params of a delivery; None if this version does not have its action."""


@dataclass(frozen=True)
class DetailsQuery:
    """A conversation whose details are wanted."""

    event: Event
    """The event of the delivery that asked last."""
    asked_at: datetime
    attempts: int
    kept: Details | None = None
    """The details that are kept already, if they are still good."""

    @property
    def conversation(self) -> str:
        """The ID of the conversation."""
        return self.event.conversation.id


@dataclass(frozen=True)
class ClaimedDetails:
    """The query to answer now, if any, and when to poll again."""

    query: DetailsQuery | None = None
    next_poll_in: timedelta | None = None
    """None: not before something changes."""


def waits_for_details(delivery: Delivery) -> bool:
    """Return whether a pending delivery was deferred until the details of its conversation are there."""
    return (delivery.detail or "").startswith(_PREFIX)


def request_details(
    database: Database, conn: Connection, deliveries: Sequence[Delivery], now: datetime
) -> None:
    """Store the conversations of these deliveries as wanted, and wake the workers that read them."""
    rows = {
        delivery.conversation: {
            "conversation": delivery.conversation, "event_id": delivery.event_id,
            "asked_at": now, "run_at": now, "attempts": 0,
        }
        for delivery in deliveries
    }  # fmt: skip
    statement = database.insert(_TABLE)
    is_answered = _TABLE.c.run_at.is_(None)
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=["conversation"],
            set_={
                "event_id": statement.excluded.event_id,
                "run_at": func.coalesce(_TABLE.c.run_at, statement.excluded.run_at),
                "asked_at": case((is_answered, statement.excluded.asked_at), else_=_TABLE.c.asked_at),
                "attempts": case((is_answered, 0), else_=_TABLE.c.attempts),
            },
        ),
        [rows[conversation] for conversation in sorted(rows, key=str)],
    )
    database.publish(conn, [DETAILS_CONNECTION])


def claim_details(database: Database, connection: str, per_second: float | None) -> ClaimedDetails:
    """Claim the conversation that has waited longest, if the connection may make a call now."""
    is_due = _TABLE.c.run_at.is_not(None)
    with database.read() as conn:
        now = database.now(conn)
        next_at = conn.execute(select(func.min(_TABLE.c.run_at)).where(is_due)).scalar_one()
        if next_at is None or next_at > now:
            return ClaimedDetails(None, None if next_at is None else next_at - now)
    with database.write() as conn:
        account = lock_connection(database, conn, connection)
        now = database.now(conn)
        due = select(_TABLE).where(_TABLE.c.run_at <= now).order_by(_TABLE.c.run_at).limit(1)
        row = conn.execute(due.with_for_update(skip_locked=True)).one_or_none()
        if row is None:
            return ClaimedDetails(None, timedelta(0))
        is_row = _TABLE.c.conversation == row.conversation
        waiting = _waiting(conn, row.conversation)
        event = read_events(database, conn, [row.event_id]).get(row.event_id)
        if not waiting or event is None:
            conn.execute(update(_TABLE).where(is_row).values(run_at=None))
            return ClaimedDetails(None, timedelta(0))
        kept = None if row.value is None else json.loads(row.value)
        if kept is not None and not _is_good(kept, row.fetched_at, event, _fields(waiting), now):
            kept = None
        if kept is None:
            budget = acquire_budget(conn, account, now, 1, per_second)
            if not budget.calls or account.all_are_paused:
                return ClaimedDetails(None, budget.available_at - now if budget.available_at else None)
            budget.spend(conn, 1, now, {})
        conn.execute(update(_TABLE).where(is_row).values(run_at=now + _LEASE))
    query = DetailsQuery(event, row.asked_at, row.attempts, kept)
    return ClaimedDetails(query, timedelta(0))


def record_details(
    database: Database,
    query: DetailsQuery,
    details: Details | None,
    render: RenderLate,
    fingerprint_of: Callable[[str], str],
    problem: str = "",
) -> None:
    """Keep what Heppu returned, and render the deliveries that wait for it; None: Heppu has no such conversation.

    While a field is missing that may come later, the conversation is read again, until the deliveries have waited for
    `MAX_WAIT`. `problem` is why Heppu rejects the request, if it does: the deliveries are then sent without details.
    """
    if details is not None and database.dropped_fields is not None:
        details, _ = database.dropped_fields.remove(details)
    with database.write() as conn:
        now = database.now(conn)
        changed: Mapping[str, Any] = {}
        if query.kept is None:
            changed = record_outcomes(database, conn, DETAILS_CONNECTION, [None], now, fingerprint_of)
        waiting = _lock_waiting(conn, query)
        missing = _missing(details or {}, query.event, _fields(waiting))
        wait = timedelta(seconds=_INTERVALS[min(query.attempts, len(_INTERVALS) - 1)])
        if missing and query.kept is None and now + wait < query.asked_at + MAX_WAIT:
            detail = f"{_PREFIX} {DETAILS_CONNECTION} has no {' and no '.join(missing)} yet"
            detail += f": {problem}" if problem else ""
            _ask_again(database, conn, query, waiting, now + wait, detail, now)
        else:
            values: dict[str, Any] = {"run_at": None}
            if query.kept is None:
                values |= {"value": json.dumps(dict(details or {})), "fetched_at": now}
            conn.execute(update(_TABLE).where(_is_row(query)).values(values))
            _render(database, conn, waiting, details or {}, render, now, problem)
    log_state_change(DETAILS_CONNECTION, changed)


def record_failure(
    database: Database,
    query: DetailsQuery,
    failure: DeliveryError,
    retry_in: timedelta,
    fingerprint_of: Callable[[str], str],
) -> None:
    """Ask again after `retry_in`, or once the connection is available again; the deliveries wait and say why."""
    with database.write() as conn:
        now = database.now(conn)
        changed = record_outcomes(database, conn, DETAILS_CONNECTION, [failure], now, fingerprint_of)
        waiting = _lock_waiting(conn, query)
        detail = f"{_PREFIX} no answer from {DETAILS_CONNECTION} yet: {failure.detail}"[:500]
        _ask_again(database, conn, query, waiting, now + retry_in, detail, now)
        if changed.get("alert_due"):
            database.publish(conn, [EVENTS_TOPIC])
    log_state_change(DETAILS_CONNECTION, changed)


def delete_details(conn: Connection, event_ids: Collection[str]) -> None:
    """Delete the details of the conversations of these events."""
    events = schema.events
    of_events = select(events.c.conversation_id).where(events.c.id.in_(event_ids))
    conn.execute(delete(_TABLE).where(_TABLE.c.conversation.in_(of_events)))


def delete_details_mentioning(database: Database, address: str) -> None:
    """Delete the details that contain the address, in any of its spellings."""
    mentions = mention_test(address, database.default_country)
    kept = select(_TABLE.c.conversation, _TABLE.c.value).where(_TABLE.c.value.is_not(None))
    with database.read() as conn:
        rows = conn.execute(kept.execution_options(yield_per=_READ_AT_A_TIME))
        found = [row.conversation for row in rows if mentions(row.value.encode())]
    _delete_conversations(database, found)


def remove_old_details(database: Database, retention: timedelta, limit: int) -> None:
    """Delete details that are no longer kept. A conversation whose deliveries still wait is asked for again."""
    with database.read() as conn:
        before = database.now(conn) - min(KEPT_FOR, retention)
        # What was asked for earlier is in the index; few of these have been read again since.
        is_old = (_TABLE.c.asked_at < before) & (
            func.coalesce(_TABLE.c.fetched_at, _TABLE.c.asked_at) < before
        )
        old = select(_TABLE.c.conversation).where(is_old).order_by(_TABLE.c.asked_at).limit(limit)
        conversations = conn.execute(old).scalars().all()
    _delete_conversations(database, conversations, is_old)


def _delete_conversations(
    database: Database, conversations: Sequence[str], condition: ColumnElement[bool] | None = None
) -> None:
    """Delete the details of these conversations that meet the condition, in short transactions."""

    def change(part: Sequence[str]) -> None:
        found = delete(_TABLE).where(_TABLE.c.conversation.in_(part))
        with database.write() as conn:
            conn.execute(found if condition is None else found.where(condition))

    in_batches(conversations, change)


def _is_good(
    kept: Details, fetched_at: datetime, event: Event, fields: frozenset[str], now: datetime
) -> bool:
    """Return whether kept details need not be read again: they are newer than the event, and complete."""
    is_complete = not _missing(kept, event, fields) or fetched_at > now - MAX_WAIT
    return fetched_at >= event.received_at and is_complete


def _missing(details: Details, event: Event, fields: frozenset[str]) -> list[str]:
    """Return what is wanted and may still come: after a conversation that took place."""
    took_place = event.type == "call.completed" or event.type.startswith("chat.")
    return [
        noun for name, noun in _COME_LATER.items() if took_place and name in fields and not details.get(name)
    ]


def _fields(waiting: Sequence[Delivery]) -> frozenset[str]:
    """Return the fields of the details that deliveries wait for."""
    return frozenset(name for item in waiting for name in detail_fields(item.options.late))


def _is_row(query: DetailsQuery) -> ColumnElement[bool]:
    return _TABLE.c.conversation == query.conversation


def _waiting(conn: Connection, conversation: str) -> list[Delivery]:
    rows = conn.execute(select(*DELIVERY_COLUMNS).where(_is_waiting(conversation)))
    return [delivery for row in rows if (delivery := Delivery.from_row(row)).options.late]


def _lock_waiting(conn: Connection, query: DetailsQuery) -> list[Delivery]:
    locked = lock_deliveries(conn, _is_waiting(query.conversation))
    return [item for item in locked.values() if item.options.late and waits_for_details(item)]


def _is_waiting(conversation: str) -> ColumnElement[bool]:
    return (schema.deliveries.c.conversation == conversation) & _WAITING


def _ask_again(
    database: Database,
    conn: Connection,
    query: DetailsQuery,
    waiting: Sequence[Delivery],
    run_at: datetime,
    detail: str,
    now: datetime,
) -> None:
    conn.execute(update(_TABLE).where(_is_row(query)).values(run_at=run_at, attempts=query.attempts + 1))
    changes = [Change(item, Transition.rescheduled(item, item.run_at, detail)) for item in waiting]
    apply_transitions(database, conn, changes, now)
    database.publish(conn, [DETAILS_CONNECTION])


def _render(
    database: Database,
    conn: Connection,
    waiting: Sequence[Delivery],
    details: Details,
    render: RenderLate,
    now: datetime,
    problem: str,
) -> None:
    """Render the late params of deliveries; they are due at once, or have failed."""
    events, history = events_by_delivery(database, conn, waiting), history_in(conn)
    complete, failed = [], []
    for delivery in waiting:
        rendered = render(delivery, events[delivery.id], details, history)
        if rendered is None:
            continue
        if rendered.error is not None:
            cause = f"{rendered.error} ({problem})" if problem else rendered.error
            failed.append(Change(delivery, Transition.not_rendered(cause)))
            continue
        options = delivery.options
        notes = (*options.notes, *rendered.left_out, *filter(None, [problem]))
        options = replace(options, late={}, notes=notes)
        columns = {"params": json.dumps(dict(rendered.values)), "options": options.to_json()}
        complete.append(Change(delivery, Transition.rescheduled(delivery, now, None), columns))
    apply_transitions(database, conn, complete, now)
    apply_transitions(database, conn, failed, now)
    database.publish(conn, {item.connection for item in waiting})
