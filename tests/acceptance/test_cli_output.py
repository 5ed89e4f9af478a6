"""What commands print to programs and to people, where no service runs."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer.main
from typer.testing import CliRunner

from bridge.cli import app
from bridge.connector.discovery import Registry
from bridge.sandbox import start_sandbox
from bridge.store.connections import register
from bridge.store.database import Database
from bridge.store.ingest import RejectedRequest, record_rejected_request
from bridge.telemetry import configure_logging, log
from bridge.worker.rules_reloader import RulesFile
from tests.acceptance.commands import NOTHING, RULES, alone
from tests.acceptance.service_process import BRIDGE, clean_environment, eventually, free_port

Result = Any
"""What typer's runner gives: exit_code, stdout, stderr."""
Bridge = Callable[..., Result]


@pytest.fixture
def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bridge:
    """Runs a command in a folder of its own; the keywords are its environment."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)

    def run(*arguments: str, **own: str) -> Result:
        return CliRunner().invoke(app, arguments, env=own)

    return run


@pytest.fixture
def stored(bridge: Bridge) -> Bridge:
    """`bridge` where there is a database, with one connection."""
    assert bridge("db", "upgrade").exit_code == 0
    database = Database("sqlite:///bridge.db", pool_size=1)
    register(database, {"twilio": "settings"})
    database.close()
    return bridge


def record_of(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


# ---------------------------------------------------------------- --json


def commands_of(command: Any, name: str = "") -> dict[str, Any]:
    if not hasattr(command, "commands"):
        return {name: command}
    parts = [commands_of(part, f"{name} {word}".strip()) for word, part in command.commands.items()]
    return {word: found for part in parts for word, found in part.items()}


def test_every_command_prints_json_that_prints_a_result() -> None:
    found = commands_of(typer.main.get_command(app))
    assert len(found) > 30
    without = {
        name
        for name, command in found.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == {"serve", "worker", "demo", "schema"}  # services, a show, and what is JSON anyway


def test_pause_and_resume_print_the_connection_as_the_api_does(stored: Bridge) -> None:
    paused = record_of(stored("pause", "twilio", "--reason", "a new number", "--json"))
    assert paused == {
        "name": "twilio",
        "paused": True,
        "pause_cause": "person",
        "paused_until": None,
        "pause_reason": "a new number",
        "recent_failures": 0,
        "recent_successes": 0,
    }
    resumed = record_of(stored("resume", "twilio", "--json"))
    assert (resumed["name"], resumed["paused"], resumed["pause_reason"]) == ("twilio", False, None)


def test_an_opt_out_prints_what_is_now_wished_of_each_channel(stored: Bridge) -> None:
    added = record_of(stored("opt-outs", "add", "+14155550123", "--json"))
    wish = {"address": "+14155550123", "opted_out": True, "source": "command line"}
    assert added == {"items": [{"channel": "sms", **wish}, {"channel": "call", **wish}], "next_cursor": None}
    removed = record_of(stored("opt-outs", "remove", "+14155550123", "--channel", "sms", "--json"))
    assert removed["items"] == [{"channel": "sms", **wish, "opted_out": False}]
    assert [item["channel"] for item in record_of(stored("opt-outs", "--json"))["items"]] == ["call"]


def test_a_new_connector_prints_its_files(bridge: Bridge, tmp_path: Path) -> None:
    made = record_of(bridge("connectors", "new", "ticket_desk", "--json"))
    assert made["name"] == "ticket_desk"
    assert made["connector"] == str(tmp_path / "connectors" / "ticket_desk.py")
    assert Path(made["connector"]).is_file()
    assert Path(made["test"]).is_file()


def test_an_upgrade_prints_the_version(bridge: Bridge) -> None:
    version = record_of(bridge("db", "upgrade", "--json"))["version"]
    assert f"the database is at version {version}" in bridge("db", "upgrade").stdout


def test_nothing_to_set_up_is_an_empty_list(bridge: Bridge) -> None:
    Path("rules.yaml").write_text(
        "version: 1\nrules: [{name: a, when: call.busy, do: [{use: slack.post, with: {text: hi}}]}]\n"
    )
    assert record_of(bridge("connections", "setup", "--json")) == {"items": [], "next_cursor": None}


# ---------------------------------------------------------------- variables that nothing reads


def test_check_names_misspelt_variables_and_does_not_fail(bridge: Bridge) -> None:
    Path("rules.yaml").write_text(NOTHING)
    Path(".env").write_text("BRIDGE_ONLYTO=+14155550123\n")
    found = bridge("check", BRIDGE_DEPLOYED_BY="somebody")
    assert found.exit_code == 0
    assert "not read: BRIDGE_ONLYTO; did you mean BRIDGE_RECIPIENT_ALLOWLIST?\n" in found.stdout
    assert "not read: BRIDGE_DEPLOYED_BY; docs/operations.md lists the variables\n" in found.stdout
    assert record_of(bridge("check", "--json"))["not_read"] == {
        "BRIDGE_ONLYTO": "did you mean BRIDGE_RECIPIENT_ALLOWLIST?"
    }


def test_check_names_misspelt_variables_of_connections_in_use(bridge: Bridge) -> None:
    text = (
        NOTHING.replace("enabled: false", "enabled: true")
        .replace("use: slack.post", "use: email.send")
        .replace("text: hi", "to: a@b.example, subject: hi, text: hi")
    )
    Path("rules.yaml").write_text(text)
    environ = {"EMAIL_SMTP_URL": "smtp://127.0.0.1:1", "EMAIL_FROM": "a@b.example"}
    found = bridge("check", EMAIL_REPLYTO="c@b.example", EMAIL_HOST="mail", **environ)
    assert "not read: EMAIL_REPLYTO; did you mean EMAIL_REPLY_TO?\n" in found.stdout
    assert "EMAIL_HOST" not in found.stdout


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_service_names_misspelt_variables_before_it_says_what_is_missing(
    tmp_path: Path, command: str
) -> None:
    found = alone(tmp_path, command, HEPPU_WEBHOOK_SECERT="hush-hush-hush-hush")
    assert found.returncode == 1
    warning, complaint = found.stderr.strip().splitlines()
    assert "[warning" in warning
    assert "variable=HEPPU_WEBHOOK_SECERT" in warning
    assert "did you mean HEPPU_WEBHOOK_SECRET?" in warning
    assert complaint.startswith("bridge: ")
    assert "hush" not in found.stderr


# ---------------------------------------------------------------- sandbox


def test_what_the_sandbox_prints_is_all_that_a_service_and_send_need(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    port = str(free_port())
    environ = clean_environment(BRIDGE_PORT=port)
    with ExitStack() as running:

        def start(*arguments: str, output: Path) -> None:
            process = subprocess.Popen(
                [BRIDGE, *arguments],
                cwd=tmp_path,
                env=environ,
                stdout=running.enter_context(output.open("wb")),
                stderr=subprocess.DEVNULL,
            )
            running.callback(process.wait, 40)
            running.callback(process.terminate)

        start("sandbox", "--port", "0", "--smtp-port", "0", output=tmp_path / ".env")
        assert eventually(lambda: "HEPPU_API_KEY=" in (tmp_path / ".env").read_text())
        start("serve", output=tmp_path / "log")
        assert eventually(lambda: alone(tmp_path, "send", "call.busy", BRIDGE_PORT=port).returncode == 0)

        def sent() -> set[str]:
            found = alone(tmp_path, "deliveries", "--state", "succeeded", "--json", BRIDGE_PORT=port)
            return {item["action"] for item in json.loads(found.stdout)["items"]}

        assert eventually(lambda: sent() == {"hubspot.log_call", "twilio.send_sms"}), sent()


# ---------------------------------------------------------------- a rules file with a mistake


BAD = NOTHING.replace("call.busy", "call.bussy")


def test_a_start_with_a_bad_file_says_that_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(BAD)
    found = alone(tmp_path, "serve", HEPPU_WEBHOOK_SECRET="x" * 20, BRIDGE_PORT=str(free_port()))
    assert found.returncode == 1
    assert found.stderr.startswith("rules.yaml:4:39: no event `call.bussy`")
    assert found.stderr.endswith("\n\n1 problem in rules.yaml; the service does not start\n")


@pytest.mark.parametrize("command", ["check", "explain call.busy", "test", "connections setup"])
def test_a_command_that_runs_nothing_says_nothing_of_running_rules(bridge: Bridge, command: str) -> None:
    Path("rules.yaml").write_text(BAD)
    found = bridge(*command.split())
    assert found.exit_code == 1
    assert "\n\n1 problem in rules.yaml\n" in (found.stdout or f"{found.exception}\n")


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers, root.level
    yield
    structlog.reset_defaults()
    root.handlers = before
    root.setLevel(level)


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("style", ["json", "console"])
def test_a_reload_that_failed_is_logged_with_its_problems_one_by_one(tmp_path: Path, style: str) -> None:
    path, out = tmp_path / "rules.yaml", StringIO()
    path.write_text(NOTHING)
    configure_logging(style, out)
    running = RulesFile(path, Registry(), {})
    path.write_text(BAD.replace("text: hi", 'txt: "+14155550123"').replace("enabled", "enbaled"))
    assert not running.reload()
    problems = [
        f"{path}:4:17: unknown key `enbaled`  (rule `off`); did you mean `enabled`?",
        f"{path}:4:39: no event `call.bussy`  (rule `off`); did you mean `call.busy`?",
    ]
    if style == "json":
        entry = json.loads(out.getvalue())
        assert (entry["event"], entry["problems"][:2]) == ("rules not reloaded", problems)
        assert "\n" not in "".join(entry["problems"])
        return
    first, *below = out.getvalue().splitlines()
    assert "rules not reloaded" in first
    assert "the running rules were not changed" in first
    assert below[:2] == [f"  {problem}" for problem in problems]


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("style", ["json", "console"])
def test_addresses_in_a_list_are_masked_in_the_log(style: str) -> None:
    out = StringIO()
    configure_logging(style, out)
    log.error("rules not reloaded", problems=["+14155550123 cannot be used", "nor can ada@mail.example"])
    assert "+141***23 cannot be used" in out.getvalue()
    assert "nor can a***@mail.example" in out.getvalue()


# ---------------------------------------------------------------- one of a thing


def test_what_is_removed_is_counted_in_words(stored: Bridge) -> None:
    Path("rules.yaml").write_text(NOTHING)
    database = Database("sqlite:///bridge.db", pool_size=1)
    with database.write() as connection:
        record_rejected_request(
            connection, RejectedRequest("signature", "wrong", 401, False, datetime(2026, 1, 1, tzinfo=UTC))
        )
    database.close()
    assert stored("prune", "--yes").stdout == (
        "0 events and 0 deliveries emptied; 1 refused request and 0 remembered ids removed\n"
    )


def test_heppu_sends_one_event_or_several(bridge: Bridge) -> None:
    with start_sandbox() as sandbox:
        environ = sandbox.environment | {"HEPPU_WEBHOOK_SECRET": "x" * 20}
        create = ("heppu", "webhooks", "create", "--url", "https://bridge.example.com/webhooks/heppu")
        assert "Heppu sends 7 events to https://" in bridge(*create, **environ).stdout
        one = bridge(*create, "--event", "call.busy", **environ)
        assert "Heppu sends 1 event to https://" in one.stdout
        made = one.stdout.partition(":")[0]
        deleted = bridge("heppu", "webhooks", "delete", made, "--yes", "--json", **environ)
        assert record_of(deleted) == {"id": made, "deleted": True}


# ---------------------------------------------------------------- what is not set


def test_check_shows_mistakes_first_and_then_all_that_is_not_set(bridge: Bridge) -> None:
    Path("rules.yaml").write_text(RULES.replace("{{ contact.first_name }}", "{{ contact.first_nam }}"))
    found = bridge("check", HUBSPOT_ACCESS_TOKN="hush-hush")
    assert found.exit_code == 1
    places = [
        found.stdout.index(words)
        for words in (
            "rules.yaml:16:29: `contact` has no field `first_nam`",
            "connection `slack`: SLACK_WEBHOOK_URL is not set  (line 5)\n",
            "connection `hubspot`: HUBSPOT_ACCESS_TOKEN is not set  (line 10)\n",
            "connection `twilio`: TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN are not set  (line 15)\n",
            "hint: set these in the environment or in .env",
            "1 problem and 1 warning in rules.yaml; 3 connections are not set up\n",
            "not read: HUBSPOT_ACCESS_TOKN; did you mean HUBSPOT_ACCESS_TOKEN?\n",
            "not set: HEPPU_WEBHOOK_SECRET, without which `bridge serve` does not start\n",
        )
    ]
    assert places == sorted(places)
    problems = json.loads(bridge("check", "--json").stdout)["problems"]
    assert {problem["connection"] for problem in problems} == {None, "slack", "hubspot", "twilio"}


def test_a_service_does_not_start_with_a_connection_that_is_not_set_up(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(NOTHING.replace("enabled: false", "enabled: true"))
    found = alone(tmp_path, "serve", HEPPU_WEBHOOK_SECRET="x" * 20, BRIDGE_PORT=str(free_port()))
    assert found.returncode == 1
    assert found.stderr.startswith("connection `slack`: SLACK_WEBHOOK_URL is not set  (line 4)\n")
    assert found.stderr.endswith("\n\n1 connection is not set up; the service does not start\n")


# ---------------------------------------------------------------- schema


def test_a_schema_is_printed_for_rules_and_for_tests(bridge: Bridge) -> None:
    assert record_of(bridge("schema"))["required"] == ["version", "rules"]
    found = bridge("schema", "--tests")
    assert record_of(found)["required"] == ["tests"]
    assert "# yaml-language-server: $schema=./tests.schema.json" in found.stderr
