"""Results of earlier actions: deliveries whose params use `results` wait until the actions of their event have ended.

The claim decides about such a delivery like about any other. One that the policy allows waits for the deliveries that
it names; once they have ended, their external IDs are rendered into its params, and it is decided again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, select

from bridge.events import Event
from bridge.lazy import lazy
from bridge.lifecycle import SuppressReason, Transition
from bridge.policy import Defer
from bridge.rules.counting import History
from bridge.rules.late import Results, result_actions
from bridge.rules.render import RenderedParams
from bridge.store import schema
from bridge.store.contact_history import history_in
from bridge.store.database import Database
from bridge.store.deliveries import Delivery
from bridge.store.transitions import Change, apply_transitions

MAX_WAIT: Final = timedelta(days=3)
"""How long a delivery waits for an earlier one, as long as a failing delivery is retried."""
MIN_INTERVAL, MAX_INTERVAL = timedelta(seconds=1), timedelta(minutes=1)
"""How soon a waiting delivery is decided again: an eighth of its age, within these limits."""
_UNSUPPORTED_INTERVAL: Final = timedelta(minutes=1)
_UNSUPPORTED: Final = (
    "this version lacks the action or one of its params; left for a worker of a newer version"
)
_PREFIX: Final = "results:"
_DELIVERIES, _KEYS = schema.deliveries, schema.idempotency_keys
_ACTIVE: Final = ("pending", "running", "retrying", "needs_review")
_NOT_CARRIED_OUT: Final = ("suppressed", "cancelled")


@dataclass(frozen=True)
class RenderedResults:
    """A delivery after the results of earlier actions were rendered into its params."""

    params: RenderedParams
    late: Mapping[str, Any]
    """The params that still wait for details of the conversation."""
    concurrency_key: str | None


RenderResults = Callable[[Delivery, Event, Results, History], RenderedResults | None]
"""Renders the params that use results; None if this version does not have the action or one of the params."""


@dataclass(frozen=True)
class EarlierResults:
    """The results that the params of one delivery use."""

    ids: Mapping[str, str | None]
    """Action -> external ID. None if it was not carried out, or has no ID."""
    waits_for: str = ""
    """The action that has not ended yet."""
    problems: Sequence[str] = ()
    """Why IDs are missing."""
    not_carried_out: bool = False
    """True if all missing IDs are those of deliveries that were suppressed or cancelled."""


@dataclass(frozen=True)
class UseResults:
    """Decision: the earlier actions have ended. Their results are rendered, and the delivery is decided again."""


def uses_results(delivery: Delivery) -> bool:
    """Return whether the results that a delivery uses are still to be rendered."""
    return (
        bool(delivery.options.late)
        and not delivery.options.results
        and bool(result_actions(delivery.options.late))
    )


def waits_for_results(delivery: Delivery) -> bool:
    """Return whether a pending delivery was deferred until earlier actions have ended."""
    return (delivery.detail or "").startswith(_PREFIX)


def load_earlier_results(
    conn: Connection, deliveries: Sequence[Delivery], now: datetime
) -> dict[str, EarlierResults]:
    """Return the results that these deliveries use, by delivery ID."""
    waiting = [delivery for delivery in deliveries if uses_results(delivery)]
    if not waiting:
        return {}
    columns = _DELIVERIES.c[
        "id", "event_id", "rule", "trigger", "parent_id", "action", "state", "reason", "detail"
    ]
    query = (
        select(*columns, _DELIVERIES.c.external_id, _KEYS.c.external_id.label("key_external_id"))
        .outerjoin(_KEYS, (_KEYS.c.key == _DELIVERIES.c.idempotency_key) & _KEYS.c.completed_by.is_not(None))
        .where(_DELIVERIES.c.event_id.in_({delivery.event_id for delivery in waiting}))
        .order_by(_DELIVERIES.c.created_at.desc(), _DELIVERIES.c.id.desc())
    )
    rows = conn.execute(query).all()
    return {delivery.id: _results_of(delivery, rows, now) for delivery in waiting}


def _results_of(delivery: Delivery, rows: Sequence[Any], now: datetime) -> EarlierResults:
    own = next((row for row in rows if row.id == delivery.id), None)
    related = [
        row
        for row in rows
        if row.id != delivery.id
        and (row.event_id, row.rule) == (delivery.event_id, delivery.rule)
        and (row.trigger == "rule" or (own is not None and row.parent_id == own.parent_id))
    ]
    is_overdue = now >= delivery.created_at + MAX_WAIT
    ids: dict[str, str | None] = {}
    problems: list[str] = []
    reasons: list[bool] = []
    for action in sorted(result_actions(delivery.options.late)):
        candidates = [row for row in related if row.action == action]
        # The newest one counts, unless it failed or was not carried out and an older one succeeded.
        row = next((row for row in candidates if row.state in ("succeeded", *_ACTIVE)), None)
        row = row or next(iter(candidates), None)
        if row is not None and row.state in _ACTIVE and not is_overdue:
            state = "needs review" if row.state == "needs_review" else f"is {row.state}"
            return EarlierResults({}, waits_for=f"{action} ({row.id}), which {state}")
        took_effect = row is not None and _took_effect(row)
        ids[action] = (row.external_id or row.key_external_id) if row is not None and took_effect else None
        if ids[action] is None:
            problems.append(_problem(action, row))
            reasons.append(row is not None and row.state in _NOT_CARRIED_OUT)
    return EarlierResults(ids, "", problems, bool(reasons) and all(reasons))


def _took_effect(row: Any) -> bool:
    """Return True for a success, and for a delivery that another one with its key made superfluous."""
    superfluous = (SuppressReason.DUPLICATE, SuppressReason.SUPERSEDED)
    return row.state == "succeeded" or (row.state == "suppressed" and row.reason in superfluous)


def _problem(action: str, row: Any) -> str:
    if row is None:
        return f"no delivery of {action} exists for this event"
    if row.state == "succeeded":
        return f"{action} returned no ID ({row.id})"
    if row.state in _ACTIVE:
        return f"{action} has not ended after {MAX_WAIT.days} days ({row.id})"
    cause = row.detail or row.reason or ""
    return f"{action} was not carried out: {row.state}{f', {cause}' if cause else ''} ({row.id})"


class StoredResults(Mapping[str, str]):
    """`Context.results` of a delivery, read when it is first used."""

    def __init__(self, database: Database, delivery: Delivery) -> None:
        self._database = database
        self._delivery = delivery

    @lazy
    def _ids(self) -> dict[str, str]:
        table = _DELIVERIES
        is_result = (
            (table.c.event_id == self._delivery.event_id)
            & (table.c.rule == self._delivery.rule)
            & (table.c.state == "succeeded")
            & table.c.external_id.is_not(None)
            & (table.c.id != self._delivery.id)
        )
        query = select(table.c.action, table.c.external_id).where(is_result).order_by(table.c.created_at)
        with self._database.read() as conn:
            return {row.action: row.external_id for row in conn.execute(query)}

    def __getitem__(self, action: str) -> str:
        return self._ids[action]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def decide_about_results(delivery: Delivery, results: EarlierResults, now: datetime) -> Defer | UseResults:
    """Let an allowed delivery wait for earlier actions, or have their results rendered."""
    if not results.waits_for:
        return UseResults()
    wait = min(max((now - delivery.created_at) / 8, MIN_INTERVAL), MAX_INTERVAL)
    until = now + wait if delivery.expires_at is None else min(now + wait, delivery.expires_at)
    return Defer(until, f"{_PREFIX} waits for {results.waits_for}")


def render_results(
    database: Database,
    conn: Connection,
    deliveries: Sequence[Delivery],
    results: Mapping[str, EarlierResults],
    events: Mapping[str, Event],
    render: RenderResults,
    now: datetime,
) -> None:
    """Render the results of earlier actions into these deliveries. They are due at once, or have ended."""
    history = history_in(conn)
    changed, ended = [], []
    for delivery in deliveries:
        earlier = results[delivery.id]
        rendered = render(delivery, events[delivery.id], earlier.ids, history)
        if rendered is None:
            is_overdue = now >= delivery.created_at + MAX_WAIT
            again = Transition.rescheduled(delivery, now + _UNSUPPORTED_INTERVAL, _UNSUPPORTED)
            ended.append(Change(delivery, Transition.not_rendered(_UNSUPPORTED) if is_overdue else again))
        elif rendered.params.error is not None:
            cause = "; ".join([rendered.params.error, *earlier.problems])
            not_sent = (
                Transition.suppressed(SuppressReason.NO_RESULT, cause)
                if earlier.not_carried_out
                else Transition.not_rendered(cause)
            )
            ended.append(Change(delivery, not_sent))
        else:
            notes = (*delivery.options.notes, *rendered.params.left_out, *earlier.problems)
            options = replace(delivery.options, late=rendered.late, results=earlier.ids, notes=notes)
            columns = {
                "params": json.dumps(dict(rendered.params.values)),
                "options": options.to_json(),
                "concurrency_key": rendered.concurrency_key,
            }
            changed.append(Change(delivery, Transition.rescheduled(delivery, now, None), columns))
    apply_transitions(database, conn, changed, now)
    apply_transitions(database, conn, ended, now)
