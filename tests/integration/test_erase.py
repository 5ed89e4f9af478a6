"""Erasure of people with many events, while others work: short transactions, nothing that came meanwhile is left."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import select
from typer.testing import CliRunner

from bridge.cli.program import app
from bridge.store import contact_data, schema
from bridge.store import erase as erasure
from bridge.store.audit_log import list_audit_entries
from bridge.store.database import Database
from bridge.store.erase import erase
from tests.integration.engine import Engine
from tests.integration.test_operator_actions import PHONE, SECRET, dump

OTHER = {"metadata": {"contactPhone": "+14155550188"}}


def rows_per_transaction(database: Database) -> list[int]:
    """Return a list to which each transaction adds how many rows it has changed, once the next one begins."""
    rows = [0]

    def begin(_: Any) -> None:
        rows.append(0)

    def count(_: Any, cursor: Any, statement: str, *__: Any) -> None:
        if statement.startswith(("UPDATE", "DELETE", "INSERT", "WITH")):
            rows[-1] += max(cursor.rowcount, 0)

    sqlalchemy_event.listen(database.engine, "begin", begin)
    sqlalchemy_event.listen(database.engine, "after_cursor_execute", count)
    return rows


def test_person_with_many_events_is_erased_in_small_transactions(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_data, "_READ_AT_A_TIME", 7)
    for number in range(40):
        engine.deliver("send", engine.event(conversationId=f"conv-{number}"))
        engine.event(
            conversationId=f"other-{number}", summary=f"call {PHONE} back" if number % 2 else "", **OTHER
        )
    monkeypatch.setattr("bridge.store.batches._SMALLEST", 2)
    monkeypatch.setattr("bridge.store.batches._SECONDS", 0)
    rows = rows_per_transaction(engine.database)
    erased = erase(engine.database, "ada", PHONE, [SECRET])
    assert (erased.events, erased.deliveries, erased.cancelled) == (60, 40, 40)
    assert max(rows) < 50
    assert PHONE not in dump(engine.database)
    assert [entry["detail"]["events"] for entry in list_audit_entries(engine.database, action="erase")] == [
        60
    ]


def test_what_is_stored_meanwhile_is_erased_as_well(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.event()
    deliveries_mentioning, calls = erasure.deliveries_mentioning, Counter[str]()

    def store_more(*args: Any) -> Any:
        calls["rounds"] += 1
        if calls["rounds"] < 3:
            engine.deliver("send", engine.event(conversationId=f"conv-{calls['rounds']}"))
            engine.event(conversationId=f"other-{calls['rounds']}", summary=f"call {PHONE}", **OTHER)
        return deliveries_mentioning(*args)

    monkeypatch.setattr(erasure, "deliveries_mentioning", store_more)
    erased = erase(engine.database, "ada", PHONE, [SECRET])
    assert (erased.events, erased.deliveries, calls["rounds"]) == (5, 2, 4)
    assert PHONE not in dump(engine.database)


def test_interrupted_erasure_says_how_far_it_came_and_is_completed_by_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.deliver("send", engine.event())
    engine.event(summary=f"call {PHONE} back", **OTHER)
    with monkeypatch.context() as patch:
        patch.setattr(erasure, "deliveries_mentioning", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            erase(engine.database, "ada", PHONE, [SECRET])
    assert PHONE not in dump(engine.database)
    again = erase(engine.database, "ada", PHONE, [SECRET])
    assert (again.events, again.deliveries) == (0, 0)
    numbers = [entry["detail"]["events"] for entry in list_audit_entries(engine.database, action="erase")]
    assert numbers == [0, 2]


EMAIL = "ada+x@example.com"


@pytest.mark.parametrize(
    ("address", "spelling"),
    [(PHONE, "(212)555-0167"), (PHONE, "212\u00a05550167"), (EMAIL, "ADA+X@Example.com")],
)
def test_every_spelling_is_erased_from_the_data_of_others(
    engine: Engine, address: str, spelling: str
) -> None:
    database = engine.database
    database.default_country = "US"
    engine.deliver("post", engine.event(conversationId="mentions", summary=f"call {spelling} back", **OTHER))
    other = engine.event(conversationId="other", **OTHER)
    engine.deliver("post", other, params={"text": f"call {spelling}"})
    engine.deliver("post", other, idempotency_key=f"post|{spelling}")
    engine.deliver("post", other, concurrency_key=f"desk|text {spelling}")
    kept = engine.deliver(
        "post", other, params={"text": f"order 9{spelling}"}, idempotency_key=f"9{spelling}"
    )
    details = [
        {
            "conversation": name,
            "event_id": other.id,
            "asked_at": other.received_at,
            "attempts": 0,
            "value": value,
        }
        for name, value in (("other", json.dumps({"text": spelling})), ("kept", "{}"))
    ]
    with database.write() as conn:
        conn.execute(schema.conversation_details.insert(), details)
    erased = erase(database, "ada", address, [SECRET])
    assert (erased.events, erased.deliveries) == (1, 4)
    assert engine.show(kept)["params"] == {"text": f"order 9{spelling}"}
    with database.read() as conn:
        conversations = conn.execute(select(schema.conversation_details.c.conversation)).scalars().all()
        keys = conn.execute(select(schema.deliveries.c.idempotency_key)).scalars().all()
    assert conversations == ["kept"]
    assert [key for key in keys if spelling in key] == [f"9{spelling}"]


def test_delivery_that_is_running_is_reported_until_it_has_ended(engine: Engine) -> None:
    engine.deliver("send", engine.event())
    waiting = engine.deliver("post", engine.event(), run_at=engine.database.clock.now().replace(year=2099))
    engine.claim()
    erased = erase(engine.database, "ada", PHONE, [SECRET])
    assert (erased.events, erased.deliveries, erased.in_progress) == (2, 1, 1)
    assert engine.show(waiting)["state"] == "cancelled"


def test_command_says_to_repeat_it_while_a_delivery_runs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.cli.db.open_store", lambda _: nullcontext(engine.database))
    engine.deliver("send", engine.event())
    engine.claim()
    result = CliRunner().invoke(app, ["erase", "--phone", PHONE, "--yes"])
    assert "1 delivery in progress: run the same command again in a minute" in result.stderr
