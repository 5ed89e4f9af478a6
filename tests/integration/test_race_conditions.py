"""What is rare and must hold all the same: late outcomes, clocks that disagree, processes that freeze or stop."""

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
from bridge.cli.server import only_server
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
from bridge.rules.model import Once, Planned, Routing, Rules
from bridge.store import routing, schema
from bridge.store.bulk import insert_group, update_group
from bridge.store.claim import LEASE
from bridge.store.claim import claim as claim_now
from bridge.store.connections import all_connections
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.migrate import upgrade
from bridge.store.operator_actions import retry
from bridge.store.results import abandoned, finish
from bridge.store.retention import _prune_deliveries
from bridge.store.routing import delivery_row
from bridge.worker import service
from bridge.worker.rules_reloader import RulesFile
from tests.integration.engine import Engine, worker_on

NUMBERS = itertools.count(2000)


@pytest.fixture
def engine(database: Database) -> Engine:
    return Engine(database)


def stranger() -> dict[str, str]:
    return {"contactPhone": f"+1212556{next(NUMBERS)}"}


def failing(error: Exception) -> Any:
    def fail() -> None:
        raise error

    return fail


# A person's `retry`


def test_a_retry_by_hand_does_not_look_before_the_partner_has_settled(engine: Engine) -> None:
    ident = engine.deliver("send")
    engine.partner.after = failing(OutcomeUnknown("no answer"))
    engine.step()
    seen = engine.partner.texts.copy()
    engine.partner.texts.clear()  # the partner does not list it yet
    [act] = retry(engine.database, "ada", [ident])
    engine.partner.after = None
    engine.lookup_delay()
    engine.partner.texts += seen
    engine.run_for(seconds=30)
    assert len(engine.partner.texts) == 1
    assert not act.done


# Outcomes that come late


def test_a_proof_that_comes_after_the_lease_but_before_another_attempt_counts(engine: Engine) -> None:
    ident = engine.deliver("mail", engine.event(metadata={"contactEmail": "a@example.com"}))
    [call] = engine.claim()
    ended = engine.attempt(call)
    engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
    engine.take_over()
    assert engine.show(ident)["state"] == "needs_review"
    finish(engine.database, ended)
    assert engine.show(ident)["state"] == "succeeded"


# Pauses


def test_a_429_without_a_wait_does_not_shorten_the_wait_of_another(engine: Engine) -> None:
    for _ in range(2):
        engine.deliver("post", engine.event(metadata=stranger()))
    one, two = engine.claim()
    now = engine.database.clock.now()
    finish(engine.database, engine.conclude(one, [RateLimited("429", retry_after=timedelta(minutes=5))]))
    finish(engine.database, engine.conclude(two, [RateLimited("429")]))
    [row] = all_connections(engine.database)
    assert row["paused_until"] >= now + timedelta(minutes=4)


def test_a_429_does_not_end_a_pause_for_credentials(engine: Engine) -> None:
    for _ in range(2):
        engine.deliver("post", engine.event(metadata=stranger()))
    one, two = engine.claim()
    finish(engine.database, engine.conclude(one, [AuthenticationError("401")]))
    finish(engine.database, engine.conclude(two, [RateLimited("429")]))
    [row] = all_connections(engine.database)
    assert row["pause_cause"] == "auth"


def test_calls_under_way_that_meet_the_same_wall_alert_once(engine: Engine) -> None:
    for _ in range(3):
        engine.deliver("post", engine.event(metadata=stranger()))
    pauses = set()
    for call in engine.claim():
        finish(engine.database, engine.conclude(call, [AuthenticationError("401")]))
        pauses.add(all_connections(engine.database)[0]["pause_id"])
    assert len(pauses) == 1


def test_a_budget_fills_again_after_the_clock_was_put_back(engine: Engine) -> None:
    engine.per_second = 1.0
    for _ in range(4):
        engine.deliver("post", engine.event(metadata=stranger()))
    engine.step()
    engine.database.clock.advance(hours=-2)
    with engine.database.write() as connection:
        connection.execute(schema.deliveries.update().values(run_at=engine.database.clock.now()))
    engine.database.clock.advance(seconds=2)
    assert engine.step() >= 1


# cancel_on


