"""Several recipients: only the rule itself can name them, because the policy checks one recipient of a message."""

from __future__ import annotations

import pytest

from bridge.rules.model import PlannedDelivery
from bridge.rules.route import route
from tests.unit.rules.helpers import NOW, diagnostics_of, event_of, rules_of


def mail(params: str) -> str:
    return (
        f"- {{name: a, when: call.busy, do: [{{use: email.send, with: {{subject: s, text: t, {params}}}}}]}}"
    )


def plan(params: str) -> PlannedDelivery:
    [delivery] = route(event_of(), rules_of(mail(params)), NOW).planned
    return delivery


@pytest.mark.parametrize(
    "params", ["to: [ann@team.example, bo@team.example]", "to: ann@team.example, cc: bo@team.example"]
)
def test_message_to_the_team_can_have_several_recipients(params: str) -> None:
    delivery = plan(params)
    assert delivery.internal
    assert delivery.render_error is None
    assert delivery.recipient == "ann@team.example"
    assert "bo@team.example" in str(delivery.params)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ("to: ['{{ contact.email }}', ann@team.example]", "`to` can be a list only in a message to the team"),
        ("cc: ann@team.example", "`cc` is possible only in a message to the team"),
        (
            "to: '{{ contact.email }}', cc: [ann@team.example]",
            "`cc` is possible only in a message to the team",
        ),
        ("to: ann@team.example, cc: '{{ contact.email }}'", "`cc` is possible only in a message to the team"),
        (
            "to: ann@team.example, cc: [bo@team.example, '{{ contact.email }}']",
            "`cc` is possible only in a message",
        ),
        ("to: []", "`to` must not be empty"),
        ("to: [ann@team.example, nobody]", "`to` has an item that is not one valid email address"),
        ("to: {a: b}", "`to` is not one valid email address"),
        ("to: ann@team.example; bo@team.example", "`to` is not one valid email address"),
        (f"to: [{', '.join(f'p{n}@team.example' for n in range(21))}]", "`to` can have at most 20 addresses"),
    ],
)
def test_other_recipients_are_errors_of_the_file(params: str, text: str) -> None:
    errors = diagnostics_of("version: 1\nrules:\n  " + mail(params) + "\n")
    assert next(item.text for item in errors if item.level == "error").startswith(text)


def test_list_from_an_event_is_an_error_of_the_delivery() -> None:
    source = mail("to: '{{ event.metadata.addresses }}'")
    event = event_of(metadata__addresses=["ines@okafor.example", "ben@okafor.example"])
    [delivery] = route(event, rules_of(source), NOW).planned
    assert delivery.recipient is None
    assert "only a message to the team can have several recipients" in (delivery.render_error or "")


def test_plan_knows_every_recipient() -> None:
    several = plan("to: [ann@team.example, bo@team.example, ann@team.example], cc: cy@team.example")
    assert (several.recipient, several.more_recipients) == (
        "ann@team.example",
        ("bo@team.example", "cy@team.example"),
    )
    assert plan("to: ann@team.example").more_recipients == ()
    text = "- {name: a, when: call.busy, do: [{use: phone.send, with: {body: b}}]}"
    [customer] = route(event_of(), rules_of(text), NOW).planned
    assert customer.more_recipients == ()


def test_messages_to_different_colleagues_are_no_duplicates() -> None:
    lists = ("[ann@team.example, bo@team.example]", "[ann@team.example, cy@team.example]", "ann@team.example")
    keys = [plan(f"to: {addresses}").idempotency_key for addresses in (*lists, lists[0])]
    assert len(set(keys)) == 3
    assert keys[0] == keys[3]
