"""Limits of a connection: settings override the connector's, and the limit per second counts requests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.connector import ConnectorSettings, DeadlineAdapter, count_request, enforce_deadline, http_client
from bridge.connector.deadline import count_requests
from bridge.connector.discovery import read_settings
from bridge.dryrun.engine import temporary_database
from bridge.errors import ConfigError
from bridge.store import schema
from bridge.store.claim import Capacity, claim
from bridge.store.connection_status import all_connections
from bridge.store.database import Database
from bridge.store.request_budget import take_requests
from bridge.store.results import record_results
from bridge.testing import Reply, StubServer, load_connector
from bridge.worker.account import Account
from tests.integration.engine import Engine, worker_on

NUMBERS = itertools.count(2000)


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer() as server:
        server.otherwise = Reply(200, {})
        yield server


def test_settings_override_the_limits_of_the_connector() -> None:
    slack = load_connector("slack")
    environ = {"SLACK_EU_WEBHOOK_URL": "https://slack.example/services/a"}
    limits = {"SLACK_EU_PER_SECOND": "2.5", "SLACK_EU_CONCURRENCY": "8"}
    account = Account("slack_eu", slack, read_settings(slack, "slack_eu", environ | limits))
    assert (account.limits.per_second, account.limits.concurrency, account.capacity) == (2.5, 8, 8)
    account = Account("slack_eu", slack, read_settings(slack, "slack_eu", environ))
    assert (account.limits.per_second, account.limits.concurrency) == (1, 2)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PER_SECOND", "0"),
        ("PER_SECOND", "fast"),
        ("PER_SECOND", "nan"),
        ("CONCURRENCY", "0"),
        ("CONCURRENCY", "1.5"),
    ],
)
def test_limit_that_makes_no_sense_is_refused(variable: str, value: str) -> None:
    environ = {"SLACK_WEBHOOK_URL": "https://slack.example/services/a", f"SLACK_{variable}": value}
    with pytest.raises(ConfigError, match=f"SLACK_{variable}: "):
        read_settings(load_connector("slack"), "slack", environ)


def test_transports_count_requests(server: StubServer) -> None:
    session, pool = requests.Session(), urllib3.PoolManager()
    session.mount("http://", DeadlineAdapter())
    enforce_deadline(pool)
    with count_requests() as count, http_client() as client, session:
        client.post(server.url, json={"a": 1})
        session.post(server.url, json={"a": 1})
        session.get(server.url)
        pool.request("POST", server.url, json={"a": 1})
        count_request()
    assert (count.sent, len(server.requests)) == (5, 4)


class Requests:
    """Counts the requests of the provider's calls: `per_call` each."""

    def __init__(self, engine: Engine, per_call: int) -> None:
        self.sent = 0
        self.per_call = per_call
        engine.provider.before = self.send

    def send(self) -> None:
        for _ in range(self.per_call):
            count_request()
        self.sent += self.per_call


def deliver(engine: Engine, deliveries: int) -> None:
    for _ in range(deliveries):
        engine.deliver("post", engine.event(metadata={"contactPhone": f"+1212556{next(NUMBERS)}"}))


def run_worker(engine: Engine, seconds: int) -> None:
    """Run a worker without its threads, in steps of 0.2 s."""
    worker = worker_on(engine)
    writer = worker.result_writer
    for _ in range(5 * seconds):
        for _ in range(3):
            worker.dispatcher.claim(engine.connection)
            while engine.connection._running or not writer._submitted.empty():
                writer.record(writer.next_batch(timeout=0.2))
        engine.database.clock.advance(seconds=0.2)


@pytest.mark.parametrize("per_call", [1, 4, 25])
def test_calls_use_up_as_many_requests_as_they_make(engine: Engine, per_call: int) -> None:
    engine.connection = Account("desk", engine.connector, ConnectorSettings(per_second=5.0))
    sent = Requests(engine, per_call)
    deliver(engine, 80 // per_call + 20)
    start = engine.database.clock.now()
    run_worker(engine, 5)
    elapsed = (engine.database.clock.now() - start).total_seconds()
    burst, running = 5, 4
    assert 5 * elapsed - per_call - 1 <= sent.sent <= 5 * elapsed + burst + running * per_call


def tokens(database: Database) -> float:
    [row] = all_connections(database)
    return float(row["tokens"])


def test_requests_that_were_not_made_are_given_back(engine: Engine) -> None:
    deliver(engine, 1)
    capacity = Capacity("desk", 4, lambda _: 1, 10.0, 1, 6)
    [call] = claim(engine.database, capacity, engine.policy_config, "w").calls
    assert tokens(engine.database) == 4
    [result] = engine.attempt(call)
    result.extra_requests = 2 - 6
    record_results(engine.database, [result])
    assert tokens(engine.database) == 8


calls = st.lists(st.integers(0, 12), min_size=1, max_size=20)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=calls, per_second=st.sampled_from([0.5, 3.0, 9.0]), expected=st.integers(1, 6))
def test_limit_holds_whatever_calls_need(calls: list[int], per_second: float, expected: int) -> None:
    with temporary_database() as database:
        engine = Engine(database)
        deliver(engine, len(calls))
        capacity = Capacity("desk", 2, lambda _: 1, per_second, 1, expected)
        start, sent, remaining, overshoot = database.clock.now(), 0, list(calls), 0
        for _ in range(2000):
            batch = claim(database, capacity, engine.policy_config, "w")
            results = []
            for call in batch.calls:
                needed = remaining.pop()
                [result] = engine.attempt(call)
                result.extra_requests = needed - expected
                results.append(result)
                sent += needed
            if results:
                record_results(database, results)
            elapsed = (database.clock.now() - start).total_seconds()
            overshoot = max(overshoot, sent - per_second * elapsed - max(1, per_second))
            if not remaining:
                break
            database.clock.advance(seconds=0.5)
        assert not remaining, "the connection must not wait forever"
        assert overshoot <= 2 * 12  # what the calls of one claim need beyond the budget


def test_only_a_limited_connection_has_a_budget(engine: Engine) -> None:
    with engine.database.write() as conn:
        conn.execute(schema.connections.insert(), [row_of("desk", tokens=5.0), row_of("mail", tokens=None)])
        take_requests(conn, "desk", 3)
        take_requests(conn, "mail", 3)
    assert [row["tokens"] for row in all_connections(engine.database)] == [2.0, None]


def row_of(name: str, **columns: Any) -> dict[str, Any]:
    return {"name": name, "failures": 0, "successes": 0, "alert_due": False} | columns
