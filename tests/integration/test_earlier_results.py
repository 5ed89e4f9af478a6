"""Params with the ID that an earlier action of the event returned: waiting for it, and what happens without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bridge.connector import Connector, ConnectorSettings, Context, Params, Success, param, per_event
from bridge.errors import LookupInconclusive, OutcomeUnknown, PermanentError, TransientError
from bridge.events import Event
from bridge.rules.model import Rules
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.operator_actions import cancel, retry
from bridge.store.schema import deliveries
from bridge.worker.account import Account
from bridge.worker.result_renderer import ResultRenderer
from tests.integration.engine import Engine, raising

LATE = {"ticket": "{{ results.desk.open_ticket.id }}"}


class Comment(Params):
    ticket: str = param(..., "Ticket ID.", example="35436", pattern=r"^T-\d+$")


class TicketEngine(Engine):
    """An engine with two actions: one opens a ticket, the other one comments on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.comments: list[str] = []
        self.seen: list[dict[str, str]] = []
        self.fail: Callable[[], None] = lambda: None
        connector = Connector("desk", settings=ConnectorSettings)

        @connector.action(idempotency=per_event, idempotent=True)
        def open_ticket(client: Any, params: Params, context: Context) -> Success:
            """Open a ticket."""
            self.fail()
            return Success("T-1")

        @connector.action(idempotency=per_event, idempotent=True, serialize_by="ticket")
        def comment(client: Any, params: Comment, context: Context) -> Success:
            """Comment on a ticket."""
            self.comments.append(params.ticket)
            self.seen.append(dict(context.results))
            return Success()

        self.connector = connector
        self.connection = Account("desk", connector, ConnectorSettings())
        action_of = lambda delivery: connector.find_action(delivery.action)  # noqa: E731
        renderer = ResultRenderer(action_of, Rules("", "rules"), self.database.clock.now())
        self.policy_config = replace(self.policy_config, render_results=renderer)

    def comment(self, event: Event, *, late: dict[str, Any] | None = None, **planned: Any) -> str:
        return self.deliver("comment", event, late=LATE if late is None else late, **planned)

    def comment_first(self, **planned: Any) -> tuple[str, str]:
        """Store the delivery that waits and, due a little later, the one it waits for."""
        event = self.event()
        later = self.database.clock.now() + timedelta(seconds=10)
        return self.comment(event, **planned), self.deliver("open_ticket", event, run_at=later)


@pytest.fixture
def engine(database: Database) -> TicketEngine:
    return TicketEngine(database)


def test_delivery_waits_for_the_earlier_one_and_gets_its_id(engine: TicketEngine) -> None:
    comment, ticket = engine.comment_first()
    engine.run_due()
    shown = engine.show(comment)
    assert (shown["state"], shown["attempts"]) == ("pending", 0)
    assert shown["detail"] == f"results: waits for desk.open_ticket ({ticket}), which is pending"
    engine.run_for(seconds=30)
    assert (engine.comments, engine.seen) == (["T-1"], [{"desk.open_ticket": "T-1"}])
    shown = engine.show(comment)
    assert (shown["state"], shown["params"]) == ("succeeded", {"ticket": "T-1"})
    assert shown["concurrency_key"] == "desk|ticket T-1"
    assert shown["options"]["results"] == {"desk.open_ticket": "T-1"}
    assert "late" not in shown["options"]


def test_delivery_is_not_delayed_if_the_earlier_one_has_ended(engine: TicketEngine) -> None:
    event = engine.event()
    engine.deliver("open_ticket", event)
    engine.run_due()
    engine.comment(event)
    engine.run_for(seconds=5)
    assert engine.comments == ["T-1"]


def test_rejected_earlier_action_fails_the_delivery(engine: TicketEngine) -> None:
    comment, ticket = engine.comment_first()
    engine.fail = raising(PermanentError("the requester is suspended"))
    engine.run_for(seconds=30)
    shown = engine.show(comment)
    assert (shown["state"], shown["reason"]) == ("failed", "render_error")
    assert shown["detail"] == (
        "`ticket`: results.desk.open_ticket.id is missing; desk.open_ticket was not carried out: failed, "
        f"the requester is suspended ({ticket})"
    )
    assert engine.comments == []


def test_delivery_without_an_id_is_retried_after_the_earlier_one(engine: TicketEngine) -> None:
    comment, ticket = engine.comment_first()
    engine.fail = raising(PermanentError("the requester is suspended"))
    engine.run_for(seconds=30)
    engine.fail = lambda: None
    assert [item.done for item in retry(engine.database, "ana", [ticket, comment])] == [True, True]
    engine.run_for(seconds=30)
    assert (engine.comments, engine.show(comment)["state"]) == (["T-1"], "succeeded")


