"""What the acts of the command line ask, refuse and say, where no service runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli import app
from bridge.clock import Clock
from bridge.samples import sample, stamped
from bridge.signing import read_event
from bridge.store import schema
from bridge.store.connections import FOR_GOOD, PausedBy, pause_values, register
from bridge.store.database import Database
from bridge.store.ingest import IncomingEvent, accept
from bridge.store.queries import list_deliveries, list_events
from tests.acceptance.commands import NOTHING, RULES
from tests.acceptance.test_cli_output import Bridge, Result, bridge, record_of, stored  # noqa: F401 - fixtures


@pytest.fixture
def database(stored: Bridge) -> Iterator[Database]:  # noqa: F811
    """The database of `stored`."""
    found = Database("sqlite:///bridge.db", pool_size=1)
    yield found
    found.close()


def asked(*arguments: str, answer: str = "") -> Result:
    """A command that somebody answers."""
    return CliRunner().invoke(app, arguments, input=answer)


def received(database: Database, name: str = "call.busy", ago: timedelta = timedelta(hours=2)) -> str:
    """Store an event as if it came and was routed some time ago; its id."""
    then = Clock().now() - ago
    body = json.dumps(stamped(sample(name), then)).encode()
    assert accept(database, [IncomingEvent(read_event(body, then), body)]) == ["stored"]
    with database.write() as connection:
        connection.execute(schema.events.update().values(received_at=then, routed_at=then))
    return str(list_events(database).items[0]["id"])


# ---------------------------------------------------------------- prune


def test_pruning_asks_with_how_much_and_how_old(database: Database) -> None:
    Path("rules.yaml").write_text(NOTHING)
    received(database, ago=timedelta(days=2))
    refused = asked("prune", "--older-than", "1d", "--json")
    assert (refused.exit_code, refused.stdout.strip()) == (1, "")
    assert "older than 1d: at most 1 event, and their deliveries? [y/N]" in refused.stderr
    assert "older than 30d: at most 0 events" in asked("prune", answer="n\n").stderr
    assert list_events(database).items[0]["phone"]
    assert "1 event and 0 deliveries emptied" in asked("prune", "--older-than", "1d", answer="y\n").stdout
    assert list_events(database).items[0]["phone"] is None


# ---------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("prune --older-than foo", "write a number and a unit"),
        ("prune --older-than 999999w", "is longer than"),
        ("replay nonsense", "ids begin with evt_"),
        ("replay dlv_0", "`bridge retry` takes deliveries"),
        ("replay --since yesterday", "neither a duration like 2h or 7d nor an instant"),
        ("replay --until foo", "--until"),
        ("plan rules.yaml --since 999999w", "neither a duration"),
        ("deliveries --state foo", "there are pending"),
        ("events --since foo", "neither a duration"),
        ("show foo", "ids begin with evt_"),
        ("show evt_", "is no id"),
        ("resolve dlv_0 retry --external-id SM1", "only be used with `delivered`"),
        ("resolve dlv_0 discard --external-id SM1", "only be used with `delivered`"),
        ("deliveries --cursor zzz", "begins with dlv_"),
        ("events --cursor dlv_0", "begins with evt_"),
        ("audit --cursor zzz", "begins with aud_"),
        ("rejected --cursor zzz", "begins with rej_"),
    ],
)
def test_what_cannot_be_meant_exits_with_2_and_advice(
    bridge: Bridge,  # noqa: F811
    command: str,
    advice: str,
) -> None:
    found = bridge(*command.split())
    assert found.exit_code == 2, found.output
    assert advice in " ".join(found.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    "command", ["show evt_0", "show dlv_none", "replay evt_0 --yes", "resolve dlv_0 delivered", "retry dlv_0"]
)
def test_an_id_that_names_nothing_exits_with_1(stored: Bridge, command: str) -> None:  # noqa: F811
    Path("rules.yaml").write_text(NOTHING)
    assert stored(*command.split()).exit_code == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:9/"])
def test_an_address_without_a_path_gets_the_one_for_events(bridge: Bridge, url: str) -> None:  # noqa: F811
    found = bridge("send", "call.busy", "--secret", "x", "--url", url)
    assert "no answer from http://127.0.0.1:9/webhooks/heppu: " in str(found.exception)
    other = bridge("send", "call.busy", "--secret", "x", "--url", "http://127.0.0.1:9/hooks")
    assert "no answer from http://127.0.0.1:9/hooks: " in str(other.exception)


# ---------------------------------------------------------------- replay


def test_replaying_again_asks_with_how_many_messages_people_get_twice(database: Database) -> None:
    Path("rules.yaml").write_text(RULES)
    busy, done = received(database), received(database, "call.completed")
    refused = asked("replay", busy, done, "--force")
    assert refused.exit_code == 1
    assert (
        "Route 2 events again, whatever was done before? People ARE written to twice: 1 message [y/N]"
        in refused.stderr
    )
    assert list_deliveries(database).items == []
    one = asked("replay", busy, done, "--force", "--rule", "text", answer="y\n")
    assert "Route 1 event again" in one.stderr
    assert [item["rule"] for item in list_deliveries(database).items] == ["text"]
    assert "No message to a person is among it" in asked("replay", done, "--force").stderr
    assert "Route 1 event once more?" in asked("replay", "--since", "7d", "--rule", "text").stderr


def test_messages_that_are_too_late_to_send_are_not_counted(database: Database) -> None:
    Path("rules.yaml").write_text(RULES)
    late = received(database, ago=timedelta(days=2))
    assert "No message to a person is among it" in asked("replay", late, "--force").stderr


def test_replaying_named_events_asks_only_when_people_may_be_written_to_twice(database: Database) -> None:
    Path("rules.yaml").write_text(RULES)
    ident = received(database)
    assert asked("replay", ident).exit_code == 0
    assert asked("replay", ident, "--force", "--yes").exit_code == 0


def test_too_many_events_to_count_are_at_most_so_many(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rules.yaml").write_text(RULES)
    received(database)
    monkeypatch.setattr("bridge.cli.replay.COUNTED", 0)
    found = asked("replay", "--since", "7d", "--rule", "text", "--force")
    assert "Route at most 1 event again" in found.stderr
    assert "People ARE written to twice [y/N]" in found.stderr


# ---------------------------------------------------------------- paused connections


@pytest.fixture
def text(database: Database) -> str:
    """The id of a text over `twilio` that waits to be sent."""
    Path("rules.yaml").write_text(RULES)
    assert asked("replay", received(database), "--rule", "text").exit_code == 0
    return str(list_deliveries(database).items[0]["id"])


def put(database: Database, **values: object) -> None:
    with database.write() as connection:
        connection.execute(schema.deliveries.update().values(**values))


def pause(database: Database, by: PausedBy, until: datetime, why: str) -> None:
    with database.write() as connection:
        connection.execute(schema.connections.update().values(pause_values(by, until, why)))


def test_connections_are_listed_with_what_waits_and_how_they_go_on(database: Database, text: str) -> None:
    register(database, {"hubspot": "settings"})
    assert asked("pause", "twilio", "--reason", "lunch").exit_code == 0
    hubspot, twilio = record_of(asked("connections", "--json"))["items"]
    assert (hubspot["name"], hubspot["paused"], hubspot["waiting"]) == ("hubspot", False, 0)
    assert twilio == {
        "name": "twilio",
        "paused": True,
        "pause_cause": "person",
        "paused_until": None,
        "pause_reason": "lunch",
        "recent_failures": 0,
        "recent_successes": 0,
        "waiting": 1,
    }
    _, open_row, paused_row, hint = asked("connections").stdout.splitlines()
    assert open_row.split() == ["hubspot", "open", "0"]
    assert paused_row.split() == [
        "twilio",
        "paused",
        "by",
        "a",
        "person",
        "it",
        "is",
        "resumed",
        "1",
        "lunch",
    ]
    assert hint == "twilio: `bridge resume twilio` lets it go on"


def test_a_pause_for_credentials_says_to_mend_the_variable(database: Database) -> None:
    pause(database, "auth", FOR_GOOD, "401")
    assert "mend its variable and restart `bridge serve`" in asked("connections").stdout


def test_without_connections_the_list_says_where_they_come_from(bridge: Bridge) -> None:  # noqa: F811
    assert bridge("db", "upgrade").exit_code == 0
    assert "`bridge serve` makes them" in bridge("connections").stdout


def test_what_waits_behind_a_paused_connection_says_so(database: Database, text: str) -> None:
    event = list_events(database).items[0]["id"]
    assert "paused" not in asked("deliveries").stdout + asked("show", text).stdout
    asked("pause", "twilio", "--reason", "lunch")
    for command in (["deliveries"], ["show", event]):
        assert "waits: twilio is paused" in asked(*command).stdout
    shown = asked("show", text).stdout
    assert "when twilio goes on, not before" in shown
    assert "it is paused by a person: lunch; `bridge resume twilio` lets it go on" in shown
    put(database, state="cancelled", finished_at=Clock().now())
    assert "paused" not in asked("deliveries").stdout + asked("show", text).stdout


def test_a_retry_over_a_paused_connection_says_what_it_waits_for(database: Database, text: str) -> None:
    put(database, state="failed", finished_at=Clock().now())
    asked("pause", "twilio", "--reason", "lunch")
    told = "again when twilio is resumed (paused: lunch); `bridge resume twilio`\n"
    assert asked("retry", text).stdout == f"✓ {text}: attempted {told}"
    put(database, state="needs_review")
    assert asked("resolve", text, "retry").stdout == f"✓ {text}: sent {told}"


def test_a_retry_over_a_connection_that_goes_on_by_itself_says_when(database: Database, text: str) -> None:
    pause(database, "quota", datetime(2100, 1, 1, 12, tzinfo=UTC), "used up")
    put(database, state="failed", finished_at=Clock().now())
    assert "`bridge resume twilio`, or by itself at 2100-01-01 12:00:00 UTC" in asked("retry", text).stdout
    asked("resume", "twilio")
    put(database, state="failed", finished_at=Clock().now())
    assert asked("retry", text).stdout == f"✓ {text}: attempted again now\n"


# ---------------------------------------------------------------- refusals


def test_a_refusal_names_the_next_step(database: Database, text: str) -> None:
    event = list_events(database).items[0]["id"]
    put(database, state="succeeded", finished_at=Clock().now())
    refused = asked("retry", text)
    assert refused.exit_code == 1
    assert f"`bridge replay {event} --rule text --force` sends it once more on purpose" in refused.stdout
    put(database, trigger="on_failure")  # no replay makes it
    assert "replay" not in asked("retry", text).stdout
    for command in ("retry dlv_0", "cancel dlv_0", "resolve dlv_0 delivered"):
        told = asked(*command.split()).stdout
        assert "there is no such delivery; `bridge deliveries` lists them" in told


@pytest.mark.parametrize(
    ("ident", "listing"), [("evt_0", "events"), ("dlv_0", "deliveries"), ("rej_0", "rejected")]
)
def test_showing_what_is_not_there_names_the_list(stored: Bridge, ident: str, listing: str) -> None:  # noqa: F811
    assert f"`bridge {listing}` lists what there is" in str(stored("show", ident).exception)
