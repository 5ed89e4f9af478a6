"""Opt-outs and undeliverable addresses on the real store: what they cover, how far, and how they end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text

from bridge.clock import Clock
from bridge.connector import InboundMessage, StatusUpdate
from bridge.connector.callbacks import Channel
from bridge.contacts.typed_address import read_typed_address
from bridge.dryrun.engine import temporary_database
from bridge.errors import PermanentError
from bridge.rules.model import MessagingPolicy, OptOutScope, Rules
from bridge.rules.route import route
from bridge.store import schema
from bridge.store.audit_log import list_audit_entries
from bridge.store.bulk import bulk_insert
from bridge.store.contact_links import _STATEMENTS, MAX_LINKS, linked_addresses
from bridge.store.database import Database
from bridge.store.delivery_status import apply_callback
from bridge.store.erase import erase
from bridge.store.opt_out_list import export_opt_outs, list_opt_outs, show_opt_outs
from bridge.store.opt_outs import (
    OptOutChange,
    hash_address,
    import_opt_outs,
    recipient_lock_key,
    save_opt_out,
)
from bridge.store.policy_inputs import PolicyConfig, inputs_for_planned
from bridge.store.queries import list_events, show_event
from bridge.store.retention import prune
from tests.integration.engine import NO_QUIET, Engine, raising
from tests.unit.contacts.test_phone import spellings
from tests.unit.rules.helpers import rules_of

PHONE, OTHER_PHONE = "+12125550167", "+14155550123"
EMAIL, OTHER_EMAIL = "maya@lindqvist.example", "maya@work.example"
SECRET = b"a secret key of the service"


RULES = rules_of("- {name: text, when: call.busy, do: [{use: phone.send, with: {body: hi}}]}")


def scoped(engine: Engine, scope: OptOutScope, **config: Any) -> Engine:
    messaging = MessagingPolicy(quiet_hours=NO_QUIET, opt_out_scope=scope)
    engine.policy_config = PolicyConfig(messaging, **config)
    return engine


def event_with(engine: Engine, phone: str | None, email: str | None = None) -> Any:
    return engine.event(metadata={"contactPhone": phone, "contactEmail": email})


def reason(engine: Engine, channel: Channel, recipient: str) -> str | None:
    """Return why a message to a recipient is suppressed; None if it is sent."""
    action = "mail" if channel == "email" else "send"
    delivery_id = engine.deliver(
        action, event_with(engine, None), channel=channel, recipient=recipient, params={"to": recipient}
    )
    engine.run_due()
    delivery = engine.show(delivery_id)
    return None if delivery["state"] == "succeeded" else delivery["reason"]


def opt_out(
    engine: Engine, channel: Channel, address: str, *, opted_out: bool = True, **fields: Any
) -> set[Any]:
    source = fields.pop("source", "STOP to desk" if opted_out else "START to desk")
    return save_opt_out(engine.database, OptOutChange(channel, address, opted_out, source, **fields))


def opted_out_events(database: Database) -> list[dict[str, Any]]:
    events = list_events(database, event_type="contact.opted_out", limit=100).items
    return [show_event(database, event["id"])["body"] for event in events]


# ---------------------------------------------------------------- scope


@pytest.mark.parametrize(
    ("scope", "opted_out", "covered"),
    [
        ("phone", "sms", {"sms", "whatsapp", "call"}),
        ("phone", "call", {"sms", "whatsapp", "call"}),
        ("phone", "email", {"email"}),
        ("channel", "sms", {"sms"}),
        ("all", "email", {"sms", "whatsapp", "call", "email"}),
    ],
)
def test_opt_out_covers_the_channels_of_its_scope(
    engine: Engine, scope: OptOutScope, opted_out: Channel, covered: set[Channel]
) -> None:
    scoped(engine, scope)
    event_with(engine, PHONE, EMAIL)
    opt_out(engine, opted_out, EMAIL if opted_out == "email" else PHONE)
    channels: tuple[Channel, ...] = ("sms", "whatsapp", "call", "email")
    stopped = {
        channel for channel in channels if reason(engine, channel, EMAIL if channel == "email" else PHONE)
    }
    assert stopped == covered


def test_scope_is_read_when_the_message_is_due(engine: Engine) -> None:
    opt_out(engine, "sms", PHONE)
    assert reason(scoped(engine, "channel"), "call", PHONE) is None
    assert reason(scoped(engine, "phone"), "call", PHONE) == "opted_out"


# ---------------------------------------------------------------- other addresses of the contact


def test_stop_covers_the_other_number_of_the_contact(engine: Engine) -> None:
    event_with(engine, PHONE, EMAIL)
    event_with(engine, OTHER_PHONE, EMAIL)
    opt_out(engine, "sms", PHONE)
    delivery_id = engine.deliver("send", event_with(engine, OTHER_PHONE))
    engine.run_due()
    delivery = engine.show(delivery_id)
    assert delivery["reason"] == "opted_out"
    assert "with another address of the same contact" in delivery["detail"]
    assert PHONE not in delivery["detail"]
    assert reason(engine, "email", EMAIL) is None


def test_unsubscribe_covers_the_other_email_address_of_the_contact(engine: Engine) -> None:
    event_with(engine, PHONE, EMAIL)
    event_with(engine, PHONE, OTHER_EMAIL)
    opt_out(engine, "email", EMAIL, source="unsubscribe link")
    assert reason(engine, "email", OTHER_EMAIL) == "opted_out"
    assert reason(engine, "sms", PHONE) is None


def test_shared_address_links_no_contacts(engine: Engine) -> None:
    """A switchboard is the number of many people: one of them does not opt the others out."""
    for number in range(MAX_LINKS + 1):
        event_with(engine, PHONE, f"employee{number}@company.example")
    opt_out(engine, "email", "employee0@company.example")
    assert reason(engine, "email", "employee1@company.example") is None
    assert reason(engine, "email", "employee0@company.example") == "opted_out"


def test_links_reach_two_steps_and_not_further(engine: Engine) -> None:
    third_phone = "+16505550188"
    for phone, email in (
        (PHONE, EMAIL),
        (OTHER_PHONE, EMAIL),
        (OTHER_PHONE, OTHER_EMAIL),
        (third_phone, OTHER_EMAIL),
    ):
        event_with(engine, phone, email)
    with engine.database.read() as conn:
        links = linked_addresses(conn, [PHONE, EMAIL, "+19995550100"])
    assert links == {PHONE: {EMAIL, OTHER_PHONE}, EMAIL: {PHONE, OTHER_PHONE, OTHER_EMAIL}}


def test_links_are_found_by_index_seeks(database: Database) -> None:
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    now = database.clock.now()
    rows = [
        {
            "id": f"evt_{number}",
            "dedupe_key": str(number),
            "type": "call.busy",
            "conversation_id": str(number),
            "phone": f"+12125550{number % 1000:03}",
            "email": f"{number % 900}@company.example",
            "occurred_at": now,
            "received_at": now,
            "body_sha256": b"",
        }
        for number in range(3000)
    ]
    with database.write() as conn:
        bulk_insert(conn, schema.events, rows)
        conn.exec_driver_sql("ANALYZE events")
    with database.read() as conn:
        for column, other in (("phone", "email"), ("email", "phone")):
            statement = _STATEMENTS[conn.dialect.name, column]
            parameters = {"values": '["+12125550123"]', "max_links": MAX_LINKS}
            plan = "\n".join(map(str, conn.execute(text(explain + statement.text), parameters)))
            assert f"events_{column}" in plan
            assert f"events_{other}" not in plan
            assert "SCAN events" not in plan
            assert "Seq Scan on events" not in plan


def test_number_of_queries_does_not_depend_on_the_number_of_deliveries(engine: Engine) -> None:
    opt_out(engine, "sms", OTHER_PHONE)
    counts = []
    for size in (1, 20):
        engine.slots = size
        for number in range(size):
            phone = f"+1212555{size:02}{number:02}"
            engine.deliver("send", event_with(engine, phone, f"{size}.{number}@company.example"))
        with counted_statements(engine.database) as statements:
            assert len(engine.claim()) == size
        counts.append(len(statements))
    assert counts[1] <= counts[0]


@contextmanager
def counted_statements(database: Database) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    sqlalchemy_event.listen(database.engine, "before_cursor_execute", note)
    yield statements
    sqlalchemy_event.remove(database.engine, "before_cursor_execute", note)


# ---------------------------------------------------------------- opt-ins


def test_opt_in_revokes_older_opt_outs_of_its_channel_only(engine: Engine) -> None:
    event_with(engine, PHONE, EMAIL)
    event_with(engine, OTHER_PHONE, EMAIL)
    opt_out(engine, "call", PHONE, actor="ada")
    engine.database.clock.advance(minutes=1)
    opt_out(engine, "sms", PHONE, opted_out=False)
    assert reason(engine, "sms", PHONE) is None
    assert reason(engine, "call", PHONE) == "opted_out"
    assert reason(engine, "sms", OTHER_PHONE) == "opted_out"
    engine.database.clock.advance(minutes=1)
    opt_out(engine, "call", OTHER_PHONE)
    assert reason(engine, "sms", PHONE) == "opted_out"


def test_opt_out_of_a_recipient_replaces_an_operators_entry_and_not_the_reverse(database: Database) -> None:
    engine = Engine(database)
    assert opt_out(engine, "sms", PHONE, source="import", actor="ada", reason="DNC list")
    assert not opt_out(engine, "sms", PHONE)
    [entry] = list_opt_outs(database).items
    assert (entry["source"], entry["actor"], entry["reason"]) == ("STOP to desk", None, None)
    assert not opt_out(engine, "sms", PHONE, source="import", actor="ada")
    assert list_opt_outs(database).items == [entry]


def test_opt_out_covers_other_addresses_after_erasure(engine: Engine) -> None:
    scoped(engine, "phone", hash_address=lambda address: hash_address([SECRET], address))
    event_with(engine, PHONE, EMAIL)
    opt_out(engine, "sms", PHONE, actor="ada", reason="asked by Maya")
    erase(engine.database, "ada", PHONE, [SECRET])
    [entry] = list_opt_outs(engine.database).items
    assert (entry["address"], entry["reason"]) == (hash_address([SECRET], PHONE)[0], None)
    event_with(engine, PHONE, OTHER_EMAIL)
    event_with(engine, OTHER_PHONE, OTHER_EMAIL)
    assert reason(engine, "sms", OTHER_PHONE) == "opted_out"
    assert reason(engine, "call", PHONE) == "opted_out"
    [own] = show_opt_outs(engine.database, PHONE, lambda address: hash_address([SECRET], address))
    assert own["other_address"] is False


def test_opt_out_of_an_erased_address_survives_a_new_key(engine: Engine) -> None:
    opt_out(engine, "sms", PHONE)
    erase(engine.database, "ada", PHONE, [SECRET])
    keys = [b"the new key of the service", SECRET]
    scoped(engine, "phone", hash_address=lambda address: hash_address(keys, address))
    event_with(engine, PHONE)
    assert reason(engine, "sms", PHONE) == "opted_out"
    assert len(show_opt_outs(engine.database, PHONE, lambda address: hash_address(keys, address))) == 1
    assert erase(engine.database, "ada", PHONE, keys).opt_outs == 1
    [entry] = list_opt_outs(engine.database).items
    assert entry["address"] == hash_address(keys[:1], PHONE)[0], "the next erasure uses the new key"


def test_opt_in_after_an_erasure_outlives_the_next_erasure(engine: Engine) -> None:
    scoped(engine, "phone", hash_address=lambda address: hash_address([SECRET], address))
    opt_out(engine, "sms", PHONE)
    opt_out(engine, "call", PHONE)
    erase(engine.database, "ada", PHONE, [SECRET])
    opt_out(engine, "sms", PHONE, opted_out=False)
    reasons = {channel: reason(engine, channel, PHONE) for channel in ("sms", "call")}
    assert reasons == {"sms": None, "call": "opted_out"}
    assert erase(engine.database, "ada", PHONE, [SECRET]).opt_outs == 1
    assert {channel: reason(engine, channel, PHONE) for channel in ("sms", "call")} == reasons
    opt_out(engine, "call", PHONE, opted_out=False)
    assert erase(engine.database, "ada", PHONE, [SECRET]).opt_outs == 0
    with engine.database.read() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM opt_outs").scalar_one() == 0


def test_explain_knows_the_opt_out_of_an_erased_address(engine: Engine) -> None:
    opt_out(engine, "sms", PHONE)
    erase(engine.database, "ada", PHONE, [SECRET])
    [planned] = route(event_with(engine, PHONE), RULES, engine.database.clock.now()).planned
    inputs = inputs_for_planned(
        engine.database, planned, event_with(engine, PHONE), MessagingPolicy(),
        lambda address: hash_address([SECRET], address),
    )  # fmt: skip
    assert inputs.opt_out is not None


# ---------------------------------------------------------------- spellings


@given(spellings(), spellings())
@settings(max_examples=20, deadline=None)
def test_no_message_leaves_for_an_opted_out_contact_however_the_number_is_written(
    entered: tuple[str, str, str | None], received: tuple[str, str, str | None]
) -> None:
    number, spelling, country = entered
    other_number, *_ = received
    with temporary_database() as database:
        engine = Engine(database)
        opt_out(engine, "sms", read_typed_address(spelling, country))
        assert reason(engine, "sms", number) == "opted_out"
        assert reason(engine, "call", number) == "opted_out"
        assert number == other_number or reason(engine, "sms", other_number) is None


# ---------------------------------------------------------------- events


def test_opting_out_is_an_event_once(database: Database) -> None:
    engine = Engine(database)
    opt_out(engine, "sms", PHONE)
    opt_out(engine, "sms", PHONE)
    [body] = opted_out_events(database)
    assert (body["channel"], body["channels"], body["address"]) == ("sms", ["sms"], PHONE)
    assert (body["source"], body["metadata"]) == ("STOP to desk", {"contactPhone": PHONE})
    opt_out(engine, "sms", PHONE, opted_out=False)
    opt_out(engine, "sms", PHONE)
    assert len(opted_out_events(database)) == 2


def test_entry_for_several_channels_is_one_event_per_address(database: Database) -> None:
    changes = [OptOutChange(channel, PHONE, True, "command line", "ada") for channel in ("sms", "call")]
    save_opt_out(database, *changes, OptOutChange("email", EMAIL, True, "command line", "ada"))
    bodies = {body["address"]: body for body in opted_out_events(database)}
    assert bodies[PHONE]["channels"] == ["sms", "call"]
    assert (bodies[EMAIL]["channel"], bodies[EMAIL]["actor"]) == ("email", "ada")


@pytest.mark.parametrize("publish_events", [False, True])
def test_import_publishes_events_only_on_request(database: Database, publish_events: bool) -> None:
    changes = [OptOutChange("sms", f"+1212555{number:04}", True, "import", "ada") for number in range(5)]
    new = import_opt_outs(database, changes, publish_events=publish_events, dry_run=False)
    assert len(new) == 5
    assert len(opted_out_events(database)) == (5 if publish_events else 0)
    assert import_opt_outs(database, changes, publish_events=publish_events, dry_run=True) == set()


# ---------------------------------------------------------------- lists


def test_list_is_paged_filtered_and_exported_completely(database: Database) -> None:
    engine = Engine(database)
    for number in range(3):
        opt_out(engine, "sms", f"+1212555010{number}")
    opt_out(engine, "email", EMAIL, source="import", actor="ada")
    first = list_opt_outs(database, 3)
    rest = list_opt_outs(database, 3, cursor=first.next_cursor)
    assert [len(first.items), len(rest.items), rest.next_cursor] == [3, 1, None]
    assert [entry["address"] for entry in list_opt_outs(database, channel="email").items] == [EMAIL]
    assert [entry["address"] for entry in list_opt_outs(database, source="imp").items] == [EMAIL]
    assert list_opt_outs(database, kind="undeliverable").items == []
    assert len(list(export_opt_outs(database))) == 4


def test_pages_hold_the_entries_of_both_kinds_in_one_order(database: Database) -> None:
    engine = Engine(database)
    for number in range(4):
        opt_out(engine, "sms", f"+1212555010{number}")
        landline(engine, f"+1212555020{number}")
    ids, cursor = [], None
    while True:
        page = list_opt_outs(database, 3, cursor=cursor)
        ids += [entry["id"] for entry in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert len(ids) == 8
    assert ids == sorted(ids, reverse=True)


def test_page_of_a_long_list_reads_no_more_than_the_page(database: Database) -> None:
    if not database.is_sqlite:
        pytest.skip("the plan of PostgreSQL depends on its statistics")
    with database.read() as conn:
        statements: list[tuple[str, Any]] = []
        sqlalchemy_event.listen(
            conn.engine, "before_cursor_execute", lambda *args: statements.append((args[2], args[3]))
        )
    list_opt_outs(database, 3, cursor="opt_z")
    [(sql, parameters)] = [item for item in statements if "opt_outs" in item[0]]
    with database.read() as conn:
        plan = [row[-1] for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    assert any("SEARCH opt_outs USING INDEX opt_outs_id (id<?)" in step for step in plan)


# ---------------------------------------------------------------- undeliverable addresses


def landline(engine: Engine, phone: str = PHONE) -> None:
    error = PermanentError(f"Twilio error 21614: {phone} is not a mobile number", undeliverable=True)

    engine.provider.before = raising(error)
    engine.deliver("send", event_with(engine, phone))
    engine.run_due()
    engine.provider.before = None


def test_undeliverable_address_gets_no_further_messages_for_90_days(engine: Engine) -> None:
    landline(engine)
    assert reason(engine, "sms", PHONE) == "undeliverable"
    assert reason(engine, "call", PHONE) is None
    [entry] = list_opt_outs(engine.database).items
    assert (entry["kind"], entry["source"], entry["address"]) == ("undeliverable", "desk", PHONE)
    assert PHONE not in entry["reason"]
    engine.database.clock.advance(days=90)
    assert reason(engine, "sms", PHONE) is None
    assert list_opt_outs(engine.database).items == []


def test_operator_clears_an_undeliverable_address(engine: Engine) -> None:
    landline(engine)
    opt_out(engine, "call", PHONE, opted_out=False, actor="ada")
    assert reason(engine, "sms", PHONE) == "undeliverable"
    assert opt_out(engine, "sms", PHONE, opted_out=False, actor="ada") == {("sms", PHONE)}
    assert reason(engine, "sms", PHONE) is None


def test_status_callback_marks_the_address_of_its_delivery(engine: Engine) -> None:
    delivery_id = engine.deliver("send", event_with(engine, PHONE))
    engine.run_due()
    status = StatusUpdate("undelivered", delivery=delivery_id, detail="landline", undeliverable=True)
    apply_callback(engine.database, "desk", [status])
    assert reason(engine, "sms", PHONE) == "undeliverable"


@pytest.mark.parametrize("sender", ["+525512345678", "+5215512345678"])  # WhatsApp writes the older form
def test_text_from_an_undeliverable_number_lets_messages_be_sent_again(engine: Engine, sender: str) -> None:
    phone = "+525512345678"
    landline(engine, phone)
    assert reason(engine, "sms", phone) == "undeliverable"
    message = InboundMessage(id="SM1", channel="sms", sender=sender, to="+12125550100", text="My new phone")
    apply_callback(engine.database, "desk", [message])
    assert reason(engine, "sms", phone) is None


def test_expired_and_erased_entries_are_deleted(engine: Engine) -> None:
    landline(engine)
    erase(engine.database, "ada", PHONE, [SECRET])
    assert list_opt_outs(engine.database).items == []
    landline(engine)
    engine.database.clock.advance(days=91)
    prune(engine.database, timedelta(days=365), Rules("", "rules"))
    with engine.database.read() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM undeliverable_addresses").scalar_one() == 0


# ---------------------------------------------------------------- internal messages


def test_message_to_the_team_ignores_opt_outs_and_has_no_unsubscribe_link(engine: Engine) -> None:
    links: list[tuple[str, str]] = []

    def link(channel: str, address: str) -> str:
        links.append((channel, address))
        return "https://bridge.example.com/unsubscribe/token"

    engine.attempts = replace(engine.attempts, unsubscribe_url=link)
    team = {"recipient": "alerts@harbour.example", "params": {"to": "alerts@harbour.example"}}
    opt_out(engine, "email", team["recipient"])  # one click in an alert, or a scanner of links
    alert = engine.deliver("mail", trigger="alert", internal=True, idempotency_key="a", **team)
    engine.run_due()
    assert engine.show(alert)["state"] == "succeeded"
    assert links == []
    engine.deliver("mail", idempotency_key="b", recipient=OTHER_EMAIL, params={"to": OTHER_EMAIL})
    engine.run_due()
    assert links == [("email", OTHER_EMAIL)]


# ---------------------------------------------------------------- locks


@pytest.mark.postgres
@pytest.mark.parametrize("locked", [PHONE, OTHER_PHONE])
def test_opt_out_waits_for_a_claim_of_any_address_of_the_contact(
    postgres_url: str, clock: Clock, locked: str
) -> None:
    """The claim may be of a call to the other number: the lock of a recipient does not depend on the channel."""
    database = Database(postgres_url, clock)
    engine = Engine(database)
    event_with(engine, PHONE, EMAIL)
    event_with(engine, OTHER_PHONE, EMAIL)
    with ThreadPoolExecutor(1) as threads:
        with database.write() as conn:
            database.lock(conn, [recipient_lock_key(locked)])
            stored = threads.submit(opt_out, engine, "sms", PHONE)
            with pytest.raises(TimeoutError):
                stored.result(timeout=0.5)
        assert stored.result(timeout=60) == {("sms", PHONE)}
    database.close()


def test_removal_of_an_opt_out_that_does_not_exist_is_not_in_the_audit_log(database: Database) -> None:
    change = OptOutChange("sms", "+12125550167", False, "command line", "ada")
    assert save_opt_out(database, change) == set()
    assert list_audit_entries(database) == []