def test_a_later_event_cancels_though_heppus_clock_is_ahead(engine: Engine) -> None:
    person = stranger()
    ahead = engine.database.clock.now() + timedelta(minutes=4)
    cause = engine.event(metadata=person, timestamp=ahead.isoformat())
    ident = engine.deliver(
        "send",
        cause,
        cancel_on=("call.completed",),
        run_at=engine.database.clock.now() + timedelta(minutes=5),
    )
    engine.database.clock.advance(minutes=1)
    engine.event("call.completed", metadata=person, timestamp=(ahead + timedelta(minutes=1)).isoformat())
    engine.database.clock.advance(minutes=5)
    engine.lookup_delay()
    assert engine.show(ident)["state"] == "cancelled"


# once


def test_people_whom_nobody_can_tell_apart_are_not_one_person(engine: Engine) -> None:
    nobody = {"contactPhone": None, "contactEmail": None, "contactName": None}
    for number in (1, 2):
        engine.deliver(
            "send",
            engine.event(metadata=nobody),
            recipient=f"+1212555010{number}",
            params={"to": f"+1212555010{number}"},
            concurrency_key=None,
            idempotency_key=f"e{number}",
            once=Once("contact", timedelta(hours=1)),
        )
    engine.lookup_delay()
    assert engine.states() == {"succeeded": 2}


# Effects are freed by their keys, not by looking through all of them


def test_freeing_an_effect_does_not_look_through_all_of_them(engine: Engine) -> None:
    said: list[str] = []
    events.listen(engine.database.engine, "before_cursor_execute", lambda *args: said.append(args[2]))
    engine.deliver("send")
    engine.partner.before = failing(PermanentError("no"))
    engine.lookup_delay()
    touched = [text for text in said if "idempotency_keys" in text and text.startswith(("DELETE", "UPDATE"))]
    assert touched
    assert all("key" in text.partition("WHERE")[2] for text in touched)


# A process that freezes between the check of its deadline and the request


