"""The report about a contact: why a person got a message or did not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text

from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.rules.route import route
from bridge.store.contact_report import ContactReport, report_contact
from bridge.store.contact_rows import deliveries_of, events_of, narrow, stored_addresses
from bridge.store.database import Database
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.ingest import RejectedRequest, record_rejected_request
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.store.queries import list_events
from bridge.store.routing import route_unrouted
from tests.integration.engine import Engine

PHONE = "+12125550144"
RULES = """\
version: 1
rules:
  - name: text
    when: [call.busy, call.no-answer]
    where: {event.direction: outbound}
    do: [{use: twilio.send_sms, with: {body: hi}}]
  - name: second
    when: call.busy
    where: {event.duration: 0}
    do: [{use: twilio.send_sms, with: {body: hello}}]
  - name: off-today
    when: call.busy
    enabled: false
    do: [{use: twilio.send_sms, with: {body: off}}]
  - name: off-for-chats
    when: chat.*
    enabled: false
    do: [{use: twilio.send_sms, with: {body: off}}]
"""


def add_event(engine: Engine, event_type: str = "call.busy", phone: str = PHONE, **changes: Any) -> str:
    """Store an event about a phone number, route it and return its ID."""
    metadata = {"contactPhone": phone} | changes.pop("metadata", {})
    engine.event(event_type, metadata=metadata, **changes)
    rules = load_or_raise(RULES, path="rules.yaml", registry=Registry())
    route_unrouted(engine.database, rules, lambda event, now, history: route(event, rules, now, history))
    return str(list_events(engine.database, limit=1).items[0]["id"])


def report(engine: Engine, subject: str = PHONE, **options: Any) -> ContactReport:
    return report_contact(engine.database, subject, **{"time_zone": "America/New_York", **options})


def test_report_says_for_each_event_what_decided(engine: Engine) -> None:
    first = add_event(engine, direction="inbound", duration=9)
    second = add_event(engine, "call.no-answer", direction="outbound")
    add_event(engine, phone="+12125550145")
    items = report(engine).items
    assert [item["id"] for item in items] == [first, second]
    assert items[0]["deliveries"] == ()
    assert [(rule["rule"], rule["answer"]) for rule in items[0]["rules"]] == [
        ("text", "did not fire: event.direction is inbound, expected outbound"),
        ("second", "did not fire: event.duration is 9, expected 0"),
        ("off-today", "was disabled (`enabled: false`)"),
    ]
    [delivery] = items[1]["deliveries"]
    assert (delivery["rule"], delivery["answer"]) == ("text", "pending")
    assert items[1]["rules"] == []


def test_report_names_the_policy_that_decided(engine: Engine) -> None:
    event = engine.event(metadata={"contactPhone": PHONE})
    first = engine.deliver("send", event, rule="first")
    engine.deliver("send", event, rule="again")
    engine.run_due()
    save_opt_out(engine.database, OptOutChange("sms", PHONE, opted_out=True, source="STOP to twilio"))
    engine.deliver("send", engine.event(metadata={"contactPhone": PHONE}), rule="late")
    engine.run_due()
    answers = [delivery["answer"] for item in report(engine).items for delivery in item["deliveries"]]
    assert answers[0] == "succeeded: queued"
    assert answers[1] == (
        f"suppressed: duplicate: rule `first` already sends this person a text message for this event ({first})"
    )
    assert answers[2].startswith(
        "suppressed: opted_out: opt-out: the recipient opted out of text messages at "
    )
    assert "(STOP to twilio)" in answers[2]


def test_message_about_another_person_is_in_the_report_of_its_recipient(engine: Engine) -> None:
    event = engine.event(metadata={"contactPhone": "+12125550145"})
    engine.deliver("send", event, recipient=PHONE, params={"to": PHONE})
    engine.run_due()
    [item] = report(engine).items
    assert (item["id"], item["other_address"]) == (event.id, True)


@pytest.mark.parametrize("spelling", ["+1 (212) 555-0144", "212-555-0144", "0012125550144"])
def test_any_spelling_finds_the_contact(engine: Engine, spelling: str) -> None:
    engine.database.default_country = "US"
    event_id = add_event(engine)
    assert [item["id"] for item in report(engine, spelling).items] == [event_id]


def test_conversation_and_other_addresses_find_the_contact(engine: Engine) -> None:
    both = add_event(engine, conversationId="conv-1", metadata={"contactEmail": "Maya@Example.com"})
    items = report(engine, "conv-1").items
    assert [(item["id"], item["other_address"]) for item in items] == [(both, False)]
    only_email = add_event(engine, phone="", metadata={"contactEmail": "maya@example.com"})
    items = report(engine).items
    assert [(item["id"], item["other_address"]) for item in items] == [(both, False), (only_email, True)]
    items = report(engine, " MAYA@example.com").items
    assert [(item["id"], item["other_address"]) for item in items] == [(both, False), (only_email, False)]
    assert report(engine, "nobody@example.com").items == []


def test_times_are_on_the_clock_of_the_contact(engine: Engine) -> None:
    add_event(engine, timestamp="2026-03-02T21:30:00Z", metadata={"timezone": "Europe/Helsinki"})
    add_event(engine, timestamp="2026-03-02T21:30:00Z")
    own, by_number = report(engine).items
    assert own["local_time"] == "2026-03-02 23:30 Europe/Helsinki"
    assert own["deliveries"][0]["local_time"].endswith(" Europe/Helsinki")
    assert by_number["local_time"] == "2026-03-02 16:30 America/New_York"


def test_opt_outs_and_rejected_requests_are_reported(engine: Engine) -> None:
    database = engine.database
    add_event(engine)
    save_opt_out(database, OptOutChange("sms", PHONE, opted_out=True, source="STOP to twilio"))
    now = database.clock.now()
    with database.write() as conn:
        record_rejected_request(conn, RejectedRequest("signature_wrong", "no match", 401, False, now))
    found = report(engine, since=now - timedelta(hours=1))
    assert [(entry["kind"], entry["source"]) for entry in found.opt_outs] == [("opt_out", "STOP to twilio")]
    assert found.rejected_requests == 1
    assert report(engine, since=now + timedelta(hours=1)).rejected_requests == 0


def test_pages_lead_to_older_events(engine: Engine) -> None:
    ids = [add_event(engine) for _ in range(5)]
    page = report(engine, limit=2)
    assert [item["id"] for item in page.items] == ids[3:]
    page = report(engine, limit=3, cursor=page.next_cursor)
    assert ([item["id"] for item in page.items], page.next_cursor) == (ids[:3], None)


def test_lists_can_be_limited_to_a_contact(engine: Engine) -> None:
    database = engine.database
    mine = add_event(engine, metadata={"contactEmail": "maya@example.com"})
    add_event(engine, phone="+12125550145")
    for subject in (PHONE, "maya@example.com"):
        addresses = stored_addresses(subject, None)
        assert [item["id"] for item in list_events(database, contact=addresses).items] == [mine]
        deliveries = list_deliveries(database, DeliveryFilter(contact=addresses), limit=1)
        assert {item["event_id"] for item in deliveries.items} == {mine}
        rest = list_deliveries(database, DeliveryFilter(contact=addresses), cursor=deliveries.next_cursor)
        assert [item["rule"] for item in (*deliveries.items, *rest.items)] == ["second", "text"]
        assert list_deliveries(database, DeliveryFilter(contact=addresses, rule="text")).items == rest.items


@pytest.mark.parametrize("conditions", [events_of(["x"]), deliveries_of(["x"])], ids=["events", "deliveries"])
def test_rows_of_a_contact_are_found_by_indexes(database: Database, conditions: Any) -> None:
    table = conditions[0].left.table
    query = narrow(select(table.c.id), conditions)
    query = query.order_by(query.selected_columns.id.desc()).limit(20)
    compiled = query.compile(database.engine, compile_kwargs={"literal_binds": True})
    with database.read() as conn:
        if database.is_sqlite:
            plan = conn.execute(text(f"EXPLAIN QUERY PLAN {compiled}")).all()
            steps = [step.detail for step in plan if step.detail.startswith("SCAN")]
            assert [
                step for step in steps if "matches" not in step and "subquery" not in step.lower()
            ] == [], plan
        else:
            conn.execute(text("SET LOCAL enable_seqscan = off"))
            plan = conn.execute(text(f"EXPLAIN {compiled}")).all()
            assert "Seq Scan" not in str(plan)
        expected = ("events_phone", "events_email") if table.name == "events" else ("deliveries_contact",)
        assert all(index in str(plan) for index in expected), plan
