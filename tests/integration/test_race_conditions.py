"""Rare situations: late results, differing clocks, processes that freeze or stop."""

from __future__ import annotations

import asyncio
import itertools
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
import requests
import urllib3
from sqlalchemy import event as events
from sqlalchemy import select

from bridge.cli.bootstrap import registry_for
from bridge.cli.server_lock import sqlite_server_lock
from bridge.clock import Clock, uptime
from bridge.connector import DeadlineAdapter, deadline, enforce_deadline, http_client
from bridge.errors import (
    AuthenticationError,
    ConfigError,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    StoreUnavailable,
    TransientError,
)
from bridge.rules.model import OncePer, PlannedDelivery, Routing, Rules
from bridge.settings import Settings
from bridge.store import routing, schema
from bridge.store.bulk import bulk_insert, bulk_update
from bridge.store.claim import LEASE
from bridge.store.claim import claim as claim_now
from bridge.store.connection_status import all_connections
from bridge.store.connections import lock_connection
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.migrate import upgrade
from bridge.store.operator_actions import retry
from bridge.store.results import find_expired_leases, record_results
from bridge.store.retention import _prune_deliveries
from bridge.store.routing import delivery_row
from bridge.worker import dispatcher
from bridge.worker.rules_reloader import RulesFile
from tests.integration.engine import Engine, raising, worker_on

NUMBERS = itertools.count(2000)


def other_contact() -> dict[str, str]:
    return {"contactPhone": f"+1212556{next(NUMBERS)}"}


# Results of several workers on one connection


@pytest.mark.postgres
def test_successes_are_recorded_while_another_worker_holds_the_connection(
    postgres_url: str, clock: Clock
) -> None:
    engine = Engine(Database(postgres_url, clock))
    delivery_id = engine.deliver("post")
    [call] = engine.claim()
    results = engine.attempt(call)
    with engine.database.write() as conn:
        lock_connection(engine.database, conn, "desk")
        recorder = threading.Thread(target=record_results, args=(engine.database, results), daemon=True)
        recorder.start()
        recorder.join(10)
        assert not recorder.is_alive()
    assert engine.show(delivery_id)["state"] == "succeeded"
    engine.database.close()


def test_success_resets_what_failures_have_counted(engine: Engine) -> None:
    engine.provider.before = raising(RateLimited("slow down"))
    engine.deliver("post")
    engine.step()
    [limited] = all_connections(engine.database)
    assert limited["consecutive_rate_limits"] == 1
    engine.provider.before = None
    engine.run_for(minutes=1)
    [answered] = all_connections(engine.database)
    assert (answered["consecutive_rate_limits"], answered["failures"]) == (0, 0)
    assert engine.states() == {"succeeded": 1}


# Retry by an operator


def test_retry_by_operator_does_not_precede_the_lookup_delay(engine: Engine) -> None:
    delivery_id = engine.deliver("send")
    engine.provider.after = raising(OutcomeUnknown("no answer"))
    engine.step()
    messages = engine.provider.messages.copy()
    engine.provider.messages.clear()  # the provider does not list it yet
    [result] = retry(engine.database, "ada", [delivery_id])
    engine.provider.after = None
    engine.run_due()
    engine.provider.messages += messages
    engine.run_for(seconds=30)
    assert len(engine.provider.messages) == 1
    assert not result.done


# Late results


def test_success_after_lease_expiry_counts_until_the_next_claim(engine: Engine) -> None:
    delivery_id = engine.deliver("mail", engine.event(metadata={"contactEmail": "a@example.com"}))
    [call] = engine.claim()
    results = engine.attempt(call)
    engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
    engine.recover_expired()
    assert engine.show(delivery_id)["state"] == "needs_review"
    record_results(engine.database, results)
    assert engine.show(delivery_id)["state"] == "succeeded"


# Pauses


def test_rate_limit_without_retry_after_does_not_shorten_a_pause(engine: Engine) -> None:
    for _ in range(2):
        engine.deliver("post", engine.event(metadata=other_contact()))
    one, two = engine.claim()
    now = engine.database.clock.now()
    record_results(
        engine.database, engine.classify_result(one, [RateLimited("429", retry_after=timedelta(minutes=5))])
    )
    record_results(engine.database, engine.classify_result(two, [RateLimited("429")]))
    [row] = all_connections(engine.database)
    assert row["paused_until"] >= now + timedelta(minutes=4)


