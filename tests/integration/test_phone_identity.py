"""One person is one number: through the receiver, the store, the rules, the policy and a recording action."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.connector import InboundMessage, OptOut
from bridge.connector.discovery import Registry
from bridge.contacts.typed_address import read_typed_address
from bridge.dryrun.engine import temporary_database
from bridge.rules.load import load
from bridge.rules.model import Rules
from bridge.rules.route import route
from bridge.samples import refresh_sample, sample
from bridge.signing import read_event
from bridge.store.database import Database
from bridge.store.delivery_list import list_deliveries
from bridge.store.delivery_status import apply_callback
from bridge.store.erase import erase
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.queries import list_events, show_event
from bridge.store.routing import route_unrouted
from bridge.store.search import search
from tests.integration.engine import Engine
from tests.unit.contacts.test_phone import spellings

RULES = """
version: 1
messaging:
  quiet_hours: none
  caps: {sms: %s}
rules:
  - name: text-the-contact
    when: call.busy
    do:
      - use: desk.send
        with: {to: "{{ contact.phone }}"}
        cancel_on: chat.resolved
  - name: text-another-number
    when: call.failed
    do:
      - use: desk.send
        with: {to: "{{ event.metadata.otherPhone }}"}
"""
BRITISH = "+447911123456"
SPELLINGS = (
    "+44 (0)7911 123456",
    "0044 (0) 7911-123456",
    "+4407911123456",
    "\u202a+44 7911\u00a0123456\u202c",
    "tel:+44-7911-123456;ext=2",
)


class Bridge:
    """The receiver, the router and the worker, one step at a time."""

    def __init__(self, database: Database, cap: str = "100 per 1h") -> None:
        self.engine = Engine(database)
        registry = Registry()
        registry.add(self.engine.connector)
        loaded = load(RULES % cap, path="rules.yaml", registry=registry, environ={})
        assert loaded.rules is not None, loaded.diagnostics
        self.rules: Rules = loaded.rules
        self.engine.policy_config = PolicyConfig(self.rules.messaging)

    def receive(
        self, event_type: str = "call.busy", country: str | None = None, run: bool = True, **metadata: Any
    ) -> None:
        """Receive and route one event of a new conversation, and run what is due."""
        database = self.engine.database
        now = database.clock.now()
        body = refresh_sample(sample(event_type), now) | {"metadata": metadata}
        raw = json.dumps(body).encode()
        assert store_events(database, [IncomingEvent(read_event(raw, now, country), raw)]) == ["stored"]
        route_unrouted(database, self.rules, lambda event, at, history: route(event, self.rules, at, history))
        if run:
            self.engine.run_due()
        database.clock.advance(seconds=1)

    @property
    def recipients(self) -> list[str]:
        return [recipient for _, recipient in self.engine.provider.messages]

    @property
    def outcomes(self) -> list[str]:
        """State or reason of each delivery, oldest first."""
        deliveries = list_deliveries(self.engine.database, limit=100).items
        return [item["reason"] or item["state"] for item in reversed(deliveries)]


@pytest.fixture
def bridge(database: Database) -> Bridge:
    return Bridge(database)


def stop(bridge: Bridge, spelling: str, country: str | None, way: str) -> None:
    """Opt a number out in one of the ways in which a bridge learns of it."""
    database = bridge.engine.database
    database.default_country = country
    if way == "typed":
        address = read_typed_address(spelling, country, allow_impossible=True)
        save_opt_out(database, OptOutChange("sms", address, True, "command line"))
    elif way == "reported":
        apply_callback(database, "desk", [OptOut("sms", spelling)])
    else:
        number = read_typed_address(spelling, country, allow_impossible=True)
        apply_callback(database, "desk", [InboundMessage("SM1", "sms", number, "+12125550100", "STOP")])


@given(st.data(), st.sampled_from(["typed", "reported", "texted"]))
@settings(max_examples=25, deadline=None)
def test_no_text_leaves_for_an_opted_out_contact_whatever_spelling_either_side_used(
    data: st.DataObject, way: str
) -> None:
    number, first, first_country = data.draw(spellings())
    written = [(first, first_country), (number, None), (f"00{number[1:]}", None)]
    with temporary_database() as database:
        bridge = Bridge(database)
        bridge.receive(contactPhone=first, country=first_country)
        assert bridge.recipients == [number], "the same contact gets texts before"
        opted_out, country = data.draw(st.sampled_from(written))
        stop(bridge, opted_out, country, way)
        for spelling, spelling_country in written:
            database.default_country = spelling_country
            bridge.receive(contactPhone=spelling, country=spelling_country)
            bridge.receive("call.failed", otherPhone=spelling, country=spelling_country)
        assert bridge.recipients == [number]
        assert bridge.outcomes[1:] == ["opted_out"] * 6


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_opted_out_contact_gets_no_text(bridge: Bridge, spelling: str) -> None:
    stop(bridge, BRITISH, None, "typed")
    bridge.receive(contactPhone=spelling)
    bridge.receive("call.failed", otherPhone=spelling)
    assert (bridge.recipients, bridge.outcomes) == ([], ["opted_out", "opted_out"])
    assert [event["phone"] for event in list_events(bridge.engine.database).items][-1] == BRITISH


@pytest.mark.parametrize(
    "text", [f"mobile: {BRITISH}", f"{BRITISH} or {BRITISH}", f"{BRITISH}0000000000", "extension seven"]
)
def test_text_to_what_is_not_one_number_is_an_error(bridge: Bridge, text: str) -> None:
    """The param of this action is any string, so only the bridge can know whose number it is."""
    stop(bridge, BRITISH, None, "typed")
    bridge.receive("call.failed", otherPhone=text)
    assert (bridge.recipients, bridge.outcomes) == ([], ["render_error"])
    [delivery] = list_deliveries(bridge.engine.database).items
    assert delivery["detail"].startswith("`to` ")
    assert "7911" not in delivery["detail"]


def test_cap_counts_a_person_and_not_a_spelling(database: Database) -> None:
    bridge = Bridge(database, cap="1 per 24h")
    for spelling in SPELLINGS:
        bridge.receive(contactPhone=spelling)
    assert bridge.recipients == [BRITISH]
    assert bridge.outcomes == ["succeeded", *["frequency_capped"] * 4]


def test_later_event_with_another_spelling_cancels(bridge: Bridge) -> None:
    bridge.receive(contactPhone=SPELLINGS[0], run=False)
    bridge.receive("chat.resolved", contactPhone=SPELLINGS[1])
    assert (bridge.recipients, bridge.outcomes) == ([], ["cancelled"])


def test_national_number_is_texted_only_with_a_default_country(bridge: Bridge) -> None:
    bridge.receive(contactPhone="07911 123456")
    assert bridge.outcomes == ["render_error"]
    bridge.engine.database.default_country = "GB"
    bridge.receive(contactPhone="07911 123456", country="GB")
    bridge.receive("call.failed", otherPhone="07911 123456", country="GB")
    assert bridge.recipients == [BRITISH, BRITISH]


@pytest.mark.parametrize(
    "withheld", ["+266696687", "anonymous", "Restricted", "sip:anonymous@anonymous.invalid"]
)
def test_withheld_caller_is_nobody(bridge: Bridge, withheld: str) -> None:
    bridge.receive("call.failed", otherPhone=withheld)
    assert (bridge.recipients, bridge.outcomes) == ([], ["render_error"])


@pytest.mark.parametrize("withheld", ["+266696687", "anonymous"])
def test_event_of_a_withheld_caller_says_so(bridge: Bridge, withheld: str) -> None:
    bridge.receive(contactPhone=withheld)
    [delivery] = list_deliveries(bridge.engine.database).items
    assert (bridge.recipients, delivery["reason"], delivery["recipient"]) == ([], "render_error", None)
    assert "placeholder for a withheld number" in delivery["detail"]
    [event] = list_events(bridge.engine.database).items
    shown = show_event(bridge.engine.database, event["id"])
    assert shown["contact"]["phone"] is None
    assert [item["withheld"] for item in shown["unreadable_fields"]] == [True]


def test_search_finds_every_spelling(bridge: Bridge) -> None:
    for spelling in SPELLINGS:
        bridge.receive(contactPhone=spelling)
    for term in (BRITISH, *SPELLINGS):
        found = search(bridge.engine.database, term)
        assert (len(found.events.items), len(found.deliveries.items)) == (5, 5)


def test_erasure_finds_every_spelling_also_in_other_fields(bridge: Bridge) -> None:
    for spelling in SPELLINGS[:3]:
        bridge.receive(contactPhone=spelling)
        bridge.receive("chat.abandoned", note=f"call me at {spelling}, please")
    bridge.receive("chat.abandoned", note="order 7911 123456 is late")
    erased = erase(bridge.engine.database, "ada", BRITISH, [b"a secret key"])
    assert erased.events == 6
    bodies = [
        show_event(bridge.engine.database, item["id"])["body"]
        for item in list_events(bridge.engine.database).items
    ]
    assert [body["metadata"] for body in bodies if body] == [{"note": "order 7911 123456 is late"}]
