"""Ends of attempts are written down, whatever a partner said and whatever else ends badly, as soon as it is known."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import Mock

import pytest

from bridge.connector import Success
from bridge.errors import PermanentError, StoreUnavailable
from bridge.store.claim import Claimed
from bridge.store.database import Database
from bridge.store.results import Finished
from bridge.worker import service
from bridge.worker.attempt import Attempts, Connection, Result
from bridge.worker.service import Worker
from tests.integration.engine import Engine, desk, worker_on


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database)


def mail(engine: Engine, number: int = 0) -> str:
    who = {"contactEmail": f"a{number}@example.com", "contactPhone": f"+1212555{1000 + number}"}
    return engine.deliver("mail", engine.event(metadata=who))


def eventually(check: Callable[[], bool], seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[Claimed], Result]) -> None:
    def run(_: Attempts, connection: Connection, call: Sequence[Claimed], deadline: float) -> list[Result]:
        return [answer(item) for item in call]

    monkeypatch.setattr(Attempts, "run", run)


@pytest.mark.parametrize("word", ["no\0way", "no\ud83dway"])
def test_words_that_no_database_takes_do_not_lose_an_end(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    answering(
        monkeypatch, lambda item: PermanentError(word) if item.action == "desk.mail" else Success(word, word)
    )
    refused, done = mail(engine), engine.deliver("post")
    worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(lambda: engine.show(done)["state"] == "succeeded")
        assert eventually(lambda: engine.show(refused)["state"] == "failed")
    finally:
        worker.stop(5)
    assert engine.show(refused)["detail"] == "no\ufffdway"
    assert engine.show(done)["external_id"] == "no\ufffdway"


def test_an_end_that_cannot_be_written_is_recorded_without_its_words_and_holds_up_nobody(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = service.finish

    def finish(database: Database, group: Sequence[Finished], *rest: Any) -> list[Claimed]:
        if any(item.failure is not None and item.failure.detail for item in group):
            raise ValueError("no database takes that")
        return real(database, group, *rest)

    monkeypatch.setattr(service, "finish", finish)
    monkeypatch.setattr(service, "log", Mock())  # ten long tracebacks take their time
    waits = Mock()
    monkeypatch.setattr(service, "say_and_wait", waits)
    answering(monkeypatch, lambda item: PermanentError("words") if item.action == "desk.post" else Success())
    refused = [engine.deliver("post", idempotency_key=f"post {number}") for number in range(10)]
    sent = mail(engine)
    worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(lambda: engine.show(sent)["state"] == "succeeded")
        assert eventually(lambda: {engine.show(ident)["state"] for ident in refused} == {"failed"})
        waits.assert_not_called()
    finally:
        worker.stop(5)
    assert engine.show(refused[0])["reason"] == "rejected"


def test_no_end_is_forgotten_when_the_database_goes_away_between_two_of_a_group(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, sizes, together = service.finish, list[int](), threading.Barrier(3)

    def finish(database: Database, group: Sequence[Finished], *rest: Any) -> list[Claimed]:
        sizes.append(len(group))
        if len(group) > 1 and sizes.count(1) < 2:
            raise ValueError("something in this group cannot be written")
        if sizes.count(1) == 2 and len(group) == 1:
            raise StoreUnavailable("restarting")
        return real(database, group, *rest)

    monkeypatch.setattr(service, "finish", finish)
    monkeypatch.setattr(service, "HAND_ON_EVERY", 0.5)
    engine.partner.before = lambda: together.wait(10) and None
    idents = [mail(engine, number) for number in range(3)]
    worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(lambda: {engine.show(ident)["state"] for ident in idents} == {"succeeded"})
        assert sizes[0] == 3
    finally:
        assert worker.stop(5)


def test_an_end_that_waits_for_the_recorder_is_not_taken_over(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = threading.Event()
    away.set()
    real = service.finish

    def finish(database: Database, group: Sequence[Finished], *rest: Any) -> list[Claimed]:
        if away.is_set() and group[0].claimed.action == "desk.mail":
            raise StoreUnavailable("away")
        return real(database, group, *rest)

    monkeypatch.setattr(service, "finish", finish)
    ident = mail(engine)
    worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(lambda: len(engine.partner.texts) == 1)
        monkeypatch.setattr(service, "LEASE", service.timedelta(0))
        engine.database.clock.advance(seconds=40)
        away_once_more = engine.show(ident)["state"]
        worker._take_over()
        away.clear()
        assert away_once_more == "running"
        assert eventually(lambda: engine.show(ident)["state"] == "succeeded")
    finally:
        worker.stop(5)


def test_the_end_of_a_quick_call_does_not_wait_for_the_next_one(engine: Engine) -> None:
    engine.connector = desk(engine.partner, concurrency=1)
    engine.connection = Connection("desk", engine.connector, engine.connection.settings)
    engine.connection.pace = 0.0005  # a partner that was quick until now
    hangs = threading.Event()
    engine.partner.before = lambda: hangs.wait(10) and None if engine.partner.calls[1:] else None
    first, second = (engine.deliver("post", idempotency_key=f"post {number}") for number in range(2))
    for action in engine.connector.actions.values():
        action.idempotent or action.finder or object.__setattr__(action, "repeatable", True)
    worker: Worker = worker_on(engine)
    worker.start()
    try:
        assert eventually(
            lambda: "succeeded" in {engine.show(first)["state"], engine.show(second)["state"]}, 5
        )
        assert engine.states()["running"] == 1
    finally:
        hangs.set()
        worker.stop(10)
