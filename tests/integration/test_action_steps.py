"""Actions with several writes: each is taken once, whatever happens between and during them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, text

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    Params,
    Success,
    per_conversation,
    per_event,
)
from bridge.connector.steps import MAX_NAME_LENGTH, MAX_VALUE_LENGTH, Steps
from bridge.errors import (
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    StoreUnavailable,
    TransientError,
)
from bridge.rules.model import Retry, Rules
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.erase import erase
from bridge.store.operator_actions import retry
from bridge.store.results import record_results
from bridge.store.retention import prune
from bridge.store.sealing import PREFIX, MissingKey
from bridge.worker.account import Account
from tests.integration.engine import Engine, raising
from tests.integration.test_sealing import use_keys

CREATE, COMMENT = "create ticket", "comment"


class Killed(BaseException):
    """Stands for `kill -9`: what follows does not run."""


@dataclass
class HelpDesk:
    """A provider of tickets with comments, on which single writes fail."""

    engine: Engine
    tickets: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    after: dict[str, Callable[[], None]] = field(default_factory=dict)
    comment_has_lookup: bool = True

    def write(self, name: str, records: list[str], record: str) -> str:
        self.before.pop(name, lambda: None)()
        records.append(record)
        self.after.pop(name, lambda: None)()
        return f"{record}-{len(records)}"

    def find(self, name: str, records: list[str]) -> str | None:
        self.lookups.append(name)
        self.before.pop(f"find {name}", lambda: None)()
        return f"found {name}" if records else None

    def run(self, context: Context) -> Success:
        ticket = context.step(
            CREATE, lambda: self.write(CREATE, self.tickets, "T"), lambda: self.find(CREATE, self.tickets)
        )
        self.before.pop("between", lambda: None)()
        lookup = (lambda: self.find(COMMENT, self.comments)) if self.comment_has_lookup else None
        context.step(COMMENT, lambda: self.write(COMMENT, self.comments, f"on {ticket}"), lookup)
        self.before.pop("end", lambda: None)()
        return Success(ticket)


@pytest.fixture
def desk(database: Database) -> HelpDesk:
    engine = Engine(database)
    provider = HelpDesk(engine)
    connector = Connector("desk", settings=ConnectorSettings)

    @connector.action(idempotency=per_event)
    def open_ticket(client: Any, params: Params, context: Context) -> Success:
        """Open a ticket and comment on it."""
        return provider.run(context)

    @connector.action(idempotency=per_conversation)
    def log(client: Any, params: Params, context: Context) -> Success:
        """Log a conversation."""
        return provider.run(context)

    engine.connector = connector
    engine.connection = Account("desk", connector, ConnectorSettings())
    return provider


def proceed(desk: HelpDesk, minutes: int = 2, times: int = 3) -> None:
    for _ in range(times):
        desk.engine.database.clock.advance(minutes=minutes)
        desk.engine.recover_expired()
        desk.engine.run_due()


def killed(desk: HelpDesk) -> None:
    """Make the due attempt and lose its result: the process was killed."""
    for call in desk.engine.claim():
        desk.engine.attempt(call)


def is_done_once(desk: HelpDesk, delivery: str) -> bool:
    counts = (len(desk.tickets), len(desk.comments))
    return counts == (1, 1) and desk.engine.show(delivery)["state"] == "succeeded"


POINTS = [
    *(("before", point) for point in (CREATE, "between", COMMENT, "end")),
    *(("after", point) for point in (CREATE, COMMENT)),
]


@pytest.mark.parametrize(("when", "point"), POINTS)
def test_killed_attempt_continues_where_it_ended(desk: HelpDesk, when: str, point: str) -> None:
    delivery = desk.engine.deliver("open_ticket")
    getattr(desk, when)[point] = raising(Killed())
    killed(desk)
    proceed(desk)
    assert is_done_once(desk, delivery)
    assert len(desk.lookups) <= 1


@pytest.mark.parametrize(
    ("when", "point", "error"),
    [
        *((*point, OutcomeUnknown("no answer")) for point in POINTS),
        *((*point, TransientError("busy", reason="rejected")) for point in POINTS if point[0] == "before"),
    ],
)
def test_failed_attempt_continues_where_it_ended(
    desk: HelpDesk, when: str, point: str, error: DeliveryError
) -> None:
    delivery = desk.engine.deliver("open_ticket")
    getattr(desk, when)[point] = raising(error)
    desk.engine.step()
    proceed(desk)
    assert is_done_once(desk, delivery)
    expected = [point] if isinstance(error, OutcomeUnknown) and point in (CREATE, COMMENT) else []
    assert desk.lookups == expected


def test_step_without_a_lookup_needs_review_if_its_outcome_is_unknown(desk: HelpDesk) -> None:
    desk.comment_has_lookup = False
    delivery = desk.engine.deliver("open_ticket")
    desk.after[COMMENT] = raising(OutcomeUnknown("no answer"))
    desk.engine.step()
    proceed(desk)
    shown = desk.engine.show(delivery)
    assert shown["state"] == "needs_review"
    assert "the step `comment` of an earlier attempt may have taken effect" in shown["detail"]
    assert (len(desk.tickets), len(desk.comments)) == (1, 1)


def test_kill_between_steps_needs_no_lookup(desk: HelpDesk) -> None:
    desk.comment_has_lookup = False
    delivery = desk.engine.deliver("open_ticket")
    desk.before["between"] = raising(Killed())
    killed(desk)
    proceed(desk)
    assert is_done_once(desk, delivery)


def test_step_stays_unknown_while_its_lookup_fails(desk: HelpDesk) -> None:
    delivery = desk.engine.deliver("open_ticket")
    desk.after[COMMENT] = raising(OutcomeUnknown("no answer"))
    desk.engine.step()
    desk.before[f"find {COMMENT}"] = raising(TransientError("busy", reason="rejected"))
    proceed(desk, times=1)
    assert desk.engine.show(delivery)["outcome_unknown_since"] is not None
    assert "done before: create ticket" in desk.engine.show(delivery)["detail"]
    proceed(desk, minutes=10, times=3)
    assert is_done_once(desk, delivery)


@pytest.mark.parametrize("error", [PermanentError("no"), LookupInconclusive("two tickets")])
def test_step_that_cannot_be_looked_up_needs_review(desk: HelpDesk, error: Exception) -> None:
    delivery = desk.engine.deliver("open_ticket")
    desk.after[COMMENT] = raising(OutcomeUnknown("no answer"))
    desk.engine.step()
    desk.before[f"find {COMMENT}"] = raising(error)
    proceed(desk)
    assert desk.engine.show(delivery)["state"] == "needs_review"
    assert len(desk.comments) == 1


def test_step_whose_refusal_the_action_handles_is_not_unknown_later(desk: HelpDesk) -> None:
    def run(context: Context) -> Success:
        with suppress(PermanentError):
            context.step("set phone", raising(PermanentError("not a number")))
        context.step(COMMENT, lambda: desk.write(COMMENT, desk.comments, "C"), lambda: "C-1")
        return Success("T")

    desk.run = run  # type: ignore[method-assign]
    delivery = desk.engine.deliver("open_ticket")
    desk.after[COMMENT] = raising(OutcomeUnknown("no answer"))
    desk.engine.step()
    proceed(desk)
    assert (desk.engine.show(delivery)["state"], desk.comments) == ("succeeded", ["C"])


@pytest.mark.parametrize("error", [StoreUnavailable("down"), MissingKey("another key")])
def test_steps_that_cannot_be_read_for_a_moment_are_not_taken_for_done(
    desk: HelpDesk, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lookup of the action itself would find the ticket."""
    desk.engine.connector.actions["open_ticket"].lookup(lambda client, params, context: Success("T-1"))
    delivery = desk.engine.deliver("open_ticket")
    desk.after[CREATE] = raising(OutcomeUnknown("no answer"))
    desk.engine.step()
    read = desk.engine.database.read
    desk.engine.database.clock.advance(minutes=2)
    calls = desk.engine.claim()
    with monkeypatch.context() as patched:
        patched.setattr(desk.engine.database, "read", raising(error))
        results = [result for call in calls for result in desk.engine.attempt(call)]
    assert desk.engine.database.read == read
    record_results(desk.engine.database, results)
    assert desk.engine.show(delivery)["outcome_unknown_since"] is not None
    proceed(desk)
    assert is_done_once(desk, delivery)


