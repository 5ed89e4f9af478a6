"""Calls at Heppu without an event are found and stored, and no call is handled twice."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from bridge.cli import heppu_reconcile
from bridge.cli.heppu_check import check_heppu
from bridge.cli.heppu_reconcile import ReconcileReport, reconcile
from bridge.cli.heppu_webhooks import heppu_api
from bridge.cli.program import app
from bridge.connector.discovery import Registry
from bridge.errors import BridgeError, ConfigError
from bridge.events import HEPPU_EVENTS, Event
from bridge.heppu_api import HeppuApi
from bridge.rules.load import load_or_raise
from bridge.rules.route import route
from bridge.samples import iso, refresh_sample, sample
from bridge.sandbox import RunningSandbox
from bridge.signing import read_event
from bridge.store.audit_log import list_audit_entries
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.migrate import upgrade
from bridge.store.newest_events import newest_events
from bridge.store.queries import count_stored_events, list_events, show_event, stored_events
from bridge.store.reconciliation import CallIdentity, stored_calls
from bridge.store.replay import ReplayOrder, replay, select_events
from bridge.store.routing import route_unrouted
from bridge.store.rule_stats import last_fired, newest_traces
from bridge.store.rule_versions import list_versions, show_version, version_use

PHONE, OTHER = "+12125550167", "+14155550188"
AGENT = "3f0c6f0e-8a57-4a53-9c7e-5b2b7c1f6a10"
RULES = load_or_raise(
    "version: 1\nrules: [{name: log, when: call.*, do: [{use: hubspot.log_call}]}]",
    path="rules.yaml",
    registry=Registry(),
)


@pytest.fixture
def store(tmp_path: Path, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The database of the service whose settings the command finds."""
    url = f"sqlite:///{tmp_path}/bridge.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BRIDGE_DATABASE_URL", url)
    for name in ("HEPPU_API_KEY", "HEPPU_API_URL"):
        monkeypatch.setenv(name, sandbox.environment[name])
    database = Database(url)
    upgrade(database)
    yield database
    database.close()


def webhook(database: Database, name: str = "call.busy", *, phone: str = PHONE, **changes: Any) -> str:
    """Store the event of a webhook; return its ID."""
    body = refresh_sample(sample(name), database.clock.now()) | {"agentId": AGENT} | changes
    body["metadata"] = {"contactPhone": phone}
    return store_event(database, body)


def store_event(database: Database, body: dict[str, Any], *, reconciled: bool = False) -> str:
    raw = json.dumps(body).encode()
    event = read_event(raw, database.clock.now())
    assert store_events(database, [IncomingEvent(event, raw, reconciled=reconciled)]) == ["stored"]
    return event.id


def run(since: str = "3h", *, apply: bool = False) -> ReconcileReport:
    def wait(seconds: float) -> None:
        waits.append(seconds)

    waits.clear()
    return reconcile(since, None, apply=apply, wait=wait)


waits: list[float] = []


def add_calls(sandbox: RunningSandbox, database: Database, *minutes_ago: float, **fields: Any) -> None:
    now = database.clock.now()
    for number, minutes in enumerate(minutes_ago):
        call = {"status": "busy", "contact_name": "Ines Okafor"} | fields
        sandbox.heppu.add_call(
            f"call_{minutes:g}_{number}", PHONE, ended_at=now - timedelta(minutes=minutes), **call
        )


def test_call_without_event_is_found_and_stored_once(store: Database, sandbox: RunningSandbox) -> None:
    add_calls(sandbox, store, 100, 50, summary="Wants to be called back.")
    found = run()
    assert [(call.id, call.event_type, call.result) for call in found.missed] == [
        ("call_100_0", "call.busy", "missing"),
        ("call_50_1", "call.busy", "missing"),
    ]
    assert (found.ok, list_events(store).items) == (False, [])
    assert run(apply=True).ok
    events = list_events(store).items
    assert [(event["type"], event["phone"]) for event in events] == [("call.busy", PHONE)] * 2
    event = show_event(store, events[-1]["id"])
    assert event["reconciled"]
    assert event["body"]["summary"] == "Wants to be called back."
    assert event["contact"]["name"] == "Ines Okafor"
    assert abs(event["occurred_at"] - store.clock.now() + timedelta(minutes=100)) < timedelta(minutes=1)
    assert [entry["action"] for entry in list_audit_entries(store, target=event["id"])] == ["reconcile"]
    again = run(apply=True)
    assert (again.missed, again.calls) == ([], 2)


def test_call_with_an_event_is_not_missing(store: Database, sandbox: RunningSandbox) -> None:
    now = store.clock.now()
    add_calls(sandbox, store, 30, 20)
    add_calls(sandbox, store, 40, status="completed", duration=300, sid="CA1")
    add_calls(sandbox, store, 41, status="completed", duration=300, sid="CA2")
    webhook(store, timestamp=iso(now - timedelta(minutes=29.8)), twilioCallSid=None)
    webhook(store, "call.completed", twilioCallSid="CA1", phone=OTHER)
    assert [call.id for call in run().missed] == ["call_41_0", "call_20_1"]


