"""Two versions side by side during an upgrade: what the older one does not know is left to the newer one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ConfigDict

from bridge.errors import OutcomeUnknown, TransientError
from bridge.store.connections import all_connections, pause_values
from bridge.store.database import Database
from bridge.store.schema import connections
from tests.integration.engine import Engine, Text

NEWER = {"to": "+12125550123", "of_a_newer_version": "x"}


class NewerText(Text):
    """What a newer version also takes."""

    model_config = ConfigDict(extra="allow")


@pytest.fixture
def newer(database: Database) -> Engine:
    engine = Engine(database, worker_id="newer")
    actions: Any = engine.connector.actions
    actions["send"] = replace(actions["send"], params=NewerText)
    return engine


@pytest.fixture
def older(newer: Engine) -> Engine:
    """A version without `desk.record`, and with fewer params of `desk.send`."""
    engine = Engine(newer.database, worker_id="older")
    actions: Any = engine.connector.actions
    del actions["record"]
    return engine


def deliver(newer: Engine, use: str) -> str:
    return newer.deliver(use, **({"params": NEWER} if use == "send" else {}))


@pytest.mark.parametrize("use", ["record", "send"])
def test_what_an_older_version_does_not_know_is_left_to_the_newer_one(
    newer: Engine, older: Engine, use: str
) -> None:
    ident = deliver(newer, use)
    assert older.step() == 1
    left = newer.show(ident)
    assert (left["state"], left["attempts"], older.partner.calls) == ("retrying", 0, [])
    assert "left to a newer one" in left["detail"]
    assert newer.step() == 0
    newer.database.clock.advance(minutes=1)
    newer.lookup_delay()
    assert newer.show(ident)["state"] == "succeeded"


@pytest.mark.parametrize("use", ["record", "send"])
def test_what_no_version_knows_is_dead_after_an_hour(newer: Engine, older: Engine, use: str) -> None:
    ident = deliver(newer, use)
    older.run_for(minutes=59)
    assert newer.show(ident)["state"] == "retrying"
    older.run_for(minutes=3)
    assert newer.show(ident)["state"] == "failed"
    assert newer.show(ident)["reason"] == "rejected"


def test_what_the_newer_version_attempted_long_ago_is_not_dead_at_once(newer: Engine, older: Engine) -> None:
    def fail() -> None:
        raise TransientError("503", retry_after=None)

    ident = deliver(newer, "send")
    newer.partner.before = fail
    newer.run_for(hours=2)
    newer.partner.before = None
    newer.database.clock.advance(hours=3)
    assert older.step() == 1
    assert newer.show(ident)["state"] == "retrying"
    newer.database.clock.advance(minutes=1)
    newer.lookup_delay()
    assert newer.show(ident)["state"] == "succeeded"


def test_what_an_older_version_cannot_look_up_is_looked_up_by_the_newer_one(
    newer: Engine, older: Engine
) -> None:
    def lose() -> None:
        raise OutcomeUnknown("no answer")

    newer.partner.after = lose
    ident = deliver(newer, "send")
    newer.lookup_delay()
    for _ in range(10):
        newer.database.clock.advance(minutes=1)
        assert older.step() == 1
    newer.database.clock.advance(minutes=1)
    newer.lookup_delay()
    assert newer.show(ident)["state"] == "succeeded"
    assert len(newer.partner.texts) == 1


def test_what_is_not_known_says_nothing_about_the_partner(newer: Engine, older: Engine) -> None:
    deliver(newer, "send")
    now = newer.database.clock.now()
    with newer.database.write() as connection:
        row = {"name": "desk", "failures": 0, "successes": 0, "alert_due": False}
        connection.execute(connections.insert(), [row | pause_values("circuit", now, "down")])
    assert older.step() == 1
    assert all_connections(newer.database)[0]["pause_cause"] == "circuit"
