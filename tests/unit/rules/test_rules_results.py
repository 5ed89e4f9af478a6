"""`results` in rules: the steps that can be named, what is planned before they end, and how params get them."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.connector.params import Params
from bridge.dryrun.details import what_is_read, with_details
from bridge.rules.late import render_late, result_actions
from bridge.rules.model import PlannedDelivery
from bridge.rules.route import route
from tests.unit.rules.helpers import NOW, REGISTRY, diagnostics_of, event_of, rules_of

ID = "{{ results.lantern.open_ticket.id }}"
RULE = f"""
- name: ticket
  when: call.busy
  do:
    - use: lantern.open_ticket
      with: {{subject: A call failed}}
    - use: lantern.comment
      with: {{ticket: "{ID}", comment: hello}}
"""


def rule_with(param: str, steps: str = "    - use: lantern.open_ticket\n      with: {subject: a}\n") -> str:
    return (
        "version: 1\nrules:\n- name: ticket\n  when: call.busy\n  do:\n"
        f'{steps}    - use: lantern.comment\n      with: {{comment: hello, ticket: "{param}"}}\n'
    )


def planned(text: str = RULE) -> list[PlannedDelivery]:
    return list(route(event_of("call.busy"), rules_of(text), NOW).planned)


def test_param_with_a_result_is_late() -> None:
    _, comment = planned()
    assert (comment.render_error, comment.late) == (None, {"ticket": ID})
    assert result_actions(comment.late) == {"lantern.open_ticket"}
    assert "ticket" not in comment.params


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (
            rule_with("{{ results.lantern.open_tickets.id }}"),
            "no earlier step of the rule uses `lantern.open_tickets`",
            "did you mean `lantern.open_ticket`?",
        ),
        (
            rule_with(ID, steps=""),
            "no earlier step of the rule uses `lantern.open_ticket`",
            "a step can use the results of those before it in its rule",
        ),
        (
            rule_with(ID, steps="    - use: lantern.open_ticket\n      with: {subject: a}\n" * 2),
            "several earlier steps use `lantern.open_ticket`",
            "write the steps in rules of their own, so that it is clear which one is meant",
        ),
        (
            rule_with("{{ results.lantern.open_ticket }}"),
            "a result is the ID that an action returned",
            "write `results.lantern.open_ticket.id`",
        ),
    ],
)
def test_result_of_no_earlier_step_is_an_error(text: str, message: str, hint: str) -> None:
    errors = [item for item in diagnostics_of(text) if item.level == "error"]
    assert [(item.text, item.hint) for item in errors] == [(message, hint)]


@pytest.mark.parametrize(("trigger", "warnings"), [("on_success", 0), ("on_failure", 1)])
def test_follow_up_can_use_the_results_of_its_rule(trigger: str, warnings: int) -> None:
    """After a failure, the action that was to return the ID may be the one that failed."""
    text = (
        "version: 1\nrules:\n- name: ticket\n  when: call.busy\n  do:\n"
        "    - use: lantern.open_ticket\n      with: {subject: a}\n"
        f'  {trigger}:\n    - use: lantern.comment\n      with: {{comment: hello, ticket: "{ID}"}}\n'
    )
    found = diagnostics_of(text)
    assert [item.level for item in found] == ["warning"] * warnings
    assert all("the failed action may be `lantern.open_ticket`" in item.text for item in found)
    guarded = text.replace(ID, ID.replace(" }}", " | default('T-0') }}"))
    assert diagnostics_of(guarded) == []


def test_alert_has_no_results() -> None:
    text = (
        f"version: 1\nrules: []\nalerts: [{{use: lantern.comment, with: {{ticket: '1', comment: '{ID}'}}}}]\n"
    )
    assert [
        item.text for item in diagnostics_of(text) if "result" in item.text or "earlier" in item.text
    ] == ["`results` is not available here"]


def test_result_where_the_bridge_decides_is_an_error() -> None:
    text = (
        rule_with("1")
        .replace("comment: hello", "comment: hello")
        .replace("- use: lantern.comment", f'- use: lantern.comment\n      idempotency_key: "{ID}"')
    )
    [error] = [item for item in diagnostics_of(text) if item.level == "error"]
    assert error.text == "`results` is not available here"


def render(results: dict[str, Any]) -> Any:
    _, comment = planned()
    action = REGISTRY.action(comment.action)
    return render_late(
        action, comment.params, comment.late, event_of("call.busy"), {}, rules_of(RULE), NOW, results=results
    )


def test_result_completes_the_params() -> None:
    rendered = render({"lantern.open_ticket": "35436"})
    assert (rendered.error, rendered.values) == (None, {"ticket": "35436", "comment": "hello"})
    assert isinstance(rendered.validated, Params)


def test_missing_result_is_an_error_of_the_rules_own_template() -> None:
    assert (
        render({"lantern.open_ticket": None}).error == "`ticket`: results.lantern.open_ticket.id is missing"
    )


def test_dry_run_shows_a_placeholder() -> None:
    _, comment = planned()
    assert what_is_read(comment) == (
        "`ticket`: filled in before it is sent, with the ID that lantern.open_ticket returns",
    )
    shown = with_details(comment, event_of("call.busy"), rules_of(RULE), {}, NOW)
    assert (shown.render_error, shown.params["ticket"]) == (None, "(ID of lantern.open_ticket)")
