"""The command line with a running service: output, errors and exit codes of each command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.events import EVENT_TYPES
from bridge.samples import refresh_sample, sample
from bridge.sandbox import RunningSandbox
from bridge.signing import sign
from tests.acceptance.commands import deliveries_by_action, run_bridge, send_event
from tests.acceptance.service_process import (
    BRIDGE,
    SECRET,
    ServiceProcess,
    clean_environment,
    eventually,
    run_command,
    run_process,
)  # fmt: skip

# ---------------------------------------------------------------- all commands


def test_help_imports_no_heavy_modules() -> None:
    heavy = {
        "sqlalchemy", "pydantic", "starlette", "httpx", "hubspot", "twilio", "simple_salesforce", "jinja2",
        "rich.table", "bridge.events", "phonenumbers", "email_validator",
    }  # fmt: skip
    code = (
        "import sys, typer; from bridge.cli.program import app; dict(typer.main.get_command(app).commands); "
        f"print([name for name in {sorted(heavy)!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert result.stdout.strip() == "[]", result.stderr


def test_commands_that_list_events_import_neither_rules_nor_http_clients() -> None:
    unused = {"bridge.rules.model", "httpx", "requests"}
    code = f"import sys, bridge.store.queries; print(sorted({unused!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert result.stdout.strip() == "[]", result.stderr


def test_help_lists_every_command(tmp_path: Path) -> None:
    commands = (
        "serve", "worker", "sandbox", "demo", "check", "explain", "test", "plan", "schema", "send", "events",
        "deliveries", "show", "audit", "retry", "replay", "cancel", "resolve", "rejected", "pause", "resume",
        "connections", "contacts", "connectors", "opt-outs", "erase", "prune", "init", "heppu", "db",
        "sessions",
    )  # fmt: skip
    text = run_process(tmp_path, clean_environment(COLUMNS="200"), "--help").stdout
    for command in commands:
        assert f" {command} " in text
    assert run_bridge(tmp_path, "heppu", "webhooks", "--help").returncode == 0


@pytest.mark.parametrize(
    "arguments", [["check"], ["connectors", "show", "slack"], ["events", "--limit", "0"]]
)
def test_command_in_this_process_equals_separate_process(tmp_path: Path, arguments: list[str]) -> None:
    """Most tests run commands in their own process, which saves the start of an interpreter."""
    here = run_command(tmp_path, clean_environment(), *arguments)
    there = run_process(tmp_path, clean_environment(), *arguments)
    assert (here.returncode, here.stdout, here.stderr) == (there.returncode, there.stdout, there.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["send"],
        ["resolve", "dlv_x", "perhaps"],
        ["events", "--limit", "0"],
        ["replay"],
        ["erase"],
    ],
)
def test_wrong_usage_exits_with_2(tmp_path: Path, arguments: list[str]) -> None:
    result = run_bridge(tmp_path, *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["events"], "there is no database at bridge.db yet"),
        (["serve"], "HEPPU_WEBHOOK_SECRET is not set"),
        (["send", "call.busy"], "set HEPPU_WEBHOOK_SECRET"),
        (["send", "nothing.json"], "is not a sample, and not a readable file"),
        (["check"], "cannot read rules.yaml: No such file or directory; create one with `bridge init`"),
        (["worker"], "needs PostgreSQL"),
        (["heppu", "webhooks", "list"], "set HEPPU_API_KEY"),
        (["connectors", "show", "frob"], "choose from apprise, email, heppu"),
        (["opt-outs", "add", "555"], "neither a phone number"),
    ],
)
def test_missing_configuration_exits_with_1_and_advice(
    tmp_path: Path, arguments: list[str], advice: str
) -> None:
    result = run_bridge(tmp_path, *arguments)
    assert result.returncode == 1
    assert advice in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_opt_out_rejects_channel_that_does_not_apply_to_address(tmp_path: Path) -> None:
    for address, channel in (("a@b.example", "sms"), ("a@b.example", "call"), ("+12125550122", "email")):
        result = run_bridge(tmp_path, "opt-outs", "add", address, "--channel", channel)
        assert result.returncode == 2
        assert f"channel `{channel}` does not apply to" in result.stderr


def test_invalid_setting_is_named_without_its_value(tmp_path: Path) -> None:
    result = run_bridge(tmp_path, "events", BRIDGE_RETENTION="a while", BRIDGE_ADMIN_TOKEN="short")
    assert result.returncode == 1
    assert "BRIDGE_RETENTION" in result.stderr
    assert "BRIDGE_ADMIN_TOKEN" in result.stderr
    assert "short" not in result.stderr.replace("at least", "")


def test_broken_pipe_prints_no_error(service: ServiceProcess) -> None:
    send_event(service, "call.busy")
    command = f"'{BRIDGE}' events --json | head -c 1"
    result = subprocess.run(
        command,
        shell=True,
        cwd=service.folder,
        env=service.environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stdout == "{"
    assert result.stderr == ""


# ---------------------------------------------------------------- send


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_send_accepts_every_documented_sample(service: ServiceProcess, name: str) -> None:
    result = service.run("send", name)
    assert result.returncode == 0
    assert result.stdout.startswith(f'{name} -> 200 {{"received": true}}')


def test_send_with_wrong_secret_exits_with_1_and_advice(service: ServiceProcess) -> None:
    result = service.run("send", "call.busy", "--secret", "guessed")
    assert result.returncode == 1
    assert "401" in result.stdout
    assert "must be the same here and there" in result.stdout


def test_send_without_service_exits_with_1_and_advice(tmp_path: Path) -> None:
    result = run_bridge(
        tmp_path, "send", "call.busy", "--secret", "x", "--url", "http://127.0.0.1:9/webhooks/heppu"
    )
    assert result.returncode == 1
    assert "is `bridge serve` running there?" in result.stderr
    assert (
        "invalid URL `nowhere`"
        in run_bridge(tmp_path, "send", "call.busy", "--secret", "x", "--url", "nowhere").stderr
    )


def test_send_file_is_unchanged_unless_now_is_used(service: ServiceProcess) -> None:
    body = refresh_sample(sample("call.busy"), datetime.now(UTC))
    (service.folder / "event.json").write_text(json.dumps(body))
    first = json.loads(service.run("send", "event.json", "--json").stdout)
    assert (first["conversation"], first["text"]) == (body["conversationId"], '{"received": true}')
    assert '"duplicate": true' in service.run("send", "event.json").stdout
    assert "duplicate" not in service.run("send", "event.json", "--now").stdout


def test_send_reads_stdin_and_applies_changes(service: ServiceProcess) -> None:
    changes = ("--set", "metadata.contactName=Ada Brennan", "--set", "duration=3")
    stdin = json.dumps(sample("call.busy"))
    result = run_process(
        service.folder, service.environ, "send", "-", "--now", "--json", *changes, stdin=stdin
    )
    conversation_id = json.loads(result.stdout)["conversation"]
    stored = next(
        item for item in service.items("events", "-n", "100") if item["conversation_id"] == conversation_id
    )
    body = json.loads(service.run("show", stored["id"], "--json").stdout)["body"]
    assert (body["metadata"]["contactName"], body["duration"]) == ("Ada Brennan", 3)


def test_send_stored_event_is_byte_identical(service: ServiceProcess) -> None:
    event = send_event(service, "call.completed")
    assert '"duplicate": true' in service.run("send", event["id"]).stdout


# ---------------------------------------------------------------- inspect


def test_lists_mask_addresses_except_in_json(service: ServiceProcess) -> None:
    event = send_event(service, "call.busy", "--set", "metadata.contactPhone=+12125550111")
    assert event["phone"] == "+12125550111"
    for command in ("events", "deliveries"):
        text = service.run(command, "-n", "100").stdout
        assert "+121***11" in text
        assert "+12125550111" not in text
    assert "+12125550111" in service.run("show", event["id"]).stdout


def test_show_prints_rules_attempts_and_body(service: ServiceProcess) -> None:
    event = send_event(service, "call.busy")
    text = service.run("show", event["id"]).stdout
    for expected in (
        "✓ log",
        "✓ text",
        'actual: "outbound"',
        "twilio.send_sms",
        '"contactName": "Ines Okafor"',
    ):
        assert expected in text
    delivery = deliveries_by_action(service, event)["twilio.send_sms"]
    text = service.run("show", delivery["id"]).stdout
    for expected in (
        "created",
        "attempt 1 started",
        "attempt 1 finished: succeeded",
        '"body": "Hi Ines"',
        "External ID",
    ):
        assert expected in text
    record = json.loads(service.run("show", delivery["id"], "--json").stdout)
    assert record["attempt_history"][0]["outcome"] == "succeeded"
    assert record["audit"] == []


def test_lists_are_paged_and_filtered(service: ServiceProcess) -> None:
    for _ in range(2):
        send_event(service, "chat.completed")
    first = json.loads(service.run("events", "--type", "chat.completed", "-n", "1", "--json").stdout)
    assert first["next_cursor"] == first["items"][0]["id"]
    second = service.items("events", "--type", "chat.completed", "--cursor", first["next_cursor"])
    assert second[0]["id"] < first["next_cursor"]
    assert service.items("events", "--since", "0s") == []
    assert {item["rule"] for item in service.items("deliveries", "--rule", "text")} <= {"text"}
    assert "Next page: --cursor" in service.run("events", "-n", "1").stdout


# ---------------------------------------------------------------- operator actions


def test_cancel_pending_delivery_succeeds_once(service: ServiceProcess) -> None:
    event = send_event(service, "call.no-answer")
    waiting = deliveries_by_action(service, event)["slack.post"]
    assert waiting["state"] == "pending"
    assert service.run("cancel", waiting["id"]).returncode == 0
    again = service.run("cancel", waiting["id"], "--json")
    assert again.returncode == 1
    assert json.loads(again.stdout)["items"][0]["done"] is False
    assert service.items("audit")[0]["target"] == waiting["id"]


def test_replay_repeats_no_side_effect(service: ServiceProcess, providers: RunningSandbox) -> None:
    event = send_event(service, "call.busy")
    texts, calls = len(providers.twilio.messages), len(providers.hubspot.calls)
    result = service.run("replay", event["id"])
    assert result.returncode == 0
    assert "Routed 1 event with the current rules, created 2 deliveries" in result.stdout
    assert eventually(lambda: _reasons(service, event) >= {"duplicate"})
    time.sleep(1)
    assert (len(providers.twilio.messages), len(providers.hubspot.calls)) == (texts, calls)


def _reasons(running: ServiceProcess, event: dict[str, Any]) -> set[str]:
    return {item["reason"] for item in running.api_items(f"deliveries?event={event['id']}")}


def test_replay_of_time_range_asks_for_confirmation(service: ServiceProcess) -> None:
    send_event(service, "call.busy")
    result = service.run("replay", "--since", "1h")
    assert result.returncode == 1
    assert "Route" in result.stderr
    assert service.run("replay", "--since", "1h", "--rule", "nobody", "--yes").returncode == 1
    assert service.run("replay", "evt_none", "--yes").returncode == 1


@pytest.mark.parametrize("name", ["twilio", "--all"])
def test_paused_connection_sends_nothing_until_resumed(
    service: ServiceProcess, providers: RunningSandbox, name: str
) -> None:
    assert service.run("pause", name, "--reason", "lunch").returncode == 0
    before = len(providers.twilio.messages)
    event = send_event(service, "call.busy")
    time.sleep(0.5)
    assert deliveries_by_action(service, event)["twilio.send_sms"]["state"] == "pending"
    assert service.run("resume", name, "--yes").returncode == 0
    assert eventually(lambda: len(providers.twilio.messages) == before + 1)
    assert service.run("pause", "twillio").returncode == 1


def test_opted_out_number_gets_no_messages(service: ServiceProcess, providers: RunningSandbox) -> None:
    assert service.run("opt-outs", "add", "+1 (212) 555-0122").returncode == 0
    event = send_event(service, "call.busy", "--set", "metadata.contactPhone=+12125550122")
    assert deliveries_by_action(service, event)["twilio.send_sms"]["reason"] == "opted_out"
    assert "+12125550122" not in [text.to for text in providers.twilio.messages]
    assert {item["channel"] for item in service.items("opt-outs") if item["address"] == "+12125550122"} == {
        "sms",
        "whatsapp",
        "call",
    }
    assert service.run("opt-outs", "remove", "+12125550122", "--channel", "sms").returncode == 0
    remaining = [item["channel"] for item in service.items("opt-outs") if item["address"] == "+12125550122"]
    assert sorted(remaining) == ["call", "whatsapp"]


def test_contacts_export_prints_or_writes_what_is_stored(service: ServiceProcess, tmp_path: Path) -> None:
    event = send_event(service, "call.busy", "--set", "metadata.contactPhone=+12125550134")
    data = json.loads(service.run("contacts", "export", "+1 212 555 0134").stdout)
    assert [item["id"] for item in data["events"]] == [event["id"]]
    file = tmp_path / "contact.json"
    assert service.run("contacts", "export", event["id"], "--output", str(file)).returncode == 0
    assert (json.loads(file.read_text())["addresses"][0], file.stat().st_mode & 0o777) == (
        "+12125550134",
        0o600,
    )
    again = service.run("contacts", "export", event["id"], "--output", str(file))
    assert (again.returncode, "File exists" in again.stderr) == (1, True)
    assert service.run("contacts", "export", "0171 23456").returncode != 0


def test_erase_removes_personal_data_and_reports_counts(service: ServiceProcess) -> None:
    event = send_event(service, "call.busy", "--set", "metadata.contactPhone=+12125550133")
    assert service.run("erase", "--phone", "+12125550133").returncode == 1  # not confirmed
    result = service.run("erase", "--phone", "+12125550133", "--yes", "--json")
    proof = json.loads(result.stdout)["items"][0]
    assert (proof["events"], proof["deliveries"]) == (1, 2)
    shown = json.loads(service.run("show", event["id"], "--json").stdout)
    assert shown["body"] is None
    assert "+12125550133" not in json.dumps(shown)


def test_rejected_request_with_valid_signature_can_be_accepted(service: ServiceProcess) -> None:
    raw = json.dumps(refresh_sample(sample("call.completed"), datetime.now(UTC))).encode()
    headers = {"X-Webhook-Signature-256": sign(raw, SECRET.encode()), "X-Webhook-Timestamp": "1700000000"}
    assert httpx.post(f"{service.url}/webhooks/heppu", content=raw, headers=headers).status_code == 401
    rejected = eventually(
        lambda: [item for item in service.api_items("rejected-requests") if item["signature_valid"]]
    )[0]
    assert "timestamp" in service.run("rejected").stdout
    result = service.run("rejected", "accept", rejected["id"])
    assert (result.returncode, "accepted as evt_" in result.stdout) == (0, True)
    assert service.run("show", rejected["id"]).returncode == 0


def test_prune_and_upgrade_work_with_running_service(service: ServiceProcess) -> None:
    assert json.loads(service.run("prune", "--yes", "--json").stdout)["events"] == 0
    assert "version" in service.run("db", "upgrade").stdout
