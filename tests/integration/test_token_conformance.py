"""The conformance suite with a connector that obtains tokens: it passes, and the errors of its authors are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from bridge.connector import Connector, JsonApi, Token, TokenSource
from bridge.testing import ConnectorConformance, Received, Reply, StubServer, conformance_errors
from tests.integration.test_connection_tokens import DeskSettings, desk


def checked_desk() -> Connector:
    connector = desk()

    @connector.check
    def check(api: JsonApi) -> str:
        """Authenticate."""
        return str(api.read("/me", holds="name"))

    return connector


class TestTokenDesk(ConnectorConformance):
    connector = checked_desk()

    def environ(self, url: str) -> Mapping[str, str]:
        return {"DESK_URL": url}

    def prepare(self, server: StubServer) -> None:
        server.answer("POST", "/token", Reply(200, {"access_token": "secret-access", "expires_in": 3600}))

    @contextmanager
    def provider(self) -> Iterator[TicketStore]:
        with StubServer() as server:
            yield TicketStore(server)


class TicketStore:
    """A fake provider that stores tickets."""

    def __init__(self, server: StubServer) -> None:
        self.environ = {"DESK_URL": server.url}
        self.server = server
        self.tickets: dict[str, str] = {}
        server.answer("POST", "/token", Reply(200, {"access_token": "secret-access", "expires_in": 3600}))
        server.answer("POST", "/tickets", self.open_ticket)

    def open_ticket(self, request: Received) -> Reply:
        number = self.tickets.setdefault(request.json["subject"], str(len(self.tickets) + 1))
        return Reply(201, {"id": int(number)})

    def drop_next_response(self, when: Any, *, nth: int = 1, status: int | None = None) -> None:
        self.server.drop_next_write(when, nth=nth, status=status, path="/tickets")

    def received_text(self) -> str:
        return self.server.received_text()

    def side_effect_count(self) -> int:
        return len(self.tickets)


class Suite(TestTokenDesk):
    """The same suite for a broken connector."""

    __test__ = False


@contextmanager
def suite(build_client: Callable[[Any, TokenSource], Any]) -> Iterator[Suite]:
    class Broken(Suite):
        connector = checked_desk()

    Broken.connector.build_client = build_client
    yield Broken()


def keeps_its_token(settings: DeskSettings, tokens: TokenSource) -> JsonApi:
    return JsonApi("Desk", settings.url, bearer=tokens.current().access)


def logs_in_for_each_attempt(settings: DeskSettings, tokens: TokenSource) -> JsonApi:
    class OwnTokens(TokenSource):
        def current(self, refused: Token | None = None) -> Token:
            return tokens._obtain(None)

    return JsonApi("Desk", settings.url, token=OwnTokens(tokens._obtain))


@pytest.mark.parametrize(
    ("build_client", "test", "message"),
    [
        (keeps_its_token, "test_refused_token_is_replaced_once", "after a 401, repeat the request once"),
        (
            keeps_its_token,
            "test_attempt_succeeds_after_its_token_was_refused",
            "repeat it once with a new token",
        ),
        (logs_in_for_each_attempt, "test_threads_share_one_token", "obtained 2 tokens; take the token from"),
    ],
)
def test_suite_finds_a_client_that_does_not_share_its_tokens(
    build_client: Callable[[Any, TokenSource], Any], test: str, message: str
) -> None:
    with suite(build_client) as broken, pytest.raises(AssertionError, match=message):
        getattr(broken, test)(broken.connector.actions["open_ticket"])


def test_suite_finds_a_client_that_takes_no_tokens() -> None:
    connector = checked_desk()
    connector.build_client = lambda settings: JsonApi("Desk", settings.url)
    assert conformance_errors(connector) == [
        "desk: with @connector.token, the client is built with (settings, tokens)"
    ]


def test_suite_finds_a_login_that_is_not_classified() -> None:
    def obtain(settings: Any, previous: Token | None) -> Token:
        return Token(SecretStr("made-up without asking"))

    with suite(lambda settings, tokens: JsonApi("Desk", settings.url, token=tokens)) as broken:
        broken.connector.obtain_token = obtain
        with pytest.raises(AssertionError, match="a login that fails had no effect"):
            broken.test_login_that_fails_had_no_effect(broken.connector.actions["open_ticket"])
