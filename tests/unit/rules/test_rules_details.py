"""`details` in rules: where they can be used, what is planned before they are known, and how params get them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.connector.params import example_of, is_team_only, template_of
from bridge.rules.late import detail_fields, render_late
from bridge.rules.model import PlannedDelivery
from bridge.rules.parse_params import is_required, params_of
from bridge.rules.route import route
from tests.unit.rules.helpers import NOW, REGISTRY, diagnostics_of, event_of, load_text, rules_of

LOG = """
- name: log
  when: call.completed
  do:
    - use: crm.log_call
      with:
        summary: "{{ details.transcript }}"
        name: "Call of {{ event.agentName }}"
        properties: {recording: "{{ details.recordingUrl | default('none') }}", agent: "{{ event.agentName }}"}
"""
DETAILS = {"transcript": "Agent: Hello\nContact: Hi", "recordingUrl": "https://heppu.example/r/1"}


def planned() -> PlannedDelivery:
    [delivery] = route(event_of("call.completed"), rules_of(LOG), NOW).planned
    return delivery


def complete(delivery: PlannedDelivery, details: dict[str, Any]) -> Any:
    action = REGISTRY.action(delivery.action)
    event = event_of("call.completed")
    return render_late(action, delivery.params, delivery.late, event, details, rules_of(LOG), NOW)


def test_late_params_are_stored_as_their_templates() -> None:
    delivery = planned()
    assert delivery.render_error is None
    assert delivery.params["name"] == "Call of Nora at the front desk"
    assert delivery.late == {
        "summary": "{{ details.transcript }}",
        "properties": {
            "recording": "{{ details.recordingUrl | default('none') }}",
            "agent": "{{ event.agentName }}",
        },
    }
    assert delivery.late.keys().isdisjoint(delivery.params)
    assert detail_fields(delivery.late) == {"transcript", "recordingUrl"}


def test_details_complete_the_params() -> None:
    rendered = complete(planned(), DETAILS)
    assert (rendered.error, rendered.left_out) == (None, ())
    assert rendered.values["summary"] == DETAILS["transcript"]
    assert rendered.values["name"] == "Call of Nora at the front desk"
    assert rendered.values["properties"] == {
        "recording": "https://heppu.example/r/1",
        "agent": "Nora at the front desk",
    }


def test_missing_details_leave_out_what_may_be_empty_and_use_defaults() -> None:
    rendered = complete(planned(), {})
    assert rendered.error is None
    assert rendered.values["summary"] is None
    assert rendered.values["properties"]["recording"] == "none"
    assert rendered.left_out == ("`summary`: the conversation has no such details",)


def test_missing_details_are_an_error_where_a_value_is_needed() -> None:
    rules = rules_of(LOG.replace("Call of {{ event.agentName }}", "{{ details.transcript }}"))
    [delivery] = route(event_of("call.completed"), rules, NOW).planned
    rendered = complete(delivery, {})
    assert rendered.error == "`name`: details.transcript is missing"


def test_details_that_do_not_fit_their_param_are_an_error() -> None:
    rendered = complete(planned(), {"transcript": {"not": "a text"}})
    assert rendered.error is not None
    assert "summary" in rendered.error


def test_rules_without_details_have_no_late_params() -> None:
    [delivery] = route(
        event_of(), rules_of("- {name: a, when: call.busy, do: [{use: crm.log_call}]}"), NOW
    ).planned
    assert delivery.late == {}


def errors(rule: str) -> list[tuple[str, str]]:
    text = "version: 1\nrules:\n- name: a\n  when: call.completed\n" + rule
    return [(item.text, item.hint) for item in diagnostics_of(text) if item.level == "error"]


@pytest.mark.parametrize(
    "rule",
    [
        "  where: {details.status: completed}\n  do: [{use: crm.log_call}]\n",
        "  if: details.duration > 60\n  do: [{use: crm.log_call}]\n",
        '  do: [{use: crm.log_call, idempotency_key: "{{ details.id }}"}]\n',
        "  do: [{use: crm.log_call, connection: {by: details.status, table: {a: crm}}}]\n",
        '  do: [{use: phone.send, with: {to: "{{ details.phoneNumber }}", body: Hi}}]\n',
    ],
    ids=["where", "if", "idempotency_key", "connection", "recipient"],
)
def test_details_where_the_bridge_decides_are_an_error(rule: str) -> None:
    [(text, hint)] = errors(rule)
    assert text.endswith("`details` is not available here")
    assert hint.startswith("they are known after a rule has fired")


def test_post_with_details_is_distinguished_by_its_template() -> None:
    step = "{use: team.post, with: {text: \"{{ details.%s | default('-') }}\"}}"
    steps = ", ".join(step % name for name in ("transcript", "transcript", "recordingUrl"))
    rules = rules_of(f"- {{name: a, when: call.completed, do: [{steps}]}}")
    first, same, other = (
        item.idempotency_key for item in route(event_of("call.completed"), rules, NOW).planned
    )
    assert first == same != other


def test_details_in_alerts_are_an_error() -> None:
    alerts = 'version: 1\nalerts: [{use: team.email, with: {to: a@b.example, text: "{{ details.id }}"}}]\nrules: []\n'
    assert "`details` is not available here" in [item.text for item in diagnostics_of(alerts)]


def test_details_and_delivery_in_one_param_are_an_error() -> None:
    rule = """\
  do: [{use: phone.send, with: {body: Hi}}]
  on_success:
    - use: crm.log_message
      with: {body: "{{ delivery.text }} {{ details.transcript }}"}
