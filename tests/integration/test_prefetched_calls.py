"""Calls that were claimed together for a quick partner: what happens to one of them is no business of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from bridge.clock import Clock
from bridge.connector import Success
from bridge.errors import RateLimited, TransientError
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.worker import service
from bridge.worker.attempt import Attempts, Connection
from tests.integration.engine import Engine, worker_on


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database)


def _until(check: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.02)


def _states(engine: Engine, idents: list[str]) -> list[str]:
    return [engine.show(ident)["state"] for ident in idents]


def test_a_call_that_hangs_holds_up_none_of_those_beside_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Connection, "capacity", 64
    )  # as of a partner so quick that its calls are claimed in portions
    people = [f"+1212555{1000 + number}" for number in range(40)]
    idents = [engine.deliver("send", engine.event(metadata={"contactPhone": phone})) for phone in people]
    gate, first = threading.Event(), threading.Lock()

    def hang() -> None:
        if first.acquire(blocking=False):
            gate.wait(30)

    engine.partner.before = hang
    worker = worker_on(engine)
    worker.start()
    try:
        _until(lambda: _states(engine, idents).count("succeeded") == 39)
        assert _states(engine, idents).count("running") == 1
    finally:
        gate.set()
        assert worker.stop(10)
    assert _states(engine, idents) == ["succeeded"] * 40
    assert len(engine.partner.texts) == 40


def test_a_call_that_never_began_is_not_looked_up(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease ran out while it waited for a thread: nothing can have happened."""
    database = Database(sqlite_url, Clock())
    upgrade(database)
    engine = Engine(database)
    monkeypatch.setattr(engine.connection, "submit", lambda _: None)
    monkeypatch.setattr(service, "KEEPER_ROUND", 0.1)
    looked: list[str] = []
    engine.partner.looked_up = lambda: looked.append("up")
    ident = engine.deliver("send")
    worker = worker_on(engine)
    worker.start()
    try:
        _until(lambda: engine.show(ident)["state"] == "running")
        monkeypatch.delattr(engine.connection, "submit")
        monkeypatch.setattr(service, "LEASE", timedelta(0))
        database.clock.advance(seconds=31)
        _until(lambda: engine.show(ident)["state"] == "succeeded")
    finally:
        worker.stop(1)
        database.close()
    assert looked == []
    assert len(engine.partner.texts) == 1


def test_a_result_that_cannot_be_read_is_an_unknown_outcome(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd: Any = Success(detail=None)  # type: ignore[arg-type]
    monkeypatch.setattr(Attempts, "run", lambda _, __, call, ___: [odd] * len(call))
    ident = engine.deliver("send")
    worker = worker_on(engine)
    worker.start()
    try:
        _until(lambda: engine.show(ident)["state"] == "retrying")
    finally:
        assert worker.stop(10), "an attempt without an end"
    assert engine.show(ident)["reason"] == "internal_error"


@pytest.mark.parametrize("failure", [TransientError, RateLimited])
def test_a_wish_to_come_back_in_a_million_years_is_bounded(
    failure: type[TransientError | RateLimited],
) -> None:
    assert failure("slow down", retry_after=timedelta(days=365_000_000)).retry_after == timedelta(days=30)
