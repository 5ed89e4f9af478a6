"""Tables and defaults: values that several rules share."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bridge.rules.model import PlannedDelivery
from bridge.rules.route import alerts, route
from tests.unit.rules.helpers import NOW, event_of, load_text, rules_of

FILE = """
version: 1
tables:
  greeting: {Nora: Front desk, "5": Five, vip: true}
defaults:
  phone.send: {delay: 5m, expires: 1h, with: {body: "From {{ event.agentName | table('greeting', 'Harbor') }}"}}
alerts:
  - use: phone.send
    with: {to: "+14155550100", body: "{{ delivery.message }}"}
rules:
  - name: shared
    when: call.busy
    do: [{use: phone.send}]
  - name: own
    when: call.busy
    do:
      - use: phone.send
        delay: 1m
        idempotency_key: own
        with: {body: Hello, urgent: true}
"""


def planned(**changes: object) -> tuple[PlannedDelivery, ...]:
    return route(event_of(**changes), rules_of(FILE), NOW).planned


def test_step_has_the_keys_that_it_does_not_set() -> None:
    shared, own = planned()
    event = event_of()
    assert shared.run_at == max(NOW, event.occurred_at + timedelta(minutes=5))
    assert shared.expires_at == event.occurred_at + timedelta(hours=1)
    assert own.run_at == max(NOW, event.occurred_at + timedelta(minutes=1))
    assert own.expires_at == shared.expires_at
    assert (own.params["body"], own.params["urgent"]) == ("Hello", True)
    assert "urgent" not in shared.params


def test_alert_has_only_the_keys_that_alerts_accept() -> None:
    fields = {"id": "dlv_1", "rule": "shared", "state": "failed", "message": "x"}
    (alert,) = alerts(event_of(agentName="Nora"), rules_of(FILE), fields, NOW)
    assert (alert.run_at, alert.params["body"]) == (NOW, "x")


@pytest.mark.parametrize(
    ("agent", "body"),
    [
        ("Nora", "From Front desk"),
        ("nora", "From Harbor"),
        (5, "From Five"),
        (None, "From Harbor"),
        (..., "From Harbor"),
    ],
)
def test_table_returns_the_entry_or_the_fallback(agent: object, body: str) -> None:
    assert planned(agentName=agent)[0].params["body"] == body


def test_missing_entry_without_a_fallback_is_an_error() -> None:
    text = FILE.replace("table('greeting', 'Harbor')", "table('greeting')")
    shared = route(event_of(agentName="Sam"), rules_of(text), NOW).planned[0]
    assert shared.render_error == "`body`: the table greeting has no entry for this value"


def test_entry_of_a_table_keeps_its_type() -> None:
    text = FILE.replace("urgent: true", "urgent: \"{{ 'vip' | table('greeting') }}\"")
    assert route(event_of(), rules_of(text), NOW).planned[1].params["urgent"] is True


CHOICE = """
version: 1
tables: {accounts: {Nora: phone_us, Sam: phone_eu}}
rules:
  - name: choose
    when: call.busy
    do: [{use: phone.send, connection: {by: event.agentName, table: TABLE}, with: {body: Hi}}]
"""


@pytest.mark.parametrize("table", ["accounts", "{Nora: phone_us, Sam: phone_eu}"])
def test_connection_is_chosen_by_a_field(table: str) -> None:
    rules = rules_of(CHOICE.replace("TABLE", table))
    assert rules.rules[0].do[0].connections == ("phone_us", "phone_eu")
    chosen = {
        agent: route(event_of(agentName=agent), rules, NOW).planned[0]
        for agent in ("Nora", "Sam", "Kim", None)
    }
    assert [chosen[agent].connection for agent in ("Nora", "Sam")] == ["phone_us", "phone_eu"]
    assert len({chosen[agent].concurrency_key for agent in ("Nora", "Sam")}) == 2
    assert (
        chosen["Kim"].render_error == '`connection`: no entry for event.agentName ("Kim"), and no `default`'
    )
    assert chosen[None].render_error == "`connection`: no entry for event.agentName (null), and no `default`"
    with_default = rules_of(CHOICE.replace("TABLE", table + ", default: phone"))
    assert route(event_of(agentName="Kim"), with_default, NOW).planned[0].connection == "phone"


def test_every_connection_of_a_choice_is_checked() -> None:
    environ = {"PHONE_US_TOKEN": "secret"}
    text = CHOICE.replace("TABLE", "{Nora: phone_us, Sam: phone_eu, Kim: crm}")
    texts = [item.text for item in load_text(text, environ).diagnostics]
    assert texts == [
        "connection `phone_eu`: PHONE_EU_TOKEN is not set",
        "the connection `crm` belongs to the connector `crm`",
    ]
