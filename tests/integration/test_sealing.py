"""Encryption at rest (BRIDGE_ENCRYPTION_KEYS): nothing personal of a body is stored in clear, and keys rotate."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from bridge.rules.model import Rules
from bridge.rules.route import route
from bridge.samples import refresh_sample, sample
from bridge.signing import read_event
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.ingest import IncomingEvent, RejectedRequest, record_rejected_requests, store_events
from bridge.store.queries import (
    list_events,
    list_rejected_requests,
    show_event,
    show_rejected_request,
    stored_body,
)
from bridge.store.reencryption import check_keys, reencrypt
from bridge.store.routing import route_unrouted
from bridge.store.sealing import PREFIX, MissingKey, Sealer

SECRET = "Maja Lindqvist-Abernathy"
OLD, NEW = "an old key for tests, long enough", "a new key for tests, long enough"
RULES = Rules("", "rules")


def use_keys(database: Database, *keys: str) -> None:
    """Let the database encrypt with these keys, as after a restart."""
    database.sealer = Sealer(keys) if keys else None
    vars(database.engine.dialect)["bridge_sealer"] = database.sealer
    database.engine.clear_compiled_cache()


def fill(database: Database) -> bytes:
    """Store an event, its trace and a rejected request that name a person; return the body."""
    body = refresh_sample(sample("call.busy"), database.clock.now())
    body["metadata"]["contactPhone"] = "+12125550167"
    body["summary"] = SECRET
    raw = json.dumps(body).encode()
    store_events(database, [IncomingEvent(read_event(raw, database.clock.now()), raw)])
    route_unrouted(database, RULES, lambda event, now, history: route(event, RULES, now, history))
    rejected = RejectedRequest("timestamp_off", "too old", 401, True, database.clock.now(), raw)
    record_rejected_requests(database, [rejected])
    return raw


def stored(database: Database) -> list[Any]:
    """Return the sealed columns as they are stored."""
    with database.read() as conn:
        rows = conn.execute(
            text("SELECT body, packed_trace FROM events UNION ALL SELECT body, NULL FROM rejected_requests")
        )
        return [
            bytes(value) if not isinstance(value, str) else value.encode()
            for row in rows
            for value in row
            if value
        ]


def read(database: Database) -> tuple[bytes, bytes]:
    """Return both bodies, decrypted."""
    event_id = list_events(database).items[0]["id"]
    show_event(database, event_id)
    request_id = list_rejected_requests(database).items[0]["id"]
    return stored_body(database, event_id), bytes(show_rejected_request(database, request_id)["body"])


def test_bodies_and_traces_are_stored_encrypted_and_read_in_clear(database: Database) -> None:
    use_keys(database, NEW)
    raw = fill(database)
    assert len(stored(database)) == 3
    assert all(value.startswith(PREFIX) and SECRET.encode() not in value for value in stored(database))
    assert read(database) == (raw, raw)
    repeated = IncomingEvent(read_event(raw, database.clock.now()), raw)
    assert store_events(database, [repeated]) == ["duplicate"]


def test_values_from_before_the_keys_are_readable_and_are_reencrypted(database: Database) -> None:
    use_keys(database)
    raw = fill(database)
    use_keys(database, OLD)
    assert read(database) == (raw, raw)
    assert reencrypt(database) == 3
    assert all(value.startswith(PREFIX) for value in stored(database))
    assert reencrypt(database) == 0


def test_keys_are_rotated(database: Database) -> None:
    use_keys(database, OLD)
    raw = fill(database)
    use_keys(database, NEW, OLD)
    assert read(database) == (raw, raw)
    assert reencrypt(database) == 3
    use_keys(database, NEW)
    check_keys(database)
    assert read(database) == (raw, raw)


@pytest.mark.parametrize("keys", [(), (NEW,)])
def test_missing_key_is_said_and_loses_nothing(database: Database, keys: tuple[str, ...]) -> None:
    use_keys(database, OLD)
    raw = fill(database)
    before = stored(database)
    use_keys(database, *keys)
    for action in (check_keys, read, reencrypt):
        with pytest.raises(MissingKey, match="BRIDGE_ENCRYPTION_KEYS"):
            action(database)
    use_keys(database, OLD)
    assert stored(database) == before
    assert read(database) == (raw, raw)


def test_everything_is_decrypted_again(database: Database) -> None:
    use_keys(database, OLD)
    raw = fill(database)
    assert database.sealer is not None
    database.sealer.writes = False
    assert reencrypt(database) == 3
    use_keys(database)
    assert read(database) == (raw, raw)


def test_erasure_finds_an_address_in_encrypted_bodies(database: Database) -> None:
    use_keys(database, NEW)
    fill(database)
    erased = erase(database, "ada", "+12125550167", [b"key"])
    assert (erased.events, erased.rejected_requests) == (1, 1)
    assert stored(database) == []