"""
    [(text, hint)] = errors(rule)
    assert text == "`body` cannot use both `delivery` and `details`"
    assert hint == "use them in two params: the details are known later"
    assert errors(rule.replace("{{ delivery.text }} ", "")) == []


@pytest.mark.parametrize(
    ("template", "level", "hint"),
    [
        ("{{ details.transcrpt }}", "error", "did you mean `details.transcript`?"),
        ("{{ details.sentiment | default('') }}", "warning", "if it is missing there, it is missing here"),
        ("{{ details }}", "error", "write `details.transcript`"),
        ("Said: {{ details.transcript }}", "warning", "add `| default('...')`"),
    ],
)
def test_unknown_and_unguarded_details_are_reported(template: str, level: str, hint: str) -> None:
    rule = f'- {{name: a, when: call.completed, do: [{{use: crm.log_call, with: {{name: "{template}"}}}}]}}'
    found = [(item.level, item.hint) for item in diagnostics_of("version: 1\nrules:\n" + rule)]
    assert (level, hint) in found


def test_key_of_heppu_is_needed_once_a_rule_uses_details() -> None:
    text = "version: 1\nrules:" + LOG.replace("\n", "\n  ")
    result = load_text(text, environ={})
    [problem] = [item for item in result.diagnostics if item.connection == "heppu"]
    assert "HEPPU_API_KEY" in problem.text
    assert result.connections["heppu"] == "heppu"
    assert load_text(text, environ={"HEPPU_API_KEY": "key"}).diagnostics == ()


@pytest.mark.parametrize(
    ("guess", "field"),
    [("rating", "chatMetadata.feedback.rating"), ("feedback.comment", "chatMetadata.feedback.comment")],
)
def test_guesses_of_feedback_fields_are_answered_with_the_field(guess: str, field: str) -> None:
    where = f"{{event.{guess}: {{exists: true}}}}"
    rule = f"- {{name: a, when: chat.resolved, where: {where}, do: [{{use: crm.log_call}}]}}"
    [problem] = diagnostics_of("version: 1\nrules:\n" + rule)
    assert problem.hint == f"did you mean `event.{field}`?"


def test_rating_is_compared_as_a_number() -> None:
    where = "{event.chatMetadata.feedback.rating: great}"
    rule = f"- {{name: a, when: chat.resolved, where: {where}, do: [{{use: crm.log_call}}]}}"
    [problem] = diagnostics_of("version: 1\nrules:\n" + rule)
    assert problem.text == "`event.chatMetadata.feedback.rating` is a number, but this value is a string"


@pytest.mark.parametrize(("rating", "logged"), [(4, 4), ("4", 4), (4.5, 4.5), ("great", None), (..., None)])
def test_chat_is_logged_with_any_rating(rating: Any, logged: float | None) -> None:
    rules = rules_of("- {name: a, when: chat.resolved, do: [{use: hubspot.log_chat}]}")
    event = event_of("chat.resolved", chatMetadata__feedback__rating=rating)
    [delivery] = route(event, rules, NOW).planned
    assert delivery.render_error is None
    assert delivery.params["rating"] == logged
    assert delivery.params["comment"] == "Quick and clear, thank you."
    assert bool(delivery.notes) == (rating == "great")


def test_message_with_details_has_its_recipient_before_they_are_known() -> None:
    rules = rules_of("""
- name: a
  when: call.completed
  do: [{use: phone.send, with: {body: "You said: {{ details.transcript | truncate(50) }}"}}]
""")
    event = event_of("call.completed", metadata__contactPhone="+1 (212) 555-0167")
    [delivery] = route(event, rules, NOW).planned
    assert (delivery.channel, delivery.recipient) == ("sms", "+12125550167")
    assert delivery.params == {"to": "+12125550167"}
    action = REGISTRY.action("phone.send")
    rendered = render_late(action, delivery.params, delivery.late, event, DETAILS, rules, NOW)
    assert rendered.values["body"] == "You said: Agent: Hello\nContact: Hi"


SHIPPED = [
    (action, name)
    for connector in ("hubspot", "salesforce", "pipedrive", "twilio", "email", "slack", "http", "heppu")
    for action in REGISTRY.connector(connector).actions.values()
    for name, info in params_of(action).items()
    if name != action.recipient and not is_team_only(info) and action.name != "set_opt_out"  # not for a call
]


def test_any_param_of_a_shipped_action_can_be_late() -> None:
    for action, late in SHIPPED:
        params = {
            name: example_of(info)
            for name, info in params_of(action).items()
            if is_required(info) or "delivery." in (template_of(info) or "")
        }
        params[late] = "{{ details.transcript }}"
        step = json.dumps({"use": action.full_name, "with": params})
        result = load_text(f"version: 1\nrules: [{{name: a, when: call.completed, do: [{step}]}}]")
        errors = [item.text for item in result.diagnostics if item.level == "error"]
        assert errors == [], (action.full_name, late)
        assert result.rules is not None, (action.full_name, late)
        event = event_of("call.completed", metadata__contactEmail="ines@okafor.example")
        [delivery] = route(event, result.rules, NOW).planned
        assert delivery.render_error is None, (action.full_name, late)
        assert delivery.late == {late: "{{ details.transcript }}"}, (action.full_name, late)
