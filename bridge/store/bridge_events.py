"""Events that the bridge itself makes, such as a text from a customer; they are stored and routed like webhooks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from bridge.events import Event
from bridge.ids import new_id
from bridge.json_values import parse_body
from bridge.serialization import json_default
from bridge.store import schema
from bridge.store.bulk import bulk_insert
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.store.deleted_event_keys import remove_repeated
from bridge.store.ingest import IncomingEvent, event_row, stored_ids, without_dropped_fields


@dataclass(frozen=True)
class BridgeEvent:
    """An event to be stored."""

    type: str
    """Event type, such as `sms.received`."""
    dedupe_key: str
    """Identifies what happened, such as the provider's ID of a message; a second event with this key is not stored."""
    body: Mapping[str, Any]
    """The fields of the event, as a webhook would have them: `metadata.contactPhone` and so on. `event`, `timestamp`
    and `webhookId` are added."""
    occurred_at: datetime


def insert_bridge_events(
    database: Database, conn: Connection, events: Sequence[BridgeEvent]
) -> list[BridgeEvent]:
    """Store events in the transaction of what they report; return those that were not stored before.

    The caller changes nothing else for an event that is not returned: it has already been processed.
    """
    if not events:
        return []
    now = database.now(conn)
    rows = [_row(event, now, database) for event in events]
    inserted = bulk_insert(conn, schema.events, rows, "ON CONFLICT DO NOTHING")
    if inserted:
        database.publish(conn, [EVENTS_TOPIC])
    repeated = remove_repeated(database, conn, rows) if inserted else []
    if inserted == len(rows) and not repeated:
        return list(events)
    ids = stored_ids(conn, rows)
    return [event for event, row in zip(events, rows, strict=True) if row["id"] in ids]


def _row(event: BridgeEvent, now: datetime, database: Database) -> dict[str, object]:
    fields = {
        **event.body,
        "event": event.type,
        "timestamp": event.occurred_at,
        "webhookId": event.dedupe_key,
    }
    body = json.dumps(fields, default=json_default).encode()
    parsed = Event(parse_body(body), event.dedupe_key, now, new_id("evt"), database.default_country)
    incoming = IncomingEvent(parsed, body)
    if database.dropped_fields is not None:
        incoming = without_dropped_fields(incoming, database.dropped_fields)
    row = event_row(incoming)
    # Two texts of one conversation may arrive in the same instant.
    return {**row, "fallback_dedupe_key": None}
