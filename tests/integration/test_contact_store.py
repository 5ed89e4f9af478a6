"""A person's details, timeline, permissions, export and the list of events, on both databases."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from bridge.connector.discovery import Registry
from bridge.dryrun.permission import Permission, permissions
from bridge.rules.load import load_or_raise
from bridge.rules.route import route
from bridge.signing import read_event
from bridge.store import queries
from bridge.store.contact_details import describe_contact, find_contact
from bridge.store.contact_export import SECTIONS, addresses_of_person, export_json
from bridge.store.contact_timeline import read_timeline
from bridge.store.database import Database
from bridge.store.erase_preview import preview_erase
from bridge.store.event_outcomes import outcomes_by_event
from bridge.store.ingest import IncomingEvent, RejectedRequest, record_rejected_requests, store_events
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.store.queries import NotFound, list_events, stored_body
from bridge.store.rejected_groups import group_rejected_requests, recent_rejected_requests
from bridge.store.routing import route_unrouted
from tests.integration.engine import Engine
from tests.integration.query_plans import query_plans

ADA, ADA_EMAIL = "+14155550123", "ada@example.com"
RULES = load_or_raise(
    "version: 1\nmessaging: {quiet_hours: none}\n"
    "rules:\n  - name: post\n    when: call.busy\n    do: [{use: slack.post, with: {text: hello}}]\n",
    path="rules.yaml",
    registry=Registry(),
)
ZONE = "America/New_York"


def route_all(database: Database) -> None:
    route_unrouted(database, RULES, lambda event, now, history: route(event, RULES, now, history))


@pytest.fixture
def engine(database: Database) -> Engine:
    """An engine with an event of Ada that led to a text message."""
    engine = Engine(database)
    event = engine.event(
        metadata={"contactName": "Ada Byron", "contactPhone": ADA, "contactEmail": ADA_EMAIL}
    )
    engine.deliver("send", event, params={"to": ADA, "body": "Hello Ada"})
    engine.run_due()
    route_all(database)
    return engine


def newest(database: Database) -> str:
    return str(list_events(database, limit=1).items[0]["id"])


# ------------------------------------------------------------ details


def test_person_of_an_event_has_its_addresses_and_names_others(engine: Engine) -> None:
    database, ada = engine.database, newest(engine.database)
    engine.event(metadata={"contactName": "Grace", "contactPhone": "+14155550999", "contactEmail": ADA_EMAIL})
    details = find_contact(database, ada, ZONE)
    assert (details.contact.name, details.addresses) == ("Ada Byron", [ADA, ADA_EMAIL])
    assert details.other_names == ["Grace"]
    assert [item.address for item in details.other_addresses] == ["+14155550999"]
    assert details.zone_source == "from the phone number"


def test_person_without_events_is_described_by_the_address(database: Database) -> None:
    details = describe_contact(database, [ADA], ZONE)
    assert (details.event_id, details.contact.phone, details.zones) == (None, ADA, ("America/Los_Angeles",))
    with pytest.raises(NotFound, match="there is no event"):
        find_contact(database, "evt_0", ZONE)


# ------------------------------------------------------------ permissions


def ask(engine: Engine) -> dict[str, Permission]:
    details = describe_contact(engine.database, [ADA, ADA_EMAIL], ZONE)
    now = engine.database.clock.now()
    found = permissions(engine.database, details.event, details.addresses, RULES, now)
    return {item.channel: item for item in found}


def test_permission_counts_messages_and_is_withdrawn_by_an_opt_out(engine: Engine) -> None:
    before = ask(engine)
    assert {item.answer for item in before.values()} == {"yes"}
    assert (before["sms"].sent, before["sms"].cap, before["sms"].cap_period) == (1, 2, "24h")
    save_opt_out(engine.database, OptOutChange("sms", ADA, True, "STOP to twilio"))
    after = ask(engine)
    assert (after["sms"].answer, after["sms"].is_opted_out) == ("no", True)
    assert "STOP to twilio" in after["sms"].detail
    assert after["email"].answer == "yes"


def test_permission_of_a_capped_channel_says_until_when(engine: Engine) -> None:
    engine.deliver("send", engine.event(metadata={"contactPhone": ADA}), params={"to": ADA, "body": "again"})
    engine.run_due()
    permission = ask(engine)["sms"]
    assert (permission.answer, permission.sent) == ("no", 2)
    assert permission.until is not None


# ------------------------------------------------------------ timeline


def test_timeline_orders_events_and_opt_outs_of_its_page(engine: Engine) -> None:
    database = engine.database
    database.clock.advance(minutes=1)
    save_opt_out(database, OptOutChange("sms", ADA, True, "STOP to twilio"))
    database.clock.advance(minutes=1)
    engine.event("call.completed", metadata={"contactPhone": ADA, "contactEmail": ADA_EMAIL})
    details = find_contact(database, newest(database), ZONE)

    def kinds(limit: int, cursor: str | None = None) -> tuple[list[str], str | None]:
        timeline = read_timeline(database, details, time_zone=ZONE, limit=limit, cursor=cursor)
        names = [entry.record.get("type") or entry.kind for entry in timeline.entries]
        return names, timeline.next_cursor

    assert kinds(10)[0] == ["call.completed", "opt_out", "call.busy"]
    first, cursor = kinds(1)
    second, _ = kinds(5, cursor)
    assert [*first, *second] == ["call.completed", "opt_out", "call.busy"]


def test_timeline_shows_texts_and_can_be_filtered(engine: Engine) -> None:
    details = find_contact(engine.database, newest(engine.database), ZONE)
    timeline = read_timeline(engine.database, details, time_zone=ZONE, shown="messages")
    [entry] = timeline.entries
    assert [item["message"] for item in entry.record["deliveries"]] == ["Hello Ada"]
    assert read_timeline(engine.database, details, time_zone=ZONE, shown="stopped").entries == []


# ------------------------------------------------------------ export and erasure


def test_export_is_valid_json_with_every_section(engine: Engine) -> None:
    database = engine.database
    save_opt_out(database, OptOutChange("sms", ADA, True, "dashboard", "grace", "asked by phone"))
    body = json.dumps({"note": f"call {ADA} back"}).encode()
    now = database.clock.now()
    record_rejected_requests(database, [RejectedRequest("no_event", "no event", 400, True, now, body)])
    engine.event(metadata={"contactName": "Grace", "contactPhone": "+14155550999"})
    data = json.loads("".join(export_json(database, addresses_of_person(database, "+1 (415) 555-0123"))))
    assert data.keys() == {"exported_at", "addresses", *SECTIONS}
    sizes = {name: len(data[name]) for name in SECTIONS if data[name]}
    assert sizes == {"events": 2, "deliveries": 2, "attempts": 1, "opt_outs": 1, "rejected_requests": 1}
    assert data["events"][0]["body"]["metadata"]["contactName"] == "Ada Byron"
    assert json.loads("".join(export_json(database, ["nobody@example.com"])))["events"] == []


def test_export_leaves_out_what_other_people_said_about_the_address(engine: Engine) -> None:
    other = engine.event(metadata={"contactPhone": "+14155550999"}, summary=f"Call {ADA} instead")
    data = json.loads("".join(export_json(engine.database, [ADA])))
    assert other.id not in {event["id"] for event in data["events"]}


def test_person_can_be_named_by_an_event(engine: Engine) -> None:
    assert addresses_of_person(engine.database, newest(engine.database)) == [ADA, ADA_EMAIL]
    for unknown in ("evt_0", "not an address"):
        with pytest.raises(NotFound):
            addresses_of_person(engine.database, unknown)


def test_preview_counts_what_an_erasure_deletes(engine: Engine) -> None:
    engine.deliver("send", engine.event(metadata={"contactPhone": ADA}))
    save_opt_out(engine.database, OptOutChange("sms", ADA, True, "STOP to twilio"))
    preview = preview_erase(engine.database, [ADA])
    assert (preview.events, preview.deliveries, preview.cancelled, preview.opt_outs) == (3, 3, 2, 1)


# ------------------------------------------------------------ events


def test_duplicates_are_counted(database: Database) -> None:
    raw = stored_body(database, Engine(database).event().id)
    for _ in range(2):
        again = IncomingEvent(read_event(raw, database.clock.now()), raw)
        assert store_events(database, [again]) == ["duplicate"]
    assert list_events(database).items[0]["duplicates"] == 2


def test_events_are_filtered_and_named(engine: Engine) -> None:
    database = engine.database
    busy = newest(database)
    engine.event("call.completed", metadata={"contactName": "Grace Hopper", "contactPhone": "+14155550999"})
    route_all(database)
    waiting = engine.event("call.failed", metadata={"contactName": "Mary"}).id

    def ids(**filters: Any) -> list[str]:
        return [item["id"] for item in list_events(database, **filters).items]

    completed = ids()[1]
    assert ids(not_routed=True) == [waiting]
    assert ids(without_deliveries=True) == [completed]
    assert ids(person=busy) == [busy]
    assert ids(event_type="call.completed") == [completed]
    assert ids(since=database.clock.now() + timedelta(seconds=1)) == []
    assert [item["name"] for item in list_events(database).items] == ["Mary", "Grace Hopper", "Ada Byron"]


def test_filter_without_an_index_reads_a_part_at_a_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "EXAMINED_EVENTS", 3)
    engine = Engine(database)
    wanted = [
        engine.event("call.failed").id,
        *(engine.event().id for _ in range(7)),
        engine.event("call.failed").id,
    ]
    route_all(database)
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor:
        page = list_events(database, without_deliveries=True, cursor=cursor)
        found += [item["id"] for item in page.items]
        cursor, pages = page.next_cursor, pages + 1
    assert found == [wanted[-1], wanted[0]]
    assert pages > 1


def test_events_of_a_type_are_listed_in_order_whether_routed_or_not(database: Database) -> None:
    engine = Engine(database)
    types = ["call.failed", "call.busy"] * 3
    wanted = [engine.event(name).id for name in types][::2]
    route_all(database)
    wanted += [engine.event(name).id for name in types][::2]
    found, cursor, sizes = [], None, []
    while not sizes or cursor:
        page = list_events(database, event_type="call.failed", limit=4, cursor=cursor)
        found += [item["id"] for item in page.items]
        sizes.append(len(page.items))
        cursor = page.next_cursor
    assert (found, sizes) == (wanted[::-1], [4, 2])
    assert list_events(database, event_type="chat.abandoned").items == []


# ------------------------------------------------------------ rejected requests


def test_rejected_requests_are_grouped_by_cause(database: Database) -> None:
    now = database.clock.now()
    requests = [
        RejectedRequest("timestamp_off", f"the timestamp differs by -{n} s", 401, True, now, b"{}")
        for n in (400, 401)
    ]
    requests.append(RejectedRequest("not_json", "a list", 400, True, now + timedelta(seconds=1), b"[]"))
    record_rejected_requests(database, requests)
    groups = group_rejected_requests(database)
    assert [(group.reason, group.total, group.not_accepted) for group in groups] == [
        ("not_json", 1, 1), ("timestamp_off", 2, 2),
    ]  # fmt: skip
    assert recent_rejected_requests(database) == [("timestamp_off", 2), ("not_json", 1)]


# ------------------------------------------------------------ plans


def test_pages_read_no_whole_table(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    engine = Engine(database)
    event_id = engine.event(metadata={"contactPhone": ADA, "contactEmail": ADA_EMAIL}).id
    plan = query_plans(database)
    now = database.clock.now()
    details = find_contact(database, event_id, ZONE)
    for shown in ("all", "messages", "records", "stopped"):
        read_timeline(database, details, time_zone=ZONE, shown=shown)  # type: ignore[arg-type]
    permissions(database, details.event, details.addresses, RULES, now)
    preview_erase(database, details.addresses)
    outcomes_by_event(database, [event_id])
    filters: list[dict[str, Any]] = [
        {"unreadable": True}, {"not_routed": True}, {"person": event_id}, {"conversation": "conv_1"},
        {"since": now - timedelta(days=7), "until": now},
    ]  # fmt: skip
    for arguments in filters:
        list_events(database, **arguments)
    assert not [step for step in plan if "deliveries_state" in step], plan
    for table in ("events", "deliveries", "attempts", "audit_log", "contact_cache"):
        scans = [step for step in plan if step.startswith(f"SCAN {table}") and "INDEX" not in step]
        assert not scans, plan
    for arguments in ({}, {"event_type": "call.busy"}, {"without_deliveries": True}):
        plan.clear()
        list_events(database, **arguments)
        assert [step for step in plan if "INDEX events_received" in step or "INDEX events_type" in step]
        assert not [step for step in plan if step == "USE TEMP B-TREE FOR ORDER BY"], plan
    database.close()
