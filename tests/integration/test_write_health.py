"""`/readyz`, `bridge_database_up` and the webhook while the database cannot be written."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from secrets import token_hex
from typing import Any

import httpx
import psycopg
import pytest
import structlog
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text

from bridge.clock import Clock
from bridge.store import ingest, stalled_transactions, write_health
from bridge.store.database import Database
from bridge.store.queries import list_events, list_rejected_requests
from bridge.store.write_health import check_write
from bridge.telemetry.metrics import Metrics
from bridge.web import group_commit, health, shared_call
from bridge.web.app import create_app
from bridge.web.rejection_log import RejectionLog
from bridge.web.webhook import Receiver, ReceiverSettings
from tests.acceptance.service_process import eventually
from tests.asgi_server import serving
from tests.integration.test_webhook import SECRETS, Service
from tests.tcp_proxy import proxied


@pytest.fixture(autouse=True)
def checks_in_every_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an outcome count for an instant only, so that no test waits for the next check."""
    monkeypatch.setattr(write_health, "INTERVAL", 0.0)


@contextmanager
def running(database: Database) -> Iterator[Service]:
    metrics = Metrics()
    receiver = Receiver(database, ReceiverSettings(SECRETS), metrics, RejectionLog(metrics), database.clock)
    with serving(create_app(database, receiver, metrics, require_admin=lambda routes: routes)) as url:
        yield Service(url, database, receiver, metrics)


@pytest.fixture
def service(database: Database) -> Iterator[Service]:
    with running(database) as service:
        yield service


@pytest.fixture
def sqlite_service(sqlite_url: str, clock: Clock) -> Iterator[Service]:
    database = Database(sqlite_url, clock)
    with running(database) as service:
        yield service
    database.close()


def status(service: Service, path: str = "/readyz") -> int:
    return httpx.get(f"{service.url}{path}", timeout=15).status_code


def metric(service: Service, name: str) -> float | None:
    text = httpx.get(f"{service.url}/metrics", timeout=15).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None


@contextmanager
def full_disk(database: Database, free_pages: int = 0) -> Iterator[None]:
    """Let SQLite's file grow by a few pages only; SQLite then reports a full disk."""
    with database.write() as conn:
        pages = conn.execute(text("PRAGMA page_count")).scalar_one() + free_pages
    statement = f"PRAGMA max_page_count = {pages}"

    def limit(driver_connection: Any, *_: object) -> None:
        driver_connection.execute(statement)

    sqlalchemy_event.listen(database.engine, "checkout", limit)
    yield
    statement = "PRAGMA max_page_count = 1000000"


def test_check_leaves_no_row(database: Database) -> None:
    check_write(database)
    assert list_rejected_requests(database).items == []


def test_full_disk_is_not_ready_counted_and_logged_once(sqlite_service: Service) -> None:
    service = sqlite_service
    body = service.event(summary=token_hex(60_000))
    assert status(service) == 200
    with structlog.testing.capture_logs() as logs, full_disk(service.database):
        assert [service.post(body).status_code for _ in range(20)] == [503] * 20
        assert (status(service), status(service, "/healthz")) == (503, 200)
        assert metric(service, "bridge_database_up") == 0
        assert (metric(service, 'bridge_store_errors_total{kind="disk_full"}') or 0) >= 20
        assert (metric(service, "bridge_database_disk_free_bytes") or 0) > 0
    [entry] = [entry for entry in logs if entry["event"] == "write failed"]
    assert (entry["kind"], entry["code"]) == ("disk_full", "SQLITE_FULL")
    assert "free space" in entry["advice"]
    assert "once the database works again" in entry["alert"]
    assert service.database.write_health.take_outages() == []
    assert status(service) == 200
    [outage] = service.database.write_health.take_outages()
    assert (outage.kind, outage.refused) == ("disk_full", 20), "what the alert after the outage says"
    assert service.post(body).json() == {"received": True}
    assert metric(service, "bridge_database_up") == 1


def test_disk_with_room_for_a_small_row_only_is_not_ready_after_a_large_event_failed(
    sqlite_service: Service,
) -> None:
    service = sqlite_service
    with full_disk(service.database, free_pages=4):
        assert status(service) == 200
        assert service.post(service.event(summary=token_hex(200_000))).status_code == 503
        assert [status(service) for _ in range(3)] == [503, 503, 503]
    assert status(service) == 200


def test_read_only_file_is_not_ready_and_logged_as_permission(sqlite_service: Service) -> None:
    service = sqlite_service

    def forbid(driver_connection: Any, *_: object) -> None:
        driver_connection.execute(f"PRAGMA query_only = {query_only}")

    query_only = 1
    sqlalchemy_event.listen(service.database.engine, "checkout", forbid)
    with structlog.testing.capture_logs() as logs:
        assert service.post(service.event()).status_code == 503
        assert status(service) == 503
    assert [entry["kind"] for entry in logs if entry["event"] == "write failed"] == ["permission"]
    query_only = 0
    assert status(service) == 200