def test_rate_limit_does_not_end_an_auth_pause(engine: Engine) -> None:
    for _ in range(2):
        engine.deliver("post", engine.event(metadata=other_contact()))
    one, two = engine.claim()
    record_results(engine.database, engine.classify_result(one, [AuthenticationError("401")]))
    record_results(engine.database, engine.classify_result(two, [RateLimited("429")]))
    [row] = all_connections(engine.database)
    assert row["pause_cause"] == "auth"


def test_running_calls_with_the_same_failure_alert_once(engine: Engine) -> None:
    for _ in range(3):
        engine.deliver("post", engine.event(metadata=other_contact()))
    pauses = set()
    for call in engine.claim():
        record_results(engine.database, engine.classify_result(call, [AuthenticationError("401")]))
        pauses.add(all_connections(engine.database)[0]["pause_id"])
    assert len(pauses) == 1


def test_budget_refills_after_clock_is_set_back(engine: Engine) -> None:
    engine.per_second = 1.0
    for _ in range(4):
        engine.deliver("post", engine.event(metadata=other_contact()))
    engine.step()
    engine.database.clock.advance(hours=-2)
    with engine.database.write() as conn:
        conn.execute(schema.deliveries.update().values(run_at=engine.database.clock.now()))
    engine.database.clock.advance(seconds=2)
    assert engine.step() >= 1


# cancel_on


def test_later_event_cancels_when_clock_of_heppu_is_ahead(engine: Engine) -> None:
    contact_data = other_contact()
    ahead = engine.database.clock.now() + timedelta(minutes=4)
    event = engine.event(metadata=contact_data, timestamp=ahead.isoformat())
    delivery_id = engine.deliver(
        "send",
        event,
        cancel_on=("call.completed",),
        run_at=engine.database.clock.now() + timedelta(minutes=5),
    )
    engine.database.clock.advance(minutes=1)
    engine.event(
        "call.completed", metadata=contact_data, timestamp=(ahead + timedelta(minutes=1)).isoformat()
    )
    engine.database.clock.advance(minutes=5)
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "cancelled"


# once


def test_once_does_not_treat_unidentified_contacts_as_one(engine: Engine) -> None:
    unidentified = {"contactPhone": None, "contactEmail": None, "contactName": None}
    for number in (1, 2):
        engine.deliver(
            "send",
            engine.event(metadata=unidentified),
            recipient=f"+1212555010{number}",
            params={"to": f"+1212555010{number}"},
            concurrency_key=None,
            idempotency_key=f"e{number}",
            once=OncePer("contact", timedelta(hours=1)),
        )
    engine.run_due()
    assert engine.states() == {"succeeded": 2}


# Idempotency keys


def test_release_of_idempotency_key_uses_the_primary_key(engine: Engine) -> None:
    statements: list[str] = []
    events.listen(engine.database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    engine.deliver("send")
    engine.provider.before = raising(PermanentError("no"))
    engine.run_due()
    writes = [
        text for text in statements if "idempotency_keys" in text and text.startswith(("DELETE", "UPDATE"))
    ]
    assert writes
    assert all("key" in text.partition("WHERE")[2] for text in writes)


# A process that freezes between the check of its deadline and the request


class RecordingHandler(BaseHTTPRequestHandler):
    """A provider that records the requests that reach it."""

    requests: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.requests.append(self.path)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def provider_url() -> Iterator[str]:
    RecordingHandler.requests.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), RecordingHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def with_requests(url: str) -> None:
    with requests.Session() as session:
        session.mount("http://", DeadlineAdapter())
        session.post(url, data=b"x")


def with_urllib3(url: str) -> None:
    with urllib3.PoolManager() as manager:
        enforce_deadline(manager)
        manager.request("POST", url, body=b"x")


def with_httpx(url: str) -> None:
    with http_client() as client:
        client.post(url, content=b"x")


