"""Two versions during an upgrade: the older one leaves unknown actions and parameters to the newer one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ConfigDict

from bridge.errors import OutcomeUnknown, TransientError
from bridge.lifecycle import PauseCause
from bridge.store import policy_inputs
from bridge.store.connection_status import all_connections
from bridge.store.connections import pause_columns
from bridge.store.database import Database
from bridge.store.schema import connections
from bridge.store.unclaimed import explain_unclaimed
from bridge.store.workers import record_heartbeat
from tests.integration.engine import Engine, Text, raising, worker_on

NEWER = {"to": "+12125550123", "of_a_newer_version": "x"}


class NewerText(Text):
    """The parameters of a newer version, which accepts more of them."""

    model_config = ConfigDict(extra="allow")


@pytest.fixture
def newer(database: Database) -> Engine:
    engine = Engine(database, worker_id="newer")
    actions: Any = engine.connector.actions
    actions["send"] = replace(actions["send"], params=NewerText)
    return engine


@pytest.fixture
def older(newer: Engine) -> Engine:
    """A version without `desk.record`, and with fewer parameters of `desk.send`."""
    engine = Engine(newer.database, worker_id="older")
    actions: Any = engine.connector.actions
    del actions["record"]
    return engine


def deliver(newer: Engine, use: str) -> str:
    return newer.deliver(use, **({"params": NEWER} if use == "send" else {}))


@pytest.mark.parametrize("use", ["record", "send"])
def test_older_version_leaves_unknown_delivery_to_the_newer_one(
    newer: Engine, older: Engine, use: str
) -> None:
    delivery_id = deliver(newer, use)
    assert older.step() == 1
    delivery = newer.show(delivery_id)
    assert (delivery["state"], delivery["attempts"], older.provider.calls) == ("retrying", 0, [])
    assert "left for a worker of a newer version" in delivery["detail"]
    assert newer.step() == 0
    newer.database.clock.advance(minutes=1)
    newer.run_due()
    assert newer.show(delivery_id)["state"] == "succeeded"


@pytest.mark.parametrize("use", ["record", "send"])
def test_delivery_unknown_to_all_versions_fails_after_an_hour(newer: Engine, older: Engine, use: str) -> None:
    delivery_id = deliver(newer, use)
    older.run_for(minutes=59)
    assert newer.show(delivery_id)["state"] == "retrying"
    older.run_for(minutes=3)
    assert newer.show(delivery_id)["state"] == "failed"
    assert newer.show(delivery_id)["reason"] == "rejected"


def test_delivery_attempted_by_newer_version_does_not_fail_immediately(newer: Engine, older: Engine) -> None:
    delivery_id = deliver(newer, "send")
    newer.provider.before = raising(TransientError("503", retry_after=None))
    newer.run_for(hours=2)
    newer.provider.before = None
    assert newer.next_poll_in is not None
    newer.database.clock.advance(seconds=newer.next_poll_in.total_seconds())  # the wait is random
    assert older.step() == 1
    assert newer.show(delivery_id)["state"] == "retrying"
    newer.database.clock.advance(minutes=1)
    newer.run_due()
    assert newer.show(delivery_id)["state"] == "succeeded"


def test_older_version_leaves_lookup_to_the_newer_one(newer: Engine, older: Engine) -> None:
    newer.provider.after = raising(OutcomeUnknown("no answer"))
    delivery_id = deliver(newer, "send")
    newer.run_due()
    for _ in range(10):
        newer.database.clock.advance(minutes=1)
        assert older.step() == 1
    newer.database.clock.advance(minutes=1)
    newer.run_due()
    assert newer.show(delivery_id)["state"] == "succeeded"
    assert len(newer.provider.messages) == 1


def test_unknown_delivery_does_not_close_the_circuit(newer: Engine, older: Engine) -> None:
    deliver(newer, "send")
    now = newer.database.clock.now()
    with newer.database.write() as conn:
        row = {"name": "desk", "failures": 0, "successes": 0, "alert_due": False}
        conn.execute(connections.insert(), [row | pause_columns(PauseCause.CIRCUIT_OPEN, now, "down")])
    assert older.step() == 1
    assert all_connections(newer.database)[0]["pause_cause"] == "circuit_open"


def test_delivery_that_cannot_be_decided_waits_and_holds_up_no_other(
    newer: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = newer.deliver("post"), newer.deliver("record", newer.event("call.completed"))

    def decide(due: Any, *rest: Any) -> Any:
        if due.id == stuck:
            raise KeyError("a channel of a newer version")
        return real(due, *rest)

    real = policy_inputs.decide
    with monkeypatch.context() as patch:
        patch.setattr(policy_inputs, "decide", decide)
        newer.run_due()
    assert newer.show(other)["state"] == "succeeded"
    delivery = newer.show(stuck)
    assert (delivery["state"], delivery["attempts"]) == ("pending", 0)
    assert delivery["detail"].startswith("this version cannot decide about it (KeyError); left for a worker")
    newer.run_for(minutes=2)
    assert newer.show(stuck)["state"] == "succeeded"


def test_delivery_over_a_connection_that_no_process_has_says_so(newer: Engine) -> None:
    delivery_id = newer.deliver("record", connection="teams", action="teams.post")
    assert explain_unclaimed(newer.database, {"desk"}) == {}  # another process may take it soon
    newer.database.clock.advance(minutes=3)
    assert explain_unclaimed(newer.database, {"desk", "teams"}) == {}
    assert explain_unclaimed(newer.database, {"desk"}) == {"teams": 1}
    delivery = newer.show(delivery_id)
    assert (delivery["state"], delivery["attempts"]) == ("pending", 0)
    assert delivery["detail"].startswith("no running process has the connection `teams`")
    assert explain_unclaimed(newer.database, {"desk"}) == {}  # explained once


def test_delivery_that_another_process_may_have_is_not_explained(newer: Engine) -> None:
    newer.deliver("record", connection="teams")
    newer.database.clock.advance(minutes=3)
    for worker in ("newer", "older"):
        record_heartbeat(newer.database, worker, "1.0")
    assert explain_unclaimed(newer.database, {"desk"}) == {}


def test_worker_explains_unclaimed_deliveries(newer: Engine) -> None:
    delivery_id = newer.deliver("record", connection="teams")
    newer.database.clock.advance(minutes=3)
    worker_on(newer).maintenance.explain_unclaimed()
    assert "no running process" in newer.show(delivery_id)["detail"]
