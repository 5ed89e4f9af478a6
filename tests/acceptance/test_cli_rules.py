"""Commands for rules and accounts: check, explain, test, plan, connectors, Heppu's webhooks."""

from __future__ import annotations

import json
from pathlib import Path

from bridge.connector import ConnectorGroup
from bridge.sandbox import RunningSandbox
from tests.acceptance.commands import RULES, run_bridge, send_event
from tests.acceptance.service_process import (
    SECRET,
    ServiceProcess,
    clean_environment,
    run_command,
    run_process,
)  # fmt: skip


def test_check_online_logs_in_to_every_account(service: ServiceProcess) -> None:
    result = service.run("check", "--online", "--json")
    record = json.loads(result.stdout)
    assert (result.returncode, record["ok"]) == (0, True)
    assert {item["level"] for item in record["diagnostics"]} == {"warning"}  # no quiet hours
    assert {item["connection"] for item in record["connections"]} == {"hubspot", "twilio", "slack"}
    assert "rules.yaml is valid: 3 rules" in service.run("check").stdout


def test_check_prints_every_diagnostic_with_its_position(service: ServiceProcess) -> None:
    text = RULES.replace("call.busy", "call.bussy").replace("twilio.send_sms", "twilio.send")
    (service.folder / "bad.yaml").write_text(text)
    result = service.run("check", "bad.yaml")
    assert result.returncode == 1
    for value, hint in (("call.bussy", "call.busy"), ("twilio.send", "twilio.send_sms")):
        line = text[: text.index(value)].count("\n") + 1
        column = text.splitlines()[line - 1].index(value) + 1
        assert f"bad.yaml:{line}:{column}:" in result.stdout
        assert f"did you mean `{hint}`?" in result.stdout
    assert "2 problems and 1 warning in bad.yaml\n" in result.stdout
    assert result.stderr == ""


def test_check_online_reports_rejected_credentials(service: ServiceProcess) -> None:
    environ = service.environ | {"HUBSPOT_ACCESS_TOKEN": "pat-wrong"}
    result = run_command(service.folder, environ, "check", "--online")
    assert result.returncode == 1
    assert "✗ hubspot: the provider rejected the credentials" in result.stdout
    assert "pat-wrong" not in result.stdout


def test_check_deployed_reports_the_rules_of_the_service(service: ServiceProcess) -> None:
    result = service.run("check", "--deployed")
    assert (result.returncode, "the service runs this version" in result.stdout) == (0, True), result.stderr
    environ = service.environ | {"BRIDGE_ADMIN_TOKEN": "not-the-token-of-it"}
    wrong = run_command(service.folder, environ, "check", "--deployed")
    assert (wrong.returncode, "answered 401" in wrong.stderr) == (1, True)


def test_explain_prints_rules_deliveries_and_times(service: ServiceProcess) -> None:
    text = service.run("explain", "call.busy", "--set", "metadata.contactPhone=+12125550144").stdout
    for expected in ("✓ log", "✓ text", "for other event types: later", "body: Hi Ines", "now"):
        assert expected in text
    record = json.loads(service.run("explain", "call.busy", "--json").stdout)
    assert [item["action"] for item in record["deliveries"]] == ["hubspot.log_call", "twilio.send_sms"]
    stranger = ("--set", "metadata.contactPhone=+12125550199")
    at = ("--at", "2026-03-02T23:00:00-05:00", "--rules", str(shipped()))
    night = service.run("explain", "call.busy", *stranger, *at).stdout
    assert "messaging.quiet_hours" in night
    assert "at 2026-03-03" in night


def shipped() -> Path:
    return Path(__file__).parents[2] / "rules.yaml"


def test_explain_uses_the_database(service: ServiceProcess) -> None:
    event = send_event(service, "call.busy", "--set", "metadata.contactPhone=+12125550155")
    assert "would be suppressed: duplicate" in service.run("explain", event["id"]).stdout


def test_shipped_rules_pass_their_tests(tmp_path: Path) -> None:
    result = run_process(tmp_path, clean_environment(), "test", str(shipped()))
    assert result.returncode == 0, result.stdout
    count = shipped().read_text().count("\n    expect:")
    assert f"{count} passed" in result.stdout


def test_failing_rule_test_prints_position_and_exits_with_1(tmp_path: Path) -> None:
    text = RULES + "tests:\n  - {name: wrong, event: call.failed, expect: {text: [{use: twilio.send_sms}]}}\n"
    (tmp_path / "rules.yaml").write_text(text)
    result = run_bridge(tmp_path, "test")
    assert result.returncode == 1
    assert "✗ wrong" in result.stdout
    assert "rules.yaml:" in result.stdout
    assert "0 passed, 1 failed" in result.stdout


