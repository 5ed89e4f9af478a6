"""Ingest: an accepted event is on disk, and each event is stored once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, select, text

from bridge.errors import StoreUnavailable
from bridge.samples import refresh_sample, sample
from bridge.signing import read_event
from bridge.store import ingest, schema
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.migrate import current_revision, newest_revision, run_migrations, upgrade
from bridge.store.queries import list_events, list_rejected_requests, show_rejected_request

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


def incoming(**changes: Any) -> IncomingEvent:
    body = refresh_sample(sample("call.busy"), NOW) | changes
    raw = json.dumps(body).encode()
    return IncomingEvent(read_event(raw, NOW), raw)


def definitions_of_indexes(conn: Connection, table: str) -> list[str]:
    """Return the definition of every index, which SQLAlchemy reflects without its operator classes."""
    return list(
        conn.execute(
            text(
                "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = :table"
                if conn.dialect.name == "sqlite"
                else "SELECT indexdef FROM pg_indexes WHERE tablename = :table"
            ),
            {"table": table},
        ).scalars()
    )


def described(database: Database) -> dict[str, dict[str, list[str]]]:
    """Return columns, keys and indexes of every table."""
    with database.read() as conn:
        found = inspect(conn)
        return {
            table: {
                "columns": [str(column) for column in found.get_columns(table)],
                "primary key": [str(found.get_pk_constraint(table)["constrained_columns"])],
                "foreign keys": sorted(map(str, found.get_foreign_keys(table))),
                "unique": sorted(str(item["column_names"]) for item in found.get_unique_constraints(table)),
                "indexes": definitions_of_indexes(conn, table),
            }
            for table in found.get_table_names()
            if table != "alembic_version"  # Alembic gives its key another name
        }


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection:sqlalchemy.exc.SAWarning")
def test_migrations_create_exactly_the_schema(
    database: Database, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = (
        f"sqlite:///{tmp_path}/migrated.db"
        if database.is_sqlite
        else request.getfixturevalue("new_postgres_url")
    )
    migrated = Database(url)
    try:
        with migrated.migration() as conn:
            if not migrated.is_sqlite:  # a new database already has the tables
                conn.execute(text("DROP SCHEMA public CASCADE"))
                conn.execute(text("CREATE SCHEMA public"))
            run_migrations(conn)
        assert current_revision(migrated) == newest_revision() == current_revision(database)
        created = described(database)
        for table, parts in described(migrated).items():
            # A migration appends a column; the definition puts it where a reader looks for it.
            assert {name: sorted(items) for name, items in parts.items()} == {
                name: sorted(items) for name, items in created.pop(table).items()
            }, table
        assert not created
    finally:
        migrated.close()


def test_second_upgrade_changes_nothing(database: Database) -> None:
    before = current_revision(database)
    assert upgrade(database) == before


def test_batch_is_stored_byte_for_byte(database: Database) -> None:
    batch = [incoming() for _ in range(3)]
    assert store_events(database, batch) == ["stored"] * 3
    with database.read() as conn:
        bodies = set(conn.execute(select(schema.events.c.body)).scalars())
    assert bodies == {item.body for item in batch}


def test_repeated_event_is_a_duplicate_within_and_across_batches(database: Database) -> None:
    one = incoming()
    same, later = (IncomingEvent(read_event(one.body, NOW), one.body) for _ in range(2))
    assert store_events(database, [one, same]) == ["stored", "duplicate"]
    assert store_events(database, [later]) == ["duplicate"]
    assert len(list_events(database).items) == 1


def test_event_with_new_webhook_id_is_recognized_by_fallback_dedupe_key(database: Database) -> None:
    one = incoming()
    again = json.loads(one.body) | {"webhookId": "whd_another"}
    raw = json.dumps(again).encode()
    assert store_events(database, [one]) == ["stored"]
    assert store_events(database, [IncomingEvent(read_event(raw, NOW), raw)]) == ["duplicate"]


def test_known_id_with_another_body_is_a_conflict_and_not_routed(database: Database) -> None:
    first, other = incoming(webhookId="whd_1"), incoming(webhookId="whd_1")
    assert store_events(database, [first]) == ["stored"]
    assert store_events(database, [other]) == ["conflict"]
    assert len(list_events(database).items) == 1
    assert [item["reason"] for item in list_rejected_requests(database).items] == ["conflict"]


def test_same_second_of_a_conversation_with_another_body_is_a_conflict_and_kept(database: Database) -> None:
    one = incoming()
    other = json.dumps(json.loads(one.body) | {"webhookId": "whd_another", "summary": "another"}).encode()
    assert store_events(database, [one, IncomingEvent(read_event(other, NOW), other)]) == [
        "stored",
        "conflict",
    ]
    [kept] = list_rejected_requests(database).items
    assert kept["detail"] == f"{one.event.id} has the same type, conversation and timestamp, and another body"
    assert show_rejected_request(database, kept["id"])["body"] == other


def test_requests_that_a_crash_left_unanswered_are_compared_when_they_come_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, new = incoming(webhookId="whd_1"), incoming()
    other = incoming(webhookId="whd_1").body
    assert store_events(database, [first]) == ["stored"]

    def requests() -> list[IncomingEvent]:
        return [IncomingEvent(read_event(body, NOW), body) for body in (new.body, other)]

    def crash(*_: object) -> None:
        raise StoreUnavailable("the connection was lost")

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_find_existing", crash)
        assert store_events(database, requests()) == ["unavailable", "unavailable"]
    assert store_events(database, requests()) == ["duplicate", "conflict"]
    assert len(list_events(database).items) == 2
    assert [item["reason"] for item in list_rejected_requests(database).items] == ["conflict"]


def test_event_without_id_is_deduplicated_by_its_body(database: Database) -> None:
    body = json.dumps({"event": "something.new", "n": 1}).encode()
    other = json.dumps({"event": "something.new", "n": 2}).encode()
    batch = [IncomingEvent(read_event(raw, NOW), raw) for raw in (body, other, body)]
    assert store_events(database, batch) == ["stored", "stored", "duplicate"]


@pytest.mark.parametrize("poison", ["\x00", "\ud800", "9" * 4000])
def test_unusual_body_does_not_affect_others_in_the_batch(database: Database, poison: str) -> None:
    metadata = {"contactPhone": "+12125550123", "contactName": poison, "visitorId": poison}
    batch = [incoming(), incoming(metadata=metadata, summary=poison), incoming()]
    assert store_events(database, batch) == ["stored"] * 3


def test_event_that_the_driver_rejects_fails_alone(database: Database) -> None:
    good, bad = incoming(), incoming()
    object.__setattr__(bad.event, "dedupe_key", object())
    assert store_events(database, [good, bad]) == ["stored", "unavailable"]


def test_occurred_at_is_never_later_than_received_at(database: Database) -> None:
    item = incoming(timestamp=(NOW + timedelta(days=2)).isoformat())
    store_events(database, [item])
    assert list_events(database).items[0]["occurred_at"] == NOW
