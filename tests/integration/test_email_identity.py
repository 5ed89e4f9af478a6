"""One person is one email address: through the receiver, the store, the rules, the policy and a recording action."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.connector.discovery import Registry
from bridge.rules.load import load
from bridge.rules.route import route
from bridge.samples import refresh_sample, sample
from bridge.signing import read_event
from bridge.store.delivery_list import list_deliveries
from bridge.store.erase import erase
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.store.policy_inputs import PolicyConfig
from bridge.store.queries import list_events, show_event
from bridge.store.routing import route_unrouted
from bridge.store.search import search
from tests.integration.engine import Engine

RULES = """
version: 1
messaging:
  quiet_hours: none
  caps: {email: 1 per 24h}
rules:
  - name: email-the-contact
    when: call.busy
    do:
      - use: desk.mail
        with: {to: "{{ contact.email }}"}
"""
ADDRESS = "info@xn--strae-oqa.example"
SPELLINGS = (
    "info@straße.example",
    "Info@STRAẞE.example",
    "INFO@xn--strae-oqa.EXAMPLE",
    "\u202ainfo@straße.example\u202c",
    " mailto:info@straße.example\r\n",
)
OTHERS = ("info@strasse.example", "straße@x.example", "strasse@x.example")


def receive(engine: Engine, **metadata: Any) -> None:
    """Receive and route one event of a new conversation, and run what is due."""
    registry = Registry()
    registry.add(engine.connector)
    loaded = load(RULES, path="rules.yaml", registry=registry, environ={})
    rules = loaded.rules
    assert rules is not None, loaded.diagnostics
    engine.policy_config = PolicyConfig(rules.messaging)
    database = engine.database
    now = database.clock.now()
    raw = json.dumps(refresh_sample(sample("call.busy"), now) | {"metadata": metadata}).encode()
    assert store_events(database, [IncomingEvent(read_event(raw, now), raw)]) == ["stored"]
    route_unrouted(database, rules, lambda event, at, history: route(event, rules, at, history))
    engine.run_due()
    database.clock.advance(seconds=1)


def outcomes(engine: Engine) -> list[str]:
    """State or reason of each delivery, oldest first."""
    deliveries = list_deliveries(engine.database, limit=100).items
    return [item["reason"] or item["state"] for item in reversed(deliveries)]


@pytest.mark.parametrize("opted_out", [ADDRESS, *SPELLINGS[:3]])
def test_no_email_leaves_for_an_opted_out_contact_whatever_spelling_either_side_used(
    engine: Engine, opted_out: str
) -> None:
    save_opt_out(engine.database, OptOutChange("email", opted_out, True, "command line"))
    for spelling in SPELLINGS:
        receive(engine, contactEmail=spelling)
    assert outcomes(engine) == ["opted_out"] * len(SPELLINGS)
    for other in OTHERS:
        receive(engine, contactEmail=other)
    assert [recipient for _, recipient in engine.provider.messages] == [
        "info@strasse.example",
        "straße@x.example",
        "strasse@x.example",
    ]


def test_cap_counts_a_person_and_not_a_spelling(engine: Engine) -> None:
    for spelling in SPELLINGS:
        receive(engine, contactEmail=spelling)
    assert outcomes(engine) == ["succeeded", *["frequency_capped"] * 4]


def test_an_invalid_address_is_shown_and_gets_no_email(engine: Engine) -> None:
    receive(engine, contactEmail="in..fo@okafor.example")
    assert (engine.provider.messages, outcomes(engine)) == ([], ["render_error"])
    [delivery] = list_deliveries(engine.database).items
    assert "metadata.contactEmail is not one valid email address" in delivery["detail"]
    assert "okafor" not in delivery["detail"]
    [event] = list_events(engine.database).items
    shown = show_event(engine.database, event["id"])
    assert [item["path"] for item in shown["unreadable_fields"]] == ["metadata.contactEmail"]


def test_search_and_erasure_find_every_spelling(engine: Engine) -> None:
    for spelling in SPELLINGS:
        receive(engine, contactEmail=spelling)
    receive(engine, contactEmail="ines@okafor.example", note="or info@straße.example")
    for term in (ADDRESS, *SPELLINGS):
        found = search(engine.database, term)
        assert (len(found.events.items), len(found.deliveries.items)) == (5, 5)
    assert erase(engine.database, "ada", ADDRESS, [b"a secret key"]).events == 6