def test_unknown_outcome_after_the_last_retry_needs_review(desk: HelpDesk) -> None:
    delivery = desk.engine.deliver("open_ticket", retry=Retry(timedelta(minutes=1), None))
    desk.after[COMMENT] = raising(OutcomeUnknown("no answer"))
    desk.engine.database.clock.advance(minutes=2)
    desk.engine.step()
    desk.before[f"find {COMMENT}"] = raising(TransientError("busy", reason="rejected"))
    proceed(desk, minutes=5)
    assert desk.engine.show(delivery)["state"] == "needs_review"


def test_worker_that_lost_its_lease_takes_no_step(desk: HelpDesk) -> None:
    delivery = desk.engine.deliver("open_ticket")

    def take_over() -> None:
        desk.engine.database.clock.advance(minutes=2)
        desk.engine.recover_expired()
        desk.engine.database.clock.advance(minutes=2)
        desk.engine.run_due()

    desk.before["between"] = take_over
    [[claimed]] = desk.engine.claim()
    [frozen] = desk.engine.attempt([claimed])
    assert "another worker has taken over" in str(frozen.transition.detail)
    assert is_done_once(desk, delivery)


def test_value_of_a_worker_that_lost_its_lease_is_not_recorded(desk: HelpDesk) -> None:
    """The worker that took over looks the step up."""
    delivery = desk.engine.deliver("open_ticket")

    def take_over() -> None:
        desk.engine.database.clock.advance(minutes=2)
        desk.engine.recover_expired()
        desk.engine.database.clock.advance(minutes=2)
        desk.engine.run_due()

    desk.after[CREATE] = take_over
    killed(desk)
    assert desk.lookups == [CREATE]
    assert is_done_once(desk, delivery)
    assert desk.engine.show(delivery)["external_id"] == f"found {CREATE}"


