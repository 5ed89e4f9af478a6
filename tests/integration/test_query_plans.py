"""Plans of every statement that pages, the API, `bridge status`, claims, results, routing, pruning, exports and erasure
execute.

No statement may read a large table from one end to the other. SQLite's plans do not depend on how much is stored. On
PostgreSQL, sequential scans are made so expensive that one is only planned if no index could be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
from sqlalchemy import event as sqlalchemy_event

from bridge.clock import Clock
from bridge.rules.route import route
from bridge.store.bulk_actions import change_all
from bridge.store.contact_export import export_json
from bridge.store.database import Database
from bridge.store.deletion import delete_rows
from bridge.store.delivery_list import DeliveryFilter, count_by_state, list_deliveries
from bridge.store.erase import erase
from bridge.store.gauges import read_gauges
from bridge.store.history_upkeep import update_history
from bridge.store.newest_events import newest_events
from bridge.store.queries import (
    count_reviews,
    latest_rules,
    list_events,
    other_connections_in_use,
    queue_stats,
    stored_events,
)
from bridge.store.replay import ReplayOrder, replay, select_events
from bridge.store.retention import prune
from bridge.store.routing import route_unrouted
from bridge.store.rule_stats import last_fired
from bridge.store.service_status import read_service_status
from bridge.store.unclaimed import explain_unclaimed
from bridge.store.waiting import waiting_by_connection, waiting_of_connections
from bridge.store.work import is_any_running, with_work
from tests.integration.api_examples import EXAMPLES, Stored, TrialOfTests
from tests.integration.dashboard_site import running_site
from tests.integration.engine import Engine
from tests.integration.populated_site import fill
from tests.integration.test_retention import rules_with
from tests.integration.test_web_api_contract import ENDPOINTS, path_of

PHONE = "+12125550167"
LARGE = frozenset(
    ("events", "deliveries", "attempts", "action_steps", "idempotency_keys", "audit_log", "deleted_event_keys",
     "opt_outs", "undeliverable_addresses", "contact_cache", "conversation_details")
)  # fmt: skip
FEW_ROWS = frozenset(
    ("deliveries_due", "deliveries_due_alerts", "deliveries_lease", "deliveries_follow_up", "events_unrouted",
     "deliveries_concurrency_key", "deliveries_unpruned", "events_unpruned", "events_unreadable", "events_reconciled")
)  # fmt: skip
"""Indexes of what is waiting, running or left to do: to read such an index is the purpose of the statement."""


READ_WHOLE = (
    "lower(contact_cache.lookup_key)", "contact_cache.lookup_key IN", "conversation_details.value IS NOT NULL",
    "conversation_details.event_id IN", "FROM deleted_event_keys LIMIT",
)  # fmt: skip
"""Statements that may scan: the search of an erasure for an address in all text, and the check for any row at all."""


@contextmanager
def scans_of(database: Database) -> Iterator[dict[str, str]]:
    """Collect the statements on a database that read a large table from end to end: statement -> its plan."""
    scans: dict[str, str] = {}
    other = None if database.is_sqlite else psycopg.connect(**database.driver_arguments(), autocommit=True)
    if other is not None:
        other.execute("SET enable_seqscan = off")

    def explain(conn: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if not statement.lstrip().startswith(("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")):
            return
        if isinstance(parameters, list) or any(part in " ".join(statement.split()) for part in READ_WHOLE):
            return
        if other is None:
            rows = conn.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            found = [row[3] for row in rows if _is_scan_on_sqlite(row[3], statement)]
        else:
            cursor = other.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
            [[[plan]]] = cursor.fetchall()
            found = list(_scans_on_postgres(plan["Plan"]))
        if found:
            scans[" ".join(statement.split())] = "; ".join(found)

    sqlalchemy_event.listen(database.engine, "before_cursor_execute", explain)
    try:
        yield scans
    finally:
        sqlalchemy_event.remove(database.engine, "before_cursor_execute", explain)
        if other is not None:
            other.close()


def _is_scan_on_sqlite(step: str, statement: str) -> bool:
    words = step.split()
    if words[0] != "SCAN" or words[1] not in LARGE:
        return False
    index = words[words.index("INDEX") + 1] if "INDEX" in words else ""
    return index not in FEW_ROWS and not (index and "LIMIT" in statement)


def _scans_on_postgres(plan: dict[str, Any], is_limited: bool = False) -> Iterator[str]:
    table, node, index = plan.get("Relation Name"), plan["Node Type"], plan.get("Index Name")
    is_whole = node == "Seq Scan" or (index and "Index Cond" not in plan and not is_limited)
    if table in LARGE and is_whole and index not in FEW_ROWS:
        yield f"{node} on {table} {index or ''}"
    for child in plan.get("Plans", ()):
        yield from _scans_on_postgres(child, is_limited or node == "Limit")


def work(engine: Engine) -> None:
    """Receive, route, deliver, list, replay, prune, delete, export and erase."""
    database, rules = engine.database, rules_with()
    now = database.clock.now()
    for number in range(3):
        engine.event(conversationId=f"conv-{number}", metadata={"contactPhone": PHONE})
        engine.deliver(
            "send", engine.event(conversationId=f"conv-{number}", metadata={"contactPhone": PHONE})
        )
        engine.deliver("record", engine.event("call.completed", conversationId=f"conv-{number}"))
    route_unrouted(database, rules, lambda event, now, history: route(event, rules, now, history))
    engine.run_due()
    engine.recover_expired()
    with_work(database, ["desk"], timedelta(seconds=5))
    is_any_running(database)
    explain_unclaimed(database, ["desk"])
    update_history(database)
    queue_stats(database)
    read_gauges(database)
    read_service_status(database)
    count_reviews(database, 10)
    other_connections_in_use(database, ())
    waiting_by_connection(database)
    waiting_of_connections(database, ["desk"])
    newest_events(database, now - timedelta(days=1), limit=10, max_bytes=10_000)
    last_fired(database, ["test"])
    latest_rules(database)
    assert list(stored_events(database, now - timedelta(days=1), now + timedelta(days=1))) != []
    delivery = list_deliveries(database).items[0]
    event_id = str(delivery["event_id"])
    for matching in (
        DeliveryFilter(),
        DeliveryFilter(states=("succeeded",)),
        DeliveryFilter(states=("failed", "needs_review"), reason="timeout", not_dismissed=True),
        DeliveryFilter(rule="test", since=now - timedelta(days=1), until=now),
        DeliveryFilter(connection="desk", states=("succeeded",), event_type="call.busy"),
        DeliveryFilter(event_type="chat.resolved"),
        DeliveryFilter(contact=(PHONE,)),
        DeliveryFilter(person=event_id),
        DeliveryFilter(event=event_id),
    ):
        page = list_deliveries(database, matching, limit=1)
        list_deliveries(database, matching, limit=1, cursor=page.next_cursor or delivery["id"])
        count_by_state(database, matching)
    for criteria in (
        {}, {"event_type": "chat.abandoned"}, {"event_type": "call.busy", "since": now - timedelta(hours=1)},
        {"since": now - timedelta(days=7), "until": now}, {"unreadable": True}, {"not_routed": True},
        {"without_deliveries": True}, {"contact": (PHONE,)}, {"person": event_id}, {"conversation": "conv-1"},
    ):  # fmt: skip
        page = list_events(database, limit=1, **criteria)  # type: ignore[arg-type]
        list_events(database, limit=1, cursor=page.next_cursor or event_id, **criteria)  # type: ignore[arg-type]
    change_all(database, "ada", "retry", DeliveryFilter(states=("failed",)))
    selected = select_events(database, event_type="call.busy")
    replay(
        database,
        "ada",
        selected.ids,
        ReplayOrder(rules, lambda event, now, history: route(event, rules, now, history)),
    )
    engine.run_due()
    "".join(export_json(database, [PHONE]))
    database.clock.advance(days=31)
    prune(database, timedelta(days=30), rules)
    database.clock.advance(days=400)
    prune(database, timedelta(days=30), rules)
    delete_rows(database, timedelta(days=365), rules)
    engine.event(metadata={"contactPhone": PHONE})
    erase(database, "ada", PHONE, [b"secret"])


def test_work_reads_no_large_table(database: Database) -> None:
    with scans_of(database) as scans:
        work(Engine(database))
    assert not scans, "\n".join(f"{plan}: {statement}" for statement, plan in scans.items())


def test_pages_and_api_read_no_large_table(tmp_path: Path, clock: Clock) -> None:
    with running_site(tmp_path, clock, trial=TrialOfTests()) as site:
        pages = fill(site).pages
        filters = (
            "type=call.busy",
            "rule=text-when-not-reached",
            "connection=desk",
            "state=succeeded",
            "since=1h",
        )
        with scans_of(site.database) as scans, site.browser() as browser, site.client() as api:
            for path in (
                *pages,
                *(f"/deliveries?{item}" for item in filters),
                "/events?type=chat.abandoned",
                "/metrics",
            ):
                browser.get(path)
            for name, endpoint in sorted(ENDPOINTS.items()):
                request(api, name, endpoint)
    assert not scans, "\n".join(f"{plan}: {statement}" for statement, plan in scans.items())


def request(api: httpx.Client, name: str, endpoint: Any) -> None:
    """Send the example of an endpoint, whatever is left of what it is about."""
    try:
        example = EXAMPLES[name](Stored(api))
    except (IndexError, StopIteration):
        return
    body = example.body if endpoint.method != "GET" else None
    api.request(endpoint.method, path_of(endpoint, example.variables), params=example.query, json=body)
