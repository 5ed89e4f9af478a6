"""Contact history: the earlier events of an event's contact, which `count` counts."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from bridge.events import Event
from bridge.store.contact_history import contact_history
from tests.integration.engine import Engine

PHONE = {"contactPhone": "+12125550001"}
EMAIL = {"contactEmail": "Maya@Example.com"}


def test_history_has_the_earlier_events_of_either_address(engine: Engine) -> None:
    def call(minutes: int, event_type: str = "call.no-answer", **metadata: str) -> Event:
        now = engine.database.clock.now()
        return engine.event(
            event_type, metadata=metadata, timestamp=(now + timedelta(minutes=minutes)).isoformat()
        )

    first = call(-100, **PHONE)
    second = call(-50, **PHONE, **EMAIL)
    third = call(-20, contactEmail="maya@example.com")
    call(-10, "call.busy", **PHONE)
    call(-5, contactPhone="+12125550002")
    event = call(-1, **PHONE, **EMAIL)
    call(0, **PHONE)
    with contact_history(engine.database) as history:
        assert history(event, ["call.no-answer"], event.occurred_at - timedelta(hours=2)) == [
            first.occurred_at,
            second.occurred_at,
            third.occurred_at,
        ]
        assert history(event, ["call.no-answer"], first.occurred_at) == [
            second.occurred_at,
            third.occurred_at,
        ]
        assert len(history(event, ["call.no-answer", "call.busy"], first.occurred_at)) == 3


@pytest.mark.parametrize("column", ["phone", "email"])
def test_history_is_found_by_an_index(engine: Engine, column: str) -> None:
    query = (
        f"SELECT occurred_at FROM events WHERE {column} = 'x' AND type IN ('call.busy') AND occurred_at > 0"
    )
    with engine.database.read() as conn:
        if engine.database.is_sqlite:
            plan = conn.execute(text(f"EXPLAIN QUERY PLAN {query}")).all()
        else:
            conn.execute(text("SET LOCAL enable_seqscan = off"))
            plan = conn.execute(text(f"EXPLAIN {query}")).all()
    assert f"events_{column}" in str(plan)
