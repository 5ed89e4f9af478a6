"""The worker's stages without its threads, over a partner in memory: one step at a time, on the test's clock."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import time, timedelta
from types import SimpleNamespace
from typing import Any, cast

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
from bridge.rules.model import Messaging, Planned, QuietHours, Rules
from bridge.samples import sample, stamped
from bridge.signing import read_event
from bridge.store import schema
from bridge.store.claim import Claimed, Room, claim
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, accept
from bridge.store.policy_inputs import Rulebook
from bridge.store.queries import list_deliveries, list_events, show_delivery, stored_event
from bridge.store.results import Finished, abandoned, finish
from bridge.store.routing import delivery_row
from bridge.worker.attempt import Attempts, Connection, Result
from bridge.worker.result_policy import conclude, cut_short
from bridge.worker.service import Worker

NO_QUIET = QuietHours(time(0), time(0))
"""No quiet hours: what a test does not speak of must not depend on the hour at which it runs."""


class Text(Params):
    """A text."""

    to: str = param("{{ contact.phone }}", "Who gets it.", example="+12125550123")
    body: str = param("hello", "The text.")


class Record(Params):
    """A record."""

    title: str = param("a call", "What it is called.")


@dataclass
class Partner:
    """A partner in memory: what reached it, and how it is to behave."""

    texts: list[tuple[str, str]] = field(default_factory=list)
    """Delivery and address of every text."""
    records: dict[str, str] = field(default_factory=dict)
    """Effect key -> title."""
    posts: list[str] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    """The size of every call."""
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
    can_tell: bool = True
    looked_up: Callable[[], None] | None = None

    def act(self, idempotency_key: Callable[[], None], size: int = 1) -> None:
        self.calls.append(size)
        if self.before:
            self.before()
        idempotency_key()
        if self.after:
            self.after()


def desk(partner: Partner, *, concurrency: int = 4, per_second: float | None = None) -> Connector:
    """A connector with one action of each kind."""
    connector = Connector(
        "desk", settings=ConnectorSettings, limits=Limits(concurrency=concurrency, per_second=per_second)
    )

    @connector.action(idempotency=per_message, channel="sms")
    def send(client: Any, params: Text, context: Context) -> Success:
        partner.act(lambda: partner.texts.append((context.delivery, params.to)))
        return Success(f"sms-{context.delivery}", message_status="queued")

    @send.lookup
    def find(client: Any, params: Text, context: Context) -> Success | None:
        if partner.looked_up:
            partner.looked_up()
        if not partner.can_tell:
            raise LookupInconclusive("the partner does not list texts")
        found = [ident for ident, _ in partner.texts if ident == context.delivery]
        return Success(f"sms-{found[0]}") if found else None

    @connector.action(idempotency=per_message, channel="email")
    def mail(client: Any, params: Text, context: Context) -> Success:
        partner.act(lambda: partner.texts.append((context.delivery, params.to)))
        return Success()

    @connector.action(idempotency=per_conversation, idempotent=True, batch=100)
    def record(client: Any, jobs: Sequence[BatchItem[Record]]) -> list[Success | DeliveryError]:
        def write() -> None:
            for job in jobs:
                partner.records[job.context.idempotency_key] = job.params.title

        partner.act(write, len(jobs))
        return [
            Success(f"rec-{job.context.idempotency_key}", "updated" if job.context.existing_id else "made")
            for job in jobs
        ]

    @connector.action(idempotency=per_event, serialize_by=SerializeBy.NONE, idempotent=True)
    def post(client: Any, params: Record, context: Context) -> Success:
        partner.act(lambda: partner.posts.append(params.title))
        return Success()

    return connector


@dataclass
class Engine:
    """Claims, attempts and records, one step at a time."""

    database: Database
    partner: Partner = field(default_factory=Partner)
    worker_id: str = "one"
    slots: int = 4
    rulebook: Rulebook = field(default_factory=lambda: Rulebook(Messaging(quiet_hours=NO_QUIET)))
    per_second: float | None = None

    def __post_init__(self) -> None:
        self.connector = desk(self.partner)
        self.connection = Connection("desk", self.connector, ConnectorSettings())
        self.attempts = Attempts(self.database)

    def event(self, name: str = "call.busy", **changes: Any) -> Event:
        """Store a fresh event; `metadata` and other fields can be changed."""
        now = self.database.clock.now()
        body = stamped(sample(name), now)
        body["metadata"] |= changes.pop("metadata", {})
        body |= changes
        raw = json.dumps(body).encode()
        event = read_event(raw, now)
        assert accept(self.database, [IncomingEvent(event, raw)]) == ["stored"]
        return stored_event(self.database, list_events(self.database, limit=1).items[0]["id"])

    def deliver(self, use: str, event: Event | None = None, *, again: bool = False, **planned: Any) -> str:
        """Store a delivery of `desk.<use>`; returns its id."""
        event = event or self.event()
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
        row = delivery_row(
            Planned(**defaults | planned), event, "hash", self.database.clock.now(), force=again
        )
        with self.database.write() as connection:
            connection.execute(schema.deliveries.insert(), [row])
        return str(row["id"])

    def claim(self) -> list[list[Claimed]]:
        """Begin what is due."""
        actions = self.connector.actions

        def batch_of(use: str) -> int:
            action = actions.get(use.partition(".")[2])
            return action.batch if action else 1

        room = Room("desk", self.slots, batch_of, self.per_second)
        return [list(call) for call in claim(self.database, room, self.rulebook, self.worker_id).calls]

    def attempt(self, call: Sequence[Claimed]) -> list[Finished]:
        """Make one call."""
        return self.conclude(call, self.attempts.run(self.connection, call, uptime() + 20))

    def conclude(self, call: Sequence[Claimed], results: Sequence[Result]) -> list[Finished]:
        """What the results of a call mean."""
        action = self.connector.actions.get(call[0].action.partition(".")[2])
        now = self.database.clock.now()
        return [conclude(item, action, result, now) for item, result in zip(call, results, strict=True)]

    def step(self) -> int:
        """Claim, attempt and record what is due now; returns how many deliveries that were."""
        calls = self.claim()
        ended = [item for call in calls for item in self.attempt(call)]
        if ended:
            finish(self.database, ended)
        return len(ended)

    def lookup_delay(self, steps: int = 50) -> None:
        """Step until nothing is due now."""
        while steps and self.step():
            steps -= 1
        assert steps, "it never settled"

    def run_for(self, **duration: float) -> None:
        """Let time pass in small strides, doing what comes due."""
        end = self.database.clock.now() + timedelta(**duration)
        while self.database.clock.now() < end:
            self.lookup_delay()
            self.database.clock.advance(seconds=5)
        self.lookup_delay()

    def take_over(self) -> int:
        """Conclude attempts whose process is gone."""
        left, now = abandoned(self.database)
        actions = self.connector.actions
        if left:
            finish(
                self.database,
                [cut_short(item, actions[item.action.partition(".")[2]], now) for item in left],
            )
        return len(left)

    def states(self) -> Counter[str]:
        return Counter(item["state"] for item in list_deliveries(self.database, limit=1000).items)

    def show(self, ident: str) -> dict[str, Any]:
        return show_delivery(self.database, ident)


def worker_on(engine: Engine, rules: Rules | None = None) -> Worker:
    """The worker with its threads, over the same database and partner."""
    current = rules or replace(Rules("", "rules"), messaging=engine.rulebook.messaging)
    file = SimpleNamespace(current=current, reload_if_changed=lambda: False)
    return Worker(engine.database, cast(Any, file), {"desk": engine.connection}, engine.attempts)
