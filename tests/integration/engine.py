"""The worker's stages without its threads, with an in-memory provider: one step at a time, on the test's clock."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from math import ceil
from types import SimpleNamespace
from typing import Any, NoReturn, cast

from sqlalchemy import func, select

from bridge.clock import uptime
from bridge.connector import (
    BatchItem,
    Connector,
    ConnectorSettings,
    Context,
    Limits,
    Params,
    SerializeBy,
    Success,
    param,
    per_conversation,
    per_event,
    per_message,
)
from bridge.errors import DeliveryError, LookupInconclusive
from bridge.events import Event
from bridge.rules.model import MessagingPolicy, PlannedDelivery, Rules
from bridge.rules.quiet_hours import NO_WINDOW, every_day
from bridge.samples import refresh_sample, sample
from bridge.signing import read_event
from bridge.store import schema
from bridge.store.claim import Capacity, claim
from bridge.store.claimed_delivery import ClaimedDelivery
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.queries import show_delivery, stored_event
from bridge.store.results import AttemptResult, find_expired_leases, record_results
from bridge.store.routing import delivery_row
from bridge.telemetry.metrics import Metrics
from bridge.worker.account import Account, Accounts
from bridge.worker.attempt import AttemptRunner, CallResult
from bridge.worker.result_policy import classify_interrupted, classify_result
from bridge.worker.service import Worker

NO_QUIET = every_day(NO_WINDOW)
"""No quiet hours, so that a test about something else does not depend on the time at which it runs."""

STEP = timedelta(seconds=5)
MAX_STEPS = 120


class Text(Params):
    """A text message."""

    to: str = param("{{ contact.phone }}", "Recipient.", example="+12125550123")
    body: str = param("hello", "Message text.")


class Record(Params):
    """A CRM record."""

    title: str = param("a call", "Title.")


def raising(error: BaseException) -> Callable[..., NoReturn]:
    """Return a function that raises an error, a new one each time, as a provider's client does."""

    def fail(*_args: object, **_fields: object) -> NoReturn:
        raise copy(error)

    return fail


@dataclass
class InMemoryProvider:
    """A provider in memory: records the requests that reach it, and fails as configured."""

    messages: list[tuple[str, str]] = field(default_factory=list)
    """Delivery ID and recipient of every message."""
    records: dict[str, str] = field(default_factory=dict)
    """Idempotency key -> title."""
    posts: list[str] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    """The batch size of every call."""
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
    lookup_works: bool = True
    on_lookup: Callable[[], None] | None = None

    def message_ids(self, delivery_id: str) -> list[str]:
        """Return the IDs of the messages of a delivery: `sms-dlv_1`, `sms-dlv_1-2`, ..."""
        count = sum(item == delivery_id for item, _ in self.messages)
        return [f"sms-{delivery_id}{f'-{number}' if number > 1 else ''}" for number in range(1, count + 1)]

    def perform(self, action: Callable[[], None], size: int = 1) -> None:
        self.calls.append(size)
        if self.before:
            self.before()
        action()
        if self.after:
            self.after()


def desk(provider: InMemoryProvider, *, concurrency: int = 4, per_second: float | None = None) -> Connector:
    """A connector with one action of each kind."""
    connector = Connector(
        "desk", settings=ConnectorSettings, limits=Limits(concurrency=concurrency, per_second=per_second)
    )

    @connector.action(idempotency=per_message, channel="sms")
    def send(client: Any, params: Text, context: Context) -> Success:
        provider.perform(lambda: provider.messages.append((context.delivery, params.to)))
        return Success(provider.message_ids(context.delivery)[-1], message_status="queued")

    @send.lookup
    def find(client: Any, params: Text, context: Context) -> Success | None:
        if provider.on_lookup:
            provider.on_lookup()
        if not provider.lookup_works:
            raise LookupInconclusive("the provider does not list messages")
        sent = provider.message_ids(context.delivery)
        assert context.ids_used_by_others is not None
        used = context.ids_used_by_others(sent)
        return next((Success(message_id) for message_id in sent if message_id not in used), None)

    @connector.action(idempotency=per_message, channel="email")
    def mail(client: Any, params: Text, context: Context) -> Success:
        provider.perform(lambda: provider.messages.append((context.delivery, params.to)))
        return Success()

    @connector.action(idempotency=per_conversation, idempotent=True, batch=100)
    def record(client: Any, jobs: Sequence[BatchItem[Record]]) -> list[Success | DeliveryError]:
        def write() -> None:
            for job in jobs:
                provider.records[job.context.idempotency_key] = job.params.title

        provider.perform(write, len(jobs))
        return [
            Success(f"rec-{job.context.idempotency_key}", "updated" if job.context.existing_id else "created")
            for job in jobs
        ]

    @connector.action(idempotency=per_event, serialize_by=SerializeBy.NONE, idempotent=True)
    def post(client: Any, params: Record, context: Context) -> Success:
        provider.perform(lambda: provider.posts.append(params.title))
        return Success()

    return connector


