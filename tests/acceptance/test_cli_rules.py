"""Rules and accounts on the command line: check, explain, test, plan, connectors, Heppu's webhooks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from bridge.sandbox import RunningSandbox
from tests.acceptance.commands import RULES, alone, send
from tests.acceptance.service_process import (
    BRIDGE,
    SECRET,
    Running,
)  # fmt: skip


def test_check_says_what_is_right_and_logs_in_when_asked(service: Running) -> None:
    found = service.run("check", "--online", "--json")
    record = json.loads(found.stdout)
    assert (found.returncode, record["ok"]) == (0, True)
    assert {problem["level"] for problem in record["problems"]} == {"warning"}  # no quiet hours
    assert {verdict["connection"] for verdict in record["connections"]} == {"hubspot", "twilio", "slack"}
    assert "rules.yaml can run: 3 rules" in service.run("check").stdout


def test_check_shows_every_mistake_with_its_place(service: Running) -> None:
    text = RULES.replace("call.busy", "call.bussy").replace("twilio.send_sms", "twilio.send")
    (service.folder / "bad.yaml").write_text(text)
    found = service.run("check", "bad.yaml")
    assert found.returncode == 1
    for mistake, hint in (("call.bussy", "call.busy"), ("twilio.send", "twilio.send_sms")):
        line = text[: text.index(mistake)].count("\n") + 1
        column = text.splitlines()[line - 1].index(mistake) + 1
        assert f"bad.yaml:{line}:{column}:" in found.stdout
        assert f"did you mean `{hint}`?" in found.stdout
    assert "2 problems and 1 warning in bad.yaml\n" in found.stdout
    assert found.stderr == ""


def test_a_wrong_credential_is_told_by_check_online(service: Running) -> None:
    environ = service.environ | {"HUBSPOT_ACCESS_TOKEN": "pat-wrong"}
    found = subprocess.run(
        [BRIDGE, "check", "--online"],
        cwd=service.folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 1
    assert "✗ hubspot: the partner does not accept the credentials" in found.stdout
    assert "pat-wrong" not in found.stdout


def test_check_running_tells_what_the_service_runs(service: Running) -> None:
    found = service.run("check", "--deployed")
    assert (found.returncode, "the service runs" in found.stdout) == (0, True), found.stderr
    environ = service.environ | {"BRIDGE_ADMIN_TOKEN": "not-the-token-of-it"}
    wrong = subprocess.run(
        [BRIDGE, "check", "--deployed"],
        cwd=service.folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (wrong.returncode, "answered 401" in wrong.stderr) == (1, True)


def test_explain_tells_why_and_what_and_when(service: Running) -> None:
    text = service.run("explain", "call.busy", "--set", "metadata.contactPhone=+12125550144").stdout
    for words in ("✓ log", "✓ text", "for other events, or switched off: later", "body: Hi Ines", "now"):
        assert words in text
    record = json.loads(service.run("explain", "call.busy", "--json").stdout)
    assert [item["action"] for item in record["deliveries"]] == ["hubspot.log_call", "twilio.send_sms"]
    stranger = ("--set", "metadata.contactPhone=+12125550199")
    at = ("--at", "2026-03-02T23:00:00-05:00", "--rules", str(shipped()))
    night = service.run("explain", "call.busy", *stranger, *at).stdout
    assert "messaging.quiet_hours" in night
    assert "at 2026-03-03" in night


def shipped() -> Path:
    return Path(__file__).parents[2] / "rules.yaml"


def test_explain_knows_what_the_database_knows(service: Running) -> None:
    event = send(service, "call.busy", "--set", "metadata.contactPhone=+12125550155")
    assert "would be suppressed: already_done" in service.run("explain", event["id"]).stdout


def test_the_shipped_rules_pass_their_own_tests(tmp_path: Path) -> None:
    found = alone(tmp_path, "test", str(shipped()))
    assert found.returncode == 0, found.stdout
    assert "15 passed" in found.stdout


def test_a_test_that_fails_shows_where_and_why_and_exits_with_1(tmp_path: Path) -> None:
    text = RULES + "tests:\n  - {name: wrong, event: call.failed, expect: {text: [{use: twilio.send_sms}]}}\n"
    (tmp_path / "rules.yaml").write_text(text)
    found = alone(tmp_path, "test")
    assert found.returncode == 1
    assert "✗ wrong" in found.stdout
    assert "rules.yaml:" in found.stdout
    assert "0 passed, 1 failed" in found.stdout


def test_a_plan_shows_what_a_change_would_have_done(service: Running, partners: RunningSandbox) -> None:
    send(service, "call.busy")
    texts = len(partners.twilio.messages)
    (service.folder / "new.yaml").write_text(
        RULES.replace("Hi {{", "Hello {{").replace("name: log", "name: note")
    )
    found = service.run("plan", "new.yaml")
    assert found.returncode == 0, found.stderr
    assert "the rules that ran last" in found.stdout
    assert "body: Hi Ines -> Hello Ines" in found.stdout
    record = json.loads(service.run("plan", "new.yaml", "--since", "1h", "--json").stdout)
    assert record["rules"]["text"]["changed"] >= 1
    assert len(partners.twilio.messages) == texts
    assert "No delivery would be different." in service.run("plan", "rules.yaml").stdout


def test_connectors_are_listed_shown_and_written(service: Running, tmp_path: Path) -> None:
    assert {item["name"] for item in service.items("connectors")} >= {"hubspot", "twilio", "slack"}
    text = service.run("connectors", "show", "twilio.send_sms").stdout
    for words in ("TWILIO_AUTH_TOKEN", "{{ contact.phone }}", "quiet hours", "+14155550123"):
        assert words in text
    made = alone(tmp_path, "connectors", "new", "ticket_desk")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "connectors" / "ticket_desk.py").exists()
    assert alone(tmp_path, "connectors", "new", "ticket_desk").returncode == 1
    assert "ticket_desk" in alone(tmp_path, "connectors").stdout


def test_setup_makes_what_the_accounts_need_and_asks_first(service: Running) -> None:
    assert service.run("connections", "setup").returncode == 1  # nobody said yes
    found = service.run("connections", "setup", "--yes", "--json")
    assert found.returncode == 0
    assert [item["connection"] for item in json.loads(found.stdout)["items"]] == ["hubspot"]
    assert "run `bridge connections setup" not in service.run("check", "--online").stdout


def test_webhooks_at_heppu_are_made_listed_changed_and_deleted(
    service: Running, partners: RunningSandbox
) -> None:
    made = service.run(
        "heppu", "webhooks", "create", "--url", "https://bridge.example.com/webhooks/heppu", "--json"
    )
    ident = json.loads(made.stdout)["id"]
    assert partners.heppu.webhooks[0]["secret"] == SECRET
    assert [item["id"] for item in service.items("heppu", "webhooks", "list")] == [ident]
    assert service.run("heppu", "webhooks", "update", ident, "--event", "call.busy").returncode == 0
    assert partners.heppu.webhooks[0]["events"] == ["call.busy"]
    assert service.run("heppu", "webhooks", "delete", ident, "--yes").returncode == 0
    assert service.run("heppu", "webhooks", "delete", ident, "--yes").returncode == 1
    assert "say --url" in service.run("heppu", "webhooks", "create").stderr


def test_without_a_secret_one_is_made_and_told_before_heppu_is_asked(
    tmp_path: Path, partners: RunningSandbox
) -> None:
    heppu = {name: value for name, value in partners.environment.items() if name.startswith("HEPPU")}
    found = alone(
        tmp_path,
        "heppu",
        "webhooks",
        "create",
        "--url",
        "https://bridge.example.com/webhooks/heppu",
        **heppu,
    )
    assert found.returncode == 0, found.stderr
    secret = found.stderr.split("HEPPU_WEBHOOK_SECRET=")[1].split()[0]
    assert partners.heppu.webhooks[-1]["secret"] == secret
