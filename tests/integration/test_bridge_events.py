"""Events that the bridge itself makes: stored with what they report, once, and routed like a webhook."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bridge.events import Event
from bridge.store.bridge_events import BridgeEvent, insert_bridge_events
from bridge.store.database import Database
from bridge.store.queries import list_events
from bridge.store.routing import read_events

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)


def bridge_event(key: str, **body: object) -> BridgeEvent:
    return BridgeEvent(
        "sms.received",
        key,
        {"conversationId": "c1", "metadata": {"contactPhone": "+14155550123"}, **body},
        NOW,
    )


def stored(database: Database) -> list[Event]:
    ids = [item["id"] for item in list_events(database).items]
    with database.read() as conn:
        return list(read_events(database, conn, ids).values())


def test_a_bridge_event_reads_like_a_webhook(database: Database) -> None:
    with database.write() as conn:
        insert_bridge_events(database, conn, [bridge_event("twilio:SM1", text="\ud800 ok")])
    (event,) = stored(database)
    assert (event.type, event.dedupe_key, event.occurred_at) == ("sms.received", "twilio:SM1", NOW)
    assert (event.contact.phone, event.conversation.id) == ("+14155550123", "c1")
    assert event.body["text"] == "\ufffd ok"


def test_a_repeated_bridge_event_is_not_stored_and_not_returned(database: Database) -> None:
    one, two, three = (bridge_event(key) for key in ("twilio:SM1", "twilio:SM2", "twilio:SM3"))
    with database.write() as conn:
        assert insert_bridge_events(database, conn, [one, two, one]) == [one, two]
    with database.write() as conn:
        assert insert_bridge_events(database, conn, [two, three]) == [three]
        assert insert_bridge_events(database, conn, []) == []
    assert len(stored(database)) == 3


def test_a_bridge_event_disappears_with_its_transaction(database: Database) -> None:
    def fail_after_insert() -> None:
        with database.write() as conn:
            insert_bridge_events(database, conn, [bridge_event("twilio:SM1")])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_insert()
    assert stored(database) == []
