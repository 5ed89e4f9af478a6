"""`/metrics`: every series from the start, gauges of the database, and their absence while it is unavailable."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from sqlalchemy import event as sqlalchemy_event

from bridge import __version__
from bridge.clock import Clock
from bridge.errors import StoreUnavailable
from bridge.lifecycle import FailureReason
from bridge.rules.alert_settings import AlertSettings
from bridge.signing import read_event
from bridge.store.connections import pause, register_accounts
from bridge.store.database import Database
from bridge.store.driver_errors import _SQLITE_CODES, _STATES
from bridge.store.gauges import read_gauges
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.service_problems import read_facts
from bridge.store.workers import deregister, record_heartbeat
from bridge.telemetry.metrics import (
    OPEN_STATES,
    REJECTION_REASONS,
    STORE_ERROR_KINDS,
    WEBHOOK_STATUSES,
    Metrics,
)
from bridge.web.app import create_app
from bridge.web.rejection_log import RejectionLog
from bridge.web.webhook import Receiver, ReceiverSettings
from bridge.worker.account import Accounts
from bridge.worker.exported_metrics import export_metrics
from tests.asgi_server import serving
from tests.integration.engine import Engine

ROOT = Path(__file__).parents[2]
DATABASE_METRICS = (
    "bridge_deliveries", "bridge_events_unrouted", "bridge_oldest_due_delivery_age_seconds", "bridge_connection_paused",
    "bridge_workers_alive",
)  # fmt: skip
LOADED_AT = datetime(2026, 11, 2, 9, tzinfo=UTC)


@pytest.fixture
def url(database: Database) -> Iterator[str]:
    """Return the URL of a server without a worker, like `bridge serve --no-worker`."""
    register_accounts(database, {"desk": "a", "other": "b"})
    metrics = Metrics()
    receiver = Receiver(
        database, ReceiverSettings((b"secret",)), metrics, RejectionLog(metrics), database.clock
    )
    rules = SimpleNamespace(
        current=SimpleNamespace(hash="0123456789abcdef"), loaded_at=LOADED_AT, load_error=None
    )
    app = create_app(database, receiver, metrics, require_admin=lambda routes: routes, rules=rules)
    with serving(app) as url:
        yield url


def scrape(url: str) -> dict[str, float]:
    response = httpx.get(f"{url}/metrics", timeout=20)
    assert response.status_code == 200
    lines = [line for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def exported_database_metrics(url: str) -> set[str]:
    """Return the gauges of the database that are exported, with or without a value."""
    text = httpx.get(f"{url}/metrics", timeout=20).text
    return {name for name in DATABASE_METRICS if name in text}


def test_database_metrics_are_absent_while_database_is_unavailable(
    url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    Engine(database).deliver("send")
    assert scrape(url)["bridge_database_up"] == 1
    assert exported_database_metrics(url) == set(DATABASE_METRICS)

    def unavailable() -> Any:
        raise StoreUnavailable("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(database, "read", unavailable)
        values = scrape(url)
        assert (values["bridge_database_up"], values["bridge_rules_last_reload_successful"]) == (0, 1)
        assert exported_database_metrics(url) == set()
    values = scrape(url)
    assert (values["bridge_database_up"], values['bridge_deliveries{state="pending"}']) == (1, 1)
    assert exported_database_metrics(url) == set(DATABASE_METRICS)


def test_series_exist_from_the_start(url: str, database: Database) -> None:
    values = scrape(url)
    for status in WEBHOOK_STATUSES:
        assert values[f'bridge_webhook_requests_total{{status="{status}"}}'] == 0
    for reason in REJECTION_REASONS:
        assert values[f'bridge_rejected_requests_total{{reason="{reason}"}}'] == 0
    for kind in STORE_ERROR_KINDS:
        assert values[f'bridge_store_errors_total{{kind="{kind}"}}'] == 0
    assert values['bridge_due_deliveries{connection="desk"}'] == 0
    assert values["bridge_webhook_duration_seconds_count"] == 0
    assert values['bridge_store_duration_seconds_bucket{le="10.0"}'] == 0
    assert values["bridge_database_size_bytes"] > 1e5
    assert values["process_resident_memory_bytes"] > 1e6
    assert values["process_open_fds"] > 0
    assert any(name.startswith('bridge_build_info{python="3.') and __version__ in name for name in values)
    assert values['bridge_rules_info{hash="0123456789ab"}'] == 1
    assert values["bridge_rules_last_reload_success_timestamp_seconds"] == LOADED_AT.timestamp()
    assert [name for name in values if name.partition("{")[0].endswith("_created")] == []


def test_worker_exports_every_reason_of_every_connection_from_the_start(database: Database) -> None:
    accounts = Accounts({"desk": Engine(database).connection})
    text = export_metrics(Metrics(), accounts).decode()
    for reason in ("succeeded", *FailureReason):
        assert f'bridge_attempts_total{{connection="desk",reason="{reason}"}} 0.0' in text
    assert 'bridge_attempt_duration_seconds_bucket{connection="desk",le="60.0"} 0.0' in text


def test_known_label_values_are_those_of_the_code() -> None:
    assert {*_STATES.values(), *_SQLITE_CODES.values(), "unreachable", "unexpected"} <= set(STORE_ERROR_KINDS)
    reasons = set()
    for file in [*(ROOT / "bridge").rglob("*.py"), *(ROOT / "connectors").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and _name(node.func) in ("Refused", "SignedRequestRejected"):
                reasons |= {arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)}
            if isinstance(node, ast.Call) and _name(node.func) == "refuse":
                reasons |= {arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)}
    # `busy` and `metrics_token` are answers to a refused token, which are counted by their result.
    assert reasons - {"busy", "metrics_token", "sandbox"} <= set(REJECTION_REASONS)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def test_paused_deliveries_do_not_look_like_a_backlog(url: str, database: Database, clock: Clock) -> None:
    Engine(database).deliver("send")
    clock.advance(minutes=10)
    name = '{connection="desk"}'
    values = scrape(url)
    assert (values[f"bridge_due_deliveries{name}"], values[f"bridge_paused_due_deliveries{name}"]) == (1, 0)
    assert values[f"bridge_oldest_due_delivery_age_seconds{name}"] == pytest.approx(600, abs=5)
    assert values['bridge_due_deliveries{connection="other"}'] == 0
    pause(database, "desk", "holidays", "ada")
    values = scrape(url)
    assert (values[f"bridge_due_deliveries{name}"], values[f"bridge_paused_due_deliveries{name}"]) == (0, 1)
    assert values[f"bridge_oldest_due_delivery_age_seconds{name}"] == 0
    assert values[f"bridge_oldest_paused_delivery_age_seconds{name}"] == pytest.approx(600, abs=5)


def test_oldest_unrouted_and_last_event_are_exported(url: str, database: Database, clock: Clock) -> None:
    assert scrape(url)["bridge_last_event_timestamp_seconds"] == 0
    engine = Engine(database)
    arrived_at = clock.now().timestamp()
    event = engine.event()
    assert store_events(database, [IncomingEvent(event, b"{}")]) == ["stored"]
    clock.advance(seconds=90)
    values = scrape(url)
    assert values["bridge_oldest_unrouted_event_age_seconds"] == pytest.approx(90, abs=5)
    assert values["bridge_events_unrouted"] == 1
    assert values["bridge_last_event_timestamp_seconds"] == pytest.approx(arrived_at, abs=5)


def test_gauges_and_facts_of_alerts_scan_no_table(tmp_path: Path) -> None:
    from bridge.store.migrate import upgrade

    database = Database(f"sqlite:///{tmp_path}/bridge.db")
    upgrade(database)
    register_accounts(database, {"desk": "a"})
    statements: list[tuple[str, Any]] = []

    def note(conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    body = b'{"event": "call.busy"}'
    assert store_events(database, [IncomingEvent(read_event(body, datetime.now(UTC)), body)]) == ["stored"]
    sqlalchemy_event.listen(database.engine, "before_cursor_execute", note)
    read_gauges(database, OPEN_STATES)
    read_facts(database, AlertSettings(no_events_after=timedelta(0)), "host")
    sqlalchemy_event.remove(database.engine, "before_cursor_execute", note)
    with database.read() as conn:
        for statement, parameters in statements:
            plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            for step in (row[3] for row in plan):
                if step.startswith(
                    ("SCAN events", "SCAN deliveries", "SCAN attempts", "SCAN connection_pauses")
                ):
                    # In the order of an index and ended by a limit, or an index of the few rows in question.
                    indexes = ("events_received", "events_unrouted", "connection_pauses_current")
                    assert any(f"INDEX {name}" in step for name in indexes), (statement, step)
    assert len(statements) > 8
    database.close()


def test_workers_alive_counts_heartbeats_within_a_minute(url: str, database: Database, clock: Clock) -> None:
    assert scrape(url)["bridge_workers_alive"] == 0
    record_heartbeat(database, "one", "1.0")
    record_heartbeat(database, "two", "1.0")
    assert scrape(url)["bridge_workers_alive"] == 2
    clock.advance(seconds=50)
    record_heartbeat(database, "two", "1.0")
    clock.advance(seconds=11)
    assert scrape(url)["bridge_workers_alive"] == 1, "worker `one` stopped sending heartbeats"
    deregister(database, "two")
    assert scrape(url)["bridge_workers_alive"] == 0


@pytest.mark.postgres
def test_workers_alive_uses_database_clock(postgres_url: str) -> None:
    from bridge.store.migrate import upgrade
    from bridge.store.workers import count_alive_workers

    class FastClock(Clock):
        def now(self) -> datetime:
            return super().now() + timedelta(hours=2)

    database = Database(postgres_url, FastClock())
    upgrade(database)
    record_heartbeat(database, "one", "1.0")
    assert count_alive_workers(database) == 1
    database.close()
