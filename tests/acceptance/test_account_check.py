"""`bridge check --online` and `bridge connections setup`: one line for each account, and what mends it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.sandbox.twilio.account import SERVICE_SID
from tests.acceptance.service_process import BRIDGE, clean_environment, free_port

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
ADVICE_FOR_CREDENTIALS = "the partner does not accept the credentials"


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(RULES, "utf-8")
    return tmp_path


def bridge(folder: Path, sandbox: RunningSandbox, *arguments: str, **own: str) -> tuple[int, dict[str, str]]:
    """The exit code, and the line of each connection."""
    found = subprocess.run(
        [BRIDGE, *arguments],
        cwd=folder, env=clean_environment(**sandbox.environment | own), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "Traceback" not in found.stderr
    lines = [line for line in found.stdout.splitlines() if line.startswith(("✓", "✗"))]
    return found.returncode, {line[2:].partition(":")[0]: line for line in lines}


def test_setup_and_then_a_check_of_every_account(folder: Path, sandbox: RunningSandbox) -> None:
    code, before = bridge(folder, sandbox, "check", "--online")
    assert code == 0
    assert set(before) == {"hubspot", "salesforce", "twilio", "email", "slack", "heppu"}
    assert "run `bridge connections setup hubspot`" in before["hubspot"]

    code, made = bridge(folder, sandbox, "connections", "setup", "--yes")
    assert code == 0
    assert "calls.heppu_conversation_id is made" in made["hubspot"]
    assert "Task.Conversation_Id__c is there" in made["salesforce"]

    sandbox.twilio.inbound_url = "https://bridge.example.com/webhooks/twilio/inbound"
    code, after = bridge(folder, sandbox, "check", "--online")
    assert (code, after) == (
        0,
        {
            "email": "✓ email: logged in, mail from harbourlight.example is taken",
            "heppu": "✓ heppu: logged in",
            "hubspot": "✓ hubspot: the token is accepted; our properties are there",
            "salesforce": after["salesforce"],  # counts the org's requests
            "slack": "✓ slack: the webhook is there",
            "twilio": "✓ twilio: account active, sender found",
        },
    )
    assert after["salesforce"].endswith("Task.Conversation_Id__c is there")


def _no_unique_property(sandbox: RunningSandbox) -> None:
    known = sandbox.hubspot.crm.types["calls"].properties
    known["heppu_conversation_id"] = replace(
        known["hs_call_title"], name="heppu_conversation_id", unique=False, custom=True
    )


def _field_hidden_from_writing(sandbox: RunningSandbox) -> None:
    fields = sandbox.salesforce.crm.types["Task"].fields
    fields["Conversation_Id__c"] = replace(fields["Conversation_Id__c"], createable=False)


@pytest.mark.parametrize(
    ("connection", "own", "wrong", "words"),
    [
        (
            "hubspot",
            {"HUBSPOT_ACCESS_TOKEN": "no-token"},
            None,
            (ADVICE_FOR_CREDENTIALS, "HUBSPOT_ACCESS_TOKEN"),
        ),
        (
            "hubspot",
            {},
            lambda at: setattr(at.hubspot, "missing_scopes", {"crm.objects.contacts.write"}),
            ("lacks the scopes crm.objects.contacts.write", "add them"),
        ),
        ("hubspot", {}, _no_unique_property, ("heppu_conversation_id of calls is not unique", "archive it")),
        (
            "salesforce",
            {"SALESFORCE_CONSUMER_SECRET": "no-secret"},
            None,
            (ADVICE_FOR_CREDENTIALS, "SALESFORCE_CONSUMER_SECRET"),
        ),
        (
            "salesforce",
            {},
            _field_hidden_from_writing,
            ("may not write Task.Conversation_Id__c", "edit access"),
        ),
        ("twilio", {"TWILIO_AUTH_TOKEN": "no-token"}, None, (ADVICE_FOR_CREDENTIALS, "TWILIO_AUTH_TOKEN")),
        (
            "twilio",
            {"TWILIO_FROM": "+12125550199"},
            None,
            ("TWILIO_FROM is no number of this account", "buy it"),
        ),
        ("twilio", SERVICE, lambda at: setattr(at.twilio, "pool", []), ("no sender", "add one")),
        (
            "twilio",
            SERVICE | {"TWILIO_MESSAGING_SERVICE_SID": "MG" + "0" * 32},
            None,
            ("TWILIO_MESSAGING_SERVICE_SID is no messaging service", "set another"),
        ),
        (
            "email",
            {"EMAIL_SMTP_URL": "smtp://127.0.0.1:9"},
            None,
            ("no connection to the mail server", "is EMAIL_SMTP_URL right?"),
        ),
        ("email", {}, lambda at: at.fault("email", method="MAIL", status=550), ("550", "set EMAIL_FROM")),
        (
            "slack",
            {},
            lambda at: at.fault("slack", status=404, body="no_service"),
            ("make a new one", "SLACK_WEBHOOK_URL"),
        ),
        ("heppu", {"HEPPU_API_KEY": "no-key"}, None, (ADVICE_FOR_CREDENTIALS, "HEPPU_API_KEY")),
    ],
)
def test_a_check_says_of_one_account_what_is_wrong_and_what_mends_it(
    folder: Path,
    sandbox: RunningSandbox,
    connection: str,
    own: dict[str, str],
    wrong: Callable[[RunningSandbox], object] | None,
    words: tuple[str, ...],
) -> None:
    if wrong is not None:
        wrong(sandbox)
    code, lines = bridge(folder, sandbox, "check", "--online", **own)
    assert code == 1
    assert [name for name, line in lines.items() if line.startswith("✗")] == [connection]
    for part in words:
        assert part in lines[connection]
    for value in own.values():
        assert not value.startswith("no-") or value not in lines[connection]


def test_a_partner_that_is_not_reached_is_told_for_itself(folder: Path, sandbox: RunningSandbox) -> None:
    code, lines = bridge(folder, sandbox, "check", "--online", HUBSPOT_URL=f"http://127.0.0.1:{free_port()}")
    assert (code, lines["hubspot"].partition(":")[0], lines["slack"]) == (
        1, "✗ hubspot", "✓ slack: the webhook is there",
    )  # fmt: skip
    assert "no connection" in lines["hubspot"]
    assert lines["hubspot"].endswith("; is HUBSPOT_URL right?")


def test_a_setup_that_may_not_write_says_what_to_give_it(folder: Path, sandbox: RunningSandbox) -> None:
    sandbox.hubspot.missing_scopes = {"crm.schemas.contacts.write"}
    code, lines = bridge(folder, sandbox, "connections", "setup", "hubspot", "--yes")
    assert code == 1
    assert "lacks crm.schemas.contacts.write; add it" in lines["hubspot"]
