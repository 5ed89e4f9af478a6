"""Dropped fields (BRIDGE_DROP_FIELDS): never stored and not seen by rules, whatever way an event takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import select

from bridge.cli.dropped_fields_check import dropped_fields_in_use
from bridge.dropped_fields import DroppedFields, dropped_path
from bridge.errors import ConfigError
from bridge.samples import refresh_sample, sample
from bridge.settings import Settings
from bridge.signing import read_event
from bridge.store import schema
from bridge.store.accept_rejected import accept_rejected_request
from bridge.store.bridge_events import BridgeEvent, insert_bridge_events
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, RejectedRequest, record_rejected_requests, store_events
from bridge.store.queries import list_events, list_rejected_requests, show_event

SECRET = "Maja Lindqvist-Abernathy"


@pytest.fixture
def database(database: Database) -> Database:
    database.dropped_fields = DroppedFields(["metadata.contactName", "summary"])
    return database


def request(database: Database, **changes: Any) -> IncomingEvent:
    """Return an event whose summary and name are personal."""
    body = refresh_sample(sample("call.busy"), database.clock.now())
    body["metadata"]["contactName"] = body["summary"] = SECRET
    raw = json.dumps(body | changes).encode()
    return IncomingEvent(read_event(raw, database.clock.now()), raw)


def everything(database: Database) -> str:
    """Return all that is stored in the tables of events and requests."""
    with database.read() as conn:
        tables = (schema.events, schema.rejected_requests)
        return str([tuple(row) for table in tables for row in conn.execute(select(table))])


def test_stored_and_routed_event_has_no_dropped_field(database: Database) -> None:
    incoming = request(database)
    assert store_events(database, [incoming]) == ["stored"]
    assert SECRET not in everything(database)
    event = show_event(database, list_events(database).items[0]["id"])
    assert event["dropped_fields"] == ["metadata.contactName", "summary"]
    assert "summary" not in event["body"]
    assert event["contact"]["name"] is None
    assert event["contact"]["phone"] is not None
    cached = database.event_cache.find([event["id"]])[event["id"]]
    assert "summary" not in cached.body
    assert cached.contact.name is None


def test_duplicates_and_conflicts_are_recognized_by_the_original_body(database: Database) -> None:
    incoming = request(database)
    store_events(database, [incoming])
    repeated = IncomingEvent(read_event(incoming.body, database.clock.now()), incoming.body)
    assert store_events(database, [repeated]) == ["duplicate"]
    assert store_events(database, [request(database, webhookId=incoming.event.dedupe_key, duration=7)]) == [
        "conflict"
    ]
    assert SECRET not in everything(database)


def test_rejected_request_is_kept_without_them_and_can_be_accepted(database: Database) -> None:
    body, now = request(database).body, database.clock.now()
    rejected = RejectedRequest("timestamp_off", "too old", 401, True, now, body)
    unreadable = RejectedRequest("not_json", "no JSON", 400, True, now, SECRET.encode())
    record_rejected_requests(database, [rejected, unreadable])
    assert SECRET not in everything(database)
    kept = next(item for item in list_rejected_requests(database).items if item["reason"] == "timestamp_off")
    assert accept_rejected_request(database, "ada", kept["id"]).done
    assert SECRET not in everything(database)


def test_events_of_callbacks_are_stored_without_them(database: Database) -> None:
    fields = {"summary": SECRET, "metadata": {"contactPhone": "+12125550167"}}
    event = BridgeEvent("sms.received", "twilio SM1", fields, database.clock.now())
    with database.write() as conn:
        insert_bridge_events(database, conn, [event])
    assert SECRET not in everything(database)


def test_event_without_the_fields_keeps_its_bytes(database: Database) -> None:
    raw = b'{"event": "call.busy",  "conversationId": "c1"}'
    store_events(database, [IncomingEvent(read_event(raw, database.clock.now()), raw)])
    with database.read() as conn:
        row = conn.execute(select(schema.events)).one()
    assert (bytes(row.body), row.dropped_fields) == (raw, None)


def test_rules_that_use_a_dropped_field_are_found() -> None:
    lines = [
        "a: event.summary  # event.duration",
        "b: '{{ contact.first_name }}'",
        "c: event.summaryText event.duration",
    ]
    assert dropped_fields_in_use(
        {"r.yaml": "\n".join(lines)}, ["summary", "metadata.contactName", "duration"]
    ) == [
        "r.yaml:1: `event.summary` has no value, because `summary` is never stored",
        "r.yaml:2: `contact.first_name` has no value, because `metadata.contactName` is never stored",
        "r.yaml:3: `event.duration` has no value, because `duration` is never stored",
    ]


def test_paths_lead_into_lists() -> None:
    fields = DroppedFields(["messages.text", "a.b.c", "gone"])
    body = {"messages": [{"text": "x", "role": "user"}, {"role": "agent"}], "a": {"b": {"c": 1, "d": 2}}}
    assert fields.remove(body) == (
        {"messages": [{"role": "user"}, {"role": "agent"}], "a": {"b": {"d": 2}}},
        ["messages.text", "a.b.c"],
    )
    assert body["a"] == {"b": {"c": 1, "d": 2}}


@pytest.mark.parametrize(
    "path", ["event", "timestamp", "webhookId", "conversationId", "a b", "", ".a", "a..b"]
)
def test_path_that_cannot_be_dropped_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"must be dotted paths|cannot name"):
        dropped_path(path)


def test_settings_read_paths_and_refuse_others() -> None:
    settings = Settings.load({"BRIDGE_DROP_FIELDS": "event.summary, metadata.contactName"})
    assert settings.bridge_drop_fields == ("summary", "metadata.contactName")
    with pytest.raises(ConfigError, match="BRIDGE_DROP_FIELDS"):
        Settings.load({"BRIDGE_DROP_FIELDS": "timestamp"})
    with pytest.raises(ConfigError, match="at least BRIDGE_RETENTION"):
        Settings.load({"BRIDGE_DELETE_AFTER": "7d"})
