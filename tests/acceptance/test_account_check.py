"""`bridge check --online` and `bridge connections setup`: one line per account, with advice."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.sandbox import RunningSandbox
from bridge.sandbox.twilio.account import SERVICE_SID
from tests.acceptance.commands import run_bridge
from tests.acceptance.service_process import free_port

RULES = """
version: 1
rules:
  - name: everything
    when: call.completed
    do:
      - use: hubspot.log_call
      - use: salesforce.log_call
      - {use: twilio.send_sms, with: {body: Hi}}
      - {use: email.send, with: {subject: Hi, text: Hello}}
      - {use: slack.post, with: {text: Hi}}
      - {use: heppu.schedule_call}
"""
SERVICE = {"TWILIO_FROM": "", "TWILIO_MESSAGING_SERVICE_SID": SERVICE_SID}
CREDENTIALS_REJECTED = "the provider rejected the credentials"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(RULES, "utf-8")
    return tmp_path


def bridge(
    folder: Path, sandbox: RunningSandbox, *arguments: str, **variables: str
) -> tuple[int, dict[str, str]]:
    """Run a command. Return its exit code and the line for each connection."""
    result = run_bridge(folder, *arguments, **sandbox.environment | variables)
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith(("✓", "✗"))]
    return result.returncode, {line[2:].partition(":")[0]: line for line in lines}


def test_setup_then_check_online_passes_for_every_account(folder: Path, sandbox: RunningSandbox) -> None:
    code, before = bridge(folder, sandbox, "check", "--online")
    assert code == 0
    assert set(before) == {"hubspot", "salesforce", "twilio", "email", "slack", "heppu"}
    assert "run `bridge connections setup hubspot`" in before["hubspot"]

    code, setup_lines = bridge(folder, sandbox, "connections", "setup", "--yes")
    assert code == 0
    assert "calls.heppu_conversation_id created" in setup_lines["hubspot"]
    assert "Task.Conversation_Id__c exists" in setup_lines["salesforce"]

    sandbox.twilio.inbound_url = "https://bridge.example.com/webhooks/twilio/inbound"
    code, after = bridge(folder, sandbox, "check", "--online")
    assert (code, after) == (
        0,
        {
            "email": "✓ email: logged in, sender at harbourlight.example accepted",
            "heppu": "✓ heppu: authenticated",
            "hubspot": "✓ hubspot: key accepted; unique properties exist",
            "salesforce": after["salesforce"],  # counts the org's requests
            "slack": "✓ slack: webhook is active",
            "twilio": "✓ twilio: account active, API key accepted, sender found, WhatsApp sender online",
        },
    )
    assert after["salesforce"].endswith("Task.Conversation_Id__c exists")


def _no_unique_property(sandbox: RunningSandbox) -> None:
    properties = sandbox.hubspot.crm.types["calls"].properties
    properties["heppu_conversation_id"] = replace(
        properties["hs_call_title"], name="heppu_conversation_id", unique=False, custom=True
    )


def _field_hidden_from_writing(sandbox: RunningSandbox) -> None:
    fields = sandbox.salesforce.crm.types["Task"].fields
    fields["Conversation_Id__c"] = replace(fields["Conversation_Id__c"], createable=False)


@pytest.mark.parametrize(
    ("connection", "environ", "break_account", "expected"),
    [
        (
            "hubspot",
            {"HUBSPOT_ACCESS_TOKEN": "no-token"},
            None,
            (CREDENTIALS_REJECTED, "HUBSPOT_ACCESS_TOKEN"),
        ),
        (
            "hubspot",
            {},
            lambda at: setattr(at.hubspot, "missing_scopes", {"crm.objects.contacts.write"}),
            (
                "lacks the scope crm.objects.contacts.write (for log_call)",
                "Development > Keys > Service keys",
            ),
        ),
        ("hubspot", {}, _no_unique_property, ("heppu_conversation_id of calls is not unique", "archive it")),
        (
            "salesforce",
            {"SALESFORCE_CONSUMER_SECRET": "no-secret"},
            None,
            (CREDENTIALS_REJECTED, "SALESFORCE_CONSUMER_SECRET"),
        ),
        (
            "salesforce",
            {},
            _field_hidden_from_writing,
            ("may not write Task.Conversation_Id__c", "edit access"),
        ),
        ("twilio", {"TWILIO_AUTH_TOKEN": "no-token"}, None, (CREDENTIALS_REJECTED, "TWILIO_AUTH_TOKEN")),
        (
            "twilio",
            {"TWILIO_FROM": "+12125550199"},
            None,
            ("TWILIO_FROM is not a number of this account", "buy it"),
        ),
        ("twilio", SERVICE, lambda at: setattr(at.twilio, "pool", []), ("no sender", "add one")),
        (
            "twilio",
            SERVICE | {"TWILIO_MESSAGING_SERVICE_SID": "MG" + "0" * 32},
            None,
            ("TWILIO_MESSAGING_SERVICE_SID is not a messaging service", "set another one"),
        ),
        (
            "email",
            {"EMAIL_SMTP_URL": "smtp://127.0.0.1:9"},
            None,
            ("no connection to the SMTP server", "is EMAIL_SMTP_URL correct?"),
        ),
        ("email", {}, lambda at: at.fault("email", method="MAIL", status=550), ("550", "set EMAIL_FROM")),
        (
            "slack",
            {},
            lambda at: at.fault("slack", status=404, body="no_service"),
            ("create a new one", "SLACK_WEBHOOK_URL"),
        ),
        ("heppu", {"HEPPU_API_KEY": "no-key"}, None, (CREDENTIALS_REJECTED, "HEPPU_API_KEY")),
    ],
)
def test_check_online_reports_the_broken_account_with_its_fix(
    folder: Path,
    sandbox: RunningSandbox,
    connection: str,
    environ: dict[str, str],
    break_account: Callable[[RunningSandbox], object] | None,
    expected: tuple[str, ...],
) -> None:
    if break_account is not None:
        break_account(sandbox)
    code, lines = bridge(folder, sandbox, "check", "--online", **environ)
    assert code == 1
    assert [name for name, line in lines.items() if line.startswith("✗")] == [connection]
    for substring in expected:
        assert substring in lines[connection]
    for value in environ.values():
        assert not value.startswith("no-") or value not in lines[connection]


def test_check_online_reports_unreachable_provider_separately(folder: Path, sandbox: RunningSandbox) -> None:
    code, lines = bridge(folder, sandbox, "check", "--online", HUBSPOT_URL=f"http://127.0.0.1:{free_port()}")
    assert (code, lines["hubspot"].partition(":")[0], lines["slack"]) == (
        1, "✗ hubspot", "✓ slack: webhook is active",
    )  # fmt: skip
    assert "no connection" in lines["hubspot"]
    assert lines["hubspot"].endswith("; is HUBSPOT_URL correct?")


def test_setup_without_permission_names_missing_scope(folder: Path, sandbox: RunningSandbox) -> None:
    sandbox.hubspot.missing_scopes = {"crm.schemas.contacts.write"}
    code, lines = bridge(folder, sandbox, "connections", "setup", "hubspot", "--yes")
    assert code == 1
    assert "lacks the scope crm.schemas.contacts.write; add it" in lines["hubspot"]


def test_check_online_shows_what_the_account_will_refuse_with_its_line(
    folder: Path, sandbox: RunningSandbox
) -> None:
    rules = RULES.replace(
        "- use: hubspot.log_call",
        "- use: hubspot.log_call\n        with: {properties: {hs_call_titel: Support}}",
    )
    (folder / "rules.yaml").write_text(rules, "utf-8")
    result = run_bridge(folder, "check", "--online", **sandbox.environment)
    assert result.returncode == 1
    assert "✗ hubspot: key accepted; " in result.stdout
    assert "; 1 problem in the rules" in result.stdout
    assert (
        "rules.yaml:8:29: HubSpot's calls have no property `hs_call_titel`  (rule `everything`)\n"
        "  8 |         with: {properties: {hs_call_titel: Support}}\n"
        "    |                             ^\n"
        "  hint: did you mean `hs_call_title`?"
    ) in result.stdout
    report = json.loads(run_bridge(folder, "check", "--online", "--json", **sandbox.environment).stdout)
    assert [(item["line"], item["level"]) for item in report["diagnostics"]] == [(8, "error")]
    assert report["ok"] is False
