"""The command line beside a running service: what each command prints, refuses and exits with."""

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
from bridge.samples import sample, refresh_sample
from bridge.sandbox import RunningSandbox
from bridge.signing import sign
from tests.acceptance.commands import alone, deliveries_of, send
from tests.acceptance.service_process import (
    BRIDGE,
    SECRET,
    Running,
    eventually,
)  # fmt: skip

# ---------------------------------------------------------------- the whole


def test_help_imports_nothing_heavy() -> None:
    heavy = {
        "sqlalchemy", "pydantic", "starlette", "httpx", "hubspot", "twilio", "simple_salesforce", "jinja2",
        "rich.table",
    }  # fmt: skip
    code = f"import sys, bridge.cli; print([name for name in {sorted(heavy)!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert found.stdout.strip() == "[]", found.stderr


def test_every_command_of_the_design_has_a_help_text(tmp_path: Path) -> None:
    commands = (
        "serve", "worker", "sandbox", "demo", "check", "explain", "test", "plan", "schema", "send", "events",
        "deliveries", "show", "audit", "retry", "replay", "cancel", "resolve", "rejected", "pause", "resume",
        "connections", "connectors", "opt-outs", "erase", "prune", "heppu", "db",
    )  # fmt: skip
    text = alone(tmp_path, "--help", COLUMNS="200").stdout
    for command in commands:
        assert f" {command} " in text
    assert alone(tmp_path, "heppu", "webhooks", "--help").returncode == 0


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
    found = alone(tmp_path, *arguments)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["events"], "there is no database at bridge.db yet"),
        (["serve"], "HEPPU_WEBHOOK_SECRET is not set"),
        (["send", "call.busy"], "set HEPPU_WEBHOOK_SECRET"),
        (["send", "nothing.json"], "is no sample and no file"),
        (["check"], "rules.yaml cannot be read"),
        (["worker"], "needs PostgreSQL"),
        (["heppu", "webhooks", "list"], "set HEPPU_API_KEY"),
        (["connectors", "show", "frob"], "there are email, heppu"),
        (["opt-outs", "add", "555"], "neither a phone number"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(tmp_path: Path, arguments: list[str], advice: str) -> None:
    found = alone(tmp_path, *arguments)
    assert found.returncode == 1
    assert advice in found.stderr.replace("\n", " ")
    assert "Traceback" not in found.stderr
    assert found.stdout == ""


def test_an_opt_out_names_a_channel_that_reaches_the_address(tmp_path: Path) -> None:
    for address, channel in (("a@b.example", "sms"), ("a@b.example", "call"), ("+12125550122", "email")):
        found = alone(tmp_path, "opt-outs", "add", address, "--channel", channel)
        assert found.returncode == 2
        assert f"nobody is reached by {channel}" in found.stderr


def test_a_bad_setting_is_named_without_its_value(tmp_path: Path) -> None:
    found = alone(tmp_path, "events", BRIDGE_RETENTION="a while", BRIDGE_ADMIN_TOKEN="short")
    assert found.returncode == 1
    assert "BRIDGE_RETENTION" in found.stderr
    assert "BRIDGE_ADMIN_TOKEN" in found.stderr
    assert "short" not in found.stderr.replace("at least", "")


def test_a_broken_pipe_is_quiet(service: Running) -> None:
    send(service, "call.busy")
    command = f"'{BRIDGE}' events --json | head -c 1"
    found = subprocess.run(
        command,
        shell=True,
        cwd=service.folder,
        env=service.environ,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert found.stdout == "{"
    assert found.stderr == ""


# ---------------------------------------------------------------- send


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_documented_sample_is_taken(service: Running, name: str) -> None:
    found = service.run("send", name)
    assert found.returncode == 0
    assert found.stdout.startswith(f'{name} -> 200 {{"received": true}}')


def test_a_wrong_secret_is_told_and_exits_with_1(service: Running) -> None:
    found = service.run("send", "call.busy", "--secret", "guessed")
    assert found.returncode == 1
    assert "401" in found.stdout
    assert "must be the same here and there" in found.stdout


def test_nobody_there_is_told(tmp_path: Path) -> None:
    found = alone(
        tmp_path, "send", "call.busy", "--secret", "x", "--url", "http://127.0.0.1:9/webhooks/heppu"
    )
    assert found.returncode == 1
    assert "is `bridge serve` running there?" in found.stderr
    assert (
        "no address to send to"
        in alone(tmp_path, "send", "call.busy", "--secret", "x", "--url", "nowhere").stderr
    )


def test_a_file_is_sent_as_it_is_and_with_now_as_a_new_event(service: Running) -> None:
    body = refresh_sample(sample("call.busy"), datetime.now(UTC))
    (service.folder / "event.json").write_text(json.dumps(body))
    first = json.loads(service.run("send", "event.json", "--json").stdout)
    assert (first["conversation"], first["text"]) == (body["conversationId"], '{"received": true}')
    assert '"duplicate": true' in service.run("send", "event.json").stdout
    assert "duplicate" not in service.run("send", "event.json", "--now").stdout


def test_an_event_can_come_from_stdin_and_be_changed(service: Running) -> None:
    found = subprocess.run(
        [BRIDGE, "send", "-", "--now", "--json", "--set", "metadata.contactName=Ada Brennan", "--set", "duration=3"],
        cwd=service.folder, env=service.environ, input=json.dumps(sample("call.busy")), capture_output=True,
        text=True, timeout=30, check=True,
    )  # fmt: skip
    conversation = json.loads(found.stdout)["conversation"]
    stored = next(
        item for item in service.items("events", "-n", "100") if item["conversation"] == conversation
    )
    body = json.loads(service.run("show", stored["id"], "--json").stdout)["body"]
    assert (body["metadata"]["contactName"], body["duration"]) == ("Ada Brennan", 3)


def test_a_stored_event_is_sent_byte_for_byte(service: Running) -> None:
    event = send(service, "call.completed")
    assert '"duplicate": true' in service.run("send", event["id"]).stdout


# ---------------------------------------------------------------- looking


def test_lists_mask_addresses_for_people_and_keep_them_for_programs(service: Running) -> None:
    event = send(service, "call.busy", "--set", "metadata.contactPhone=+12125550111")
    assert event["phone"] == "+12125550111"
    for command in ("events", "deliveries"):
        text = service.run(command, "-n", "100").stdout
        assert "+121***11" in text
        assert "+12125550111" not in text
    assert "+12125550111" in service.run("show", event["id"]).stdout


def test_show_tells_the_whole_story(service: Running) -> None:
    event = send(service, "call.busy")
    text = service.run("show", event["id"]).stdout
    for words in ("✓ log", "✓ text", 'found "outbound"', "twilio.send_sms", '"contactName": "Ines Okafor"'):
        assert words in text
    delivery = deliveries_of(service, event)["twilio.send_sms"]
    text = service.run("show", delivery["id"]).stdout
    for words in ("created", "attempt 1 started", "attempt 1 finished: succeeded", '"body": "Hi Ines"', "Partner's ID"):
        assert words in text
    record = json.loads(service.run("show", delivery["id"], "--json").stdout)
    assert record["attempt_history"][0]["outcome"] == "succeeded"
    assert record["audit"] == []


def test_lists_are_paged_and_filtered(service: Running) -> None:
    for _ in range(2):
        send(service, "chat.completed")
    first = json.loads(service.run("events", "--type", "chat.completed", "-n", "1", "--json").stdout)
    assert first["next_cursor"] == first["items"][0]["id"]
    second = service.items("events", "--type", "chat.completed", "--cursor", first["next_cursor"])
    assert second[0]["id"] < first["next_cursor"]
    assert service.items("events", "--since", "0s") == []
    assert {item["rule"] for item in service.items("deliveries", "--rule", "text")} <= {"text"}
    assert "There is more: --cursor" in service.run("events", "-n", "1").stdout


# ---------------------------------------------------------------- acting


def test_a_waiting_delivery_is_cancelled_once(service: Running) -> None:
    event = send(service, "call.no-answer")
    waiting = deliveries_of(service, event)["slack.post"]
    assert waiting["state"] == "pending"
    assert service.run("cancel", waiting["id"]).returncode == 0
    again = service.run("cancel", waiting["id"], "--json")
    assert again.returncode == 1
    assert json.loads(again.stdout)["items"][0]["done"] is False
    assert service.items("audit")[0]["target"] == waiting["id"]


def test_a_replay_of_the_running_service_does_nothing_twice(
    service: Running, partners: RunningSandbox
) -> None:
    event = send(service, "call.busy")
    texts, calls = len(partners.twilio.messages), len(partners.hubspot.calls)
    found = service.run("replay", event["id"])
    assert found.returncode == 0
    assert "1 event routed with today's rules, 2 new deliveries" in found.stdout
    assert eventually(lambda: _reasons(service, event) >= {"duplicate"})
    time.sleep(1)
    assert (len(partners.twilio.messages), len(partners.hubspot.calls)) == (texts, calls)


def _reasons(running: Running, event: dict[str, Any]) -> set[str]:
    return {item["reason"] for item in running.asked(f"deliveries?event={event['id']}")}


def test_a_replay_of_a_span_of_time_asks_first(service: Running) -> None:
    found = service.run("replay", "--since", "1h")
    assert found.returncode == 1
    assert "Route" in found.stderr
    assert service.run("replay", "--since", "1h", "--rule", "nobody", "--yes").returncode == 1
    assert service.run("replay", "evt_none", "--yes").returncode == 1


def test_a_paused_connection_sends_nothing_until_it_is_resumed(
    service: Running, partners: RunningSandbox
) -> None:
    assert service.run("pause", "twilio", "--reason", "lunch").returncode == 0
    before = len(partners.twilio.messages)
    event = send(service, "call.busy")
    time.sleep(0.5)
    assert deliveries_of(service, event)["twilio.send_sms"]["state"] == "pending"
    assert service.run("resume", "twilio").returncode == 0
    assert eventually(lambda: len(partners.twilio.messages) == before + 1)
    assert service.run("pause", "twillio").returncode == 1


def test_who_opted_out_by_command_is_not_texted(service: Running, partners: RunningSandbox) -> None:
    assert service.run("opt-outs", "add", "+1 (212) 555-0122").returncode == 0
    event = send(service, "call.busy", "--set", "metadata.contactPhone=+12125550122")
    assert deliveries_of(service, event)["twilio.send_sms"]["reason"] == "opted_out"
    assert "+12125550122" not in [text.to for text in partners.twilio.messages]
    assert {item["channel"] for item in service.items("opt-outs") if item["address"] == "+12125550122"} == {
        "sms",
        "call",
    }
    assert service.run("opt-outs", "remove", "+12125550122", "--channel", "sms").returncode == 0
    left = [item["channel"] for item in service.items("opt-outs") if item["address"] == "+12125550122"]
    assert left == ["call"]


def test_an_erased_person_is_gone_and_the_proof_says_how_much(service: Running) -> None:
    event = send(service, "call.busy", "--set", "metadata.contactPhone=+12125550133")
    assert service.run("erase", "--phone", "+12125550133").returncode == 1  # nobody said yes
    found = service.run("erase", "--phone", "+12125550133", "--yes", "--json")
    proof = json.loads(found.stdout)["items"][0]
    assert (proof["events"], proof["deliveries"]) == (1, 2)
    shown = json.loads(service.run("show", event["id"], "--json").stdout)
    assert shown["body"] is None
    assert "+12125550133" not in json.dumps(shown)


def test_a_refused_request_can_be_taken_after_all(service: Running) -> None:
    raw = json.dumps(refresh_sample(sample("call.completed"), datetime.now(UTC))).encode()
    headers = {"X-Webhook-Signature-256": sign(raw, SECRET.encode()), "X-Webhook-Timestamp": "1700000000"}
    assert httpx.post(f"{service.url}/webhooks/heppu", content=raw, headers=headers).status_code == 401
    refused = eventually(lambda: [item for item in service.asked("rejected") if item["signature_valid"]])[0]
    assert "timestamp" in service.run("rejected").stdout
    found = service.run("rejected", "accept", refused["id"])
    assert (found.returncode, "accepted as evt_" in found.stdout) == (0, True)
    assert service.run("show", refused["id"]).returncode == 0


def test_pruning_and_upgrading_a_running_service_is_harmless(service: Running) -> None:
    assert json.loads(service.run("prune", "--yes", "--json").stdout)["events"] == 0
    assert "version" in service.run("db", "upgrade").stdout
