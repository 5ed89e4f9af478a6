"""Tests of the conformance suite: a connector that obtains tokens uses one for all, and replaces a refused one once."""

# ruff: noqa: D102

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from bridge.connector import Action, Success, Token
from bridge.errors import AccountError, TransientError
from bridge.testing.connection import Connected
from bridge.testing.stub_server import Received, Reply, StubServer
from bridge.testing.suite_base import SuiteBase, listing

SECONDS_TO_OBTAIN = 0.03
"""Long enough for a second thread to need a token as well."""


class TokenTests(SuiteBase):
    """Connectors with a function under `@connector.token`. Others skip these tests."""

    def test_refused_token_is_replaced_once(self, action: Action) -> None:
        with self._with_token() as (server, connected, issued):
            server.otherwise = Reply(401, {"error": "expired"})
            self._attempt(connected, action)
            if not issued:
                pytest.skip("the action needs no token")
            used = [_token_of(request) for request in server.requests]
        if len(issued) != 2 or used[:1] + used[-1:] != issued:
            self._fail(
                f"{action.full_name}: after a 401, repeat the request once with a new token; obtained {len(issued)} "
                "tokens. Use JsonApi(token=tokens), or tokens.current(refused=token) after the 401"
            )

    def test_attempt_succeeds_after_its_token_was_refused(self, action: Action) -> None:
        self._needs_token()
        with self._provider() as (fake, connected):
            count = fake.side_effect_count()
            fake.drop_next_response("before", status=401)
            outcome = self._attempt(connected, action)
            created = fake.side_effect_count() - count
        if not isinstance(outcome, Success) or not created:
            self._fail(
                f"{action.full_name}: a write that is answered with 401 did nothing; repeat it once with a new token, "
                f"instead of {outcome!r}"
            )

    def test_threads_share_one_token(self, action: Action) -> None:
        with self._with_token() as (server, connected, issued), ThreadPoolExecutor(2) as pool:
            server.otherwise = Reply(503, {"error": "unavailable"})
            attempts = [pool.submit(self._attempt, connected, action) for _ in range(2)]
            for attempt in attempts:
                attempt.result()
        if len(issued) > 1:
            self._fail(
                f"{action.full_name}: two attempts at the same time obtained {len(issued)} tokens; take the token from "
                "the TokenSource that the client gets"
            )

    def test_login_that_fails_had_no_effect(self, action: Action) -> None:
        self._needs_token()
        wrong = {}
        for status in (429, 500, 503):
            outcome = self._login_answered(action, status)
            if not isinstance(outcome, TransientError):
                wrong[status] = type(outcome).__name__
        if wrong:
            self._fail(
                f"{action.full_name}: a login that fails had no effect; raise TransientError or OutcomeUnknown in "
                f"@connector.token: {listing(wrong)}"
            )

    def test_login_that_is_refused_says_what_to_do(self, action: Action) -> None:
        self._needs_token()
        for status in (400, 401):
            outcome = self._login_answered(action, status)
            if not (isinstance(outcome, AccountError) and outcome.fix):
                self._fail(
                    f"{action.full_name}: a login that is answered with {status} gave {type(outcome).__name__}; raise "
                    "AuthenticationError or AccountError with a fix in @connector.token, as request_token does"
                )

    def _needs_token(self) -> None:
        self._needs_http()
        if self.connector.obtain_token is None:
            pytest.skip("the connector obtains no tokens")

    def _login_answered(self, action: Action, status: int) -> Any:
        with self._connected(prepared=False) as (server, connected):
            server.otherwise = Reply(status, {"error": "no"})
            return self._attempt(connected, action)

    @contextmanager
    def _with_token(self) -> Iterator[tuple[StubServer, Connected, list[str]]]:
        """Yield a stub server, a connection to it whose tokens are made up, and the list of those tokens."""
        self._needs_token()
        issued: list[str] = []

        def obtain(settings: Any, previous: Token | None) -> Token:
            del settings
            time.sleep(SECONDS_TO_OBTAIN)
            issued.append(f"secret-token-{len(issued) + 1}")
            return replace(previous or Token(SecretStr("")), access=SecretStr(issued[-1]))

        real = self.connector.obtain_token
        self.connector.obtain_token = obtain
        try:
            with self._connected(prepared=False) as (server, connected):
                yield server, connected, issued
        finally:
            self.connector.obtain_token = real


def _token_of(request: Received) -> str:
    """Return the token that a request carries."""
    return request.headers.get("authorization", "").rpartition(" ")[2]
