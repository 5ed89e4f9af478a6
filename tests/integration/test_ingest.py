"""Storing events: what is answered is on disk, and one event is stored once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from bridge.samples import sample, stamped
from bridge.signing import read_event
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, accept
from bridge.store.migrate import current, upgrade
from bridge.store.queries import list_events, list_rejected_requests

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


def receipt(**changes: Any) -> IncomingEvent:
    body = stamped(sample("call.busy"), NOW) | changes
    raw = json.dumps(body).encode()
    return IncomingEvent(read_event(raw, NOW), raw)


def test_the_migrations_make_exactly_the_tables_of_the_schema(database: Database) -> None:
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    before = current(database)
    assert upgrade(database) == before


def test_a_group_is_stored_and_its_bytes_are_the_ones_that_came(database: Database) -> None:
    group = [receipt() for _ in range(3)]
    assert accept(database, group) == ["stored"] * 3
    with database.read() as connection:
        bodies = set(connection.execute(select(schema.events.c.body)).scalars())
    assert bodies == {item.body for item in group}


def test_the_same_event_again_is_a_duplicate_in_one_group_and_across_groups(database: Database) -> None:
    one = receipt()
    same, later = (IncomingEvent(read_event(one.body, NOW), one.body) for _ in range(2))
    assert accept(database, [one, same]) == ["stored", "duplicate"]
    assert accept(database, [later]) == ["duplicate"]
    assert len(list_events(database).items) == 1


def test_a_retry_under_a_new_id_is_known_by_what_happened(database: Database) -> None:
    one = receipt()
    again = json.loads(one.body) | {"webhookId": "whd_another"}
    raw = json.dumps(again).encode()
    assert accept(database, [one]) == ["stored"]
    assert accept(database, [IncomingEvent(read_event(raw, NOW), raw)]) == ["duplicate"]


def test_a_known_id_with_another_body_is_kept_aside_and_not_routed(database: Database) -> None:
    one, other = receipt(webhookId="whd_1"), receipt(webhookId="whd_1")
    assert accept(database, [one]) == ["stored"]
    assert accept(database, [other]) == ["conflict"]
    assert len(list_events(database).items) == 1
    assert [item["kind"] for item in list_rejected_requests(database).items] == ["conflict"]


def test_an_event_without_an_id_is_known_by_its_bytes(database: Database) -> None:
    body = json.dumps({"event": "something.new", "n": 1}).encode()
    other = json.dumps({"event": "something.new", "n": 2}).encode()
    group = [IncomingEvent(read_event(raw, NOW), raw) for raw in (body, other, body)]
    assert accept(database, group) == ["stored", "stored", "duplicate"]


@pytest.mark.parametrize("poison", ["\x00", "\ud800", "9" * 4000])
def test_a_poisonous_body_cannot_fail_its_neighbours(database: Database, poison: str) -> None:
    metadata = {"contactPhone": "+12125550123", "contactName": poison, "visitorId": poison}
    group = [receipt(), receipt(metadata=metadata, summary=poison), receipt()]
    assert accept(database, group) == ["stored"] * 3


def test_what_the_driver_refuses_fails_alone(database: Database) -> None:
    good, bad = receipt(), receipt()
    object.__setattr__(bad.event, "dedupe_key", object())
    assert accept(database, [good, bad]) == ["stored", "unavailable"]


def test_an_event_never_happens_later_than_it_was_received(database: Database) -> None:
    item = receipt(timestamp=(NOW + timedelta(days=2)).isoformat())
    accept(database, [item])
    assert list_events(database).items[0]["occurred_at"] == NOW
