"""An idle worker: what its dispatcher asks the database when nothing happens, and that it still finds everything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Table
from sqlalchemy import event as sqlalchemy_event

from bridge.connector import ConnectorSettings
from bridge.rules.late import DETAILS_CONNECTION
from bridge.store import schema
from bridge.store.connections import register_accounts
from bridge.store.database import Database
from bridge.store.results import record_results
from bridge.store.work import is_any_running, with_work
from bridge.worker import account as accounts_module
from bridge.worker import dispatcher as dispatcher_module
from bridge.worker.account import POLL_INTERVAL, Account
from bridge.worker.dispatcher import Dispatcher
from tests.integration.engine import Engine, worker_on

CONNECTIONS = ("desk", "desk-2", "desk-3", "desk-4", "desk-5")
SOON = timedelta(seconds=POLL_INTERVAL)


class IdleWorker:
    """The dispatcher of a worker with five connections, polled on the test's uptime."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.uptime = 1000.0
        for module in (accounts_module, dispatcher_module):
            monkeypatch.setattr(module, "uptime", lambda: self.uptime)
        register_accounts(engine.database, dict.fromkeys(CONNECTIONS, "same"))
        worker = worker_on(engine)
        self.accounts = worker._accounts
        self.accounts.add(
            {name: Account(name, engine.connector, ConnectorSettings()) for name in CONNECTIONS[1:]}
        )
        self.dispatcher: Dispatcher = worker.dispatcher
        self.claimed: list[str] = []
        claim = self.dispatcher.claim

        def note(account: Account) -> None:
            self.claimed.append(account.name)
            claim(account)

        monkeypatch.setattr(self.dispatcher, "claim", note)
        self.poll()

    def poll(self, seconds: float = 0) -> None:
        """Poll what is due once this time has passed."""
        self.uptime += seconds
        self.dispatcher.poll(self.accounts.wait_due())


@pytest.fixture
def idle(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> IdleWorker:
    return IdleWorker(engine, monkeypatch)


def test_new_connections_are_claimed_at_once(idle: IdleWorker) -> None:
    assert sorted(idle.claimed) == sorted(CONNECTIONS)


def test_idle_minute_takes_one_query_per_interval(idle: IdleWorker, database: Database) -> None:
    statements: list[str] = []

    def note(*args: Any) -> None:
        statements.append(args[2])

    idle.claimed.clear()
    sqlalchemy_event.listen(database.engine, "before_cursor_execute", note)
    for _ in range(round(60 / POLL_INTERVAL)):
        idle.poll(POLL_INTERVAL)
    sqlalchemy_event.remove(database.engine, "before_cursor_execute", note)
    assert idle.claimed == []
    queries = [statement for statement in statements if "FROM connections" in statement]
    assert len(queries) == 60 / POLL_INTERVAL
    assert len(statements) <= 2 * len(queries)  # the other one begins the transaction, or reads the clock


def test_connections_stay_together_after_one_was_called(idle: IdleWorker) -> None:
    idle.accounts.poll_now(["desk-2"])
    idle.poll(POLL_INTERVAL / 2)
    idle.uptime += POLL_INTERVAL / 2
    assert len(idle.accounts.wait_due().unheard_of) == len(CONNECTIONS)


def test_delivery_is_claimed_without_a_notification(idle: IdleWorker, engine: Engine) -> None:
    idle.claimed.clear()
    engine.deliver("record")
    idle.poll(POLL_INTERVAL)
    idle.poll()
    assert idle.claimed == ["desk"]


def test_outage_does_not_end_the_polls(idle: IdleWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> set[str]:
        raise RuntimeError("no database")

    idle.claimed.clear()
    monkeypatch.setattr(dispatcher_module, "with_work", fail)
    monkeypatch.setattr("bridge.worker.background_thread.RETRY_DELAY", 0.0)
    idle.poll(POLL_INTERVAL)
    idle.poll()
    assert sorted(idle.claimed) == sorted(CONNECTIONS)


def insert(table: Table, **values: Any) -> Callable[[Engine, Any], None]:
    def write(engine: Engine, run_at: Any) -> None:
        with engine.database.write() as conn:
            conn.execute(table.insert(), [values | {"run_at": run_at}])

    return write


def deliver(engine: Engine, run_at: Any) -> None:
    engine.deliver("record", run_at=run_at)


def ask_opt_out(engine: Engine, run_at: Any) -> None:
    delivery = engine.deliver("send", run_at=run_at + timedelta(days=1))
    now = engine.database.clock.now()
    insert(schema.opt_out_queries, delivery_id=delivery, connection="desk", asked_at=now)(engine, run_at)


@pytest.mark.parametrize("add", [deliver, ask_opt_out])
def test_work_is_what_is_due_before_the_next_look(
    engine: Engine, database: Database, add: Callable[[Engine, Any], None]
) -> None:
    register_accounts(database, dict.fromkeys(CONNECTIONS, "same"))
    now = database.clock.now()
    assert with_work(database, CONNECTIONS, SOON) == set()
    add(engine, now + timedelta(minutes=1))
    assert with_work(database, CONNECTIONS, SOON) == set()
    database.clock.advance(seconds=57)
    assert with_work(database, CONNECTIONS, SOON) == {"desk"}


def test_details_of_a_conversation_are_work_of_heppus_connection(engine: Engine, database: Database) -> None:
    register_accounts(database, dict.fromkeys((*CONNECTIONS, DETAILS_CONNECTION), "same"))
    event, now = engine.event(), database.clock.now()
    values = {"conversation": event.conversation.id, "event_id": event.id, "asked_at": now, "attempts": 0}
    insert(schema.conversation_details, **values)(engine, now)
    assert with_work(database, (*CONNECTIONS, DETAILS_CONNECTION), SOON) == {DETAILS_CONNECTION}


def test_paused_and_unknown_connections_count_as_with_work(engine: Engine, database: Database) -> None:
    register_accounts(database, dict.fromkeys(CONNECTIONS, "same"))
    with database.write() as conn:
        conn.execute(
            schema.connections.update()
            .where(schema.connections.c.name == "desk-3")
            .values(pause_cause="quota")
        )
    assert with_work(database, (*CONNECTIONS, "other"), SOON) == {"desk-3", "other"}


def test_leases_are_looked_for_only_while_an_attempt_runs(engine: Engine, database: Database) -> None:
    assert not is_any_running(database)[0]
    engine.deliver("record")
    assert not is_any_running(database)[0]
    calls = engine.claim()
    assert is_any_running(database)[0]
    for call in calls:
        record_results(database, engine.attempt(call))
    assert not is_any_running(database)[0]


def test_idle_worker_looks_for_leases_with_one_short_query(
    engine: Engine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing runs")

    monkeypatch.setattr("bridge.worker.maintenance.find_expired_leases", fail)
    worker_on(engine).maintenance.take_over()
