"""The whole state machine against a simple model: random steps, with kills between any two statements.

The model is one sentence: every effect happens at the partner exactly once, unless the partner refused it for good;
nothing is in review, because a lookup exists; and everything is final in the end.
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
from bridge.rules.model import Messaging
from bridge.store.claim import LEASE, Claimed
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.store.policy_inputs import Rulebook
from bridge.store.queries import FINAL
from bridge.store.results import Finished, finish
from tests.integration.engine import NO_QUIET, Engine


class Killed(BaseException):
    """The process is gone: no handler runs, nothing after this statement happens."""


PEOPLE = ("+12125550001", "+12125550002", "+12125550003")
FAILURES: dict[str, tuple[str, DeliveryError] | None] = {
    "works": None,
    "times out before the effect": ("before", OutcomeUnknown("no answer")),
    "times out after the effect": ("after", OutcomeUnknown("no answer")),
    "breaks off after the effect": ("after", OutcomeUnknown("reset", reason="network")),
    "is busy": ("before", TransientError("busy", reason="rejected")),
    "refuses": ("before", PermanentError("no")),
}


class Life(RuleBasedStateMachine):
    """One bridge, killed and started again at will."""

    make_database: Callable[[Clock], Database]

    def __init__(self) -> None:
        super().__init__()
        self.database = type(self).make_database(Clock())
        self.engine = self._start()
        self.events: list[Event] = []
        self.running: list[Sequence[Claimed]] = []
        self.frozen: list[tuple[Any, Sequence[Claimed]]] = []
        self.ended: list[Finished] = []
        self.delivered: dict[str, str] = {}
        self.refused: set[str] = set()

    def _start(self, partner: Any = None) -> Engine:
        engine = Engine(self.database, rulebook=Rulebook(Messaging(quiet_hours=NO_QUIET, caps={})))
        if partner is not None:
            engine = Engine(self.database, partner=partner, rulebook=engine.rulebook)
        return engine

    @contextmanager
    def killed_at(self, statement: int | None) -> Iterator[None]:
        """Kill the process before its `statement`-th statement from here (commits count); None: let it live."""
        left = statement

        def count(*_: object) -> None:
            nonlocal left
            if left is not None:
                left -= 1
                if left < 0:
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
        """What was only in memory is gone."""
        self.running, self.ended = [], []
        self.engine = self._start(self.engine.partner)

    @rule(person=st.sampled_from(PEOPLE), use=st.sampled_from(["send", "record", "post"]))
    def something_happens(self, person: str, use: str) -> None:
        happened = self.engine.event(metadata={"contactPhone": person})
        self.events.append(happened)
        self.delivered[self.engine.deliver(use, happened)] = use

    @precondition(lambda self: self.events)
    @rule(data=st.data(), use=st.sampled_from(["send", "record"]))
    def the_same_is_asked_again(self, data: st.DataObject, use: str) -> None:
        self.delivered[self.engine.deliver(use, data.draw(st.sampled_from(self.events)))] = use

    @rule(seconds=st.sampled_from([1, 6, 31, 400]))
    def time_passes(self, seconds: int) -> None:
        self.database.clock.advance(seconds=seconds)

    @rule(kill=st.none() | st.integers(0, 12))
    def claims(self, kill: int | None) -> None:
        with self.killed_at(kill):
            self.running += self.engine.claim()

    @precondition(lambda self: self.running)
    @rule(partner=st.sampled_from(sorted(FAILURES)), kill=st.booleans())
    def attempts(self, partner: str, kill: bool) -> None:
        self._attempt(self.running.pop(0), partner)
        if kill:
            self.die()

    def _attempt(self, call: Sequence[Claimed], partner: str) -> None:
        failure = FAILURES[partner]
        if failure is not None:
            moment, error = failure

            def fail() -> NoReturn:
                raise error

            setattr(self.engine.partner, moment, fail)
        # The time that is left by the test's clock, as the process itself would measure it.
        left = LEASE.total_seconds() - 10 - (self.database.clock.now() - call[0].started_at).total_seconds()
        results = self.engine.attempts.run(self.engine.connection, call, uptime() + left)
        self.engine.partner.before = self.engine.partner.after = None
        self.ended += self.engine.conclude(call, results)
        if partner == "refuses":
            self.refused |= {item.idempotency_key for item in call}

    @precondition(lambda self: self.running)
    @rule()
    def freezes(self) -> None:
        self.frozen.append((self.engine, self.running.pop(0)))

    @precondition(lambda self: self.frozen)
    @rule(partner=st.sampled_from(sorted(FAILURES)))
    def wakes(self, partner: str) -> None:
        _, call = self.frozen.pop(0)
        self._attempt(call, partner)

    @precondition(lambda self: self.ended)
    @rule(kill=st.none() | st.integers(0, 10))
    def records(self, kill: int | None) -> None:
        with self.killed_at(kill):
            finish(self.database, self.ended)
            self.ended = []

    @rule(kill=st.none() | st.integers(0, 10))
    def takes_over(self, kill: int | None) -> None:
        with self.killed_at(kill):
            self.engine.take_over()

    @invariant()
    def nothing_is_doubled(self) -> None:
        texts = Counter(self.idempotency_keys[ident] for ident, _ in self.engine.partner.texts)
        assert all(count == 1 for count in texts.values()), texts

    @property
    def idempotency_keys(self) -> dict[str, str]:
        with self.database.read() as connection:
            return dict(
                tuple(row) for row in connection.execute(text("SELECT id, idempotency_key FROM deliveries"))
            )

    @invariant()
    def a_lane_runs_once(self) -> None:
        with self.database.read() as connection:
            lanes = connection.execute(
                text(
                    "SELECT concurrency_key FROM deliveries WHERE state = 'running' AND concurrency_key IS NOT NULL"
                )
            ).scalars()
            assert all(count == 1 for count in Counter(lanes).values())

    def teardown(self) -> None:
        self.die()
        self.engine.partner.before = self.engine.partner.after = None
        try:
            for _ in range(60):
                self.database.clock.advance(seconds=3600)
                self.engine.take_over()
                self.engine.lookup_delay()
                if all(state in FINAL for state in self.engine.states()):
                    break
            self._judge()
        finally:
            self.database.close()

    def _judge(self) -> None:
        partner = self.engine.partner
        texts = Counter(self.idempotency_keys[ident] for ident, _ in partner.texts)
        for ident, use in self.delivered.items():
            shown = self.engine.show(ident)
            idempotency_key = shown["idempotency_key"]
            assert shown["state"] in ("succeeded", "suppressed", "failed"), shown
            if shown["state"] == "failed":
                assert idempotency_key in self.refused
            elif use == "send":
                assert texts[idempotency_key] == 1
            elif use == "record":
                assert idempotency_key in partner.records


_SETTINGS = settings(
    max_examples=150,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def test_every_effect_happens_once_whatever_is_killed_on_sqlite() -> None:
    folder = Path(tempfile.mkdtemp(prefix="bridge-life-"))

    class OnSqlite(Life):
        @staticmethod
        def make_database(clock: Clock) -> Database:
            path = folder / f"{uuid4().hex}.db"
            shutil.copy(folder / "new.db", path)
            return Database(f"sqlite:///{path}", clock)

    new = Database(f"sqlite:///{folder}/new.db")
    upgrade(new)
    new.close()
    try:
        run_state_machine_as_test(OnSqlite, settings=_SETTINGS)
    finally:
        shutil.rmtree(folder)


@pytest.mark.postgres
def test_every_effect_happens_once_whatever_is_killed_on_postgres(postgres_url: str) -> None:
    class OnPostgres(Life):
        @staticmethod
        def make_database(clock: Clock) -> Database:
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            database = Database(postgres_url, clock)
            upgrade(database)
            return database

    run_state_machine_as_test(OnPostgres, settings=settings(_SETTINGS, max_examples=6))
