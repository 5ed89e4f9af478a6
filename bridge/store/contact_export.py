"""Contact export: everything that is stored about a person, machine readable, for requests for their data.

Events and deliveries are found by indexes. Conversations of other people in which the address occurs are left out: they
are data of those people. Erasure reads everything and clears the address there as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, Select, select

from bridge.contacts.address import address_key
from bridge.contacts.typed_address import InvalidAddress, read_typed_address
from bridge.serialization import json_default
from bridge.store import schema
from bridge.store.contact_data import (
    deliveries_about,
    events_about,
    rejected_requests_mentioning,
)
from bridge.store.database import Database
from bridge.store.event_rows import event_from_row
from bridge.store.opt_out_list import show_opt_outs
from bridge.store.opt_outs import AddressHasher
from bridge.store.queries import NotFound, addresses_of_event
from bridge.store.traces import TraceReader

SECTIONS: Final = (
    "events", "deliveries", "attempts", "opt_outs", "cached_contacts", "conversation_details", "rejected_requests",
    "operator_actions",
)  # fmt: skip
"""The lists of an export, in this order."""
_BATCH: Final = 500
"""Rows that are read at a time."""
_EVENTS, _DELIVERIES, _CACHE = schema.events, schema.deliveries, schema.contact_cache
_WITHOUT: Final = frozenset(
    ("fallback_dedupe_key", "packed_trace", "body_sha256", "contact_name", "contact_sort_name")
)
"""Columns of an event that repeat its body."""

Record = dict[str, Any]


def addresses_of_person(database: Database, person: str) -> list[str]:
    """Return the stored addresses of a phone number or email address, or of the event with this ID. Raise NotFound."""
    if person.startswith("evt_"):
        with database.read() as conn:
            return addresses_of_event(conn, person)
    try:
        return [read_typed_address(person, database.default_country, allow_impossible=True)]
    except InvalidAddress as error:
        raise NotFound(f"the text {error}") from None


def export_json(
    database: Database, addresses: Sequence[str], hash_address: AddressHasher | None = None
) -> Iterator[str]:
    """Yield the parts of a JSON object with `exported_at`, `addresses` and a list for each of `SECTIONS`."""
    head = {"exported_at": database.clock.now(), "addresses": list(addresses)}
    yield json.dumps(head, default=json_default, ensure_ascii=False, indent=2).removesuffix("\n}")
    remaining = list(SECTIONS)
    for section, records in groupby(_records(database, addresses, hash_address), key=lambda item: item[0]):
        while (name := remaining.pop(0)) != section:
            yield f',\n  "{name}": []'
        separator = f',\n  "{name}": ['
        for _, record in records:
            yield f"{separator}\n    {json.dumps(record, default=json_default, ensure_ascii=False)}"
            separator = ","
        yield "\n  ]"
    yield "".join(f',\n  "{name}": []' for name in remaining) + "\n}\n"


def _records(
    database: Database, addresses: Sequence[str], hash_address: AddressHasher | None
) -> Iterator[tuple[str, Record]]:
    """Yield each record with its section, in the order of `SECTIONS`."""
    event_ids = _event_ids(database, addresses)
    delivery_ids = _delivery_ids(database, addresses, event_ids)
    with database.read() as conn:
        reader = TraceReader(conn)
        for row in _in_batches(conn, select(_EVENTS), _EVENTS.c.id, event_ids):
            event = event_from_row(row, database.default_country)
            record = {name: value for name, value in row._mapping.items() if name not in _WITHOUT}
            record["body"] = dict(event.body) if row.body is not None else None
            record["trace"] = reader.records(row)
            yield "events", record | {"contact": asdict(event.contact)}
        for row in _in_batches(conn, select(_DELIVERIES), _DELIVERIES.c.id, delivery_ids):
            parsed = {name: json.loads(row._mapping[name]) for name in ("params", "options")}
            yield "deliveries", dict(row._mapping) | parsed
        attempts = schema.attempts
        for row in _in_batches(conn, select(attempts), attempts.c.delivery_id, delivery_ids):
            yield "attempts", dict(row._mapping)
        for entry in _opt_outs(database, addresses, hash_address):
            yield "opt_outs", entry
        for row in conn.execute(_cached_contacts(addresses)):
            yield "cached_contacts", dict(row._mapping)
        details = schema.conversation_details
        for row in _in_batches(conn, select(details), details.c.event_id, event_ids):
            value = json.loads(row.value) if row.value else None
            yield "conversation_details", dict(row._mapping) | {"value": value}
        for address in addresses:
            for record in _rejected_requests(database, conn, address):
                yield "rejected_requests", record
        audit = schema.audit_log
        for row in _in_batches(conn, select(audit), audit.c.target, [*event_ids, *delivery_ids]):
            detail = json.loads(row.detail) if row.detail else None
            yield "operator_actions", dict(row._mapping) | {"detail": detail}


def _event_ids(database: Database, addresses: Sequence[str]) -> list[str]:
    return sorted(set().union(*(events_about(database, address) for address in addresses)))


def _delivery_ids(database: Database, addresses: Sequence[str], event_ids: Sequence[str]) -> list[str]:
    about = (deliveries_about(database, address) for address in addresses)
    of_events = select(_DELIVERIES.c.id, _DELIVERIES.c.event_id)
    with database.read() as conn:
        rows = list(_in_batches(conn, of_events, _DELIVERIES.c.event_id, event_ids))
    return sorted({row.id for row in rows}.union(*about))


def _opt_outs(
    database: Database, addresses: Sequence[str], hash_address: AddressHasher | None
) -> Iterator[Record]:
    for address in addresses:
        for entry in show_opt_outs(database, address, hash_address):
            if not entry.pop("other_address"):
                yield entry


def _cached_contacts(addresses: Sequence[str]) -> Select[Any]:
    keys = [address_key(address) for address in addresses]
    lookup_keys = [f"{kind}:{key}" for kind in ("phone", "email", "zone", "opt_out") for key in keys]
    return select(_CACHE).where(_CACHE.c.lookup_key.in_(lookup_keys))


def _rejected_requests(database: Database, conn: Connection, address: str) -> Iterator[Record]:
    table = schema.rejected_requests
    ids = rejected_requests_mentioning(database, address)
    for row in _in_batches(conn, select(table), table.c.id, ids):
        yield dict(row._mapping) | {"body": bytes(row.body).decode("utf-8", "replace")}


def _in_batches(conn: Connection, query: Select[Any], column: Any, ids: Sequence[str]) -> Iterator[Any]:
    """Yield the rows of a query whose column is one of these IDs, a batch of IDs per query."""
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        yield from conn.execute(query.where(column.in_(batch)).order_by(column)).all()
