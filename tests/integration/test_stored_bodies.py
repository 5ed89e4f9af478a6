"""Stored bodies: compressed in the database, and everywhere else as they were received."""

from __future__ import annotations

import json
from datetime import timedelta

from sqlalchemy import text

from bridge.samples import refresh_sample, sample
from bridge.signing import read_event
from bridge.store.compression import MARK, compress
from bridge.store.contact_data import events_mentioning
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, event_row, store_events
from bridge.store.newest_events import newest_events
from bridge.store.queries import show_event, stored_body
from bridge.store.sealing import PREFIX
from tests.integration.test_sealing import use_keys

MENTIONED = "+442079460123"


def store(database: Database, **fields: object) -> tuple[str, bytes]:
    """Store an event with a transcript that mentions a number in its summary; return its ID and body."""
    turns = [{"role": "user", "content": f"Could you call me at {hour} o'clock?"} for hour in range(50)]
    body = (
        refresh_sample(sample("call.completed"), database.clock.now())
        | {"summary": f"Call {MENTIONED}", "transcript": turns}
        | fields
    )
    raw = json.dumps(body, indent=1).encode()
    event = read_event(raw, database.clock.now())
    assert store_events(database, [IncomingEvent(event, raw)]) == ["stored"]
    return event.id, raw


def column(database: Database, event_id: str) -> bytes:
    """Return the body as it is in the database."""
    with database.read() as conn:
        query = text("SELECT body FROM events WHERE id = :id")
        return bytes(conn.execute(query, {"id": event_id}).scalar_one())


def mentioning(database: Database) -> list[str]:
    return [event_id for part in events_mentioning(database, MENTIONED) for event_id in part]


def test_body_is_compressed_in_the_database_only(database: Database) -> None:
    event_id, raw = store(database)
    stored = column(database, event_id)
    assert stored.startswith(MARK)
    assert len(stored) < len(raw) / 2
    assert stored_body(database, event_id) == raw
    assert show_event(database, event_id)["body"] == json.loads(raw)
    assert mentioning(database) == [event_id]
    repeated = IncomingEvent(read_event(raw, database.clock.now()), raw)
    assert store_events(database, [repeated]) == ["duplicate"]


def test_body_is_compressed_before_the_writer_is_taken(database: Database) -> None:
    raw = json.dumps(sample("call.completed"), indent=40).encode()
    row = event_row(IncomingEvent(read_event(raw, database.clock.now()), raw))
    assert row["body"] == compress(raw) != raw


def test_body_is_compressed_before_it_is_encrypted(database: Database) -> None:
    use_keys(database, "a key for tests, long enough")
    event_id, raw = store(database)
    stored = column(database, event_id)
    assert stored.startswith(PREFIX)
    assert len(stored) < len(raw)
    assert stored_body(database, event_id) == raw
    assert mentioning(database) == [event_id]


def test_body_that_was_stored_as_it_is_stays_readable(database: Database) -> None:
    event_id, raw = store(database)
    with database.write() as conn:
        conn.execute(text("UPDATE events SET body = :body WHERE id = :id"), {"body": raw, "id": event_id})
    assert column(database, event_id) == raw
    assert stored_body(database, event_id) == raw
    assert show_event(database, event_id)["body"] == json.loads(raw)
    assert mentioning(database) == [event_id]


def test_events_of_a_plan_are_limited_by_their_size_in_memory(database: Database) -> None:
    since = database.clock.now() - timedelta(hours=1)
    for number in range(3):
        store(database, webhookId=f"whd_{number}", transcript=[{"role": "user", "content": "yes"}] * 1000)
    size = len(
        store(database, webhookId="whd_last", transcript=[{"role": "user", "content": "yes"}] * 1000)[1]
    )
    newest = newest_events(database, since, limit=10, max_bytes=2 * size + 100)
    assert (len(newest.events), newest.total) == (2, 4)
