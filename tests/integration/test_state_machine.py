"""The delivery state machine against a simple model: random steps, with kills between any two statements.

The model: every action takes effect at the provider exactly once, unless the provider rejected it permanently; no
delivery needs review, because a lookup exists; and every delivery reaches a final state.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import event as sql_event
from sqlalchemy import text

from bridge.clock import Clock, uptime
from bridge.errors import DeliveryError, OutcomeUnknown, PermanentError, TransientError
from bridge.events import Event
from bridge.lifecycle import FINAL_STATES
from bridge.rules.model import MessagingPolicy
from bridge.store.claim import LEASE
from bridge.store.claimed_delivery import ClaimedDelivery
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.results import AttemptResult, record_results
from tests.integration.engine import NO_QUIET, Engine


class Killed(BaseException):
    """Simulates a killed process: no handler runs, and no statement follows."""


PHONES = ("+12125550001", "+12125550002", "+12125550003")
FAILURES: dict[str, tuple[str, DeliveryError] | None] = {
    "works": None,
    "times out before the action": ("before", OutcomeUnknown("no answer")),
    "times out after the action": ("after", OutcomeUnknown("no answer")),
    "disconnects after the action": ("after", OutcomeUnknown("reset", reason="network")),
    "is busy": ("before", TransientError("busy", reason="rejected")),
    "rejects": ("before", PermanentError("no")),
}


class KilledWorker(RuleBasedStateMachine):
    """A worker that is killed and restarted between any two statements."""

    create_database: Callable[[Clock], Database]

    def __init__(self) -> None:
        super().__init__()
        self.database = type(self).create_database(Clock())
        self.engine = self._start()
        self.events: list[Event] = []
        self.running: list[Sequence[ClaimedDelivery]] = []
        self.frozen: list[tuple[Any, Sequence[ClaimedDelivery]]] = []
        self.results: list[AttemptResult] = []
        self.delivered: dict[str, str] = {}
        self.rejected: set[str] = set()

    def _start(self, provider: Any = None) -> Engine:
        engine = Engine(
            self.database, policy_config=PolicyConfig(MessagingPolicy(quiet_hours=NO_QUIET, caps={}))
        )
        if provider is not None:
            engine = Engine(self.database, provider=provider, policy_config=engine.policy_config)
        return engine

    @contextmanager
    def killed_at(self, statement: int | None) -> Iterator[None]:
        """Kill the process before the `statement`-th statement from here (commits count); None: never."""
        remaining = statement

        def count(*_: object) -> None:
            nonlocal remaining
            if remaining is not None:
                remaining -= 1
                if remaining < 0:
                    raise Killed

        engine = self.database.engine
        names = ("before_cursor_execute", "commit")
        for name in names:
            sql_event.listen(engine, name, count)
        try:
            yield
        except Killed:
            self.die()
        finally:
            for name in names:
                sql_event.remove(engine, name, count)

    def die(self) -> None:
        """Lose everything that was only in memory."""
        self.running, self.results = [], []
        self.engine = self._start(self.engine.provider)

    @rule(phone=st.sampled_from(PHONES), use=st.sampled_from(["send", "record", "post"]))
    def receive_event(self, phone: str, use: str) -> None:
        event = self.engine.event(metadata={"contactPhone": phone})
        self.events.append(event)
        self.delivered[self.engine.deliver(use, event)] = use

    @precondition(lambda self: self.events)
    @rule(data=st.data(), use=st.sampled_from(["send", "record"]))
    def deliver_again(self, data: st.DataObject, use: str) -> None:
        self.delivered[self.engine.deliver(use, data.draw(st.sampled_from(self.events)))] = use

    @rule(seconds=st.sampled_from([1, 6, 31, 400]))
    def advance_clock(self, seconds: int) -> None:
        self.database.clock.advance(seconds=seconds)

    @rule(kill=st.none() | st.integers(0, 12))
    def claim(self, kill: int | None) -> None:
        with self.killed_at(kill):
            self.running += self.engine.claim()

    @precondition(lambda self: self.running)
    @rule(behavior=st.sampled_from(sorted(FAILURES)), kill=st.booleans())
    def attempt(self, behavior: str, kill: bool) -> None:
        self._attempt(self.running.pop(0), behavior)
        if kill:
            self.die()

    def _attempt(self, call: Sequence[ClaimedDelivery], behavior: str) -> None:
        failure = FAILURES[behavior]
        if failure is not None:
            moment, error = failure

            def fail() -> NoReturn:
                raise error

            setattr(self.engine.provider, moment, fail)
        # The remaining time by the test's clock, as the process itself would measure it.
        remaining = (
            LEASE.total_seconds() - 10 - (self.database.clock.now() - call[0].started_at).total_seconds()
        )
        results = self.engine.attempts.run(self.engine.connection, call, uptime() + remaining)
        self.engine.provider.before = self.engine.provider.after = None
        self.results += self.engine.classify_result(call, results)
        if behavior == "rejects":
            self.rejected |= {item.delivery.idempotency_key for item in call}

    @precondition(lambda self: self.running)
    @rule()
    def freeze(self) -> None:
        self.frozen.append((self.engine, self.running.pop(0)))

    @precondition(lambda self: self.frozen)
    @rule(behavior=st.sampled_from(sorted(FAILURES)))
    def wake(self, behavior: str) -> None:
        _, call = self.frozen.pop(0)
        self._attempt(call, behavior)

    @precondition(lambda self: self.results)
    @rule(kill=st.none() | st.integers(0, 10))
    def record(self, kill: int | None) -> None:
        with self.killed_at(kill):
            record_results(self.database, self.results)
            self.results = []

    @rule(kill=st.none() | st.integers(0, 10))
    def recover(self, kill: int | None) -> None:
        with self.killed_at(kill):
            self.engine.recover_expired()

    @invariant()
    def no_message_is_sent_twice(self) -> None:
        messages = Counter(
            self.idempotency_keys[delivery_id] for delivery_id, _ in self.engine.provider.messages
        )
        assert all(count == 1 for count in messages.values()), messages

    @property
    def idempotency_keys(self) -> dict[str, str]:
        with self.database.read() as conn:
            return dict(
                tuple(row) for row in conn.execute(text("SELECT id, idempotency_key FROM deliveries"))
            )

    @invariant()
    def concurrency_key_runs_once(self) -> None:
        with self.database.read() as conn:
            running_keys = conn.execute(
                text(
                    "SELECT concurrency_key FROM deliveries WHERE state = 'running' AND concurrency_key IS NOT NULL"
                )
            ).scalars()
            assert all(count == 1 for count in Counter(running_keys).values())

    def teardown(self) -> None:
        self.die()
        self.engine.provider.before = self.engine.provider.after = None
        try:
            for _ in range(60):
                self.database.clock.advance(seconds=3600)
                self.engine.recover_expired()
                self.engine.run_due()
                if all(state in FINAL_STATES for state in self.engine.states()):
                    break
            self._check_final_states()
        finally:
            self.database.close()

    def _check_final_states(self) -> None:
        provider = self.engine.provider
        messages = Counter(self.idempotency_keys[delivery_id] for delivery_id, _ in provider.messages)
        for delivery_id, use in self.delivered.items():
            shown = self.engine.show(delivery_id)
            idempotency_key = shown["idempotency_key"]
            assert shown["state"] in ("succeeded", "suppressed", "failed"), shown
            if shown["state"] == "failed":
                assert idempotency_key in self.rejected
            elif use == "send":
                assert messages[idempotency_key] == 1
            elif use == "record":
                assert idempotency_key in provider.records


_SETTINGS = settings(
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.mark.parametrize("runs", [25, pytest.param(300, marks=pytest.mark.faults)])
def test_actions_take_effect_once_despite_kills_on_sqlite(runs: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="bridge-kill-"))

    class OnSqlite(KilledWorker):
        @staticmethod
        def create_database(clock: Clock) -> Database:
            path = folder / f"{uuid4().hex}.db"
            shutil.copy(folder / "empty.db", path)
            return Database(f"sqlite:///{path}", clock)

    empty = Database(f"sqlite:///{folder}/empty.db")
    upgrade(empty)
    empty.close()
    try:
        run_state_machine_as_test(OnSqlite, settings=settings(_SETTINGS, max_examples=runs))
    finally:
        shutil.rmtree(folder)


@pytest.mark.postgres
@pytest.mark.parametrize("runs", [6, pytest.param(60, marks=pytest.mark.faults)])
def test_actions_take_effect_once_despite_kills_on_postgres(new_postgres_url: str, runs: int) -> None:
    class OnPostgres(KilledWorker):
        @staticmethod
        def create_database(clock: Clock) -> Database:
            with psycopg.connect(new_postgres_url, autocommit=True) as conn:
                conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            database = Database(new_postgres_url, clock)
            upgrade(database)
            return database

    run_state_machine_as_test(OnPostgres, settings=settings(_SETTINGS, max_examples=runs))