def test_param_that_this_version_lacks_holds_up_no_other_delivery(engine: TicketEngine) -> None:
    event = engine.event()
    engine.deliver("open_ticket", event)
    engine.run_due()
    comment = engine.comment(event, late=LATE | {"author": "{{ results.desk.open_ticket.id }}"})
    other = engine.deliver("open_ticket")
    engine.run_for(seconds=5)
    assert engine.show(other)["state"] == "succeeded"
    assert "this version lacks the action or one of its params" in engine.show(comment)["detail"]
    engine.database.clock.advance(days=3)
    engine.run_for(seconds=5)
    assert (engine.show(comment)["state"], engine.show(comment)["reason"]) == ("failed", "render_error")


def test_delivery_says_that_the_earlier_one_needs_review(engine: TicketEngine) -> None:
    comment, ticket = engine.comment_first()
    engine.fail = raising(LookupInconclusive("two tickets"))
    engine.run_for(seconds=20)
    detail = f"results: waits for desk.open_ticket ({ticket}), which needs review"
    assert engine.show(comment)["detail"] == detail


def test_erasure_removes_the_ids_that_were_used(engine: TicketEngine) -> None:
    event = engine.event(metadata={"contactPhone": "+12125550167"})
    engine.deliver("open_ticket", event)
    comment = engine.comment(event)
    engine.run_for(seconds=5)
    assert engine.show(comment)["options"]["results"] == {"desk.open_ticket": "T-1"}
    erase(engine.database, "ana", "+12125550167", [])
    assert engine.show(comment)["options"] == {}


def test_cancelled_earlier_action_suppresses_the_delivery(engine: TicketEngine) -> None:
    comment, ticket = engine.comment_first()
    cancel(engine.database, "ana", [ticket])
    engine.run_for(seconds=30)
    assert (engine.show(comment)["state"], engine.show(comment)["reason"]) == ("suppressed", "no_result")


def test_default_of_the_template_applies_without_an_id(engine: TicketEngine) -> None:
    late = {"ticket": "{{ results.desk.open_ticket.id | default('T-0') }}"}
    comment, _ = engine.comment_first(late=late)
    engine.fail = raising(PermanentError("no"))
    engine.run_for(seconds=30)
    assert (engine.comments, engine.show(comment)["state"]) == (["T-0"], "succeeded")


def test_delivery_waits_while_the_earlier_one_is_retried_until_it_expires(engine: TicketEngine) -> None:
    expires_at = engine.database.clock.now() + timedelta(hours=1)
    comment, _ = engine.comment_first(expires_at=expires_at)
    engine.fail = raising(TransientError("down"))
    for _ in range(30):
        engine.database.clock.advance(minutes=1)
        engine.run_due()
    assert engine.show(comment)["state"] == "pending"
    engine.database.clock.advance(minutes=31)
    engine.run_due()
    assert (engine.show(comment)["state"], engine.show(comment)["reason"]) == ("suppressed", "expired")


def test_without_expires_it_waits_three_days(engine: TicketEngine) -> None:
    comment, _ = engine.comment_first()
    engine.fail = raising(OutcomeUnknown("no answer"))
    engine.run_due()
    engine.database.clock.advance(days=3)
    engine.run_for(seconds=5)
    assert "desk.open_ticket has not ended after 3 days" in engine.show(comment)["detail"]


def test_earlier_delivery_of_another_rule_or_event_does_not_count(engine: TicketEngine) -> None:
    event = engine.event()
    engine.deliver("open_ticket", event, rule="another")
    engine.deliver("open_ticket")
    engine.run_due()
    comment = engine.comment(event)
    engine.run_for(seconds=5)
    assert "no delivery of desk.open_ticket exists for this event" in engine.show(comment)["detail"]


def test_duplicate_earlier_delivery_has_the_id_of_the_one_before(engine: TicketEngine) -> None:
    """A replay of the event: the ticket exists already."""
    event = engine.event()
    for _ in range(2):
        engine.deliver("open_ticket", event)
        engine.run_due()
    engine.comment(event)
    engine.run_for(seconds=5)
    assert engine.comments == ["T-1"]


def test_follow_up_uses_a_result_of_its_siblings(engine: TicketEngine) -> None:
    event, database = engine.event(), engine.database
    rows = []
    siblings: list[tuple[str, dict[str, Any]]] = [("open_ticket", {}), ("comment", {"late": LATE})]
    for use, planned in siblings:
        row = engine.delivery_row(use, event, trigger="on_success", **planned)
        rows.append(row | {"parent_id": "dlv_parent"})
    with database.write() as conn:
        for row in rows:
            conn.execute(deliveries.insert(), [row])
    engine.run_for(seconds=10)
    assert engine.comments == ["T-1"]
