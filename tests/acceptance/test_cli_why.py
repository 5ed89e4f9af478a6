"""`bridge why` and `--contact`: everything about one person, in a folder with a database."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.rules.route import route
from bridge.store.database import Database
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.store.routing import route_unrouted
from tests.acceptance.test_cli_output import Bridge, bridge, parse_json, store_event, stored  # noqa: F401 - fixtures

PHONE = "+12125550144"
RULES = """\
version: 1
rules:
  - name: text
    when: call.busy
    where: {event.direction: outbound}
    do: [{use: twilio.send_sms, delay: 5m, with: {body: hi}}]
  - {name: later, when: call.busy, enabled: false, do: [{use: twilio.send_sms, with: {body: hi}}]}
"""


@pytest.fixture
def routed(stored: Bridge) -> Bridge:  # noqa: F811
    """`stored` with two events of one person and one of another, routed by RULES."""
    Path("rules.yaml").write_text(RULES)
    store_event(metadata={"contactPhone": PHONE}, direction="inbound", conversationId="conv-1")
    store_event(metadata={"contactPhone": PHONE}, direction="outbound")
    store_event(metadata={"contactPhone": "+12125550145"}, direction="outbound")
    database = Database("sqlite:///bridge.db", pool_size=1)
    rules = load_or_raise(RULES, path="rules.yaml", registry=Registry())
    while route_unrouted(database, rules, lambda event, now, history: route(event, rules, now, history))[0]:
        pass
    save_opt_out(database, OptOutChange("sms", PHONE, opted_out=True, source="STOP to twilio"))
    database.close()
    return stored


def test_why_says_what_decided_about_each_event(routed: Bridge) -> None:
    result = routed("why", "(212) 555-0144", "--since", "2d", COLUMNS="240")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert "call.busy" in lines[0]
    assert "America/New_York" in lines[0]
    assert "UTC" in lines[0]
    assert lines[1:3] == [
        "  text did not fire: event.direction is inbound, expected outbound",
        "  later was disabled (`enabled: false`)",
    ]
    assert lines[5].startswith("  twilio.send_sms of text: pending  ")
    assert f"Opted out of sms since {datetime.now(UTC):%Y}" in lines[-1]
    assert "(STOP to twilio)" in lines[-1]


def test_why_prints_json_and_pages(routed: Bridge) -> None:
    first = parse_json(routed("why", PHONE, "--json", "--limit", "2"))
    assert [(item["type"], len(item["deliveries"])) for item in first["items"]] == [
        ("call.busy", 1),
        ("contact.opted_out", 0),
    ]
    older = parse_json(routed("why", PHONE, "--json", "--cursor", first["next_cursor"]))
    assert [item["conversation_id"] for item in older["items"]] == ["conv-1"]
    assert older["next_cursor"] is None
    assert parse_json(routed("why", "conv-1", "--json"))["items"] == older["items"]


def test_why_without_events_says_so(routed: Bridge) -> None:
    assert "No events of `+12125550199` with --since 7d." in routed("why", "+12125550199").stdout


def test_lists_take_a_contact(routed: Bridge) -> None:
    assert len(parse_json(routed("events", "--contact", "212 555 0144", "--json"))["items"]) == 3
    assert len(parse_json(routed("deliveries", "--contact", PHONE, "--json"))["items"]) == 1
    wrong = routed("events", "--contact", "0401 234", COLUMNS="200")
    assert wrong.exit_code == 2
    assert "write a phone number like +14155550123" in wrong.stderr
