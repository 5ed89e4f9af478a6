"""`messaging.crm_opt_outs`: the connections whose CRM is asked before a message."""

from __future__ import annotations

import pytest

from tests.unit.rules.helpers import diagnostics_of, load_text, rules_of

RULES = "rules: [{name: a, when: call.busy, do: [{use: crm.log_call, connection: crm_eu}]}]"


def messaging(names: str) -> str:
    return f"""
        version: 1
        messaging: {{crm_opt_outs: {names}}}
        {RULES}
    """


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("[crm]", {"crm": "crm"}),
        ("crm", {"crm": "crm"}),
        ("[crm, crm_eu]", {"crm": "crm", "crm_eu": "crm"}),
    ],
)
def test_crm_opt_outs_map_connections_to_connectors(names: str, expected: dict[str, str]) -> None:
    assert rules_of(messaging(names)).messaging.crm_opt_outs == expected


def test_no_crm_is_asked_by_default() -> None:
    rules = rules_of("- {name: a, when: call.busy, do: [{use: crm.log_call}]}")
    assert rules.messaging.crm_opt_outs == {}


@pytest.mark.parametrize(
    ("names", "text", "hint"),
    [
        ("[crn]", "no connection `crn`", "one of: `crm`, `crm_eu`, `hubspot`, `pipedrive`, `salesforce`"),
        ("[crm_us]", "no connection `crm_us`", "did you mean `crm_eu`?"),
        ("[team]", "the connector `team` has no opt-out flags", "one of: `crm`, `crm_eu`, `hubspot`"),
        ("[shattered]", "the connector `shattered` cannot be loaded", ""),
        ("[]", "`crm_opt_outs` is empty", ""),
        ("[5]", "`crm_opt_outs` must be a string, not a number", ""),
        ("{crm: true}", "`crm_opt_outs` must be a string, not a mapping", ""),
    ],
)
def test_connection_that_cannot_be_asked_is_reported(names: str, text: str, hint: str) -> None:
    [diagnostic] = diagnostics_of(messaging(names))
    assert text in diagnostic.text
    assert hint in diagnostic.hint


def test_missing_settings_of_the_crm_are_reported() -> None:
    text = """
        version: 1
        messaging: {crm_opt_outs: [needy]}
        rules: []
    """
    loaded = load_text(text, environ={})
    assert "needy" in loaded.diagnostics[0].text
