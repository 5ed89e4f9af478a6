"""The steps of the rules as connectors check them against an account."""

from __future__ import annotations

from bridge.connector import FROM_EVENT, Place, RuleProblem
from bridge.connector.discovery import Registry
from bridge.rules.action_uses import action_uses, diagnostic
from bridge.rules.load import load
from tests.unit.rules.helpers import load_text

RULES = """
version: 1
defaults:
  crm.log_call: {with: {properties: {plan: gold}}}
rules:
  - name: log
    when: call.completed
    do:
      - use: crm.log_call
      - use: crm.log_call
        connection: crm_eu
        with:
          name: "Call with {{ contact.name | default('nobody') }}"
          properties:
            plan: {value: silver, mode: fill}
            notes: "{{ event.summary }}"
  - name: off
    enabled: false
    when: call.completed
    do: [{use: crm.create_task, with: {subject: Call}}]
alerts:
  - use: crm.create_task
"""


def test_every_step_of_an_enabled_rule_is_listed_with_what_it_writes() -> None:
    rules = load_text(RULES).rules
    assert rules is not None
    uses = action_uses(rules)
    by_connection = {name: [(use.rule, use.action.name) for use in found] for name, found in uses.items()}
    assert by_connection == {
        "crm": [("log", "log_call"), (None, "create_task")],
        "crm_eu": [("log", "log_call")],
    }
    assert uses["crm"][0].params == {"properties": {"plan": "gold"}}
    assert uses["crm"][0].properties() == {"plan": "gold"}
    [written] = uses["crm_eu"]
    assert written.params["name"] is FROM_EVENT
    assert written.properties() == {"plan": "silver", "notes": FROM_EVENT}
    assert written.properties("new_contact") == {}


def test_problem_is_shown_at_the_nearest_value_that_the_file_has() -> None:
    rules = load_text(RULES).rules
    assert rules is not None
    [use] = action_uses(rules)["crm_eu"]
    assert use.place_of(("properties", "notes")) == Place(16, 13, "rules.yaml")
    assert use.place_of(("properties", "plan", "value", 0)) == Place(15, 20, "rules.yaml")
    assert use.place_of(("subject",)) == use.place_of(()) == Place(10, 9, "rules.yaml")
    shown = diagnostic(
        RuleProblem("no property `plan`", "did you mean `plans`?", use, ("properties", "plan")), use
    )
    assert (shown.line, shown.column, shown.rule, shown.level) == (15, 13, "log", "error")
    assert (shown.text, shown.hint) == ("no property `plan`", "did you mean `plans`?")


def test_number_for_a_param_of_texts_reaches_the_checks_as_a_text() -> None:
    text = """
    version: 1
    rules:
      - name: tickets
        when: call.completed
        do:
          - use: hubspot.create_ticket
            with: {pipeline: 0, stage: 1, owner: 70011, properties: {score: 5}}
          - use: hubspot.log_call
            with: {duration: 5}
    """
    rules = load(text, path="rules.yaml", registry=Registry([])).rules
    assert rules is not None
    ticket, call = action_uses(rules)["hubspot"]
    assert ticket.params == {"pipeline": "0", "stage": "1", "owner": "70011", "properties": {"score": 5}}
    assert call.params == {"duration": 5}


def test_number_for_an_id_is_a_problem_of_the_rule_and_no_crash() -> None:
    text = """
    version: 1
    rules:
      - name: log
        when: call.completed
        do: [{use: salesforce.log_call, with: {case: 500}}]
    """
    environ = {
        "SALESFORCE_URL": "https://acme.my.salesforce.com",
        "SALESFORCE_CONSUMER_KEY": "3MVG9" + "a" * 60,
        "SALESFORCE_CONSUMER_SECRET": "A" * 64,
    }
    result = load(text, path="rules.yaml", registry=Registry([]), environ=environ)
    assert "`case` needs the ID of a Salesforce case" in " ".join(item.text for item in result.diagnostics)
