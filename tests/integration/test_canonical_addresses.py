"""Migration 0002: what was stored before under several spellings of an address becomes one identity."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import process_time
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

from bridge.clock import Clock
from bridge.store.database import Database
from bridge.store.migrate import run_migrations, upgrade
from bridge.store.opt_out_list import list_opt_outs
from tests.postgres import database_of

OLD, NEW = "+4407911123456", "+447911123456"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def old_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with the tables of the first version, before addresses were canonical."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/old.db"
    else:
        server: str = request.getfixturevalue("postgres_server")
        name = f"bridge_{uuid4().hex[:12]}"
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(f'CREATE DATABASE "{name}"')
        url = database_of(server, name)
    database = Database(url, Clock())
    with database.write() as conn:
        run_migrations(conn, "0001")
    yield database
    database.close()
    if request.param == "postgres":
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def insert(database: Database, table: str, *rows: Mapping[str, Any]) -> None:
    columns = list(rows[0])
    statement = (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})"
    )
    with database.write() as conn:
        conn.execute(sa.text(statement), list(rows))


def select(database: Database, query: str) -> list[tuple[Any, ...]]:
    with database.read() as conn:
        return [tuple(row) for row in conn.execute(sa.text(query))]


def event(number: int, phone: str | None, email: str | None = None, **metadata: str) -> dict[str, Any]:
    body = json.dumps({"event": "call.busy", "metadata": metadata}, ensure_ascii=False).encode()
    return {
        "id": f"evt_{number:08}", "dedupe_key": f"whd_{number}", "type": "call.busy", "conversation_id": "conv_1",
        "phone": phone, "email": email, "occurred_at": number, "received_at": number, "body": body,
        "body_sha256": b"",
    }  # fmt: skip


def delivery(number: int, recipient: str | None, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"dlv_{number:08}", "event_id": None, "trigger": "rule", "rule": "text", "step_index": 0,
        "rules_hash": "", "action": "twilio.send_sms", "connection": "twilio", "channel": "sms",
        "recipient": recipient, "contact": recipient, "conversation": "conv_1",
        "params": json.dumps({"to": recipient}), "options": "{}", "concurrency_key": f"twilio|{recipient}",
        "idempotency_key": f"message|twilio.send_sms|whd_{number}|{recipient}|", "occurred_at": number,
        "state": "pending", "run_at": number, "attempts": 0, "fencing_token": 0, "needs_follow_up": False,
        "created_at": number,
    } | changes  # fmt: skip


def idempotency_key(number: int, recipient: str, reserved_by: str | None = None) -> dict[str, Any]:
    key = f"message|twilio.send_sms|whd_{number}|{recipient}|"
    return {
        "key": key, "reserved_by": reserved_by, "completed_by": None, "precedence": 0, "occurred_at": number,
        "changed_at": number,
    }  # fmt: skip


def opt_out(address: str, changed_at: int, *, opted_out: bool, channel: str = "sms") -> dict[str, Any]:
    since = changed_at if opted_out else None
    return {
        "channel": channel, "address": address, "opted_out_at": since, "source": f"change {changed_at}",
        "changed_at": changed_at,
    }  # fmt: skip


def test_upgrade_rewrites_events(old_database: Database) -> None:
    insert(
        old_database,
        "events",
        event(1, OLD),
        event(2, NEW),
        event(3, None, contactPhone="\u202a+44 (0)7911 123456\u202c"),
        event(4, "+266696687", contactPhone="+266696687"),
        event(5, "+15551234567", "maya@example.com", contactEmail="Maya@example.com"),
        event(6, None, "info@strasse.example", contactEmail="info@Straße.example"),
        event(7, None, contactPhone="07911 123456"),
        {**event(8, OLD, "maya@example.com"), "body": None},
        {**event(9, None), "body": b"no JSON, phone"},
    )
    upgrade(old_database)
    assert select(old_database, "SELECT phone, email FROM events ORDER BY id") == [
        (NEW, None),
        (NEW, None),
        (NEW, None),
        (None, None),
        ("+15551234567", "maya@example.com"),
        (None, "info@xn--strae-oqa.example"),
        (None, None),
        (NEW, "maya@example.com"),
        (None, None),
    ]


def test_upgrade_rewrites_deliveries_and_their_keys(old_database: Database) -> None:
    rows = [
        delivery(1, OLD),
        delivery(2, OLD, state="running"),
        delivery(3, "maya@example.com"),
        delivery(4, None, contact="visitor +44", concurrency_key=None, idempotency_key="event|a|b|c|"),
        delivery(5, NEW, contact="+266696687"),
    ]
    insert(old_database, "deliveries", *rows)
    upgrade(old_database)
    query = "SELECT recipient, contact, concurrency_key, idempotency_key, params FROM deliveries ORDER BY id"
    assert select(old_database, query) == [
        (NEW, NEW, f"twilio|{NEW}", f"message|twilio.send_sms|whd_1|{NEW}|", rows[0]["params"]),
        (NEW, NEW, f"twilio|{OLD}", f"message|twilio.send_sms|whd_2|{OLD}|", rows[1]["params"]),
        ("maya@example.com", "maya@example.com", "twilio|maya@example.com", rows[2]["idempotency_key"],
         rows[2]["params"]),
        (None, "visitor +44", None, "event|a|b|c|", rows[3]["params"]),
        (NEW, None, f"twilio|{NEW}", rows[4]["idempotency_key"], rows[4]["params"]),
    ]  # fmt: skip


def test_upgrade_rewrites_idempotency_keys_so_that_a_replay_sends_nothing_twice(
    old_database: Database,
) -> None:
    insert(old_database, "deliveries", delivery(4, OLD, state="running"))
    insert(
        old_database,
        "idempotency_keys",
        idempotency_key(1, OLD),
        idempotency_key(2, OLD),
        idempotency_key(2, NEW),
        idempotency_key(3, "maya@example.com"),
        idempotency_key(4, OLD, reserved_by="dlv_00000004"),
    )
    upgrade(old_database)
    keys = {key for (key,) in select(old_database, "SELECT key FROM idempotency_keys")}
    expected = {(1, NEW), (2, OLD), (2, NEW), (3, "maya@example.com"), (4, OLD)}
    assert keys == {idempotency_key(number, address)["key"] for number, address in expected}


def test_upgrade_merges_opt_outs_and_the_newest_change_decides(old_database: Database) -> None:
    mexican = ("+5215512345678", "+525512345678")
    insert(
        old_database,
        "opt_outs",
        opt_out(OLD, 1, opted_out=True),
        opt_out(mexican[0], 1, opted_out=True),
        opt_out(mexican[1], 2, opted_out=False),
        opt_out("+4407700900123", 2, opted_out=True),
        opt_out("+447700900123", 1, opted_out=False),
        opt_out("+4407700900124", 1, opted_out=True),
        opt_out("+447700900124", 1, opted_out=False),
        opt_out("maya@example.com", 1, opted_out=True, channel="email"),
        opt_out("erased:0123", 1, opted_out=True),
    )
    upgrade(old_database)
    rows = select(old_database, "SELECT address, opted_out_at, source FROM opt_outs")
    assert sorted(rows, key=lambda row: str(row[0])) == [
        ("+447700900123", 2, "change 2"),
        ("+447700900124", 1, "change 1"),
        (NEW, 1, "change 1"),
        (mexican[1], None, "change 2"),
        ("erased:0123", 1, "change 1"),
        ("maya@example.com", 1, "change 1"),
    ]


def test_upgrade_keeps_the_opt_outs_of_emails_that_were_stored_as_another_address(
    old_database: Database,
) -> None:
    """Case folding made `straße` and `strasse` one: nobody knows which of them opted out."""
    insert(
        old_database,
        "events",
        event(1, None, "strasse@example.com", contactEmail="Straße@example.com"),
        event(2, None, "info@strasse.example", contactEmail="info@Straße.example"),
        event(3, None, "other@strasse.example", contactEmail="other@straße.example"),
        event(4, None, "ines@caf\u00e9.example", contactEmail="ines@caf\u00e9.example"),
        event(5, None, "ines@cafe\u0301.example", contactEmail="ines@cafe\u0301.example"),
    )
    insert(
        old_database,
        "opt_outs",
        opt_out("strasse@example.com", 1, opted_out=True, channel="email"),
        opt_out("info@strasse.example", 2, opted_out=True, channel="email"),
        opt_out("other@strasse.example", 3, opted_out=False, channel="email"),
        opt_out("ines@caf\u00e9.example", 4, opted_out=True, channel="email"),
        opt_out("ines@cafe\u0301.example", 5, opted_out=True, channel="email"),
    )
    upgrade(old_database)
    rows = select(old_database, "SELECT address, opted_out_at FROM opt_outs WHERE opted_out_at IS NOT NULL")
    assert sorted(rows) == [
        ("ines@xn--caf-dma.example", 5),
        ("info@strasse.example", 2),
        ("info@xn--strae-oqa.example", 2),
        ("strasse@example.com", 1),
        ("straße@example.com", 1),
    ]


def test_upgrade_gives_opt_outs_an_id_and_entries_of_operators_an_actor(old_database: Database) -> None:
    by_operator = opt_out("ada@example.com", 2, opted_out=True, channel="email") | {"source": "command line"}
    insert(old_database, "opt_outs", opt_out(NEW, 1, opted_out=True), by_operator)
    upgrade(old_database)
    first, second = list_opt_outs(old_database).items
    assert (first["address"], first["actor"], second["actor"]) == ("ada@example.com", "unknown", None)
    assert first["id"].startswith("opt_")
    assert first["id"] > second["id"]


def test_upgrade_of_many_rows_takes_seconds(old_database: Database) -> None:
    """More rows than a portion has; one in ten changes. 100,000 rows take ten times as long."""
    numbers = [f"+44{'0' if number % 10 == 0 else ''}7911{number:06}" for number in range(10_000)]
    insert(
        old_database,
        "events",
        *(event(number, phone, contactName="Maya", note="x" * 500) for number, phone in enumerate(numbers)),
    )
    insert(old_database, "deliveries", *(delivery(number, phone) for number, phone in enumerate(numbers)))
    started = process_time()
    upgrade(old_database)
    seconds = process_time() - started
    remaining = "SELECT count(*) FROM {} WHERE {} LIKE '+440%'"
    assert select(old_database, remaining.format("events", "phone")) == [(0,)]
    assert select(old_database, remaining.format("deliveries", "recipient")) == [(0,)]
    assert seconds < 30
