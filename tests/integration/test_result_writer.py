"""Result writer: results are recorded promptly, whatever a provider responds and whatever else fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest

from bridge.connector import Success
from bridge.errors import PermanentError, StoreUnavailable
from bridge.store.claimed_delivery import ClaimedDelivery
from bridge.store.database import Database
from bridge.store.results import AttemptResult
from bridge.worker import maintenance, result_writer
from bridge.worker.account import Account
from bridge.worker.attempt import AttemptRunner, CallResult
from bridge.worker.result_writer import ResultWriter
from bridge.worker.service import Worker
from tests.acceptance.service_process import eventually
from tests.integration.engine import Engine, desk, worker_on


def deliver_email(engine: Engine, number: int = 0) -> str:
    contact_data = {"contactEmail": f"a{number}@example.com", "contactPhone": f"+1212555{1000 + number}"}
    return engine.deliver("mail", engine.event(metadata=contact_data))


def respond_with(monkeypatch: pytest.MonkeyPatch, respond: Callable[[ClaimedDelivery], CallResult]) -> None:
    def run(
        _: AttemptRunner, connection: Account, call: Sequence[ClaimedDelivery], deadline: float
    ) -> list[CallResult]:
        return [respond(item) for item in call]

    monkeypatch.setattr(AttemptRunner, "run", run)


@pytest.mark.parametrize("text", ["no\0way", "no\ud83dway"])
def test_unstorable_characters_are_replaced_in_results(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    respond_with(
        monkeypatch,
        lambda item: PermanentError(text) if item.delivery.action == "desk.mail" else Success(text, text),
    )
    failed, succeeded = deliver_email(engine), engine.deliver("post")
    worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(lambda: engine.show(succeeded)["state"] == "succeeded")
        assert eventually(lambda: engine.show(failed)["state"] == "failed")
    finally:
        worker.stop(5)
    assert engine.show(failed)["detail"] == "no\ufffdway"
    assert engine.show(succeeded)["external_id"] == "no\ufffdway"


def test_result_that_cannot_be_written_is_recorded_without_detail(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = result_writer.record_results

    def record_results(
        database: Database, results: Sequence[AttemptResult], *rest: Any
    ) -> list[ClaimedDelivery]:
        if any(item.failure is not None and item.failure.detail for item in results):
            raise ValueError("the database rejects this")
        return real(database, results, *rest)

    monkeypatch.setattr(result_writer, "record_results", record_results)
    monkeypatch.setattr(result_writer, "log", Mock())  # ten long tracebacks take too long
    back_off = Mock()
    monkeypatch.setattr(ResultWriter, "back_off", back_off)
    respond_with(
        monkeypatch,
        lambda item: PermanentError("a message") if item.delivery.action == "desk.post" else Success(),
    )
    failed = [engine.deliver("post", idempotency_key=f"post {number}") for number in range(10)]
    sent = deliver_email(engine)
    worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(lambda: engine.show(sent)["state"] == "succeeded")
        assert eventually(lambda: {engine.show(delivery_id)["state"] for delivery_id in failed} == {"failed"})
        back_off.assert_not_called()
    finally:
        worker.stop(5)
    assert engine.show(failed[0])["reason"] == "rejected"


def test_results_survive_database_outage_within_a_batch(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes, barrier = result_writer.record_results, list[int](), threading.Barrier(3)

    def record_results(
        database: Database, results: Sequence[AttemptResult], *rest: Any
    ) -> list[ClaimedDelivery]:
        sizes.append(len(results))
        if len(results) > 1 and sizes.count(1) < 2:
            raise ValueError("this batch cannot be written")
        if sizes.count(1) == 2 and len(results) == 1:
            raise StoreUnavailable("restarting")
        return real(database, results, *rest)

    monkeypatch.setattr(result_writer, "record_results", record_results)
    monkeypatch.setattr(result_writer, "FLUSH_INTERVAL", 0.5)
    engine.provider.before = lambda: barrier.wait(10) and None
    delivery_ids = [deliver_email(engine, number) for number in range(3)]
    worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(
            lambda: {engine.show(delivery_id)["state"] for delivery_id in delivery_ids} == {"succeeded"}
        )
        assert sizes[0] == 3
    finally:
        assert worker.stop(5)


def test_attempt_with_unrecorded_result_is_not_taken_over(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    database_away = threading.Event()
    database_away.set()
    real = result_writer.record_results

    def record_results(
        database: Database, results: Sequence[AttemptResult], *rest: Any
    ) -> list[ClaimedDelivery]:
        if database_away.is_set() and results[0].delivery.action == "desk.mail":
            raise StoreUnavailable("away")
        return real(database, results, *rest)

    monkeypatch.setattr(result_writer, "record_results", record_results)
    delivery_id = deliver_email(engine)
    worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(lambda: len(engine.provider.messages) == 1)
        monkeypatch.setattr(maintenance, "LEASE", timedelta(0))
        engine.database.clock.advance(seconds=40)
        state_before = engine.show(delivery_id)["state"]
        worker.maintenance.take_over()
        database_away.clear()
        assert state_before == "running"
        assert eventually(lambda: engine.show(delivery_id)["state"] == "succeeded")
    finally:
        worker.stop(5)


def test_result_of_fast_call_does_not_wait_for_the_next_call(engine: Engine) -> None:
    engine.connector = desk(engine.provider, concurrency=1)
    engine.connection = Account("desk", engine.connector, engine.connection.settings)
    engine.connection.average_call_seconds = 0.0005  # a provider that was fast until now
    release = threading.Event()
    engine.provider.before = lambda: release.wait(10) and None if engine.provider.calls[1:] else None
    first, second = (engine.deliver("post", idempotency_key=f"post {number}") for number in range(2))
    for action in engine.connector.actions.values():
        action.idempotent or action.run_lookup or object.__setattr__(action, "idempotent", True)
    worker: Worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(
            lambda: "succeeded" in {engine.show(first)["state"], engine.show(second)["state"]}, 5
        )
        assert engine.states()["running"] == 1
    finally:
        release.set()
        worker.stop(10)
