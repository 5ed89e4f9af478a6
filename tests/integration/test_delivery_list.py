"""Lists of deliveries on both databases: filters, pages in both directions, counts, and the indexes they use."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event as engine_event
from sqlalchemy import text, update

from bridge.errors import PermanentError
from bridge.store import delivery_list, schema
from bridge.store.database import Database
from bridge.store.delivery_list import (
    CappedCount,
    DeliveryFilter,
    count_by_state,
    list_deliveries,
    matching_ids,
)
from bridge.store.queries import NotFound, other_connections_in_use
from tests.integration.engine import Engine

EVERYTHING = DeliveryFilter()
FILTERS = {
    "none": EVERYTHING,
    "few states": DeliveryFilter(states=("failed", "needs_review")),
    "states": DeliveryFilter(states=("succeeded", "failed")),
    "reason": DeliveryFilter(reason="opted_out"),
    "rule": DeliveryFilter(rule="a"),
    "rule and state": DeliveryFilter(rule="a", states=("succeeded",)),
    "rule and failed": DeliveryFilter(rule="a", states=("failed",)),
    "connection": DeliveryFilter(connection="desk"),
    "connection and type": DeliveryFilter(connection="desk", event_type="call.busy"),
    "type": DeliveryFilter(event_type="call.busy"),
    "not dismissed": DeliveryFilter(states=("failed",), not_dismissed=True),
    "event": DeliveryFilter(event="evt_1", states=("failed",)),
    "contact": DeliveryFilter(contact=["+12125550167"], states=("failed",)),
    "ids": DeliveryFilter(ids=["dlv_1", "dlv_2"], states=("failed",)),
}


def spread(engine: Engine, number: int, **planned: Any) -> list[str]:
    """Store deliveries a minute apart; return their IDs, newest first."""
    ids = []
    for _ in range(number):
        engine.database.clock.advance(minutes=1)
        ids.append(engine.deliver("post", **planned))
    return ids[::-1]


def ids_of(database: Database, matching: DeliveryFilter = EVERYTHING, **page: Any) -> list[str]:
    return [item["id"] for item in list_deliveries(database, matching, **page).items]


def set_columns(database: Database, delivery_id: str, **columns: Any) -> None:
    table = schema.deliveries
    with database.write() as conn:
        conn.execute(update(table).where(table.c.id == delivery_id).values(columns))


def mark_as_routed(database: Database) -> None:
    with database.write() as conn:
        conn.execute(update(schema.events).values(routed_at=database.clock.now()))


def fail(engine: Engine, **planned: Any) -> str:
    def rejected() -> None:
        engine.provider.before = None
        raise PermanentError("no such number")

    engine.provider.before = rejected
    delivery_id = engine.deliver("post", **planned)
    engine.run_due()
    return delivery_id


def test_pages_lead_in_both_directions(engine: Engine) -> None:
    ids = spread(engine, 7)
    first = list_deliveries(engine.database, limit=3)
    second = list_deliveries(engine.database, limit=3, cursor=first.next_cursor)
    third = list_deliveries(engine.database, limit=3, cursor=second.next_cursor)
    shown = [[item["id"] for item in page.items] for page in (first, second, third)]
    assert shown == [ids[:3], ids[3:6], ids[6:]]
    assert (first.has_newer, second.has_newer, third.next_cursor) == (False, True, None)
    above = list_deliveries(engine.database, limit=2, newer_than=ids[3])
    assert ([item["id"] for item in above.items], above.has_newer) == (ids[1:3], True)
    top = list_deliveries(engine.database, limit=3, newer_than=ids[3])
    assert ([item["id"] for item in top.items], top.has_newer) == (ids[:3], False)
    assert ids_of(engine.database, cursor=top.next_cursor) == ids[3:]


def test_cursor_of_a_removed_delivery_still_leads_to_the_rows_below(engine: Engine) -> None:
    ids = [engine.deliver("post") for _ in range(3)][::-1]
    with engine.database.write() as conn:
        conn.execute(schema.deliveries.delete().where(schema.deliveries.c.id == ids[1]))
    assert ids_of(engine.database, cursor=ids[1]) == ids[2:]


def test_filters_combine(engine: Engine) -> None:
    database = engine.database
    failed = fail(engine, event=engine.event("call.no-answer"), rule="a")
    dismissed = fail(engine, event=engine.event("call.busy"), rule="a")
    other = spread(engine, 2, rule="other")
    set_columns(database, dismissed, dismissed_at=database.clock.now())
    mark_as_routed(database)
    assert ids_of(database, DeliveryFilter(rule="a")) == [dismissed, failed]
    assert ids_of(database, DeliveryFilter(states=("failed",), not_dismissed=True)) == [failed]
    assert ids_of(database, DeliveryFilter(event_type="call.no-answer")) == [failed]
    assert ids_of(database, DeliveryFilter(reason="rejected", connection="desk")) == [dismissed, failed]
    assert ids_of(database, DeliveryFilter(reason="opted_out")) == []
    assert ids_of(database, DeliveryFilter(reason="opted_out", states=("failed",))) == []
    assert ids_of(database, DeliveryFilter(states=("pending", "succeeded"), rule="other")) == other
    assert ids_of(database, DeliveryFilter(connection="nobody")) == []
    assert matching_ids(database, DeliveryFilter(rule="other"), 1) == other[:1]


def test_created_span_has_an_exclusive_end(engine: Engine) -> None:
    ids = spread(engine, 3)
    second = list_deliveries(engine.database).items[1]["created_at"]
    assert ids_of(engine.database, DeliveryFilter(since=second)) == ids[:2]
    assert ids_of(engine.database, DeliveryFilter(until=second)) == ids[2:]


def test_person_of_an_event_leads_to_all_their_deliveries(engine: Engine) -> None:
    database = engine.database
    first = engine.event(metadata={"contactPhone": "+13105550111"})
    second = engine.event(metadata={"contactPhone": "+13105550111"})
    stranger = engine.event(metadata={"contactPhone": "+13105550122"})
    ids = [engine.deliver("send", event) for event in (first, second, stranger)]
    assert set(ids_of(database, DeliveryFilter(person=first.id))) == set(ids[:2])
    with pytest.raises(NotFound, match="no contact is stored for the event `evt_0`"):
        list_deliveries(database, DeliveryFilter(person="evt_0"))


def test_type_that_few_events_have_leads_to_its_deliveries(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_list, "EXAMINED", 3)
    rare = engine.deliver("post", engine.event("call.no-answer"))
    ids = spread(engine, 8)
    mark_as_routed(engine.database)
    for event_type, expected in {"call.no-answer": [rare], "call.busy": ids, "chat.resolved": []}.items():
        page = list_deliveries(engine.database, DeliveryFilter(event_type=event_type))
        assert ([item["id"] for item in page.items], page.next_cursor) == (expected, None)
    monkeypatch.setattr(delivery_list, "COUNTED", 3)
    assert matching_ids(engine.database, DeliveryFilter(event_type="call.busy"), 100) == ids


def test_rare_matches_are_found_in_bounded_steps(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_list, "EXAMINED", 3)
    monkeypatch.setattr(delivery_list, "COUNTED", 3)
    rare = engine.deliver("post", connection="other")
    ids = spread(engine, 8)
    wanted, cursor, steps, found = DeliveryFilter(rule="test", connection="other"), None, 0, []
    while steps == 0 or cursor is not None:
        page = list_deliveries(engine.database, wanted, cursor=cursor)
        cursor, steps = page.next_cursor, steps + 1
        found += [item["id"] for item in page.items]
    assert (found, steps) == ([rare], 3)
    assert matching_ids(engine.database, wanted, 10) == [rare]
    everything = DeliveryFilter(rule="test", connection="desk")
    assert matching_ids(engine.database, everything, 100) == ids, "no row is lost or repeated between steps"
    assert count_by_state(engine.database, wanted)["pending"] == CappedCount(0, is_exact=False)


def test_counts_follow_the_filter_but_its_states(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(engine, rule="a")
    spread(engine, 3, rule="a")
    spread(engine, 1, rule="b")
    counts = count_by_state(engine.database, DeliveryFilter(rule="a", states=("failed",)))
    assert (counts["pending"], counts["failed"], counts["succeeded"]) == (
        CappedCount(3),
        CappedCount(1),
        CappedCount(0),
    )
    monkeypatch.setattr(delivery_list, "MAX_COUNT", 2)
    counts = count_by_state(engine.database, DeliveryFilter())
    assert (counts["pending"], counts["failed"]) == (CappedCount(2, is_exact=False), CappedCount(1))


def test_connections_of_open_and_failed_deliveries_are_in_use_unless_they_are_known(engine: Engine) -> None:
    fail(engine)
    states = {"old": "failed", "paused": "pending", "finished": "succeeded", "wrong": "needs_review"}
    for connection, state in states.items():
        delivery_id = engine.deliver("post", connection=connection)
        with engine.database.write() as conn:
            table = schema.deliveries
            conn.execute(update(table).where(table.c.id == delivery_id).values(state=state))
    in_use = [(name, "desk.post") for name in ("desk", "old", "paused", "wrong")]
    assert other_connections_in_use(engine.database, ()) == in_use
    assert other_connections_in_use(engine.database, ("desk", "wrong")) == in_use[1:3]


def test_a_range_has_one_limit_at_each_end(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite uses one of two lower limits for an index, and might take the one that is further away."""
    monkeypatch.setattr(delivery_list, "EXAMINED", 1)
    monkeypatch.setattr(delivery_list, "COUNTED", 1)
    spread(engine, 3)
    since = list_deliveries(engine.database).items[-1]["created_at"]
    wanted = DeliveryFilter(
        event_type="call.busy", rule="test", since=since, until=engine.database.clock.now()
    )
    statements: list[str] = []
    engine_event.listen(
        engine.database.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    list_deliveries(engine.database, wanted)
    count_by_state(engine.database, wanted)
    read = [statement for statement in statements if "deliveries.created_at >=" in statement]
    assert read
    for statement in read:
        assert statement.count("created_at >") == statement.count("created_at <") == 1, statement


@pytest.mark.parametrize("name", FILTERS)
def test_lists_and_counts_read_no_whole_table(database: Database, name: str) -> None:
    statements: list[tuple[str, Any]] = []

    def record(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if statement.lstrip().startswith("SELECT") and "deliveries" in statement:
            statements.append((statement, parameters))

    engine_event.listen(database.engine, "before_cursor_execute", record)
    list_deliveries(database, FILTERS[name], cursor="dlv_0005f5e1000000000000000000")
    list_deliveries(database, FILTERS[name], newer_than="dlv_0005f5e1000000000000000000")
    count_by_state(database, FILTERS[name])
    engine_event.remove(database.engine, "before_cursor_execute", record)
    assert len(statements) > 2
    with database.read() as conn:
        if not database.is_sqlite:
            conn.execute(text("SET LOCAL enable_seqscan = off"))
        for statement, parameters in dict.fromkeys((item[0], tuple_of(item[1])) for item in statements):
            explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
            plan = conn.exec_driver_sql(explain + statement, of_tuple(parameters)).all()
            assert not reads_whole_table(str(plan)), (statement, plan)


def tuple_of(parameters: Any) -> Any:
    return tuple(parameters.items()) if isinstance(parameters, dict) else parameters


def of_tuple(parameters: Any) -> Any:
    return dict(parameters) if parameters and isinstance(parameters[0], tuple) else parameters


def reads_whole_table(plan: str) -> bool:
    return any(
        f"{scan} {table}" in plan for scan in ("SCAN", "Seq Scan on") for table in ("deliveries", "events")
    )
