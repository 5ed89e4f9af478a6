"""The service's engine on a temporary database: runs events through rules and returns every delivery's result.

Storing, routing, decisions, results, retries, pauses and follow-ups are the service's own code. Three things are
replaced: the database is in memory, time stands still until the next delivery is due, and a call to a provider succeeds
or fails as `fail` says. A failure lasts for the whole run, so a connection that it pauses stays paused.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Final, cast

from sqlalchemy import Row, and_, exists, func, or_, select, text
from structlog.testing import capture_logs

from bridge.clock import ManualClock
from bridge.connector import Success
from bridge.connector.action import Action
from bridge.dryrun.delivery import EXTERNAL_ID, DryRunDelivery, State
from bridge.dryrun.details import with_details
from bridge.errors import (
    AccountError,
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    Reason,
    StoreUnavailable,
    TransientError,
)
from bridge.events import Event
from bridge.ids import new_id
from bridge.lifecycle import PauseCause, SuppressReason
from bridge.policy.idempotency import describe_duplicate
from bridge.rules.counting import History
from bridge.rules.late import Details
from bridge.rules.model import PlannedDelivery, Routing, Rules
from bridge.rules.route import after_delivery, alerts, consent, route
from bridge.rules.trace import Trace, Truth
from bridge.store import schema
from bridge.store.alert_groups import next_due_at
from bridge.store.claim import Capacity, claim
from bridge.store.database import Database
from bridge.store.deliveries import Delivery
from bridge.store.follow_ups import (
    follow_up_alert_groups,
    follow_up_deliveries,
    follow_up_pauses,
    has_pending_follow_ups,
)
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.results import record_results
from bridge.store.routing import route_unrouted
from bridge.worker.result_policy import classify_result

UNDELIVERED: Final = "undelivered"
"""The value of `fail` for a provider that accepts the message and then reports that it was not delivered."""
_FAILURES: Final[Mapping[str, Callable[[str], DeliveryError]]] = {
    "auth": AuthenticationError,
    "account": AccountError,
    "quota": QuotaExhausted,
    "rate_limited": RateLimited,
    "network": TransientError,
    "server_error": OutcomeUnknown,
    "timeout": OutcomeUnknown,
    "internal_error": OutcomeUnknown,
}
"""The error for each failure in `fail`; PermanentError for all others."""
_SLOTS: Final = 100
"""Calls per claim; they run one after the other."""
_PlannedKey = tuple[str, str, str, int]
"""Idempotency key, trigger, rule and index of the step."""
_WITHOUT_END: Final = (UNDELIVERED, "auth", "account", "quota", "rate_limited")
"""Simulated failures after which the action has succeeded, or waits until its connection is resumed."""
_WAITING = text("deliveries.state IN ('pending', 'retrying')")
_DELIVERIES, _CONNECTIONS, _KEYS = schema.deliveries, schema.connections, schema.idempotency_keys
_KEY_IS_RESERVED = exists(
    select(_KEYS.c.key)
    .where(_KEYS.c.key == _DELIVERIES.c.idempotency_key, _KEYS.c.reserved_by != _DELIVERIES.c.id)
    .correlate(_DELIVERIES)
)
_NEXT_DUE = (
    select(_DELIVERIES.c.connection, func.min(_DELIVERIES.c.run_at).label("run_at"))
    .outerjoin(_CONNECTIONS, _CONNECTIONS.c.name == _DELIVERIES.c.connection)
    .where(
        _WAITING,
        or_(
            _CONNECTIONS.c.pause_cause.is_(None),
            and_(_CONNECTIONS.c.pause_cause == PauseCause.TOTAL_CAP, _DELIVERIES.c.trigger == "alert"),
        ),
        # Once it waits for another delivery's key, only that delivery moves time forward: it may never be resolved.
        ~and_(_DELIVERIES.c.detail.is_not(None), _KEY_IS_RESERVED),
    )
    .group_by(_DELIVERIES.c.connection)
)
"""Each connection that is not paused for this delivery, and when its next delivery is due."""
_RESULTS = (
    select(_DELIVERIES, _CONNECTIONS.c.pause_reason)
    .outerjoin(_CONNECTIONS, _CONNECTIONS.c.name == _DELIVERIES.c.connection)
    .order_by(text("deliveries.rowid"))
)


@contextmanager
def temporary_database(default_country: str | None = None) -> Iterator[Database]:
    """Open an empty database in memory, for one dry run after another."""
    database = Database("sqlite://", ManualClock(), default_country=default_country)
    schema.metadata.create_all(database.engine)
    try:
        yield database
    finally:
        database.close()


class DryRun:
    """Runs events through rules on a temporary database.

    After `run`, `deliveries` and `traces` hold the results, in their order.
    """

    def __init__(
        self,
        database: Database,
        rules: Rules,
        *,
        fail: Mapping[str, str] = MappingProxyType({}),
        allowlist: Collection[str] = (),
        details: Mapping[str, Details] = MappingProxyType({}),
    ) -> None:
        """`details` has the details of conversations, by the dedupe key of an event; those of others are missing."""
        self.rules = rules
        self.deliveries: list[DryRunDelivery] = []
        self.traces: list[tuple[Event, tuple[Trace, ...]]] = []
        self._fail = fail
        self._details = details
        self._actions = _actions(rules)
        self._database, self._clock = database, database.clock
        self._policy_config = PolicyConfig(
            replace(rules.messaging, crm_opt_outs={}), self._consent, allowlist
        )
        self._planned: dict[_PlannedKey, deque[tuple[Event, PlannedDelivery]]] = defaultdict(deque)
        """Every planned delivery, by what identifies its row; a grouped alert has none."""

    def run(self, events: Iterable[Event]) -> None:
        """Accept each event at the time it was received, then advance the clock until nothing is due."""
        with capture_logs():  # pauses are results here
            with self._database.write() as conn:
                for table in reversed(schema.metadata.sorted_tables):
                    conn.execute(table.delete())
            for event in sorted(events, key=lambda event: event.received_at):
                self._run_until(event.received_at)
                self._clock.set(event.received_at)
                self._accept(event)
            self._run_until(None)
        with self._database.read() as conn:
            rows = conn.execute(_RESULTS).all()
        self.deliveries = [_result(*self._planned[_key_of(row)].popleft(), row) for row in rows]
        self._describe_duplicates(rows)

    def _accept(self, event: Event) -> None:
        incoming = IncomingEvent(replace(event, id=new_id("evt")), json.dumps(dict(event.body)).encode())
        if store_events(self._database, [incoming]) == ["unavailable"]:
            raise StoreUnavailable(f"the event {event.dedupe_key} cannot be stored")
        self._plan()

    def _describe_duplicates(self, rows: Sequence[Row[Any]]) -> None:
        """Name the rule that did the action instead of the ID of a delivery, which is about a temporary database."""
        by_key = {
            row.idempotency_key: delivery.planned
            for row, delivery in zip(rows, self.deliveries, strict=True)
            if delivery.state == "succeeded"
        }
        for row, delivery in zip(rows, self.deliveries, strict=True):
            first = by_key.get(row.idempotency_key)
            if first is not None and delivery.reason == SuppressReason.DUPLICATE:
                delivery.detail = describe_duplicate(first.rule, first.action, first.channel)

    def _plan(self) -> None:
        """Route the stored events, and follow up on results and pauses."""
        route_unrouted(self._database, self.rules, self._route)
        while has_pending_follow_ups(self._database):
            follow_up_deliveries(self._database, partial(self._follow_up, after_delivery))
            follow_up_pauses(self._database, partial(self._follow_up, alerts))
            follow_up_alert_groups(self._database, partial(self._follow_up, alerts))

    def _run_until(self, until: datetime | None) -> None:
        """Process the deliveries due before `until`. Events received at an instant precede deliveries due then."""
        while instants := [*(due := self._next_due()).values(), *self._next_alert()]:
            now = min(instants)
            if until is not None and now >= until:
                return
            self._clock.set(max(now, self._clock.now()))
            for connection, run_at in due.items():
                if run_at <= self._clock.now():
                    self._attempt_due(connection)
            self._plan()

    def _next_due(self) -> dict[str, datetime]:
        with self._database.read() as conn:
            return {row.connection: row.run_at for row in conn.execute(_NEXT_DUE)}

    def _next_alert(self) -> list[datetime]:
        """Return when the next alert about counted problems is due, if any is."""
        with self._database.read() as conn:
            due_at = next_due_at(conn)
        return [] if due_at is None else [due_at]

    def _attempt_due(self, connection: str) -> None:
        sizes = {name: action.batch for name, action in self._actions.items()}
        capacity = Capacity(connection, _SLOTS, sizes.__getitem__, max_batch_size=max(sizes.values()))
        for call in claim(self._database, capacity, self._policy_config, "dry run").calls:
            result, now = self._call_provider(call[0].delivery), self._clock.now()
            action = self._actions[call[0].delivery.action]
            record_results(self._database, [classify_result(item, action, result, now) for item in call])

    def _call_provider(self, delivery: Delivery) -> Success | DeliveryError | None:
        """Return what the call returns or raises; a lookup finds nothing."""
        failure = self._fail.get(delivery.action)
        if failure is None:
            return Success(EXTERNAL_ID)
        if failure == UNDELIVERED:
            return Success(EXTERNAL_ID, message_status="undelivered")
        return None if delivery.kind == "lookup" else _failure(failure)

    def _consent(self, event: Event) -> Truth | None:
        check = consent(event, self.rules.messaging, self._clock.now())
        return check.result if check else None

    def _route(self, event: Event, now: datetime, history: History) -> Routing:
        routing = route(event, self.rules, now, history)
        self.traces.append((event, routing.traces))
        planned = self._add_planned(event, routing.planned, now)
        return Routing(planned, routing.traces)

    def _add_planned(
        self, event: Event, planned: Sequence[PlannedDelivery], now: datetime
    ) -> tuple[PlannedDelivery, ...]:
        """Return the planned deliveries with their details, and remember them."""
        details = self._details.get(event.dedupe_key, {})
        failed = [name for name, failure in self._fail.items() if failure not in _WITHOUT_END]
        complete = tuple(with_details(item, event, self.rules, details, now, failed) for item in planned)
        for item in complete:
            self._planned[_key_of(item)].append((event, item))
        return complete

    def _follow_up(
        self,
        plan: Callable[[Event, Rules, Mapping[str, Any], datetime], Sequence[PlannedDelivery]],
        event: Event,
        delivery: Mapping[str, Any],
        now: datetime,
    ) -> tuple[str, Sequence[PlannedDelivery]]:
        follow_ups = plan(event, self.rules, delivery, now)
        return self.rules.hash, self._add_planned(event, follow_ups, now)


def _key_of(delivery: PlannedDelivery | Row[Any]) -> _PlannedKey:
    return delivery.idempotency_key, delivery.trigger, delivery.rule, delivery.step_index


def _actions(rules: Rules) -> dict[str, Action]:
    steps = [step for rule in rules.rules for step in rule.steps]
    return {step.use: step.action for step in (*steps, *rules.alerts)}


def _failure(reason: str) -> DeliveryError:
    """Return the error of a provider that fails for this reason."""
    error = _FAILURES.get(reason, PermanentError)(f"the provider fails with {reason}")
    error.reason = cast(Reason, reason)
    return error


def _result(event: Event, planned: PlannedDelivery, row: Row[Any]) -> DryRunDelivery:
    waits = row.state in ("pending", "retrying")
    detail = row.detail
    if waits and row.pause_reason is not None:
        detail = f"connection {row.connection} is paused: {row.pause_reason}"
    return DryRunDelivery(
        id=row.id,
        event=event,
        planned=planned,
        at=row.first_attempt_at or row.finished_at or row.run_at,
        state="pending" if waits else cast(State, row.state),
        reason=row.reason,
        detail=detail or "",
        attempted=row.first_attempt_at is not None,
    )