def test_calls_that_heppu_sends_nothing_about_are_counted(store: Database, sandbox: RunningSandbox) -> None:
    add_calls(sandbox, store, 30, status="cancelled")
    add_calls(sandbox, store, 31, status="active")
    add_calls(sandbox, store, 1)
    add_calls(sandbox, store, 60 * 4)
    report = run()
    assert report.missed == []
    assert dict(report.skipped) == {
        "that were cancelled, about which Heppu sends nothing": 1,
        "that have not ended": 1,
    }
    assert any(note.startswith("Chats are not compared") for note in report.notes)


def test_event_types_that_no_webhook_sends_are_not_missing(store: Database, sandbox: RunningSandbox) -> None:
    add_calls(sandbox, store, 30)
    api = HeppuApi(sandbox.environment["HEPPU_API_KEY"], sandbox.environment["HEPPU_API_URL"])
    api.create_webhook("https://bridge.example.com/webhooks/heppu", ["call.completed"], "s" * 20)
    report = run()
    assert (report.missed, report.skipped.total()) == ([], 1)
    api.update_webhook(sandbox.heppu.webhooks[0]["id"], events=list(HEPPU_EVENTS))
    api.close()
    assert len(run().missed) == 1


def test_all_pages_are_read(
    store: Database, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.heppu_api.PAGE_SIZE", 3)
    add_calls(sandbox, store, *range(10, 20))
    assert len(run().missed) == 10
    monkeypatch.setattr(heppu_reconcile, "MAX_MISSING", 4)
    limited = run()
    assert (len(limited.missed), limited.notes[0][:22]) == (4, "More than 4 calls are ")
    monkeypatch.setattr(heppu_reconcile, "MAX_CALLS", 4)
    with pytest.raises(ConfigError, match="choose a later --since"):
        run()


def test_rate_limit_is_waited_for(store: Database, sandbox: RunningSandbox) -> None:
    add_calls(sandbox, store, 30)
    sandbox.fault("heppu", path="/api/v1/calls", status=429, retry_after=7)
    assert len(run().missed) == 1
    assert waits == [7.0]
    sandbox.fault("heppu", path="/api/v1/calls", status=429, times=None)
    with pytest.raises(BridgeError, match="Heppu answered 429"):
        run()
    assert len(waits) == 3


def test_command_prints_what_is_missing_and_stored(store: Database, sandbox: RunningSandbox) -> None:
    add_calls(sandbox, store, 30)
    found = CliRunner().invoke(app, ["heppu", "reconcile"])
    assert found.exit_code == 1
    assert "call.busy  outbound  +121***67  call_30_0  missing" in found.stdout
    assert "1 call without an event: `bridge heppu reconcile --apply` stores them." in found.stdout
    stored = CliRunner().invoke(app, ["heppu", "reconcile", "--apply", "--json"])
    assert stored.exit_code == 0
    [item] = json.loads(stored.stdout)["items"]
    assert (item["result"], item["event_id"]) == ("stored", list_events(store).items[0]["id"])
    assert "No call is missing." in CliRunner().invoke(app, ["heppu", "reconcile"]).stdout
    shown = CliRunner().invoke(app, ["show", item["event_id"]]).stdout
    assert "reconciled: made from a call at Heppu" in shown
    assert CliRunner().invoke(app, ["heppu", "reconcile", "--since", "1m"]).exit_code != 0


def test_webhooks_are_checked_online(store: Database, sandbox: RunningSandbox) -> None:
    public_url = "https://bridge.example.com"
    assert check_heppu(RULES, None).skipped == "set BRIDGE_PUBLIC_URL to the public URL of this service"
    [nothing] = check_heppu(RULES, public_url).findings
    assert nothing.fix == "bridge heppu webhooks create"
    with heppu_api() as (api, _):
        api.create_webhook(f"{public_url}/webhooks/heppu", ["call.busy"], "s" * 20)
    found = check_heppu(RULES, public_url)
    assert (found.ok, found.to_json()["findings"][1]["text"]) == (
        False,
        "call.completed is not sent, but log needs it",
    )
    sandbox.fault("heppu", path="/api/v1/webhooks", status=500)
    [failed] = check_heppu(RULES, public_url).findings
    assert failed.text.startswith("the webhooks cannot be listed: Heppu answered 500")


def test_stored_calls_and_newest_events(database: Database) -> None:
    original, made = bodies(database)
    ids = [store_event(database, original), store_event(database, made, reconciled=True)]
    since = database.clock.now() - timedelta(hours=1)
    calls = stored_calls(database, since)
    assert {call.conversation_id for call in calls} == {original["conversationId"], "call_1"}
    assert calls[0].may_be(calls[1])
    newest = newest_events(database, since, limit=1, max_bytes=10**6)
    assert ([event.id for event in newest.events], newest.total, newest.is_capped) == ([ids[1]], 2, False)
    assert newest_events(database, since, limit=5, max_bytes=1).events == []
    assert newest_events(database, database.clock.now() + timedelta(hours=1), limit=5, max_bytes=1).total == 0
    route_all(database)
    [version], next_cursor = list_versions(database, limit=1)
    assert (version["hash"], next_cursor, show_version(database, RULES.hash[:8]).text) == (
        RULES.hash, None, RULES.text,
    )  # fmt: skip
    assert version_use(database)[RULES.hash].events == 2
    assert set(last_fired(database, ["log", "nothing"])) == {"log"}
    assert len(newest_traces(database, "log", ["call.busy"])) == 1  # the other one is a duplicate


def test_plan_leaves_out_event_that_is_not_routed_because_of_another(database: Database) -> None:
    original, made = bodies(database)
    routed = store_event(database, original)
    store_event(database, made, reconciled=True)
    other = webhook(database, phone=OTHER, conversationId="conv_other", webhookId="whd_other")
    route_all(database)
    now = database.clock.now()
    since, until = now - timedelta(hours=1), now + timedelta(minutes=1)
    assert {event.id for event in stored_events(database, since, until)} == {routed, other}
    assert count_stored_events(database, since, until) == 2
    newest = newest_events(database, since, limit=5, max_bytes=10**6)
    assert ({event.id for event in newest.events}, newest.total) == ({routed, other}, 2)


@pytest.mark.postgres
def test_calls_are_read_in_parts_that_a_transaction_may_be_idle_for(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends a transaction from which it hears nothing for 5 seconds. A body of 1 MB takes 8 ms."""
    idle_since = list[datetime]()
    identity_of = CallIdentity.of

    def identity_while_idle(event: Event) -> CallIdentity:
        idle_since.append(watcher.execute(state).scalar_one())
        return identity_of(event)

    state = text(
        "SELECT max(state_change) FROM pg_stat_activity "
        "WHERE state = 'idle in transaction' AND datname = current_database()"
    )
    database = Database(postgres_url)
    count = 250
    with closing(database), database.engine.connect() as connection:
        watcher = connection.execution_options(isolation_level="AUTOCOMMIT")
        for number in range(count):
            webhook(database, conversationId=f"conv_{number}", webhookId=f"whd_{number}")
        monkeypatch.setattr(CallIdentity, "of", identity_while_idle)
        assert len(stored_calls(database, database.clock.now() - timedelta(hours=1))) == count
    assert max(Counter(idle_since).values()) <= 100


DUPLICATE = "another event about the same call was routed; replay that one"


def bodies(database: Database, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the body of a webhook, and that of the event that a reconciliation makes of the same call."""
    now = database.clock.now()
    original = refresh_sample(sample("call.busy"), now) | {"agentId": AGENT}
    original["metadata"] = {"contactPhone": PHONE}
    made = original | {"conversationId": "call_1", "webhookId": "reconciled_call_1"} | changes
    return original, made


def route_event(event: Event, now: Any, history: Any) -> Any:
    return route(event, RULES, now, history)


def route_all(database: Database) -> None:
    while route_unrouted(database, RULES, route_event)[0]:
        pass


@pytest.mark.parametrize("route_between", [True, False])
@pytest.mark.parametrize("reconciled_first", [True, False])
def test_call_is_handled_once(database: Database, *, route_between: bool, reconciled_first: bool) -> None:
    original, made = bodies(database)
    order = [(made, True), (original, False)]
    ids = []
    for body, reconciled in order if reconciled_first else reversed(order):
        ids.append(store_event(database, body, reconciled=reconciled))
        if route_between:
            route_all(database)
    route_all(database)
    shown = [show_event(database, event_id) for event_id in ids]
    assert sorted(len(event["deliveries"]) for event in shown) == [0, 1]
    [duplicate] = [event for event in shown if event["duplicate_of"]]
    assert (duplicate["deliveries"], duplicate["trace"]) == ([], [])
    assert duplicate["duplicate_of"] in ids
    if not route_between:
        assert duplicate["reconciled"], "the webhook itself is preferred"
    selected = select_events(database)
    assert (len(selected.ids), list(selected.obstacles)) == (1, [DUPLICATE])
    order = ReplayOrder(RULES, route_event)
    replayed = {item.id: item for item in replay(database, "ada", ids, order)}
    skipped = replayed[duplicate["id"]]
    assert (skipped.deliveries, skipped.skipped) == ([], DUPLICATE), "its keys are others"


def test_second_call_to_the_same_number_is_not_a_duplicate(database: Database) -> None:
    original, made = bodies(database)
    store_event(database, made, reconciled=True)
    route_all(database)
    first = store_event(database, original)
    second = store_event(database, original | {"webhookId": "whd_2", "conversationId": "conv_2"})
    other = store_event(
        database, original | {"webhookId": "whd_3", "conversationId": "conv_3", "agentId": "x"}
    )
    later = iso(database.clock.now() + timedelta(minutes=-20))
    early = store_event(
        database, original | {"webhookId": "whd_4", "conversationId": "conv_4", "timestamp": later}
    )
    route_all(database)
    states = [
        bool(show_event(database, event_id)["duplicate_of"]) for event_id in (first, second, other, early)
    ]
    assert states.count(True) == 1
    assert states[2:] == [False, False]
