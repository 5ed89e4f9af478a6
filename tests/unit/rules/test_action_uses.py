"""The steps of the rules as connectors check them against an account."""

from __future__ import annotations

from bridge.connector import FROM_EVENT, Place, RuleProblem
from bridge.rules.action_uses import action_uses, diagnostic
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
