"""Attempts that do not return: the connection works on, and the delivery says what happened."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial

import pytest

from bridge.connector import Limits
from bridge.store.connection_status import connection_statuses
from bridge.telemetry.metrics import Metrics
from bridge.worker import account_threads, maintenance, running_calls
from bridge.worker.account import Account
from bridge.worker.account_threads import AccountThreads
from tests.acceptance.service_process import eventually
from tests.integration.engine import Engine, worker_on


def test_attempts_that_hang_neither_stop_the_connection_nor_blame_the_process(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "MAINTENANCE_INTERVAL", 0.05)
    monkeypatch.setattr(running_calls, "OVERDUE_SECONDS", 0.1)
    engine.connector.limits = Limits(
        concurrency=2, timeout=2.0
    )  # a busy machine must start an attempt within it
    engine.connection = Account("desk", engine.connector, engine.connection.settings)
    release, hanging = threading.Event(), threading.Semaphore(2)

    def hang_twice() -> None:
        if hanging.acquire(blocking=False):
            release.wait(30)

    engine.provider.before = hang_twice
    phones = ["+12125551001", "+12125551002", "+12125551003"]
    *stuck, behind = [
        engine.deliver("send", engine.event(metadata={"contactPhone": phone})) for phone in phones
    ]
    metrics = Metrics()
    worker = worker_on(engine, metrics=metrics)
    worker.start()
    try:
        assert eventually(lambda: engine.show(behind)["state"] == "succeeded")
        assert [engine.show(each)["state"] for each in stuck] == ["running"] * 2
        overdue = partial(metrics.worker.registry.get_sample_value, labels={"connection": "desk"})
        assert eventually(
            lambda: overdue("bridge_attempts_overdue") == overdue("bridge_attempts_running") == 2
        )
        monkeypatch.setattr(maintenance, "LEASE", timedelta(0))
        engine.database.clock.advance(seconds=31)
        assert eventually(lambda: "running" not in [engine.show(each)["state"] for each in stuck])
        attempts = [engine.show(each)["attempt_history"][0] for each in stuck]
        assert {(each["outcome"], each["reason"], each["detail"]) for each in attempts} == {
            ("outcome_unknown", "timeout", "no complete response within 2 s")
        }
        labels = {"connection": "desk", "reason": "timeout"}
        assert eventually(
            lambda: metrics.worker.registry.get_sample_value("bridge_attempts_total", labels) == 2
        )
        [status] = connection_statuses(engine.database)
        assert status.recent_failures == 2
    finally:
        release.set()
        stopped = worker.stop(10)
    assert stopped
    assert overdue("bridge_attempts_running") == 0


def test_replaced_thread_ends_when_its_work_returns() -> None:
    threads = AccountThreads(1, "test")
    release, started, done = threading.Event(), threading.Event(), threading.Event()
    idents: list[int] = []

    def hang() -> None:
        idents.append(threading.get_ident())
        started.set()
        release.wait(10)

    threads.submit(hang)
    assert started.wait(5)
    threads.submit(done.set)
    assert not done.wait(0.05), "one thread only"
    assert threads.replace(idents[0])
    assert done.wait(5)
    release.set()
    assert eventually(lambda: all(thread.ident != idents[0] for thread in threading.enumerate()))
    again = threading.Event()
    threads.submit(again.set)
    assert again.wait(5)
    threads.close()
    assert eventually(lambda: not any(thread.name == "test" for thread in threading.enumerate()))


def test_only_so_many_threads_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_threads, "MAX_REPLACED", 2)
    threads = AccountThreads(1, "test")
    release, idents = threading.Event(), []

    def hang() -> None:
        idents.append(threading.get_ident())
        release.wait(10)

    for number in range(1, 4):
        threads.submit(hang)
        assert eventually(partial(lambda count: len(idents) == count, number))
        assert threads.replace(idents[-1]) == (number < 3)
    release.set()
    threads.close()


def test_error_of_one_work_does_not_end_its_thread() -> None:
    threads = AccountThreads(1, "test")
    done = threading.Event()
    threads.submit(lambda: 1 / 0)  # type: ignore[arg-type]
    threads.submit(done.set)
    assert done.wait(5)
    threads.close()
    with pytest.raises(RuntimeError):
        threads.submit(done.set)