@dataclass
class Engine:
    """Claims deliveries, attempts them and records the results, one step at a time."""

    database: Database
    provider: InMemoryProvider = field(default_factory=InMemoryProvider)
    worker_id: str = "one"
    slots: int = 4
    policy_config: PolicyConfig = field(
        default_factory=lambda: PolicyConfig(MessagingPolicy(quiet_hours=NO_QUIET))
    )
    per_second: float | None = None
    next_poll_in: timedelta | None = None
    """Time until the next poll, as the last claim returned it."""

    def __post_init__(self) -> None:
        self.connector = desk(self.provider)
        self.connection = Account("desk", self.connector, ConnectorSettings())
        self.attempts = AttemptRunner(self.database)

    def event(self, name: str = "call.busy", **changes: Any) -> Event:
        """Store a new event; `metadata` and other fields can be overridden."""
        now = self.database.clock.now()
        body = refresh_sample(sample(name), now)
        body["metadata"] |= changes.pop("metadata", {})
        body |= changes
        raw = json.dumps(body).encode()
        event = read_event(raw, now)
        assert store_events(self.database, [IncomingEvent(event, raw)]) == ["stored"]
        found = select(schema.events.c.id).where(schema.events.c.dedupe_key == event.dedupe_key)
        with self.database.read() as conn:
            event_id = conn.execute(found).scalar_one()
        return stored_event(self.database, event_id)

    def deliver(self, use: str, event: Event | None = None, *, force: bool = False, **planned: Any) -> str:
        """Store a delivery of `desk.<use>`; return its ID."""
        row = self.delivery_row(use, event or self.event(), force=force, **planned)
        with self.database.write() as conn:
            conn.execute(schema.deliveries.insert(), [row])
        return str(row["id"])

    def delivery_row(self, use: str, event: Event, *, force: bool = False, **planned: Any) -> dict[str, Any]:
        """Return the row of a delivery of `desk.<use>`."""
        action = self.connector.actions[use]
        recipient = (
            (event.contact.phone if action.channel == "sms" else event.contact.email)
            if action.channel
            else None
        )
        idempotency_key = {
            "record": f"record {event.conversation.id}",
            "post": f"post {event.dedupe_key}",
        }.get(use, f"{use} {event.dedupe_key} {recipient}")
        defaults: dict[str, Any] = {
            "rule": "test",
            "trigger": "rule",
            "step_index": 0,
            "action": action.full_name,
            "connection": "desk",
            "params": {"to": recipient} if recipient else {},
            "run_at": self.database.clock.now(),
            "idempotency_key": idempotency_key,
            "updates_existing": action.idempotency.updates,
            "concurrency_key": None
            if action.serialize_by is SerializeBy.NONE
            else f"desk|{event.contact.key or event.conversation.id}",
            "channel": action.channel,
            "recipient": recipient,
        }
        return delivery_row(
            PlannedDelivery(**defaults | planned), event, "hash", self.database.clock.now(), force=force
        )

    def claim(self) -> list[list[ClaimedDelivery]]:
        """Claim the due deliveries."""

        def batch_size(use: str) -> int:
            action = self.connector.find_action(use)
            return action.batch if action else 1

        capacity = Capacity("desk", self.slots, batch_size, self.per_second)
        batch = claim(self.database, capacity, self.policy_config, self.worker_id)
        self.next_poll_in = batch.next_poll_in
        return [list(call) for call in batch.calls]

    def attempt(self, call: Sequence[ClaimedDelivery]) -> list[AttemptResult]:
        """Make one call."""
        return self.classify_result(call, self.attempts.run(self.connection, call, uptime() + 20))

    def classify_result(
        self, call: Sequence[ClaimedDelivery], results: Sequence[CallResult]
    ) -> list[AttemptResult]:
        """Classify the results of a call."""
        action = self.connector.find_action(call[0].delivery.action)
        now = self.database.clock.now()
        return [
            classify_result(item, action, result, now) for item, result in zip(call, results, strict=True)
        ]

    def step(self) -> int:
        """Claim, attempt and record the due deliveries; return their number."""
        calls = self.claim()
        results = [item for call in calls for item in self.attempt(call)]
        if results:
            record_results(self.database, results)
        return len(results)

    def run_due(self, steps: int = 50) -> bool:
        """Step until no delivery is due; return whether one was."""
        left = steps
        while left and self.step():
            left -= 1
        assert left, "deliveries were still due after the last step"
        return left < steps

    def run_for(self, **duration: float) -> None:
        """Advance the clock to each time at which the claim polls again, and process what is due.

        The times are multiples of 5 s after the start, at most 10 minutes apart.
        """
        end = self.database.clock.now() + timedelta(**duration)
        while (left := (end - self.database.clock.now()).total_seconds()) > 0:
            self.run_due()
            steps = ceil(self.next_poll_in / STEP) if self.next_poll_in is not None else MAX_STEPS
            seconds = min(max(steps, 1), MAX_STEPS) * STEP.total_seconds()
            self.database.clock.advance(seconds=min(seconds, left))
        self.run_due()

    def recover_expired(self) -> int:
        """Record the results of attempts whose lease has expired."""
        expired, now = find_expired_leases(self.database)
        if expired:
            record_results(
                self.database,
                [
                    classify_interrupted(item, self.connector.find_action(item.delivery.action), now)
                    for item in expired
                ],
            )
        return len(expired)

    def states(self) -> Counter[str]:
        state = schema.deliveries.c.state
        with self.database.read() as conn:
            rows = conn.execute(select(state, func.count().label("total")).group_by(state))
            return Counter({row.state: row.total for row in rows})

    def show(self, delivery_id: str) -> dict[str, Any]:
        return show_delivery(self.database, delivery_id)


def worker_on(engine: Engine, rules: Rules | None = None, metrics: Metrics | None = None) -> Worker:
    """Return the worker with its threads, on the same database and provider."""
    current = rules or replace(Rules("", "rules"), messaging=engine.policy_config.messaging)
    file = SimpleNamespace(current=current, reload_if_changed=lambda: False)
    accounts = Accounts({"desk": engine.connection})
    return Worker(engine.database, cast(Any, file), accounts, engine.attempts, metrics=metrics)