@pytest.mark.parametrize("post", [with_requests, with_urllib3, with_httpx])
def test_process_that_froze_while_connecting_sends_nothing(
    provider_url: str, post: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen_for = 0.0
    connect = socket.socket.connect

    def connect_and_freeze(*args: Any) -> None:
        nonlocal frozen_for
        connect(*args)
        frozen_for = 60.0

    monkeypatch.setattr(deadline, "uptime", lambda: uptime() + frozen_for)
    with deadline.attempt_deadline(uptime() + 20):
        post(provider_url)
        assert len(RecordingHandler.requests) == 1
        monkeypatch.setattr(socket.socket, "connect", connect_and_freeze)
        with pytest.raises(TransientError):
            post(provider_url)
    assert len(RecordingHandler.requests) == 1


# Routing


def rules_of(engine: Engine) -> Rules:
    return cast(Rules, SimpleNamespace(hash="rules", text="rules"))


def test_unroutable_event_is_marked_failed_when_locked_by_another_worker(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_event, other_event = engine.event().id, engine.event().id
    give_up = routing._give_up

    def routed_by_other_worker(database: Database, *args: Any) -> Any:
        with database.write() as conn:
            conn.execute(
                schema.events.update()
                .where(schema.events.c.id == failing_event)
                .values(routed_at=database.clock.now(), trace="[]")
            )
        return give_up(database, *args)

    def insert(*args: Any) -> int:
        raise ValueError("the database rejects this")

    monkeypatch.setattr(routing, "_give_up", routed_by_other_worker)
    monkeypatch.setattr(routing, "store_rules_version", insert)
    routing.route_unrouted(engine.database, rules_of(engine), lambda *_: Routing((), ()))
    monkeypatch.undo()
    with engine.database.read() as conn:
        unrouted = conn.execute(select(schema.events.c.id).where(schema.events.c.routed_at.is_(None)))
        assert unrouted.scalars().all() == [other_event]


def test_slow_routing_splits_its_transactions(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        engine.event()
    seconds = itertools.count()
    monkeypatch.setattr(routing, "uptime", lambda: float(next(seconds)))
    batches = []
    while (
        count := routing.route_unrouted(engine.database, rules_of(engine), lambda *_: Routing((), ()))[0]
    ) > 0:
        batches.append(count)
    assert sum(batches) == 5
    assert len(batches) > 1


def test_bulk_writes_respect_the_variable_limit_of_sqlite(sqlite_url: str, clock: Clock) -> None:
    database = Database(sqlite_url, clock)
    events.listen(
        database.engine, "connect", lambda raw, _: raw.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)
    )
    upgrade(database)
    rows = [
        {"connection": "desk", "lookup_key": f"phone:{number}", "value": "1", "expires_at": clock.now()}
        for number in range(9000)
    ]
    with database.write() as conn:
        assert bulk_insert(conn, schema.contact_cache, rows) == 9000
        changed = [row | {"value": "2"} for row in rows]
        bulk_update(conn, schema.contact_cache, ["connection", "lookup_key"], changed)
        values = conn.execute(select(schema.contact_cache.c.value)).scalars().all()
    assert values == ["2"] * 9000
    database.close()


@pytest.mark.parametrize("details", [["same"], ["same", "same"], ["one", "other"]])
def test_bulk_update_writes_equal_and_different_values(engine: Engine, details: list[str]) -> None:
    ids = [engine.deliver("post") for _ in details]
    now, waiting = engine.database.clock.now(), engine.deliver("post")
    rows = [
        {"id": item, "detail": detail, "possibly_sent_at": now, "external_id": None, "needs_follow_up": True}
        for item, detail in zip(ids, details, strict=True)
    ]
    with engine.database.write() as conn:
        bulk_update(conn, schema.deliveries, ["id"], rows)
        columns = schema.deliveries.c["id", "detail", "possibly_sent_at", "external_id", "needs_follow_up"]
        stored = {row.id: dict(row._mapping) for row in conn.execute(select(*columns))}
    assert [stored[item] for item in ids] == rows
    assert stored[waiting]["detail"] is None
    assert not stored[waiting]["needs_follow_up"]


@pytest.mark.postgres
def test_erasure_waits_for_running_routing(postgres_url: str, clock: Clock) -> None:
    database = Database(postgres_url, clock)
    upgrade(database)
    engine = Engine(database)
    event = engine.event(metadata={"contactPhone": "+12125550177"})
    erasure = threading.Thread(target=erase, args=(database, "ada", "+12125550177", [b"secret"]))
    with database.write() as router:
        router.execute(select(schema.events.c.id).where(schema.events.c.id == event.id).with_for_update())
        erasure.start()
        erasure.join(0.5)
        assert erasure.is_alive()
        planned = PlannedDelivery(
            rule="test", trigger="rule", step_index=0, action="desk.send", connection="desk", params={},
            run_at=clock.now(), idempotency_key="key", updates_existing=False, concurrency_key=None, channel="sms",
            recipient="+12125550177",
        )  # fmt: skip
        router.execute(schema.deliveries.insert(), [delivery_row(planned, event, "rules", clock.now())])
    erasure.join(10)
    assert engine.states() == {"cancelled": 1}
    database.close()


def test_sqlite_file_is_served_once_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "bridge.db").touch()
    (tmp_path / "link.db").symlink_to("bridge.db")
    with (
        sqlite_server_lock(f"sqlite:///{tmp_path}/bridge.db"),
        pytest.raises(ConfigError, match="already served"),
        sqlite_server_lock(f"sqlite:///{tmp_path}/link.db"),
    ):
        pass


# Stopping


def test_delivery_claimed_during_shutdown_is_recorded(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_on(engine)
    stopping = threading.Event()
    in_claim = threading.Event()
    claim = claim_now

    def slow_claim(*args: Any) -> Any:
        in_claim.set()
        stopping.wait(5)
        threading.Event().wait(0.3)
        return claim(*args)

    monkeypatch.setattr(dispatcher, "claim", slow_claim)
    delivery_id = engine.deliver("mail", engine.event(metadata={"contactEmail": "a@example.com"}))
    worker.start()
    assert in_claim.wait(5)
    threading.Timer(0.1, stopping.set).start()
    assert worker.stop(10)
    assert engine.show(delivery_id)["state"] in ("succeeded", "pending")


# Missing connections, exiting connectors, unavailable databases


def test_expired_lease_is_left_to_workers_with_its_connection(engine: Engine) -> None:
    delivery_id = engine.deliver("send")
    engine.claim()
    engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
    assert [item.delivery.id for item in find_expired_leases(engine.database, connections=["desk"])[0]] == [
        delivery_id
    ]
    assert find_expired_leases(engine.database, connections=["crm"])[0] == []
    engine.database.clock.advance(minutes=3)
    assert [item.delivery.id for item in find_expired_leases(engine.database, connections=["crm"])[0]] == [
        delivery_id
    ]


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError()])
def test_exiting_connector_is_an_unknown_outcome(engine: Engine, error: BaseException) -> None:
    def exit_once() -> None:
        engine.provider.after = None
        raise error

    delivery_id = engine.deliver("send")
    engine.provider.after = exit_once
    engine.run_for(seconds=30)
    assert engine.show(delivery_id)["state"] == "succeeded"
    assert len(engine.provider.messages) == 1


