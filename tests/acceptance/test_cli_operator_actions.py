"""Operator actions on the command line without a service: prompts, errors and results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from bridge.cli.program import app
from bridge.clock import Clock
from bridge.lifecycle import PauseCause
from bridge.samples import refresh_sample, sample
from bridge.signing import read_event
from bridge.store import schema
from bridge.store.connections import pause_columns, register_accounts
from bridge.store.database import Database
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.pauses import INDEFINITELY
from bridge.store.queries import list_events
from tests.acceptance.commands import DISABLED_RULE, RULES
from tests.acceptance.test_cli_output import Bridge, Result, bridge, parse_json, stored  # noqa: F401 - fixtures


@pytest.fixture
def database(stored: Bridge) -> Iterator[Database]:  # noqa: F811
    """The database of `stored`."""
    database = Database("sqlite:///bridge.db", pool_size=1)
    yield database
    database.close()


def invoke(*arguments: str, answer: str = "") -> Result:
    """Run a command whose prompt gets this answer."""
    return CliRunner().invoke(app, arguments, input=answer)


def store_event(database: Database, name: str = "call.busy", ago: timedelta = timedelta(hours=2)) -> str:
    """Store an event that was received and routed some time ago. Return its ID."""
    then = Clock().now() - ago
    body = json.dumps(refresh_sample(sample(name), then)).encode()
    assert store_events(database, [IncomingEvent(read_event(body, then), body)]) == ["stored"]
    with database.write() as connection:
        connection.execute(schema.events.update().values(received_at=then, routed_at=then))
    return str(list_events(database).items[0]["id"])


# ---------------------------------------------------------------- prune


def test_prune_prompt_states_number_and_age(database: Database) -> None:
    Path("rules.yaml").write_text(DISABLED_RULE)
    store_event(database, ago=timedelta(days=2))
    result = invoke("prune", "--older-than", "1d", "--json")
    assert (result.exit_code, result.stdout.strip()) == (1, "")
    assert "older than 24h, at most 1 event and their deliveries? [y/N]" in result.stderr
    assert "older than 30d, at most 0 events" in invoke("prune", answer="n\n").stderr
    assert list_events(database).items[0]["phone"]
    assert "Pruned 1 event and 0 deliveries" in invoke("prune", "--older-than", "1d", answer="y\n").stdout
    assert list_events(database).items[0]["phone"] is None


# ---------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("prune --older-than foo", "write a number and a unit"),
        ("prune --older-than 999999w", "duration out of range"),
        ("replay nonsense", "IDs start with evt_"),
        ("replay dlv_0", "for deliveries, use `bridge retry`"),
        (
            "replay --since tomorrow",
            "neither a duration like 2h or 7d nor a day (yesterday, 2026-03-02) nor a timestamp",
        ),
        ("replay --until foo", "--until"),
        ("plan rules.yaml --since 999999w", "neither a duration"),
        ("deliveries --state foo", "choose from pending"),
        ("events --since foo", "neither a duration"),
        ("show foo", "IDs start with evt_"),
        ("show evt_", "invalid ID"),
        ("resolve dlv_0 retry --external-id SM1", "only be used with `delivered`"),
        ("resolve dlv_0 discard --external-id SM1", "only be used with `delivered`"),
        ("deliveries --cursor zzz", "starts with dlv_"),
        ("events --cursor dlv_0", "starts with evt_"),
        ("audit --cursor zzz", "starts with aud_"),
        ("rejected --cursor zzz", "starts with rej_"),
    ],
)
def test_invalid_argument_exits_with_2_and_advice(
    bridge: Bridge,  # noqa: F811
    command: str,
    advice: str,
) -> None:
    result = bridge(*command.split())
    assert result.exit_code == 2, result.output
    assert advice in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    "command", ["show evt_0", "show dlv_none", "replay evt_0 --yes", "resolve dlv_0 delivered", "retry dlv_0"]
)
def test_unknown_id_exits_with_1(stored: Bridge, command: str) -> None:  # noqa: F811
    Path("rules.yaml").write_text(DISABLED_RULE)
    assert stored(*command.split()).exit_code == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:9/"])
def test_send_url_without_path_gets_default_path(bridge: Bridge, url: str) -> None:  # noqa: F811
    result = bridge("send", "call.busy", "--secret", "x", "--url", url)
    assert "no response from http://127.0.0.1:9/webhooks/heppu: " in str(result.exception)
    assert "Connection refused; is `bridge serve` running there?" in str(result.exception)
    other = bridge("send", "call.busy", "--secret", "x", "--url", "http://127.0.0.1:9/hooks")
    assert "no response from http://127.0.0.1:9/hooks: " in str(other.exception)


def test_send_names_a_certificate_that_is_not_trusted(
    bridge: Bridge,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def post(*_args: object, **_options: object) -> None:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")

    monkeypatch.setattr(httpx, "post", post)
    result = bridge("send", "call.busy", "--secret", "x", "--url", "https://127.0.0.1:9")
    assert "self-signed certificate; use a host name with a valid certificate" in str(result.exception)


def test_restore_asks_only_if_there_is_a_backup_and_names_what_is_lost(stored: Bridge) -> None:  # noqa: F811
    absent = stored("db", "restore", "absent.db")
    assert "absent.db is not a file" in str(absent.exception)
    assert "Replace" not in absent.output
    assert stored("db", "backup", "backup.db").exit_code == 0
    result = stored("db", "restore", "backup.db", "--yes")
    assert "Opt-outs and erasures since the backup are only there" in result.stdout


# ---------------------------------------------------------------- replay


def test_replay_force_prompt_states_number_of_repeated_messages(database: Database) -> None:
    Path("rules.yaml").write_text(RULES)
    busy, done = store_event(database), store_event(database, "call.completed")
    result = invoke("replay", busy, done, "--force")
    assert result.exit_code == 1
    assert (
        "Route 2 events again and repeat actions that already succeeded? "
        "This sends 1 message to 1 person; 0 people WILL be contacted again [y/N]" in result.stderr
    )
    assert list_deliveries(database).items == []
    one = invoke("replay", busy, done, "--force", "--rule", "text", answer="y\n")
    assert "Route 1 event again" in one.stderr
    assert [item["rule"] for item in list_deliveries(database).items] == ["text"]
    assert "This sends no messages to recipients" in invoke("replay", done, "--force").stderr
    assert "Route 1 event again?" in invoke("replay", "--since", "7d", "--rule", "text").stderr


def test_replay_force_prompt_ignores_expired_messages(database: Database) -> None:
    Path("rules.yaml").write_text(RULES)
    late = store_event(database, ago=timedelta(days=2))
    assert "This sends no messages to recipients" in invoke("replay", late, "--force").stderr


def test_replay_of_named_events_asks_only_with_force(database: Database) -> None:
    Path("rules.yaml").write_text(RULES)
    event_id = store_event(database)
    assert invoke("replay", event_id).exit_code == 0
    assert invoke("replay", event_id, "--force", "--yes").exit_code == 0


def test_replay_prompt_above_preview_limit_states_upper_bound(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rules.yaml").write_text(RULES)
    store_event(database)
    monkeypatch.setattr("bridge.cli.replay.PREVIEW_LIMIT", 0)
    assert "--reason" in invoke("replay", "--since", "7d", "--force").stderr
    result = invoke("replay", "--since", "7d", "--rule", "text", "--force", "--reason", "wrong text")
    assert "Route at most 1 event again" in result.stderr
    assert "Recipients WILL be contacted again [y/N]" in result.stderr


def test_replay_prompt_states_what_will_happen(database: Database) -> None:
    Path("rules.yaml").write_text(RULES)
    store_event(database, ago=timedelta(days=2))
    store_event(database)
    result = invoke("replay", "--since", "7d", answer="n\n")
    effects = "1 text message, 0 emails, 2 hubspot.log_call; 1 expired"
    assert f"This would lead to: {effects}\nRoute 2 events again? [y/N]" in result.stderr
    assert list_deliveries(database).items == []
    preview = invoke("replay", "--since", "7d", "--dry-run")
    assert preview.stdout == f"2 events would lead to: {effects}\n"
    of_rule = parse_json(invoke("replay", "--since", "yesterday", "--rule", "text", "--dry-run", "--json"))
    del of_rule["previewed_at"]
    assert of_rule == {
        "dry_run": True, "events": 2, "messages": {"sms": 1}, "actions": {}, "later": 0, "held_back": {"expired": 1},
        "is_complete": True, "people": 1, "people_again": 0, "not_possible": 0, "obstacles": {},
    }  # fmt: skip
    assert "2 events would lead to" in invoke("replay", "--since", "7d", "--nothing-done", "--dry-run").stdout
    assert "0 events would" in invoke("replay", "--since", "7d", "--type", "call.failed", "--dry-run").stdout
    assert list_deliveries(database).items == []


def test_retry_of_several_states_what_will_happen_and_asks(database: Database, sms_delivery: str) -> None:
    second = store_event(database, "call.busy", ago=timedelta(minutes=1))
    assert invoke("replay", second, "--rule", "text").exit_code == 0
    ids = [str(item["id"]) for item in list_deliveries(database).items]
    update_deliveries(database, state="failed", finished_at=Clock().now())
    result = invoke("retry", *ids, "dlv_0", answer="n\n")
    assert "dlv_0 is not retried: there is no such delivery" in result.stderr
    assert "This would lead to: 2 text messages, 0 emails; quiet hours" in result.stderr
    assert "Retry 2 deliveries? [y/N]" in result.stderr
    assert {item["state"] for item in list_deliveries(database).items} == {"failed"}
    preview = parse_json(invoke("retry", *ids, "dlv_0", "--dry-run", "--json"))
    assert (preview["messages"], preview["not_possible"]) == ({"sms": 2}, 1)
    assert invoke("retry", *ids, answer="y\n").exit_code == 0


def test_resume_states_what_waits_and_asks(database: Database, sms_delivery: str) -> None:
    invoke("pause", "twilio")
    update_deliveries(database, run_at=Clock().now())
    result = invoke("resume", "twilio", answer="n\n")
    assert "Waiting: 1 text message, 0 emails; quiet hours" in result.stderr
    assert "Resume twilio? [y/N]" in result.stderr
    assert invoke("resume", "twilio", "--dry-run").stdout == "Waiting: 1 text message, 0 emails\n"
    update_deliveries(database, expires_at=Clock().now() - timedelta(hours=1))
    assert invoke("resume", "twilio", "--dry-run").stdout == "Waiting: 0 text messages, 0 emails; 1 expired\n"
    assert invoke("resume", "twilio").stdout == "twilio is resumed\n"


# ---------------------------------------------------------------- paused connections


@pytest.fixture
def sms_delivery(database: Database) -> str:
    """The ID of a pending text message over `twilio`."""
    Path("rules.yaml").write_text(RULES)
    assert invoke("replay", store_event(database), "--rule", "text").exit_code == 0
    return str(list_deliveries(database).items[0]["id"])


def update_deliveries(database: Database, **values: object) -> None:
    with database.write() as connection:
        connection.execute(schema.deliveries.update().values(**values))


def pause_connection(database: Database, by: PauseCause, until: datetime, why: str) -> None:
    with database.write() as connection:
        connection.execute(schema.connections.update().values(pause_columns(by, until, why)))


def test_connections_lists_waiting_deliveries_and_resume_hint(database: Database, sms_delivery: str) -> None:
    register_accounts(database, {"hubspot": "settings"})
    assert invoke("pause", "twilio", "--reason", "lunch").exit_code == 0
    hubspot, twilio = parse_json(invoke("connections", "--json"))["items"]
    assert (hubspot["name"], hubspot["paused"], hubspot["waiting"]) == ("hubspot", False, 0)
    assert twilio == {
        "name": "twilio",
        "paused": True,
        "pause_cause": "operator",
        "paused_until": None,
        "pause_reason": "lunch",
        "paused_with_all": False,
        "recent_failures": 0,
        "recent_successes": 0,
        "waiting": 1,
    }
    _, active_row, paused_row, hint = invoke("connections").stdout.splitlines()
    assert active_row.split() == ["hubspot", "active", "0"]
    assert " ".join(paused_row.split()) == "twilio paused by an operator resumed 1 lunch"
    assert hint == "twilio: resume it with `bridge resume twilio`"


def test_connections_paused_for_credentials_advises_to_fix_them(database: Database) -> None:
    pause_connection(database, "auth", INDEFINITELY, "401")
    assert "fix the account's variables and restart `bridge serve`" in invoke("connections").stdout


def test_connections_empty_list_explains_their_origin(bridge: Bridge) -> None:  # noqa: F811
    assert bridge("db", "upgrade").exit_code == 0
    assert "`bridge serve` creates them" in bridge("connections").stdout


def test_waiting_deliveries_name_their_paused_connection(database: Database, sms_delivery: str) -> None:
    event = list_events(database).items[0]["id"]
    assert "paused" not in invoke("deliveries").stdout + invoke("show", sms_delivery).stdout
    invoke("pause", "twilio", "--reason", "lunch")
    for command in (["deliveries"], ["show", event]):
        assert "waiting: twilio is paused" in invoke(*command).stdout
    shown = invoke("show", sms_delivery).stdout
    assert "when twilio is resumed, not before" in shown
    assert "paused by an operator: lunch; resume it with `bridge resume twilio`" in shown
    update_deliveries(database, state="cancelled", finished_at=Clock().now())
    assert "paused" not in invoke("deliveries").stdout + invoke("show", sms_delivery).stdout


def test_retry_names_the_paused_connection(database: Database, sms_delivery: str) -> None:
    update_deliveries(database, state="failed", finished_at=Clock().now())
    invoke("pause", "twilio", "--reason", "lunch")
    hint = "retry starts when twilio is resumed (paused by an operator: lunch); resume it with `bridge resume twilio`\n"
    assert invoke("retry", sms_delivery).stdout == f"✓ {sms_delivery}: {hint}"
    update_deliveries(database, state="needs_review")
    assert invoke("resolve", sms_delivery, "retry").stdout == f"✓ {sms_delivery}: {hint}"


def test_retry_names_the_end_of_a_temporary_pause(database: Database, sms_delivery: str) -> None:
    pause_connection(database, "quota", datetime(2100, 1, 1, 12, tzinfo=UTC), "used up")
    update_deliveries(database, state="failed", finished_at=Clock().now())
    assert (
        "`bridge resume twilio`, or automatically at 2100-01-01 12:00:00 UTC"
        in invoke("retry", sms_delivery).stdout
    )
    invoke("resume", "twilio", "--yes")
    update_deliveries(database, state="failed", finished_at=Clock().now())
    assert invoke("retry", sms_delivery).stdout == f"✓ {sms_delivery}: retry starts now\n"


# ---------------------------------------------------------------- rejected actions


def test_rejected_operator_action_names_the_next_step(database: Database, sms_delivery: str) -> None:
    event = list_events(database).items[0]["id"]
    update_deliveries(database, state="succeeded", finished_at=Clock().now())
    result = invoke("retry", sms_delivery)
    assert result.exit_code == 1
    assert f"`bridge replay {event} --rule text --force` sends it once more" in result.stdout
    update_deliveries(database, trigger="on_failure")  # a replay does not create it
    assert "replay" not in invoke("retry", sms_delivery).stdout
    for command in ("retry dlv_0", "cancel dlv_0", "resolve dlv_0 delivered"):
        hint = invoke(*command.split()).stdout
        assert "there is no such delivery; list the IDs with `bridge deliveries`" in hint


@pytest.mark.parametrize(
    ("record_id", "listing"), [("evt_0", "events"), ("dlv_0", "deliveries"), ("rej_0", "rejected")]
)
def test_show_unknown_id_names_the_listing_command(stored: Bridge, record_id: str, listing: str) -> None:  # noqa: F811
    assert f"list the IDs with `bridge {listing}`" in str(stored("show", record_id).exception)


def test_several_connections_are_paused_and_resumed_together(database: Database) -> None:
    register_accounts(database, {"hubspot": "a", "slack": "b", "twilio": "c"})
    paused = parse_json(invoke("pause", "hubspot", "twilio", "--reason", "lunch", "--json"))["items"]
    assert [(item["name"], item["pause_reason"]) for item in paused] == [
        ("hubspot", "lunch"),
        ("twilio", "lunch"),
    ]
    assert invoke("resume", "hubspot", "twilio").stdout == "hubspot is resumed\ntwilio is resumed\n"
    assert "unknown connection `twillio`" in str(invoke("pause", "hubspot", "twillio").exception)
    assert not parse_json(invoke("connections", "--json"))["items"][0]["paused"], "names are checked first"


@pytest.mark.parametrize("command", ["pause", "resume", "pause twilio --all", "resume twilio --all"])
def test_pause_takes_names_or_all(database: Database, command: str) -> None:
    register_accounts(database, {"twilio": "a"})
    result = invoke(*command.split())
    assert result.exit_code == 2
    assert "use --all for all of them" in result.stderr


def test_all_connections_are_paused_and_resumed(database: Database, sms_delivery: str) -> None:
    register_accounts(database, {"hubspot": "a"})
    result = invoke("pause", "--all", "--reason", "wrong text")
    assert result.stdout == (
        "sending is stopped: All deliveries wait, also CRM records; alerts to your team are still sent. "
        "Start it with `bridge resume --all`\n"
    )
    _, hubspot, twilio, hint = invoke("connections").stdout.splitlines()
    row = "paused by an operator, with all connections resumed {} wrong text"
    assert " ".join(hubspot.split()) == f"hubspot {row.format(0)}"
    assert " ".join(twilio.split()) == f"twilio {row.format(1)}"
    assert hint == "all connections are paused: wrong text; resume it with `bridge resume --all`"
    assert all(item["paused_with_all"] for item in parse_json(invoke("connections", "--json"))["items"])
    assert "waiting: twilio is paused" in invoke("deliveries").stdout
    assert "wrong text; resume it with `bridge resume --all`" in invoke("show", sms_delivery).stdout
    assert invoke("resume", "twilio", "--yes").stdout == (
        "twilio is still paused by an operator, with all connections: wrong text; "
        "resume it with `bridge resume --all`\n"
    )
    invoke("pause", "hubspot", "--reason", "lunch")
    assert invoke("resume", "--all", "--yes").stdout == (
        "all connections are resumed\n"
        "hubspot is still paused by an operator: lunch; resume it with `bridge resume hubspot`\n"
    )
    assert invoke("resume", "--all").stdout.startswith("all connections were not paused with `--all`\n")
    assert "all connections" in invoke("audit").stdout


# ---------------------------------------------------------------- the waiting deliveries of a rule


def test_cancel_rule_asks_with_the_number_and_kind(database: Database, sms_delivery: str) -> None:
    refused = invoke("cancel", "--rule", "text", answer="n\n")
    assert refused.exit_code == 1
    assert "Cancel 1 waiting delivery of text (1 twilio.send_sms)? [y/N]" in refused.stderr
    assert list_deliveries(database, DeliveryFilter(states=["pending"])).items
    assert invoke("cancel", "--rule", "text", answer="y\n").stdout.endswith("text: 1 cancelled\n")
    assert list_deliveries(database).items[0]["state"] == "cancelled"
    nothing = invoke("cancel", "--rule", "text")
    assert (nothing.exit_code, nothing.stdout) == (0, "no delivery of text waits\n")
    record = parse_json(invoke("cancel", "--rule", "text", "--yes", "--json"))
    assert record == {"rule": "text", "cancelled": 0, "unresolved": 0, "running": 0}


def test_cancel_rule_rerender_sends_corrected_words(database: Database, sms_delivery: str) -> None:
    Path("rules.yaml").write_text(RULES.replace("Hi {{", "Hello {{"))
    result = invoke("cancel", "--rule", "text", "--rerender", answer="y\n")
    assert (
        "Apply rules.yaml to 1 waiting delivery of text (1 twilio.send_sms)? "
        "Those that the rule would not create are cancelled [y/N]" in result.stderr
    )
    assert result.stdout.endswith("text: 1 rendered again\n")
    assert parse_json(invoke("show", sms_delivery, "--json"))["params"]["body"] == "Hello Ines"
    assert "rerender by " in invoke("show", sms_delivery).stdout
    report = parse_json(invoke("cancel", "--rule", "text", "--rerender", "--yes", "--json"))
    assert report == {"rule": "text", "rendered": 1, "cancelled": [], "kept": []}


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ("cancel", "name deliveries by their IDs, or all that match"),
        (
            "cancel dlv_1 --rule text",
            "name deliveries by their IDs, or all that match",
        ),
        ("cancel dlv_1 --rerender", "can only be used with `--rule`"),
    ],
)
def test_cancel_takes_ids_or_a_rule(database: Database, arguments: str, advice: str) -> None:
    result = invoke(*arguments.split())
    assert (result.exit_code, advice in result.stderr) == (2, True)


def test_rerender_needs_a_rule_of_the_file(database: Database) -> None:
    Path("rules.yaml").write_text(RULES)
    error = str(invoke("cancel", "--rule", "txt", "--rerender").exception)
    assert error.startswith("unknown rule `txt` in rules.yaml; to cancel the deliveries of a removed rule,")


def test_deliveries_are_listed_by_reason(database: Database, sms_delivery: str) -> None:
    update_deliveries(database, state="suppressed", reason="shadow")
    listed = parse_json(invoke("deliveries", "--state", "suppressed", "--reason", "shadow", "--json"))[
        "items"
    ]
    assert [item["id"] for item in listed] == [sms_delivery]
    assert invoke("deliveries", "--reason", "opted_out").stdout == "No deliveries.\n"
    confused = invoke("deliveries", "--state", "shadow")
    assert (confused.exit_code, "use `--reason shadow`" in " ".join(confused.stderr.split())) == (2, True)
    assert "choose from opted_out" in " ".join(invoke("deliveries", "--reason", "shade").stderr.split())


def test_retry_by_filter_says_how_many_and_asks(database: Database, sms_delivery: str) -> None:
    update_deliveries(database, state="failed", reason="rejected", finished_at=Clock().now())
    options = ("retry", "--state", "failed", "--connection", "twilio")
    preview = invoke(*options, "--dry-run").stdout
    assert preview == "1 delivery would be retried: 1 text message, 0 emails\nby connection: 1 twilio\n"
    refused = invoke(*options, answer="n\n")
    assert "The provider rejected 1 of them: fix the cause first" in refused.stderr
    assert "Retry 1 delivery? [y/N]" in refused.stderr
    assert invoke(*options, "--since", "1h", "--yes").stdout == "1 delivery retried\n"
    assert list_deliveries(database).items[0]["state"] == "pending"
    assert invoke(*options, "--yes").stdout == "0 deliveries retried\n"


def test_dismissed_failure_leaves_the_list(database: Database, sms_delivery: str) -> None:
    update_deliveries(database, state="failed", finished_at=Clock().now())
    assert invoke("dismiss", "--rule", "text", "--yes").stdout == "1 delivery dismissed\n"
    assert invoke("deliveries", "--not-dismissed").stdout == "No deliveries.\n"
    assert invoke("dismiss", sms_delivery, "--undo").stdout == f"✓ {sms_delivery}: no longer dismissed\n"
    assert sms_delivery in invoke("deliveries", "--not-dismissed", "--type", "call.busy").stdout
