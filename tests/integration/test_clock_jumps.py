"""A clock of the database that is put forward: leases and waits end early, and still nothing is sent twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.clock import Clock, uptime
from bridge.errors import OutcomeUnknown
from bridge.store.claim import LEASE
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.worker import clock_jumps, service
from bridge.worker.service import Worker
from tests.integration.engine import Engine, worker_on

Pass = Callable[[float], None]


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database)


@pytest.fixture
def let_pass(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Pass:
    """Let seconds pass for the database and for the process that watches its clock."""
    passed = 0.0

    def let(seconds: float) -> None:
        nonlocal passed
        passed += seconds
        clock.advance(seconds=seconds)

    for module in (clock_jumps, service):
        monkeypatch.setattr(module, "uptime", lambda: uptime() + passed)
    return let


def watching(engine: Engine, let_pass: Pass) -> Worker:
    """A replica that has been there for a while."""
    worker = worker_on(engine)
    for _ in range(2):
        worker._take_over()
        let_pass(LEASE.total_seconds() + 1)
    return worker


@pytest.mark.postgres
def test_a_lease_that_ran_out_by_a_jump_is_not_taken_over_while_its_attempt_may_still_send(
    postgres_url: str, clock: Clock, let_pass: Pass
) -> None:
    database = Database(postgres_url, clock)
    upgrade(database)
    engine = Engine(database)
    other = watching(engine, let_pass)
    ident = engine.deliver("send")
    [call] = engine.claim()
    clock.advance(minutes=10)
    other._take_over()
    let_pass(15)
    engine.lookup_delay()
    engine.attempt(call)  # within its deadline, by the uptime of its own process
    assert len(engine.partner.texts) == 1
    assert engine.show(ident)["state"] == "running"
    let_pass(LEASE.total_seconds() + 1)
    other._take_over()
    let_pass(15)
    engine.lookup_delay()
    assert engine.show(ident)["state"] == "succeeded"
    assert len(engine.partner.texts) == 1
    database.close()


@pytest.mark.postgres
def test_a_replica_that_just_began_to_watch_takes_nothing_over_yet(
    postgres_url: str, clock: Clock, let_pass: Pass
) -> None:
    """The clock may have jumped the moment before."""
    database = Database(postgres_url, clock)
    upgrade(database)
    engine = Engine(database)
    ident = engine.deliver("send")
    engine.claim()
    clock.advance(minutes=10)
    other = worker_on(engine)
    other._take_over()
    assert engine.show(ident)["state"] == "running"
    let_pass(LEASE.total_seconds() + 1)
    other._take_over()
    assert engine.show(ident)["state"] == "retrying"
    database.close()


def test_a_jump_does_not_make_a_lookup_come_before_the_partner_can_know(
    engine: Engine, let_pass: Pass, clock: Clock
) -> None:
    def lose() -> None:
        raise OutcomeUnknown("no answer")

    worker = watching(engine, let_pass)
    ident = engine.deliver("send")
    engine.partner.after = lose
    engine.step()
    seen = engine.partner.texts.copy()
    engine.partner.texts.clear()  # the partner does not list it yet
    engine.partner.after = None
    clock.advance(hours=1)
    for _ in range(3):
        step(worker, engine)
        let_pass(2)
    engine.partner.texts += seen
    for _ in range(3):
        let_pass(11)
        step(worker, engine)
    assert engine.show(ident)["state"] == "succeeded"
    assert len(engine.partner.texts) == 1


def step(worker: Worker, engine: Engine) -> None:
    """What the worker's threads do, once."""
    worker._claim(engine.connection, little=False)
    group = worker._next_group()
    if group:
        worker._write(group)


def test_a_clock_that_goes_evenly_is_believed(engine: Engine, let_pass: Pass) -> None:
    watched = clock_jumps.Evenness()
    begun = clock_jumps.uptime()
    assert watched.read(engine.database.clock.now(), begun) < 1
    let_pass(100)
    assert watched.read(engine.database.clock.now(), clock_jumps.uptime()) >= 100
    engine.database.clock.advance(hours=-1)
    assert watched.read(engine.database.clock.now(), clock_jumps.uptime()) == 0
    assert clock_jumps.Evenness().read(engine.database.clock.now(), clock_jumps.uptime() - 2) == 0