def test_plan_prints_differences_without_side_effects(
    service: ServiceProcess, providers: RunningSandbox
) -> None:
    send_event(service, "call.busy")
    texts = len(providers.twilio.messages)
    (service.folder / "new.yaml").write_text(
        RULES.replace("Hi {{", "Hello {{").replace("name: log", "name: note")
    )
    result = service.run("plan", "new.yaml")
    assert result.returncode == 0, result.stderr
    assert "the rules that ran last" in result.stdout
    assert "body: Hi Ines -> Hello Ines" in result.stdout
    record = json.loads(service.run("plan", "new.yaml", "--since", "1h", "--json").stdout)
    assert record["rules"]["text"]["changed"] >= 1
    assert len(providers.twilio.messages) == texts
    assert "No delivery would be different." in service.run("plan", "rules.yaml").stdout


def test_connectors_can_be_listed_shown_and_created(service: ServiceProcess, tmp_path: Path) -> None:
    groups = {item["name"]: item["group"] for item in service.items("connectors")}
    assert {
        "hubspot": "CRM",
        "twilio": "Messages to customers",
        "slack": "Messages to the team",
    }.items() <= groups.items()
    assert list(dict.fromkeys(groups.values())) == [group.value for group in ConnectorGroup]
    text = service.run("connectors", "show", "twilio.send_sms").stdout
    for expected in (
        "TWILIO_AUTH_TOKEN",
        "{{ contact.phone }}",
        "to  phone number",
        "quiet hours",
        "+14155550123",
    ):
        assert expected in text
    webhook = run_bridge(tmp_path, "connectors", "new", "ticket_desk")
    assert webhook.returncode == 0, webhook.stderr
    assert (tmp_path / "connectors" / "ticket_desk.py").exists()
    assert run_bridge(tmp_path, "connectors", "new", "ticket_desk").returncode == 1
    assert "ticket_desk" in run_bridge(tmp_path, "connectors").stdout


def test_connections_setup_asks_and_creates_missing_objects(service: ServiceProcess) -> None:
    assert service.run("connections", "setup").returncode == 1  # not confirmed
    result = service.run("connections", "setup", "--yes", "--json")
    assert result.returncode == 0
    assert [item["connection"] for item in json.loads(result.stdout)["items"]] == ["hubspot"]
    assert "run `bridge connections setup" not in service.run("check", "--online").stdout


def test_heppu_webhooks_can_be_created_listed_updated_and_deleted(
    service: ServiceProcess, providers: RunningSandbox
) -> None:
    webhook = service.run(
        "heppu", "webhooks", "create", "--url", "https://bridge.example.com/webhooks/heppu", "--json"
    )
    webhook_id = json.loads(webhook.stdout)["id"]
    assert providers.heppu.webhooks[0]["secret"] == SECRET
    assert [item["id"] for item in service.items("heppu", "webhooks", "list")] == [webhook_id]
    assert service.run("heppu", "webhooks", "update", webhook_id, "--event", "call.busy").returncode == 0
    assert providers.heppu.webhooks[0]["events"] == ["call.busy"]
    assert service.run("heppu", "webhooks", "delete", webhook_id, "--yes").returncode == 0
    assert service.run("heppu", "webhooks", "delete", webhook_id, "--yes").returncode == 1
    assert "use --url" in service.run("heppu", "webhooks", "create").stderr


def test_heppu_webhooks_create_without_secret_generates_one(
    tmp_path: Path, providers: RunningSandbox
) -> None:
    heppu = {name: value for name, value in providers.environment.items() if name.startswith("HEPPU")}
    result = run_bridge(
        tmp_path,
        "heppu",
        "webhooks",
        "create",
        "--url",
        "https://bridge.example.com/webhooks/heppu",
        **heppu,
    )
    assert result.returncode == 0, result.stderr
    secret = result.stderr.split("HEPPU_WEBHOOK_SECRET=")[1].split()[0]
    assert providers.heppu.webhooks[-1]["secret"] == secret


def test_set_refuses_fields_that_events_do_not_have(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    for change, advice in (
        ("metdata.contactPhone=+1", "did you mean `event.metadata.contactPhone`?"),
        ("metadata.contactFone=+1", "did you mean `event.metadata.contactPhone`?"),
        ("contact.phone=+1", "set metadata.contactPhone instead"),
    ):
        result = run_command(tmp_path, clean_environment(), "explain", "call.busy", "--set", change)
        assert (result.returncode, result.stdout) == (1, "")
        assert advice in result.stderr