def test_changed_rules_are_loaded_once_database_is_available(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    text = (
        "version: 1\nrules:\n  - {name: one, when: call.busy, do: [{use: slack.post, with: {text: busy}}]}\n"
    )
    path.write_text(text)
    errors = [StoreUnavailable("restarting")]

    def before(_: Rules) -> None:
        if errors:
            raise errors.pop()

    rules = RulesFile(path, registry_for(path, Settings.load({})), None, before_change=before)
    path.write_text(text + "# changed\n")
    with pytest.raises(StoreUnavailable):
        rules.reload_if_changed()
    assert rules.reload_if_changed()


def test_delivery_retried_during_pruning_keeps_its_params(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery_id = engine.deliver("send", expires_at=None)
    engine.provider.before = raising(PermanentError("no"))
    engine.run_due()
    engine.provider.before = None
    engine.database.clock.advance(days=31)
    write = engine.database.write

    def retry_first(**options: Any) -> Any:
        monkeypatch.undo()
        assert retry(engine.database, "ada", [delivery_id])[0].done
        return write(**options)

    monkeypatch.setattr(engine.database, "write", retry_first)
    _prune_deliveries(engine.database, timedelta(days=30), Rules("", "rules"))
    engine.run_due()
    assert engine.show(delivery_id)["state"] == "succeeded"
