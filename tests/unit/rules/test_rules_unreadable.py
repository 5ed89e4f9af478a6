"""Fields of an event that cannot be read: rules, traces and deliveries say so instead of calling them missing."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.rules.model import PlannedDelivery
from bridge.rules.route import route
from bridge.rules.trace import Check
from tests.unit.rules.helpers import NOW, event_of, rules_of

NO_COUNTRY_CODE = (
    "metadata.contactPhone has no country code; send + and the country code, or set BRIDGE_DEFAULT_COUNTRY"
)
NATIONAL = {"metadata__contactPhone": "040 123 4567"}


def check(condition: str, **changes: Any) -> Check:
    rules = rules_of(f"- name: a\n  when: call.busy\n  {condition}\n  do: [{{use: crm.log_call}}]")
    (trace,) = route(event_of(**changes), rules, NOW).traces
    assert trace.error is None
    (row,) = trace.checks[1:]
    return row


def plan_one(use: str, params: str = "{}", **changes: Any) -> PlannedDelivery:
    rules = rules_of(f"- name: a\n  when: call.busy\n  do: [{{use: {use}, with: {params}}}]")
    (delivery,) = route(event_of(**changes), rules, NOW).planned
    return delivery


@pytest.mark.parametrize(
    ("condition", "result", "reason"),
    [
        (
            "where: {contact.phone: {starts_with: '+358'}}",
            "unknown",
            f"contact.phone cannot be read: {NO_COUNTRY_CODE}",
        ),
        ("where: {contact.phone: {ne: '+1'}}", "unknown", f"contact.phone cannot be read: {NO_COUNTRY_CODE}"),
        ("where: {contact.phone: {exists: true}}", "false", NO_COUNTRY_CODE),
        ("where: {contact.phone: {exists: false}}", "true", NO_COUNTRY_CODE),
    ],
)
def test_trace_of_where_names_the_field_and_the_problem(condition: str, result: str, reason: str) -> None:
    row = check(condition, **NATIONAL)
    assert (row.actual, row.result, row.reason) == ("unreadable", result, reason)


@pytest.mark.parametrize(
    ("condition", "result", "reason"),
    [
        ("contact.phone == '+1'", "unknown", f"contact.phone cannot be read: {NO_COUNTRY_CODE}"),
        ("contact.phone is defined", "false", NO_COUNTRY_CODE),
        ("contact.phone | default('none') == 'none'", "true", NO_COUNTRY_CODE),
        ("event.duration == 0", "true", ""),
    ],
)
def test_trace_of_if_names_the_field_and_the_problem(condition: str, result: str, reason: str) -> None:
    row = check(f'if: "{condition}"', **NATIONAL)
    assert (row.result, row.reason) == (result, reason)


def test_missing_field_is_missing() -> None:
    row = check("where: {contact.phone: {starts_with: '+'}}", metadata__contactPhone="")
    assert (row.actual, row.reason) == ("missing", "contact.phone is missing")


def test_number_as_text_is_compared_as_a_number() -> None:
    assert check("where: {event.duration: {gt: 60}}", duration="125").result == "true"
    assert check("if: event.duration > 60", duration="125").result == "true"


def test_number_that_cannot_be_read_is_unknown_and_says_why() -> None:
    problem = "event.duration cannot be read: duration is a string that is not a number; send digits only, such as 125"
    row = check("where: {event.duration: {gt: 60}}", duration="2:05")
    assert (row.actual, row.result, row.reason) == ("unreadable", "unknown", problem)


def test_field_of_an_object_that_cannot_be_read_says_why() -> None:
    row = check("where: {event.metadata.orderId: {eq: a}}", metadata="order a")
    assert (
        row.reason == "event.metadata.orderId cannot be read: metadata is a string that is not a JSON object"
    )


def test_status_in_another_spelling_is_compared_as_documented() -> None:
    assert check("where: {event.status: busy}", status="BUSY").result == "true"


def test_delivery_without_a_readable_recipient_fails_and_says_why() -> None:
    assert plan_one("phone.send", "{body: hi}", **NATIONAL).render_error == (
        f"`to`: contact.phone cannot be read: {NO_COUNTRY_CODE}"
    )


def test_delivery_with_an_invalid_recipient_says_which_field_was_unreadable() -> None:
    params = "{body: hi, to: \"{{ contact.phone | default('') }}\"}"
    assert plan_one("phone.send", params, **NATIONAL).render_error == (
        "`to` is not a phone number: send + and the country code, like +14155550123; " + NO_COUNTRY_CODE
    )


def test_delivery_notes_the_fields_it_has_to_do_without() -> None:
    delivery = plan_one("crm.log_call", duration="2:05")
    assert (delivery.render_error, delivery.params["duration"]) == (None, None)
    assert delivery.notes == ("duration is a string that is not a number; send digits only, such as 125",)


@pytest.mark.parametrize("value", ["TCK-7001", "#7001", "7001 ", " ", ""])
def test_value_that_does_not_fit_a_param_is_an_error(value: str) -> None:
    text = "version: 1\nrules: [{name: a, when: chat.resolved, do: [{use: hubspot.close_ticket}]}]"
    rules = load_or_raise(text, path="rules.yaml", registry=Registry())
    (delivery,) = route(event_of("chat.resolved", metadata__ticketId=value), rules, NOW).planned
    if value.strip() == "7001":
        assert (delivery.render_error, delivery.params["ticket"]) == (None, "7001")
    else:
        shown = f"`{value}`" if value.strip() else "an empty text"
        assert delivery.render_error == f"`ticket` must be a HubSpot ticket ID (digits only), got {shown}"


def test_delivery_that_needs_no_unreadable_field_has_no_notes() -> None:
    assert plan_one("crm.log_call", agentName=["x"], metadata__timezone="UTC").notes == ()
