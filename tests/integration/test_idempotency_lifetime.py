"""Actions whose provider remembers the idempotency token for a time: repeated within it, looked up afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from bridge.connector import Connector, ConnectorSettings, Context, Params, Success, per_event
from bridge.errors import DeliveryError, OutcomeUnknown, PermanentError, TransientError
from bridge.rules.model import Retry
from bridge.store.database import Database
from bridge.worker.account import Account
from tests.integration.engine import Engine

LIFE = timedelta(hours=2)


@dataclass
class Tickets:
    """A provider that remembers tokens for two hours."""

    engine: Engine
    tickets: list[str] = field(default_factory=list)
    """The tokens of the tickets."""
    requests: list[str] = field(default_factory=list)
    failure: DeliveryError | None = None
    """Raised after a write took effect."""
    before: Callable[[], None] = lambda: None

    def open(self, token: str) -> Success:
        self.requests.append("open")
        self.before()
        remembered = self.engine.database.clock.now() < self._first_at + LIFE
        if not (remembered and token in self.tickets):
            self.tickets.append(token)
        if self.failure is not None:
            raise self.failure
        return Success("T-1")

    def find(self, token: str) -> Success | None:
        self.requests.append("find")
        return Success("T-1") if token in self.tickets else None

    def __post_init__(self) -> None:
        self._first_at = self.engine.database.clock.now()


def tickets_of(database: Database, *, lookup: bool = True) -> Tickets:
    """Return a provider of tickets, to which the engine is connected."""
    engine = Engine(database)
    provider = Tickets(engine)
    connector = Connector("desk", settings=ConnectorSettings)

    @connector.action(idempotency=per_event, idempotent=LIFE)
    def open_ticket(client: Any, params: Params, context: Context) -> Success:
        """Open a ticket."""
        return provider.open(context.idempotency_token)

    if lookup:

        @open_ticket.lookup
        def find_ticket(client: Any, params: Params, context: Context) -> Success | None:
            """Find it."""
            return provider.find(context.idempotency_token)

    engine.connector = connector
    engine.connection = Account("desk", connector, ConnectorSettings())
    return provider


def advance(provider: Tickets, *steps: timedelta) -> None:
    """Advance the clock by each of these, and process what is due."""
    for step in steps:
        provider.engine.database.clock.advance(seconds=step.total_seconds())
        provider.engine.run_due()


def lose_response(provider: Tickets) -> None:
    provider.failure = OutcomeUnknown("no answer")


def test_unknown_outcome_is_repeated_while_the_provider_remembers_the_token(database: Database) -> None:
    provider = tickets_of(database)
    delivery = provider.engine.deliver("open_ticket")
    lose_response(provider)
    advance(provider, *[timedelta(seconds=30)] * 3)
    provider.failure = None
    advance(provider, timedelta(minutes=10))
    assert (len(provider.tickets), set(provider.requests)) == (1, {"open"})
    shown = provider.engine.show(delivery)
    assert (shown["state"], shown["external_id"]) == ("succeeded", "T-1")
    assert {attempt["kind"] for attempt in shown["attempt_history"]} == {"send"}


@pytest.mark.parametrize("failure", [OutcomeUnknown("no answer"), TransientError("busy", reason="rejected")])
def test_afterwards_the_lookup_decides(database: Database, failure: DeliveryError) -> None:
    """Also if a later repetition certainly did nothing: the first one may have."""
    provider = tickets_of(database)
    delivery = provider.engine.deliver("open_ticket")
    lose_response(provider)
    provider.engine.step()
    provider.failure = failure
    advance(provider, *[timedelta(minutes=40)] * 6)
    assert provider.requests[-1] == "find"
    assert len(provider.tickets) == 1
    assert provider.engine.show(delivery)["state"] == "succeeded"


def test_delivery_that_was_delayed_past_the_life_of_its_token_is_looked_up_first(database: Database) -> None:
    provider = tickets_of(database)
    delivery = provider.engine.deliver("open_ticket")
    lose_response(provider)
    provider.engine.step()
    provider.failure = None
    database.clock.advance(hours=3)
    provider.engine.run_due()
    assert provider.requests == ["open", "find"]
    assert provider.engine.show(delivery)["state"] == "succeeded"


def test_without_a_lookup_it_needs_review_afterwards(database: Database) -> None:
    provider = tickets_of(database, lookup=False)
    delivery = provider.engine.deliver("open_ticket")
    lose_response(provider)
    provider.engine.step()
    database.clock.advance(hours=3)
    provider.engine.run_due()
    shown = provider.engine.show(delivery)
    assert (provider.requests, shown["state"]) == (["open"], "needs_review")
    assert "no longer knows the token" in shown["detail"]


def test_used_up_retries_lead_to_the_lookup(database: Database) -> None:
    provider = tickets_of(database)
    delivery = provider.engine.deliver("open_ticket", retry=Retry(None, 2))
    lose_response(provider)
    advance(provider, *[timedelta(minutes=1)] * 4)
    assert provider.requests == ["open", "open", "find"]
    assert provider.engine.show(delivery)["state"] == "succeeded"


def test_rejected_repetition_fails(database: Database) -> None:
    provider = tickets_of(database)
    delivery = provider.engine.deliver("open_ticket")
    lose_response(provider)
    provider.engine.step()
    provider.failure = PermanentError("the requester is suspended")
    advance(provider, timedelta(minutes=1))
    assert provider.engine.show(delivery)["state"] == "failed"


def test_killed_attempt_is_repeated(database: Database) -> None:
    provider = tickets_of(database)
    delivery = provider.engine.deliver("open_ticket")
    for call in provider.engine.claim():
        provider.engine.attempt(call)  # its result is lost with the process
    database.clock.advance(minutes=1)
    assert provider.engine.recover_expired() == 1
    advance(provider, timedelta(minutes=1))
    assert (provider.requests, len(provider.tickets)) == (["open", "open"], 1)
    assert provider.engine.show(delivery)["state"] == "succeeded"


class Message(Params):
    to: str


def test_lifetime_is_not_for_messages() -> None:
    with pytest.raises(TypeError, match="the recipient may have opted out meanwhile"):

        @Connector("desk", settings=ConnectorSettings).action(
            idempotency=per_event, idempotent=LIFE, channel="sms"
        )
        def send(client: Any, params: Message, context: Context) -> Success:
            """Send a message."""
            return Success()
