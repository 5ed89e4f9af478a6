"""Work of the pages, the API and the metrics on SQLite: none grows with what is stored.

SQLite counts the steps of its virtual machine, which are the same on every machine and at every load. The database is
larger than every limit of a list or count, and then doubled: from then on, no statement may take more steps.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import event as sqlalchemy_event

from bridge.clock import Clock
from bridge.store import schema
from bridge.store.connection_stats import period_start
from bridge.store.database import Database
from bridge.store.delivery_list import MAX_COUNT
from bridge.store.gauges import read_gauges
from bridge.store.history_upkeep import update_history
from bridge.store.hourly_counts import COUNTED, HOUR, count_hours, hours_to_count
from bridge.store.queries import other_connections_in_use
from bridge.store.rule_deliveries import cancel_rule
from bridge.store.service_problems import read_facts
from bridge.store.unclaimed import explain_unclaimed
from tests.integration.dashboard_site import Site, running_site
from tests.integration.populated_site import fill
from tests.integration.test_query_plans import request
from tests.integration.test_web_api_contract import ENDPOINTS

COPIES: Final = MAX_COUNT + 500
"""Rows of each kind by which the database grows."""
MORE_STEPS: Final = 5_000
"""Extra steps allowed for a statement, because values differ: less than one for every two new rows."""
_EVERY: Final = 20
"""Steps after which SQLite calls."""
_FINISHED: Final = ("succeeded", "failed")
RULE: Final = "text-when-not-reached"
FILTERS: Final = (
    "/deliveries?state=failed", "/deliveries?state=succeeded", f"/deliveries?rule={RULE}",
    "/deliveries?connection=desk", "/deliveries?connection=desk&state=pending", "/deliveries?type=chat.resolved",
    "/deliveries?type=call.busy", "/deliveries?since=30d", "/events?type=chat.abandoned", "/events?type=call.busy",
    "/events?since=30d",
    "/?span=7d", "/?span=30d", "/metrics",
)  # fmt: skip


@contextmanager
def steps_of(database: Database) -> Iterator[Counter[str]]:
    """Count the steps of every statement on a database."""
    steps: Counter[str] = Counter()
    running = ""

    def remember(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal running
        running = " ".join(statement.split())

    def add() -> int:
        steps[running] += _EVERY
        return 0

    def count(connection: Any, *_: Any) -> None:
        connection.set_progress_handler(add, _EVERY)

    listeners = (("connect", count), ("before_cursor_execute", remember))
    for name, listener in listeners:
        sqlalchemy_event.listen(database.engine, name, listener)
    database.engine.dispose()
    try:
        yield steps
    finally:
        for name, listener in listeners:
            sqlalchemy_event.remove(database.engine, name, listener)
        database.engine.dispose()


def grow(database: Database, first: int, states: tuple[str, ...] = _FINISHED, number: int = COPIES) -> None:
    """Copy an event and a delivery: as many events of other people, each with a delivery in each of these states."""
    assert database.file is not None
    newest = int((database.clock.now() - timedelta(days=2)).timestamp() * 1e6)
    received_at = f"({newest} - n * {50 * 86_400_000_000 // (2 * COPIES)})"
    event_id = f"'evt_' || printf('%013x%012x', {received_at}, n)"
    changed = {
        "events": {
            "id": event_id, "dedupe_key": "'copy' || n", "fallback_dedupe_key": "NULL",
            "conversation_id": "'conv-' || n",
            "phone": "'+1646' || printf('%07d', n)", "email": "NULL", "contact_name": "'caller' || n",
            "contact_sort_name": "NULL", "received_at": received_at, "occurred_at": received_at,
            "routed_at": received_at,
        },
    }  # fmt: skip
    for position, state in enumerate(states):
        is_finished = state in _FINISHED
        changed[f"deliveries {state}"] = {
            "id": f"'dlv_' || printf('%013x%012x', {received_at}, n * 8 + {position})", "event_id": event_id,
            "state": f"'{state}'", "rule": f"'{RULE}'", "reason": "'timeout'" if state == "failed" else "NULL",
            "conversation": "'conv-' || n", "recipient": "NULL", "contact": "'+1646' || printf('%07d', n)",
            "external_id": "NULL", "concurrency_key": "NULL", "idempotency_key": f"'copy' || n || '{state}'",
            "created_at": received_at, "finished_at": received_at if is_finished else "NULL",
            "run_at": received_at if is_finished else f"{newest} + 5 * 86400000000",
            "message_status": "NULL", "needs_follow_up": "0",
        }  # fmt: skip
    with closing(sqlite3.connect(database.file, isolation_level=None)) as conn:
        conn.execute("PRAGMA synchronous=OFF")
        conn.execute("BEGIN")
        for name, values in changed.items():
            table = name.split()[0]
            columns = [row[1] for row in conn.execute(f"PRAGMA table_info({table})")]
            selected = ", ".join(values.get(column, column) for column in columns)
            original = "type = 'chat.resolved'" if table == "events" else "state = 'succeeded'"
            conn.execute(
                f"WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers"
                f" WHERE n + 1 < {first + number})"
                f" INSERT INTO {table} SELECT {selected} FROM numbers,"
                f" (SELECT * FROM {table} WHERE {original} LIMIT 1)"
            )
        conn.execute("COMMIT")


def visit(site: Site, pages: list[str]) -> None:
    """Open every page and every list of the API, and run what a worker runs from time to time."""
    with site.browser() as browser, site.client() as api:
        for path in (*pages, *FILTERS):
            browser.get(path)
        for name, endpoint in sorted(ENDPOINTS.items()):
            if endpoint.method == "GET":
                request(api, name, endpoint)
    watch(site.database, site)


def watch(database: Database, site: Site) -> None:
    """Read what the metrics and alerts watch, and what a start reads."""
    read_gauges(database)
    read_facts(database, site.rules.current.alert_settings, "host")
    explain_unclaimed(database, ["desk", "twilio"])
    update_history(database)
    other_connections_in_use(database, ["desk", "slack", "twilio"])


def grown(before: Counter[str], after: Counter[str]) -> list[str]:
    """Return the statements that take more steps than before."""
    return [
        f"{before[statement]} -> {steps}: {statement}"
        for statement, steps in after.items()
        if steps > before[statement] + MORE_STEPS
    ]


@pytest.fixture
def site(tmp_path: Path, clock: Clock) -> Iterator[Site]:
    with running_site(tmp_path, clock) as site:
        yield site


def test_pages_and_lists_take_as_many_steps_with_twice_as_many_rows(site: Site) -> None:
    pages = fill(site).pages
    counts = []
    for number in range(2):
        grow(site.database, number * COPIES)
        with steps_of(site.database) as steps:
            visit(site, pages)
            cancel_rule(site.database, "ada", RULE)
        counts.append(steps)
    assert not grown(*counts), "\n".join(grown(*counts))


def test_gauges_and_rules_without_deliveries_take_as_many_steps_with_twice_as_much_waiting(
    site: Site,
) -> None:
    fill(site)
    counts = []
    for number in range(2):
        grow(site.database, number * COPIES, ("pending",))
        with steps_of(site.database) as steps:
            watch(site.database, site)
            with site.client() as api:
                for path in ("/api/status", "/api/overview?span=7d", "/metrics", "/api/stats"):
                    api.get(path).raise_for_status()
        counts.append(steps)
    assert not grown(*counts), "\n".join(grown(*counts))


def test_hours_to_count_are_found_in_as_many_steps_with_many_rules(site: Site) -> None:
    database = site.database
    site.engine.event()
    database.clock.advance(days=9)
    now = database.clock.now()
    hours = [period_start(now, HOUR) - HOUR * number for number in range(1, 200)]
    counts = []
    for number in range(2):
        counted = [("fired", f"rule {rule}") for rule in range(50)] if number else [(COUNTED, "")]
        rows = [
            {"started_at": hour, "kind": kind, "name": name, "state": "", "reason": "", "total": 1, "last_at": hour}
            for hour in hours for kind, name in counted
        ]  # fmt: skip
        with database.write() as conn:
            conn.execute(schema.hourly_counts.insert(), rows)
        with steps_of(database) as steps, database.read() as conn:
            hours_to_count(conn, hours[-1], now)
        with steps_of(database) as more_steps:
            count_hours(database)
        counts.append(steps + more_steps)
    assert not grown(*counts), "\n".join(grown(*counts))