def test_unexpected_error_is_logged_with_class_and_place_and_without_data(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("cannot store +14155550124")

    body = service.event()
    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        patch.setattr(ingest, "bulk_insert", broken)
        assert [service.post(body).status_code for _ in range(3)] == [503] * 3
    [entry] = [entry for entry in logs if entry["event"] == "write failed"]
    assert entry["kind"] == "unexpected"
    assert re.fullmatch(r"ValueError in store/ingest\.py:\d+", entry["error"])
    assert metric(service, 'bridge_store_errors_total{kind="unexpected"}') == 3
    assert status(service) == 200, "other events can be stored"
    assert service.post(body).json() == {"received": True}


def test_missing_table_is_logged_with_the_code_of_the_driver(service: Service) -> None:
    with service.database.write() as conn:
        conn.execute(text("ALTER TABLE events RENAME TO events_renamed"))
    with structlog.testing.capture_logs() as logs:
        assert service.post(service.event()).status_code == 503
    with service.database.write() as conn:
        conn.execute(text("ALTER TABLE events_renamed RENAME TO events"))
    [entry] = [entry for entry in logs if entry["event"] == "write failed"]
    assert (entry["code"] or entry["kind"]) in ("42P01", "SQLITE_ERROR")


def test_many_probes_write_once_per_interval(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_health, "INTERVAL", 60.0)
    writes: list[int] = []
    monkeypatch.setattr(
        service.database,
        "write",
        lambda *a, **k: writes.append(1) or Database.write(service.database, *a, **k),
    )
    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(lambda _: status(service), range(128))) == {200}
    assert len(writes) <= 1


def test_stored_event_replaces_the_check(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_health, "INTERVAL", 60.0)
    assert service.post(service.event()).status_code == 200
    monkeypatch.setattr(health, "check_write", None)
    assert status(service) == 200


def test_probe_does_not_wait_for_a_hanging_disk(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that hangs in the kernel cannot be ended; its event and all others are answered nevertheless."""
    monkeypatch.setattr(shared_call, "CHECK_LIMIT", 0.1)
    monkeypatch.setattr(group_commit, "MAX_WAIT", 0.3)
    service, disk_works = sqlite_service, threading.Event()

    def hang(*_: object) -> None:
        disk_works.wait(120)

    sqlalchemy_event.listen(service.database.engine, "begin", hang)
    body, later = service.event(), service.event(webhookId="whd_later")
    response = service.post(body)
    assert (response.status_code, "retry-after" in response.headers) == (503, True)
    assert service.post(later).status_code == 503
    start = time.monotonic()
    assert [status(service) for _ in range(20)] == [503] * 20
    assert metric(service, "bridge_database_up") == 0
    assert status(service, "/healthz") == 200
    assert time.monotonic() - start < 60  # the disk hangs for two minutes
    disk_works.set()
    assert eventually(lambda: service.post(body).status_code == 200)
    assert service.post(later).status_code == 200
    assert sorted(item["type"] for item in list_events(service.database).items) == ["call.completed"] * 2
    assert status(service) == 200


@pytest.mark.postgres
def test_partition_is_answered_503_and_nothing_is_lost_or_doubled(
    postgres_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections stay open, so that neither the server nor TCP reports anything."""
    monkeypatch.setattr(ingest, "REQUEST_LIMIT", 0.4)
    monkeypatch.setattr(write_health, "REQUEST_LIMIT", 0.4)
    monkeypatch.setattr(stalled_transactions, "POLL_INTERVAL", 0.02)
    monkeypatch.setattr(shared_call, "CHECK_LIMIT", 0.2)
    monkeypatch.setattr(group_commit, "MAX_WAIT", 0.6)
    with proxied(postgres_url) as proxy:
        database = Database(proxy.url, clock)
        with running(database) as service:
            before, during = service.event(), service.event(webhookId="whd_during")
            assert service.post(before).status_code == 200
            proxy.partition()
            start = time.monotonic()
            assert service.post(during).status_code == 503
            assert status(service) == 503
            assert metric(service, "bridge_database_up") == 0
            assert metric(service, 'bridge_store_errors_total{kind="unreachable"}')
            assert status(service, "/healthz") == 200
            assert time.monotonic() - start < 60  # nothing ends the connections
            proxy.heal()
            answers = []
            while not answers or answers[-1] == 503:
                answers.append(service.post(during).status_code)
            assert answers[-1] == 200
            assert service.post(before).json()["duplicate"]
            assert len(list_events(database).items) == 2
            assert status(service) == 200
        database.close()


@pytest.mark.postgres
def test_read_only_sessions_are_dropped_and_the_event_is_stored(service: Service) -> None:
    """After a failover behind one name, the pooled sessions are those of the standby; new ones reach the primary."""
    database = service.database
    if database.is_sqlite:
        pytest.skip("SQLite has no sessions")
    with ThreadPoolExecutor(3) as pool:
        barrier = threading.Barrier(3)

        def demote(_: int) -> None:
            with database.engine.connect() as conn:
                conn.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
                conn.commit()
                barrier.wait(5)

        list(pool.map(demote, range(3)))
    assert service.post(service.event()).json() == {"received": True}
    assert status(service) == 200
    assert metric(service, 'bridge_store_errors_total{kind="read_only"}') == 1


@pytest.mark.postgres
def test_read_only_server_is_not_ready(new_postgres_url: str, clock: Clock) -> None:
    def set_read_only(value: str) -> None:
        with psycopg.connect(new_postgres_url, autocommit=True) as conn:
            conn.execute("SET default_transaction_read_only = off")
            name = conn.info.dbname
            conn.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}')
            conn.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    database = Database(new_postgres_url, clock)
    with running(database) as service:
        assert status(service) == 200
        set_read_only("on")
        with structlog.testing.capture_logs() as logs:
            assert service.post(service.event()).status_code == 503
        assert status(service) == 503
        assert metric(service, "bridge_database_up") == 0
        assert [entry["kind"] for entry in logs if entry["event"] == "write failed"] == [
            "unreachable",
            "read_only",
        ]
        set_read_only("off")
        assert service.post(service.event()).status_code in (200, 503)
        assert service.post(service.event()).status_code == 200
        assert status(service) == 200
    database.close()
