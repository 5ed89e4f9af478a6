"""What the acts of the command line ask, refuse and say, where no service runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli import app
from bridge.clock import Clock
from bridge.samples import sample, stamped
from bridge.signing import read_event
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.queries import list_events
from bridge.store.receipts import Receipt, accept
from tests.acceptance.commands import NOTHING
from tests.acceptance.test_cli_small import Bridge, Result, bridge, stored  # noqa: F401 - fixtures


@pytest.fixture
def database(stored: Bridge) -> Iterator[Database]:  # noqa: F811
    """The database of `stored`."""
    found = Database("sqlite:///bridge.db", pool_size=1)
    yield found
    found.close()


def asked(*arguments: str, answer: str = "") -> Result:
    """A command that somebody answers."""
    return CliRunner().invoke(app, arguments, input=answer)


def received(database: Database, name: str = "call.busy") -> str:
    """Store an event as if it was routed, two days ago; its id."""
    then = Clock().now() - timedelta(days=2)
    body = json.dumps(stamped(sample(name), then)).encode()
    assert accept(database, [Receipt(read_event(body, then), body)]) == ["stored"]
    with database.write() as connection:
        connection.execute(schema.events.update().values(received_at=then, routed_at=then))
    return str(list_events(database).items[0]["id"])


# ---------------------------------------------------------------- prune


def test_pruning_asks_with_how_much_and_how_old(database: Database) -> None:
    Path("rules.yaml").write_text(NOTHING)
    received(database)
    refused = asked("prune", "--older-than", "1d", "--json")
    assert (refused.exit_code, refused.stdout.strip()) == (1, "")
    assert "older than 1d: at most 1 event, and their deliveries? [y/N]" in refused.stderr
    assert "older than 30d: at most 0 events" in asked("prune", answer="n\n").stderr
    assert list_events(database).items[0]["phone"]
    assert "1 event and 0 deliveries emptied" in asked("prune", "--older-than", "1d", answer="y\n").stdout
    assert list_events(database).items[0]["phone"] is None
