"""Prefetched calls: calls claimed together for a fast provider do not affect each other."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from bridge.clock import Clock
from bridge.connector import Success
from bridge.errors import RateLimited, TransientError
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.worker import maintenance
from bridge.worker.account import Account
from bridge.worker.attempt import AttemptRunner
from tests.acceptance.service_process import eventually
from tests.integration.engine import Engine, worker_on


def _states(engine: Engine, delivery_ids: list[str]) -> list[str]:
    return [engine.show(delivery_id)["state"] for delivery_id in delivery_ids]


def test_hanging_call_does_not_block_prefetched_calls(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A provider so fast that its calls are prefetched.
    monkeypatch.setattr(Account, "capacity", 64)
    phones = [f"+1212555{1000 + number}" for number in range(40)]
    delivery_ids = [
        engine.deliver("send", engine.event(metadata={"contactPhone": phone})) for phone in phones
    ]
    release, first = threading.Event(), threading.Lock()

    def hang() -> None:
        if first.acquire(blocking=False):
            release.wait(30)

    engine.provider.before = hang
    worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(lambda: _states(engine, delivery_ids).count("succeeded") == 39)
        assert _states(engine, delivery_ids).count("running") == 1
    finally:
        release.set()
        assert worker.stop(10)
    assert _states(engine, delivery_ids) == ["succeeded"] * 40
    assert len(engine.provider.messages) == 40


def test_call_that_never_started_is_not_looked_up(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease expired while it waited for a thread, so it cannot have taken effect."""
    database = Database(sqlite_url, Clock())
    upgrade(database)
    engine = Engine(database)
    monkeypatch.setattr(engine.connection, "submit", lambda _: None)
    monkeypatch.setattr(maintenance, "MAINTENANCE_INTERVAL", 0.1)
    lookups: list[str] = []
    engine.provider.on_lookup = lambda: lookups.append("lookup")
    delivery_id = engine.deliver("send")
    worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(lambda: engine.show(delivery_id)["state"] == "running")
        monkeypatch.delattr(engine.connection, "submit")
        monkeypatch.setattr(maintenance, "LEASE", timedelta(0))
        database.clock.advance(seconds=31)
        assert eventually(lambda: engine.show(delivery_id)["state"] == "succeeded")
    finally:
        worker.stop(1)
        database.close()
    assert lookups == []
    assert len(engine.provider.messages) == 1


def test_unreadable_result_is_an_unknown_outcome(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    invalid: Any = Success()
    object.__setattr__(
        invalid, "detail", None
    )  # as after a bug in the bridge: `Success` checks what it is given
    monkeypatch.setattr(AttemptRunner, "run", lambda _, __, call, ___: [invalid] * len(call))
    delivery_id = engine.deliver("send")
    worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(lambda: engine.show(delivery_id)["state"] == "retrying")
    finally:
        assert worker.stop(10), "an attempt without a result"
    assert engine.show(delivery_id)["reason"] == "internal_error"


@pytest.mark.parametrize("failure", [TransientError, RateLimited])
def test_retry_after_is_limited_to_thirty_days(
    failure: type[TransientError | RateLimited],
) -> None:
    assert failure("slow down", retry_after=timedelta(days=365_000_000)).retry_after == timedelta(days=30)