class Counting(BaseHTTPRequestHandler):
    """A partner that counts what reaches it."""

    reached: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.reached.append(self.path)
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def partner_url() -> Iterator[str]:
    Counting.reached.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
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
def test_nothing_is_sent_by_a_process_that_froze_while_it_connected(
    partner_url: str, post: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen_for = 0.0
    connect = socket.socket.connect

    def freezing(*args: Any) -> None:
        nonlocal frozen_for
        connect(*args)
        frozen_for = 60.0

    monkeypatch.setattr(deadline, "uptime", lambda: uptime() + frozen_for)
    with deadline.attempt_deadline(uptime() + 20):
        post(partner_url)
        assert len(Counting.reached) == 1
        monkeypatch.setattr(socket.socket, "connect", freezing)
        with pytest.raises(TransientError):
            post(partner_url)
    assert len(Counting.reached) == 1


# Routing


def rules_of(engine: Engine) -> Rules:
    return cast(Rules, SimpleNamespace(hash="rules", text="rules"))


def test_what_cannot_be_routed_is_given_up_alone_though_another_replica_holds_it_meanwhile(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison, innocent = engine.event().id, engine.event().id
    give_up = routing._give_up

    def held_elsewhere(database: Database, *args: Any) -> Any:
        with database.write() as other:
            other.execute(
                schema.events.update()
                .where(schema.events.c.id == poison)
                .values(routed_at=database.clock.now(), trace="[]")
            )
        return give_up(database, *args)

    def insert(*args: Any) -> int:
        raise ValueError("no database takes this")

    monkeypatch.setattr(routing, "_give_up", held_elsewhere)
    monkeypatch.setattr(routing, "keep_rules", insert)
    routing.route_unrouted(engine.database, rules_of(engine), lambda *_: Routing((), ()))
    monkeypatch.undo()
    with engine.database.read() as connection:
        unrouted = connection.execute(select(schema.events.c.id).where(schema.events.c.routed_at.is_(None)))
        assert unrouted.scalars().all() == [innocent]


def test_slow_routing_does_not_hold_its_transaction_for_long(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        engine.event()
    seconds = itertools.count()
    monkeypatch.setattr(routing, "uptime", lambda: float(next(seconds)))
    rounds = []
    while (
        done := routing.route_unrouted(engine.database, rules_of(engine), lambda *_: Routing((), ()))[0]
    ) > 0:
        rounds.append(done)
    assert sum(rounds) == 5
    assert len(rounds) > 1


def test_a_group_of_any_size_is_written_where_sqlite_takes_few_variables(
    sqlite_url: str, clock: Clock
) -> None:
    database = Database(sqlite_url, clock)
    events.listen(
        database.engine, "connect", lambda raw, _: raw.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)
    )
    upgrade(database)
    rows = [
        {"connection": "desk", "lookup_key": f"phone:{number}", "value": "1", "expires_at": clock.now()}
        for number in range(9000)
    ]
    with database.write() as connection:
        assert insert_group(connection, schema.contact_cache, rows) == 9000
        changed = [row | {"value": "2"} for row in rows]
        update_group(connection, schema.contact_cache, ["connection", "lookup_key"], changed)
        found = connection.execute(select(schema.contact_cache.c.value)).scalars().all()
    assert found == ["2"] * 9000
    database.close()


@pytest.mark.postgres
def test_erasing_waits_for_the_routing_that_is_under_way(postgres_url: str, clock: Clock) -> None:
    database = Database(postgres_url, clock)
    upgrade(database)
    engine = Engine(database)
    event = engine.event(metadata={"contactPhone": "+12125550177"})
    erased = threading.Thread(target=erase, args=(database, "ada", "+12125550177", b"secret"))
    with database.write() as routing_it:
        routing_it.execute(select(schema.events.c.id).where(schema.events.c.id == event.id).with_for_update())
        erased.start()
        erased.join(0.5)
        assert erased.is_alive()
        planned = Planned(
            rule="test", trigger="rule", step_index=0, action="desk.send", connection="desk", params={},
            run_at=clock.now(), idempotency_key="idempotency_key", updates_existing=False, concurrency_key=None, channel="sms",
            recipient="+12125550177",
        )  # fmt: skip
        routing_it.execute(schema.deliveries.insert(), [delivery_row(planned, event, "rules", clock.now())])
    erased.join(10)
    assert engine.states() == {"cancelled": 1}
    database.close()


def test_one_sqlite_file_is_served_once_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "bridge.db").touch()
    (tmp_path / "link.db").symlink_to("bridge.db")
    with (
        only_server(f"sqlite:///{tmp_path}/bridge.db"),
        pytest.raises(ConfigError, match="already served"),
        only_server(f"sqlite:///{tmp_path}/link.db"),
    ):
        pass


# Stopping


def test_what_is_claimed_while_a_stop_begins_is_recorded(
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

    monkeypatch.setattr(service, "claim", slow_claim)
    ident = engine.deliver("mail", engine.event(metadata={"contactEmail": "a@example.com"}))
    worker.start()
    assert in_claim.wait(5)
    threading.Timer(0.1, stopping.set).start()
    assert worker.stop(10)
    assert engine.show(ident)["state"] in ("succeeded", "pending")


# What a process cannot do, or not now


def test_an_attempt_on_a_connection_that_only_others_have_is_left_to_them_for_a_while(engine: Engine) -> None:
    ident = engine.deliver("send")
    engine.claim()
    engine.database.clock.advance(seconds=LEASE.total_seconds() + 1)
    assert [item.id for item in abandoned(engine.database, of=["desk"])[0]] == [ident]
    assert abandoned(engine.database, of=["crm"])[0] == []
    engine.database.clock.advance(minutes=3)
    assert [item.id for item in abandoned(engine.database, of=["crm"])[0]] == [ident]


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError()])
def test_a_connector_that_exits_is_an_unknown_outcome(engine: Engine, error: BaseException) -> None:
    def leave() -> None:
        engine.partner.after = None
        raise error

    ident = engine.deliver("send")
    engine.partner.after = leave
    engine.run_for(seconds=30)
    assert engine.show(ident)["state"] == "succeeded"
    assert len(engine.partner.texts) == 1


def test_rules_that_changed_while_the_database_was_away_are_read_when_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    text = (
        "version: 1\nrules:\n  - {name: one, when: call.busy, do: [{use: slack.post, with: {text: busy}}]}\n"
    )
    path.write_text(text)
    rules = RulesFile(path, registry_for(path), None)
    away = [StoreUnavailable("restarting")]

    def before(_: Rules) -> None:
        if away:
            raise away.pop()

    rules.before_change = before
    path.write_text(text + "# changed\n")
    with pytest.raises(StoreUnavailable):
        rules.reload_if_changed()
    assert rules.reload_if_changed()


def test_what_is_retried_while_it_is_pruned_keeps_what_it_sends(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ident = engine.deliver("send", expires_at=None)
    engine.partner.before = failing(PermanentError("no"))
    engine.lookup_delay()
    engine.partner.before = None
    engine.database.clock.advance(days=31)
    write = engine.database.write

    def retried_first() -> Any:
        monkeypatch.undo()
        assert retry(engine.database, "ada", [ident])[0].done
        return write()

    monkeypatch.setattr(engine.database, "write", retried_first)
    _prune_deliveries(engine.database, timedelta(days=30), Rules("", "rules"))
    engine.lookup_delay()
    assert engine.show(ident)["state"] == "succeeded"
