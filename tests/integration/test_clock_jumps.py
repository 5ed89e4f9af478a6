"""A database clock that jumps forward: leases and delays end early, and still nothing is sent twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.clock import Clock, uptime
from bridge.errors import OutcomeUnknown
from bridge.store.claim import LEASE
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.worker import account, call_runner, clock_jumps, dispatcher, in_flight, maintenance
from bridge.worker.service import Worker
from tests.integration.engine import Engine, raising, worker_on

AdvanceTime = Callable[[float], None]


@pytest.fixture
def advance_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> AdvanceTime:
    """Advance the clock of the database and the uptime of the process that watches it."""
    passed = 0.0

    def advance(seconds: float) -> None:
        nonlocal passed
        passed += seconds
        clock.advance(seconds=seconds)

    for module in (account, call_runner, clock_jumps, dispatcher, in_flight, maintenance):
        monkeypatch.setattr(module, "uptime", lambda: uptime() + passed)
    return advance


def watching_worker(engine: Engine, advance_time: AdvanceTime) -> Worker:
    """Return a worker that has watched the clock for a while."""
    worker = worker_on(engine)
    for _ in range(2):
        worker.maintenance.take_over()
        advance_time(LEASE.total_seconds() + 1)
    return worker


@pytest.mark.postgres
def test_lease_expired_by_clock_jump_is_not_taken_over_during_its_attempt(
    postgres_url: str, clock: Clock, advance_time: AdvanceTime
) -> None:
    database = Database(postgres_url, clock)
    upgrade(database)
    engine = Engine(database)
    other = watching_worker(engine, advance_time)
    delivery_id = engine.deliver("send")
    [call] = engine.claim()
    clock.advance(minutes=10)
    other.maintenance.take_over()
    advance_time(15)
    engine.run_due()
    engine.attempt(call)  # within its deadline, by the uptime of its process
    assert len(engine.provider.messages) == 1
    assert engine.show(delivery_id)["state"] == "running"
    advance_time(LEASE.total_seconds() + 1)
    other.maintenance.take_over()
    advance_time(15)
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert len(engine.provider.messages) == 1
    database.close()


@pytest.mark.postgres
def test_new_worker_does_not_take_over_leases_immediately(
    postgres_url: str, clock: Clock, advance_time: AdvanceTime
) -> None:
    """The clock may have jumped the moment before."""
    database = Database(postgres_url, clock)
    upgrade(database)
    engine = Engine(database)
    delivery_id = engine.deliver("send")
    engine.claim()
    clock.advance(minutes=10)
    other = worker_on(engine)
    other.maintenance.take_over()
    assert engine.show(delivery_id)["state"] == "running"
    advance_time(LEASE.total_seconds() + 1)
    other.maintenance.take_over()
    assert engine.show(delivery_id)["state"] == "retrying"
    database.close()


def test_clock_jump_does_not_shorten_the_lookup_delay(
    engine: Engine, advance_time: AdvanceTime, clock: Clock
) -> None:
    worker = watching_worker(engine, advance_time)
    delivery_id = engine.deliver("send")
    engine.provider.after = raising(OutcomeUnknown("no answer"))
    engine.step()
    messages = engine.provider.messages.copy()
    engine.provider.messages.clear()  # the provider does not list it yet
    engine.provider.after = None
    clock.advance(hours=1)
    for _ in range(3):
        step(worker, engine)
        advance_time(2)
    engine.provider.messages += messages
    for _ in range(3):
        advance_time(11)
        step(worker, engine)
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert len(engine.provider.messages) == 1


def step(worker: Worker, engine: Engine) -> None:
    """Do once what the worker's threads do."""
    worker.dispatcher.claim(engine.connection)
    worker.result_writer.record(worker.result_writer.next_batch(timeout=0.2))


def test_steady_clock_is_trusted(engine: Engine, advance_time: AdvanceTime) -> None:
    detector = clock_jumps.ClockJumpDetector()
    started = clock_jumps.uptime()
    assert detector.observe(engine.database.clock.now(), started) < 1
    advance_time(100)
    assert detector.observe(engine.database.clock.now(), clock_jumps.uptime()) >= 100
    engine.database.clock.advance(hours=-1)
    assert detector.observe(engine.database.clock.now(), clock_jumps.uptime()) == 0
    assert clock_jumps.ClockJumpDetector().observe(engine.database.clock.now(), clock_jumps.uptime() - 2) == 0
