"""Output of commands without a service: JSON, tables, errors and logs."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer.main
from typer.testing import CliRunner

from bridge.cli.program import app
from bridge.connector.discovery import Registry
from bridge.samples import refresh_sample, sample
from bridge.sandbox import start_sandbox
from bridge.signing import read_event
from bridge.store.connections import register_accounts
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, RejectedRequest, record_rejected_request, store_events
from bridge.store.possible_duplicates import save_possible_duplicate
from bridge.store.sessions import Session, create_session
from bridge.telemetry import configure_logging, log
from bridge.worker.rules_reloader import RulesFile
from tests.acceptance.commands import DISABLED_RULE, RULES, run_bridge
from tests.acceptance.service_process import bridge_process, clean_environment, eventually, free_port
from tests.sqlite import create_sqlite

Result = Any
"""The result of typer's runner: exit_code, stdout, stderr."""
Bridge = Callable[..., Result]


@pytest.fixture
def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bridge:
    """Return a function that runs a command in a temporary folder; the keyword arguments are its environment."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)

    def run(*arguments: str, **variables: str) -> Result:
        return CliRunner().invoke(app, arguments, env=variables)

    return run


@pytest.fixture
def stored(bridge: Bridge) -> Bridge:
    """`bridge` in a folder with a database that has one connection."""
    create_sqlite(Path("bridge.db"))
    database = Database("sqlite:///bridge.db", pool_size=1)
    register_accounts(database, {"twilio": "settings"})
    database.close()
    return bridge


def store_event(**changes: Any) -> str:
    """Store a `call.busy` sample with these changes in the database in the current folder; return its ID."""
    now = datetime.now(UTC)
    body = json.dumps(refresh_sample(sample("call.busy"), now) | changes).encode()
    event = read_event(body, now)
    database = Database("sqlite:///bridge.db", pool_size=1)
    assert store_events(database, [IncomingEvent(event, body)]) == ["stored"]
    database.close()
    return event.id


UNREADABLE_PHONE = (
    "metadata.contactPhone has no country code; send + and the country code, or set BRIDGE_DEFAULT_COUNTRY"
)


def test_show_and_events_name_fields_that_could_not_be_read(stored: Bridge) -> None:
    store_event()
    event_id = store_event(metadata={"contactPhone": "040 123 4567"})
    assert f"Could not be read\n{UNREADABLE_PHONE}\n" in stored("show", event_id, COLUMNS="200").stdout
    assert parse_json(stored("show", event_id, "--json"))["unreadable_fields"] == [
        {
            "field": "phone",
            "path": "metadata.contactPhone",
            "problem": "has no country code",
            "hint": "send + and the country code, or set BRIDGE_DEFAULT_COUNTRY",
            "withheld": False,
        }
    ]
    assert "unreadable: phone" in stored("events", COLUMNS="200").stdout
    assert [item["id"] for item in parse_json(stored("events", "--unreadable", "--json"))["items"]] == [
        event_id
    ]


def test_explain_reads_national_numbers_with_the_default_country(bridge: Bridge) -> None:
    Path("rules.yaml").write_text("version: 1\nrules: []\n")
    change = ("--set", "metadata.contactPhone=07911 123456")
    assert "+447911123456" in bridge("explain", "call.busy", *change, BRIDGE_DEFAULT_COUNTRY="GB").stdout
    wrong = bridge("explain", "call.busy", BRIDGE_DEFAULT_COUNTRY="UK")
    assert "BRIDGE_DEFAULT_COUNTRY: write the ISO 3166 code" in str(wrong.exception)


def test_control_characters_of_an_event_do_not_reach_the_terminal(bridge: Bridge, tmp_path: Path) -> None:
    controls = "\x1b]0;title\x07 \x1b[31m \x9b31m \u202e \r"
    Path("rules.yaml").write_text(RULES, "utf-8")
    event = tmp_path / "event.json"
    event.write_text(
        json.dumps(sample("call.completed") | {"summary": f"x{controls}", "agentName": controls}), "utf-8"
    )
    text, record = (
        bridge("explain", str(event), *options, COLUMNS="300").stdout for options in ([], ["--json"])
    )
    for output in (text, record):
        assert "]0;title" in output
        assert not {char for char in output if unicodedata.category(char) in ("Cc", "Cf")} - {"\n"}
    assert json.loads(record)["deliveries"][0]["params"]["summary"] == f"x{controls}".strip()


def test_explain_names_fields_that_could_not_be_read(bridge: Bridge) -> None:
    Path("rules.yaml").write_text(
        "version: 1\n"
        "rules:\n"
        "  - {name: log, when: call.busy, do: [{use: hubspot.log_call}]}\n"
        "  - {name: text, when: call.busy, do: [{use: twilio.send_sms, with: {body: hi}}]}\n"
    )
    result = bridge("explain", "call.busy", "--set", "metadata.contactPhone=040 123 4567", COLUMNS="300")
    assert f"Could not be read\n{UNREADABLE_PHONE}\n" in result.stdout
    assert f"left out: {UNREADABLE_PHONE}" in result.stdout
    assert f"`to`: contact.phone cannot be read: {UNREADABLE_PHONE}" in result.stdout


def parse_json(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


# ---------------------------------------------------------------- --json


def commands_of(command: Any, name: str = "") -> dict[str, Any]:
    if not hasattr(command, "commands"):
        return {name: command}
    parts = [commands_of(part, f"{name} {word}".strip()) for word, part in command.commands.items()]
    return {word: result for part in parts for word, result in part.items()}


def test_every_command_with_a_result_has_json_option() -> None:
    result = commands_of(typer.main.get_command(app))
    assert len(result) > 30
    without = {
        name
        for name, command in result.items()
        if not any("--json" in parameter.opts for parameter in command.params)
    }
    assert without == {
        "serve",
        "worker",
        "demo",
        "schema",
        "contacts export",
    }  # services, the demo, and commands that always print JSON


def test_pause_and_resume_json_equals_api_record(stored: Bridge) -> None:
    paused = parse_json(stored("pause", "twilio", "--reason", "a new number", "--json"))
    assert paused["items"] == [{
        "name": "twilio",
        "paused": True,
        "pause_cause": "operator",
        "paused_until": None,
        "pause_reason": "a new number",
        "paused_with_all": False,
        "recent_failures": 0,
        "recent_successes": 0,
    }]  # fmt: skip
    [resumed] = parse_json(stored("resume", "twilio", "--json"))["items"]
    assert (resumed["name"], resumed["paused"], resumed["pause_reason"]) == ("twilio", False, None)


def test_opt_out_json_lists_each_changed_channel(stored: Bridge) -> None:
    added = parse_json(
        stored("opt-outs", "add", "+14155550123", "--reason", "our DNC list 2026-11", "--json")
    )
    change = added["items"][0]
    assert [item["channel"] for item in added["items"]] == ["sms", "whatsapp", "call"]
    assert (change["address"], change["opted_out"], change["changed"]) == ("+14155550123", True, True)
    assert (change["source"], change["reason"]) == ("command line", "our DNC list 2026-11")
    again = parse_json(stored("opt-outs", "add", "+14155550123", "--json"))
    assert [item["changed"] for item in again["items"]] == [False] * 3
    removed = parse_json(stored("opt-outs", "remove", "+14155550123", "--channel", "sms", "--json"))
    assert [(item["channel"], item["opted_out"], item["changed"]) for item in removed["items"]] == [
        ("sms", False, True)
    ]
    entries = parse_json(stored("opt-outs", "--json"))["items"]
    assert sorted(item["channel"] for item in entries) == ["call", "whatsapp"]
    shown = parse_json(stored("opt-outs", "show", "+1 (415) 555-0123", "--json"))["items"]
    assert {item["reason"] for item in shown} == {"our DNC list 2026-11"}


def test_impossible_number_is_refused_and_can_be_removed(stored: Bridge) -> None:
    result = stored("opt-outs", "add", "+14155550123", "+1415555")
    assert result.exit_code == 1
    assert "`+1415555` is too short for a number of +1" in str(result.exception)
    assert parse_json(stored("opt-outs", "--json"))["items"] == []
    assert "was not opted out" in stored("opt-outs", "remove", "+1415555").stdout


def test_opt_outs_are_imported_reported_and_exported(stored: Bridge) -> None:
    rows = "".join(f"+1415555{number:04}\n" for number in range(1500))
    Path("dnc.csv").write_text(f"address;channel\n+1415555\n{rows}ada@engine.example;sms\n+14155550001;\n")
    dry_run = stored("opt-outs", "import", "dnc.csv", "--dry-run")
    assert dry_run.exit_code == 1
    assert "1,500 addresses would be added" in dry_run.stdout
    assert parse_json(stored("opt-outs", "--json"))["items"] == []
    result = stored("opt-outs", "import", "dnc.csv", "--reason", "our DNC list 2026-11")
    assert result.stdout.splitlines() == [
        "1,500 addresses added, 1 already opted out, 2 lines not read",
        "  line 2: is too short for a number of +1",
        "  line 1503: channel must be `email` or empty",
    ]
    exported = stored("opt-outs", "--csv", "--channel", "call").stdout.splitlines()
    assert exported[0] == "address,channel,reason,kind,since,until,source,actor"
    assert len(exported) == 1501
    assert ",call,our DNC list 2026-11,opt_out," in exported[1]
    [entry] = [item for item in parse_json(stored("audit", "--json"))["items"] if item["action"] == "import"]
    assert (entry["target"], entry["detail"]["added"]) == ("dnc.csv", 1500)


def test_sessions_of_the_dashboard_are_listed_and_ended(stored: Bridge) -> None:
    assert stored("sessions").stdout == "No sessions.\n"
    database = Database("sqlite:///bridge.db")
    for actor in ("ada", "ben"):
        create_session(database, Session(f"hash of {actor}", actor, "admin", "10.0.0.5"), timedelta(hours=12))
    listed = stored("sessions", "--json")
    assert [item["actor"] for item in parse_json(listed)["items"]] == ["ben", "ada"]
    assert "hash of" not in listed.stdout
    assert "10.0.0.5" in stored("sessions").stdout
    assert stored("sessions", "end", "--actor", "ada").stdout == "Ended 1 session.\n"
    assert parse_json(stored("sessions", "end", "--json")) == {"ended": 1}
    assert stored("sessions").stdout == "No sessions.\n"
    entry = parse_json(stored("audit", "--json"))["items"][0]
    assert (entry["action"], entry["detail"]) == ("end_sessions", {"of": "all", "sessions": 1})
    database.close()


def test_check_reports_exposed_and_weak_secrets(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(DISABLED_RULE)
    (tmp_path / ".env").write_text("")
    (tmp_path / ".env").chmod(0o644)
    (tmp_path / "token").write_text("0123456789abcdefghijklmnopqrstuvwxyz")
    (tmp_path / "token").chmod(0o660)
    variables = {"BRIDGE_ADMIN_TOKEN_FILE": "token", "HEPPU_WEBHOOK_SECRET": "x" * 20}
    text = run_bridge(tmp_path, "check", **variables).stdout.replace("\n", " ")
    assert "other users can read .env, which contains secrets: chmod 600 .env" in text
    assert "other users can write to token: chmod 600 token" in text
    assert "weak secret: HEPPU_WEBHOOK_SECRET" in text
    assert "weak secret: BRIDGE_ADMIN_TOKEN" not in text
    report = json.loads(run_bridge(tmp_path, "check", "--json", **variables).stdout)
    assert (len(report["file_permissions"]), report["weak_secrets"]) == (2, ["HEPPU_WEBHOOK_SECRET"])


def test_import_reads_stdin_and_reports_json(stored: Bridge) -> None:
    result = CliRunner().invoke(app, ["opt-outs", "import", "-", "--json"], input="ada@engine.example\n?\n")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["added"], report["unreadable"], report["problems"][0]["line"]) == (1, 1, 2)
    assert stored("opt-outs", "import", "missing.csv").exit_code == 1


def test_possible_duplicates_are_listed_and_dismissed(stored: Bridge) -> None:
    assert "No possible duplicates." in stored("contacts", "duplicates").stdout
    database = Database("sqlite:///bridge.db", pool_size=1)
    save_possible_duplicate(database, "hubspot", "dlv_1", "51001", "51002")
    save_possible_duplicate(database, "salesforce", "dlv_2", "003A", "003B")
    database.close()

    [pair] = parse_json(stored("contacts", "duplicates", "--connection", "hubspot", "--json"))["items"]
    assert (pair["first_record"], pair["second_record"], pair["delivery_id"]) == ("51001", "51002", "dlv_1")
    assert "51001 51002" in stored("contacts", "duplicates", COLUMNS="200").stdout
    page = parse_json(stored("contacts", "duplicates", "--limit", "1", "--json"))
    assert page["next_cursor"] == page["items"][0]["id"]

    dismissed = parse_json(stored("contacts", "dismiss", pair["id"], "--json"))
    assert dismissed == {"id": pair["id"], "dismissed": True}
    assert stored("contacts", "dismiss", pair["id"]).exit_code == 1
    assert len(parse_json(stored("contacts", "duplicates", "--json"))["items"]) == 1
    assert parse_json(stored("audit", "--json"))["items"][0]["action"] == "dismiss_duplicate"


def test_connectors_new_json_lists_created_files(bridge: Bridge, tmp_path: Path) -> None:
    created = parse_json(bridge("connectors", "new", "ticket_desk", "--json"))
    assert created["name"] == "ticket_desk"
    assert created["connector"] == str(tmp_path / "connectors" / "ticket_desk.py")
    assert Path(created["connector"]).is_file()
    assert Path(created["test"]).is_file()


def test_db_upgrade_prints_the_version(bridge: Bridge) -> None:
    version = parse_json(bridge("db", "upgrade", "--json"))["version"]
    assert f"The database is at version {version}." in bridge("db", "upgrade").stdout


def test_connections_setup_json_is_empty_if_not_needed(bridge: Bridge) -> None:
    Path("rules.yaml").write_text(
        "version: 1\nrules: [{name: a, when: call.busy, do: [{use: slack.post, with: {text: hi}}]}]\n"
    )
    assert parse_json(bridge("connections", "setup", "--json")) == {"items": [], "next_cursor": None}


# ---------------------------------------------------------------- unrecognized and retired variables


def test_check_reports_unrecognized_variables_without_failing(bridge: Bridge) -> None:
    Path("rules.yaml").write_text(DISABLED_RULE)
    Path(".env").write_text("BRIDGE_RECIPIENTS_ALLOWLIST=+14155550123\n")
    result = bridge("check", BRIDGE_DEPLOYED_BY="ci")
    assert result.exit_code == 0
    hint = "unrecognized variable: BRIDGE_RECIPIENTS_ALLOWLIST; did you mean BRIDGE_RECIPIENT_ALLOWLIST?\n"
    assert hint in result.stdout
    assert (
        "unrecognized variable: BRIDGE_DEPLOYED_BY; docs/operations.md lists the variables\n" in result.stdout
    )
    assert parse_json(bridge("check", "--json"))["unrecognized_variables"] == {
        "BRIDGE_RECIPIENTS_ALLOWLIST": "did you mean BRIDGE_RECIPIENT_ALLOWLIST?"
    }


def test_check_reports_unrecognized_variables_of_used_connections(bridge: Bridge) -> None:
    text = (
        DISABLED_RULE.replace("enabled: false", "enabled: true")
        .replace("use: slack.post", "use: email.send")
        .replace("text: hi", "to: a@b.example, subject: hi, text: hi")
    )
    Path("rules.yaml").write_text(text)
    environ = {"EMAIL_SMTP_URL": "smtp://127.0.0.1:1", "EMAIL_FROM": "a@b.example"}
    result = bridge("check", EMAIL_REPLYTO="c@b.example", EMAIL_HOST="mail", **environ)
    assert "unrecognized variable: EMAIL_REPLYTO; did you mean EMAIL_REPLY_TO?\n" in result.stdout
    assert "EMAIL_HOST" not in result.stdout


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_service_start_warns_about_unrecognized_variables(tmp_path: Path, command: str) -> None:
    result = run_bridge(tmp_path, command, HEPPU_WEBHOOK_SECERT="hush-hush-hush-hush")
    assert result.returncode == 1
    warning, error = result.stderr.strip().splitlines()
    assert "[warning" in warning
    assert "variable=HEPPU_WEBHOOK_SECERT" in warning
    assert "did you mean HEPPU_WEBHOOK_SECRET?" in warning
    assert error.startswith("bridge: ")
    assert "hush" not in result.stderr


@pytest.mark.parametrize("command", ["serve", "worker", "check", "events", "explain call.busy", "db upgrade"])
def test_retired_variable_is_an_error_of_every_command(bridge: Bridge, command: str) -> None:
    Path("rules.yaml").write_text(DISABLED_RULE)
    result = bridge(*command.split(), BRIDGE_SECRET="hush-hush-hush-hush", HEPPU_WEBHOOK_SECRET="x" * 20)
    assert result.exit_code == 1
    assert str(result.exception) == "BRIDGE_SECRET was renamed: set BRIDGE_SECRET_KEY instead"


def email_rule(connection: str) -> str:
    step = f"{{use: email.send, connection: {connection}, with: {{to: a@b.example, subject: hi, text: hi}}}}"
    return f"version: 1\nrules: [{{name: a, when: call.busy, do: [{step}]}}]\n"


@pytest.mark.parametrize("arguments", [["serve"], ["serve", "--no-worker"]])
def test_serve_rejects_retired_variable_of_used_connection(
    bridge: Bridge, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.telemetry.configure_logging", lambda style, level: None)
    Path("rules.yaml").write_text(email_rule("email_eu"))
    environ = {"EMAIL_EU_SMTP_URL": "smtp://127.0.0.1:1", "EMAIL_EU_FROM": "a@b.example"}
    result = bridge(
        *arguments, "--port", "0", HEPPU_WEBHOOK_SECRET="x" * 20, EMAIL_EU_BOUNCE_TO="c@b.example", **environ
    )
    assert result.exit_code == 1
    assert "EMAIL_EU_BOUNCE_TO was renamed: set EMAIL_EU_RETURN_PATH instead" in str(result.exception)


def test_check_rejects_retired_variable_of_used_connection_only(bridge: Bridge) -> None:
    Path("rules.yaml").write_text(email_rule("email_eu"))
    environ = {"EMAIL_EU_SMTP_URL": "smtp://127.0.0.1:1", "EMAIL_EU_FROM": "a@b.example"}
    assert bridge("check", EMAIL_BOUNCE_TO="c@b.example", **environ).exit_code == 0
    result = bridge("check", EMAIL_EU_BOUNCE_TO="c@b.example", **environ)
    assert result.exit_code == 1
    assert "EMAIL_EU_BOUNCE_TO was renamed: set EMAIL_EU_RETURN_PATH instead" in result.stdout


# ---------------------------------------------------------------- sandbox


def test_sandbox_output_as_dotenv_configures_serve_and_send(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    port = str(free_port())
    environ = clean_environment(BRIDGE_PORT=port)
    with ExitStack() as processes:

        def start(*arguments: str, stdout: Path) -> None:
            file = processes.enter_context(stdout.open("wb"))
            processes.enter_context(
                bridge_process(tmp_path, environ, *arguments, stdout=file, stderr=subprocess.DEVNULL)
            )

        start("sandbox", "--port", "0", "--smtp-port", "0", stdout=tmp_path / ".env")
        assert eventually(lambda: "HEPPU_API_KEY=" in (tmp_path / ".env").read_text())
        start("serve", stdout=tmp_path / "log")
        assert eventually(lambda: run_bridge(tmp_path, "send", "call.busy", BRIDGE_PORT=port).returncode == 0)

        def sent() -> set[str]:
            result = run_bridge(tmp_path, "deliveries", "--state", "succeeded", "--json", BRIDGE_PORT=port)
            return {item["action"] for item in json.loads(result.stdout)["items"]}

        assert eventually(lambda: sent() == {"hubspot.log_call", "twilio.send_sms"}), sent()


# ---------------------------------------------------------------- a rules file with errors


INVALID_RULES = DISABLED_RULE.replace("call.busy", "call.bussy")


def test_serve_with_invalid_rules_reports_that_it_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(INVALID_RULES)
    result = run_bridge(tmp_path, "serve", HEPPU_WEBHOOK_SECRET="x" * 20, BRIDGE_PORT=str(free_port()))
    assert result.returncode == 1
    assert result.stderr.startswith("rules.yaml:4:39: no event type `call.bussy`")
    assert result.stderr.endswith("\n\n1 problem in rules.yaml; the service does not start\n")


@pytest.mark.parametrize("command", ["check", "explain call.busy", "test", "connections setup"])
def test_report_outside_the_service_does_not_mention_running_rules(bridge: Bridge, command: str) -> None:
    Path("rules.yaml").write_text(INVALID_RULES)
    result = bridge(*command.split())
    assert result.exit_code == 1
    assert "\n\n1 problem in rules.yaml\n" in (result.stdout or f"{result.exception}\n")


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
def test_failed_reload_logs_each_diagnostic(tmp_path: Path, style: str) -> None:
    path, out = tmp_path / "rules.yaml", StringIO()
    path.write_text(DISABLED_RULE)
    configure_logging(style, stream=out)
    running = RulesFile(path, Registry(), {})
    path.write_text(INVALID_RULES.replace("text: hi", 'txt: "+14155550123"').replace("enabled", "enbaled"))
    assert not running.reload()
    diagnostics = [
        f"{path}:4:17: unknown key `enbaled`  (rule `off`); did you mean `enabled`?",
        f"{path}:4:39: no event type `call.bussy`  (rule `off`); did you mean `call.busy`?",
    ]
    if style == "json":
        entry = json.loads(out.getvalue())
        assert (entry["event"], entry["diagnostics"][:2]) == ("rules not reloaded", diagnostics)
        assert "\n" not in "".join(entry["diagnostics"])
        return
    first, *below = out.getvalue().splitlines()
    assert "rules not reloaded" in first
    assert "the running rules were not changed" in first
    assert below[:2] == [f"  {diagnostic}" for diagnostic in diagnostics]


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("style", ["json", "console"])
def test_log_masks_addresses_in_lists(style: str) -> None:
    out = StringIO()
    configure_logging(style, stream=out)
    log.error("rules not reloaded", diagnostics=["+14155550123 cannot be used", "nor can ada@mail.example"])
    assert "+141***23 cannot be used" in out.getvalue()
    assert "nor can a***@mail.example" in out.getvalue()


# ---------------------------------------------------------------- singular and plural


def test_prune_prints_singular_and_plural(stored: Bridge) -> None:
    Path("rules.yaml").write_text(DISABLED_RULE)
    database = Database("sqlite:///bridge.db", pool_size=1)
    with database.write() as connection:
        record_rejected_request(
            connection, RejectedRequest("signature", "wrong", 401, False, datetime(2026, 1, 1, tzinfo=UTC))
        )
    database.close()
    assert stored("prune", "--yes").stdout == (
        "Pruned 0 events and 0 deliveries; deleted 1 rejected request and 0 cached contacts.\n"
    )


def test_heppu_webhooks_create_prints_singular_and_plural(bridge: Bridge) -> None:
    with start_sandbox() as sandbox:
        environ = sandbox.environment | {"HEPPU_WEBHOOK_SECRET": "x" * 20}
        create = ("heppu", "webhooks", "create", "--url", "https://bridge.example.com/webhooks/heppu")
        assert "Heppu sends 7 event types to https://" in bridge(*create, **environ).stdout
        one = bridge(*create, "--event", "call.busy", **environ)
        assert "Heppu sends 1 event type to https://" in one.stdout
        webhook_id = one.stdout.partition(":")[0]
        deleted = bridge("heppu", "webhooks", "delete", webhook_id, "--yes", "--json", **environ)
        assert parse_json(deleted) == {"id": webhook_id, "deleted": True}


# ---------------------------------------------------------------- missing settings


def test_check_prints_diagnostics_before_missing_settings(bridge: Bridge) -> None:
    Path("rules.yaml").write_text(RULES.replace("contact.first_name", "contact.first_nam"))
    result = bridge("check", HUBSPOT_ACCESS_TOKN="hush-hush")
    assert result.exit_code == 1
    positions = [
        result.stdout.index(line)
        for line in (
            "rules.yaml:16:29: `contact` has no field `first_nam`",
            "connection `slack`: SLACK_WEBHOOK_URL is not set  (line 5)\n",
            "connection `hubspot`: HUBSPOT_ACCESS_TOKEN is not set  (line 10)\n",
            "connection `twilio`: TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN are not set  (line 15)\n",
            "hint: set these in the environment or in .env",
            "1 problem and 1 warning in rules.yaml; 3 connections are not set up\n",
            "unrecognized variable: HUBSPOT_ACCESS_TOKN; did you mean HUBSPOT_ACCESS_TOKEN?\n",
            "not set: HEPPU_WEBHOOK_SECRET; `bridge serve` does not start without it\n",
        )
    ]
    assert positions == sorted(positions)
    diagnostics = json.loads(bridge("check", "--json").stdout)["diagnostics"]
    assert {diagnostic["connection"] for diagnostic in diagnostics} == {None, "slack", "hubspot", "twilio"}


def test_serve_requires_settings_of_used_connections(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(DISABLED_RULE.replace("enabled: false", "enabled: true"))
    result = run_bridge(tmp_path, "serve", HEPPU_WEBHOOK_SECRET="x" * 20, BRIDGE_PORT=str(free_port()))
    assert result.returncode == 1
    assert result.stderr.startswith("connection `slack`: SLACK_WEBHOOK_URL is not set  (line 4)\n")
    assert result.stderr.endswith("\n\n1 connection is not set up; the service does not start\n")


# ---------------------------------------------------------------- schema


def test_schema_prints_json_schema_for_rules_and_tests(bridge: Bridge) -> None:
    assert parse_json(bridge("schema"))["required"] == ["version"]
    assert "/api/events/{id}" in parse_json(bridge("schema", "--api"))["paths"]
    result = bridge("schema", "--tests")
    assert parse_json(result)["required"] == ["tests"]
    assert "# yaml-language-server: $schema=./tests.schema.json" in result.stderr
