"""Tests of the conformance suite: the time of an attempt, and providers that do not answer."""

# ruff: noqa: D102, S101

from __future__ import annotations

import time

import pytest

from bridge.connector import Action, Success
from bridge.errors import DeliveryError, OutcomeUnknown, PermanentError, TransientError
from bridge.testing.connection import connect
from bridge.testing.stub_server import Reply, StubServer
from bridge.testing.suite_base import SuiteBase
from bridge.testing.wire import HOSTILE_RESPONSES


class DeadlineTests(SuiteBase):
    """Timeouts and lost connections."""

    def test_unreachable_provider_is_a_transient_error(self, action: Action) -> None:
        with StubServer() as stopped:
            url = stopped.url
        with connect(self.connector, self.environ(url)) as connected:
            kind = type(self._attempt(connected, action))
        if kind is not TransientError:
            self._fail(
                f"{action.full_name}: raise TransientError if no connection could be opened: {kind.__name__}"
            )

    def test_hanging_provider_times_out(self, action: Action) -> None:
        self._needs_http()
        with self._connected(prepared=False) as (server, connected):
            server.otherwise = Reply(200)
            server.fail(Reply(hang=True), times=5)
            started = time.monotonic()
            failure = self._attempt(connected, action, seconds=0.4)
            assert time.monotonic() - started < 3.0, "the attempt outlasts its deadline; use http_client()"
        assert isinstance(failure, OutcomeUnknown | TransientError)
        assert failure.reason in ("timeout", "network")

    def test_dripping_response_ends_with_the_attempt(self, action: Action) -> None:
        self._needs_http()
        outcome, seconds = self._hostile(action, "drips its headers", limit=0.15)
        assert seconds < 2.0, "the attempt outlasts its deadline; use http_client()"
        assert isinstance(outcome, OutcomeUnknown | TransientError)
        assert outcome.reason == "timeout"

    @pytest.mark.parametrize("response", HOSTILE_RESPONSES)
    def test_hostile_response_ends_with_the_attempt_and_is_not_kept(self, response: str) -> None:
        """It has at most 5 MiB and the attempt's time, and a connector that reads its body gets no success from it."""
        self._needs_http()
        action = next(iter(self.connector.actions.values()))
        outcome, seconds = self._hostile(action, response, limit=0.5)
        assert seconds < 4.0, "the attempt outlasts its deadline; use http_client()"
        if isinstance(outcome, Success):
            assert 200 in self.confirming_statuses(action)
        else:
            assert isinstance(outcome, OutcomeUnknown | TransientError | PermanentError)

    def _hostile(self, action: Action, response: str, limit: float) -> tuple[Success | DeliveryError, float]:
        """Return the outcome of an attempt that gets this response, and its seconds."""
        with self._connected() as (server, connected):
            server.otherwise = HOSTILE_RESPONSES[response]
            started = time.monotonic()
            outcome = self._attempt(connected, action, seconds=limit)
            return outcome, time.monotonic() - started

    def test_dropped_connection_leaves_the_outcome_unknown(self, action: Action) -> None:
        self._needs_http()
        with self._connected() as (server, connected):
            server.otherwise = Reply(drop="before")
            failure = self._attempt(connected, action)
        assert isinstance(failure, OutcomeUnknown | TransientError)
        assert failure.reason in ("network", "timeout")

    def test_attempt_past_its_deadline_sends_nothing(self, action: Action) -> None:
        with self._connected(prepared=False) as (server, connected):
            failure = self._attempt(connected, action, seconds=-1.0)
            sent = len(server.requests)
        if sent or not isinstance(failure, TransientError):
            self._fail(
                f"{action.full_name}: {sent} requests were sent after the deadline; use http_client(), or call "
                "check_deadline() before each"
            )