def test_operator_retry_continues_after_the_steps_that_took_effect(desk: HelpDesk) -> None:
    delivery = desk.engine.deliver("open_ticket")
    desk.before[COMMENT] = raising(PermanentError("the ticket is closed"))
    desk.engine.step()
    shown = desk.engine.show(delivery)
    assert (shown["state"], shown["detail"]) == ("failed", "the ticket is closed; done before: create ticket")
    retry(desk.engine.database, "ana", [delivery])
    desk.engine.run_due()
    assert is_done_once(desk, delivery)


def test_replay_continues_after_the_steps_of_a_failed_delivery(desk: HelpDesk) -> None:
    event = desk.engine.event()
    desk.before[COMMENT] = raising(PermanentError("the ticket is closed"))
    desk.engine.deliver("open_ticket", event)
    desk.engine.step()
    replayed = desk.engine.deliver("open_ticket", event)
    desk.engine.run_due()
    assert is_done_once(desk, replayed)


def test_forced_replay_takes_every_step_again(desk: HelpDesk) -> None:
    event = desk.engine.event()
    for force in (False, True):
        desk.engine.deliver("open_ticket", event, force=force)
        desk.engine.run_due()
    assert (len(desk.tickets), len(desk.comments)) == (2, 2)


def test_later_event_of_a_conversation_takes_its_own_steps(desk: HelpDesk) -> None:
    for name in ("call.busy", "call.completed"):
        event = desk.engine.event(name, conversationId="conv_1")
        desk.engine.deliver("log", event, idempotency_key="log conv_1")
        desk.engine.run_due()
    assert (len(desk.tickets), len(desk.comments)) == (2, 2)


def steps_in(database: Database) -> int:
    with database.read() as conn:
        return int(conn.execute(select(func.count()).select_from(schema.action_steps)).scalar_one())


def test_steps_are_deleted_with_the_personal_data_of_their_delivery(desk: HelpDesk) -> None:
    database = desk.engine.database
    desk.engine.deliver("open_ticket")
    desk.engine.run_due()
    assert steps_in(database) == 2
    database.clock.advance(days=2)
    prune(database, timedelta(days=1), Rules("", "rules"))
    assert steps_in(database) == 0


def test_steps_are_deleted_when_their_contact_is_erased(desk: HelpDesk) -> None:
    event = desk.engine.event(metadata={"contactPhone": "+12125550167"})
    desk.engine.deliver("open_ticket", event)
    desk.engine.run_due()
    erase(desk.engine.database, "ana", "+12125550167", [])
    assert steps_in(desk.engine.database) == 0


def test_values_are_encrypted_at_rest(desk: HelpDesk) -> None:
    database = desk.engine.database
    use_keys(database, "a key for tests, long enough")
    delivery = desk.engine.deliver("open_ticket")
    desk.before["between"] = raising(TransientError("busy", reason="rejected"))
    desk.engine.step()
    with database.read() as conn:
        [stored] = conn.execute(text("SELECT value FROM action_steps")).scalars()
    assert stored.startswith(PREFIX.decode())
    proceed(desk)
    assert is_done_once(desk, delivery)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * (MAX_NAME_LENGTH + 1)])
def test_name_of_a_step_is_bounded_and_printable(name: str) -> None:
    with pytest.raises(TypeError, match="name of a step"):
        Steps.in_memory().take(name, lambda: None, None)


@pytest.mark.parametrize("value", ["x" * (MAX_VALUE_LENGTH + 1), True, {"id": 1}])
def test_value_of_a_step_is_a_bounded_id(value: Any) -> None:
    with pytest.raises(TypeError, match="the step `create` must return an ID"):
        Steps.in_memory().take("create", lambda: value, None)


def test_value_is_the_same_as_the_database_returns_later() -> None:
    assert Steps.in_memory().take("create", lambda: "a\x00b", None) == "a\ufffdb"


def test_number_is_stored_as_text_and_a_name_is_used_once() -> None:
    steps = Steps.in_memory()
    assert steps.take("create", lambda: 35436, None) == "35436"
    with pytest.raises(TypeError, match="taken twice"):
        steps.take("create", lambda: None, None)
