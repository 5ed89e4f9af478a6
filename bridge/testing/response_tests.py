"""Tests of the conformance suite: what each HTTP status means."""

# ruff: noqa: D102

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import timedelta

from bridge.connector import Action, Success
from bridge.connector.deadline import count_requests
from bridge.errors import (
    AccountError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    TransientError,
)
from bridge.testing.connection import connect
from bridge.testing.stub_server import Reply, StubServer
from bridge.testing.suite_base import ObservedAttempt, SuiteBase, listing

REJECTED = (400, 402, 403, 404, 409, 410, 413, 415, 422, 451)
"""The provider rejected the request: nothing happened."""
MAY_SUCCEED_LATER = (402, 403, 409)
"""Of these, some providers say so about a quota, a daily limit or a lock."""
UNKNOWN = (408, 500, 502, 503, 529)
"""The request may have taken effect before this status was returned."""
NO_SUCCESS = (200, 201, 202, 204, 206, 302, 304, 307)
"""Not a success if the body is not the provider's: from a proxy, a captive portal, a moved site."""
FOREIGN_PAGE = "<html>Please log in to the hotel's network</html>"
_REDIRECTED = "/moved-to-another-site"


def error_reply(status: int, url: str) -> Reply:
    """Return a response with this status that is not the provider's confirmation."""
    if status >= 400:
        return Reply(status, {"error": "no"})
    headers = {"Location": url + _REDIRECTED} if status in (302, 307) else {}
    return Reply(status, None if status in (204, 304) else FOREIGN_PAGE, headers)


class ResponseTests(SuiteBase):
    """Statuses of responses."""

    def test_rejected_request_is_not_tried_again(self, action: Action) -> None:
        wrong = {
            status: attempt.kind
            for status, attempt in self._answers(action, REJECTED).items()
            if not isinstance(attempt.outcome, PermanentError | AccountError)
            and not (isinstance(attempt.outcome, TransientError) and status in MAY_SUCCEED_LATER)
        }
        if wrong:
            self._fail(
                f"{action.full_name}: raise PermanentError or AccountError for a rejected request, which is "
                f"otherwise tried for days: {listing(wrong)}"
            )

    def test_refused_credentials_pause_the_connection(self, action: Action) -> None:
        attempt = self._answers(action, (401,))[401]
        expected = AccountError if self.one_account else AccountError | PermanentError
        if not isinstance(attempt.outcome, expected):
            self._fail(
                f"{action.full_name}: raise AuthenticationError for 401, so that deliveries wait: {attempt.kind}"
            )

    def test_server_error_leaves_the_outcome_unknown(self, action: Action) -> None:
        wrong = {
            status: attempt.kind
            for status, attempt in self._answers(action, UNKNOWN).items()
            if not isinstance(attempt.outcome, OutcomeUnknown | TransientError)
        }
        if wrong:
            self._fail(f"{action.full_name}: raise OutcomeUnknown for a server error: {listing(wrong)}")

    def test_foreign_response_is_not_a_success(self, action: Action) -> None:
        wrong = {}
        for status, attempt in self._answers(action, NO_SUCCESS).items():
            if status in self.confirming_statuses(action):
                continue
            if not isinstance(attempt.outcome, OutcomeUnknown | TransientError | PermanentError):
                wrong[status] = "succeeded" if isinstance(attempt.outcome, Success) else attempt.kind
        if wrong:
            self._fail(
                f"{action.full_name}: raise OutcomeUnknown for a response that is not the provider's, or return the "
                f"status from confirming_statuses() if it confirms without a body: {listing(wrong)}"
            )

    def test_redirect_is_not_followed(self, action: Action) -> None:
        followed = {
            status: "followed"
            for status, attempt in self._answers(action, NO_SUCCESS).items()
            if any(request.path == _REDIRECTED for request in attempt.requests)
        }
        if followed:
            self._fail(
                f"{action.full_name}: do not follow redirects, which send the request to another site: "
                f"{listing(followed)}"
            )

    def test_connector_repeats_no_request(self, action: Action) -> None:
        """Retries are the bridge's: it looks up first whether the action took effect."""
        for status, attempt in self._answers(action, UNKNOWN).items():
            sent = Counter(
                (request.method, request.path, str(request.query), request.body)
                for request in attempt.requests
            )
            for (method, path, _, _), times in sent.items():
                if times > 1:
                    number = "twice" if times == 2 else f"{times} times"
                    self._fail(
                        f"{action.full_name}: {method} {path} is sent {number} after {status}; turn off the "
                        "retries of the connector and its SDK"
                    )

    def test_retry_after_header_is_honored(self, action: Action) -> None:
        self._needs_http()
        with self._connected() as (server, connected):
            server.otherwise = Reply(429, {"error": "slow down"}, {"Retry-After": "7"})
            failure = self._attempt(connected, action)
        limited = isinstance(failure, TransientError) and failure.reason in ("rate_limited", "quota")
        if not limited:
            self._fail(f"{action.full_name}: raise RateLimited for 429: {type(failure).__name__}")
        waits = isinstance(failure, DeliveryError) and failure.retry_after == timedelta(seconds=7)
        if not waits and not isinstance(failure, QuotaExhausted):
            self._fail(
                f"{action.full_name}: raise RateLimited with retry_after=parse_retry_after(header): the response "
                "to a 429 has a Retry-After header"
            )

    def test_every_request_is_counted(self, action: Action) -> None:
        """The limit of requests per second holds only if the transport counts them, or `count_request` is called."""
        self._needs_http()
        for status in (200, 400, 500):
            with StubServer() as server:
                server.answer("*", "*", Reply(status, {}))
                self.prepare(server)
                with (
                    count_requests() as count,
                    connect(self.connector, self.environ(server.url)) as connected,
                ):
                    with suppress(DeliveryError):
                        self._attempt(connected, action)
                    if not count.sent == len(server.requests) > 0:
                        self._fail(
                            f"{action.full_name}: {len(server.requests)} requests were sent and {count.sent} "
                            "counted; use http_client(), or call count_request() before each"
                        )

    def _answers(self, action: Action, statuses: tuple[int, ...]) -> dict[int, ObservedAttempt]:
        """Return the attempt at which all requests were answered with a status, for each of these statuses."""
        self._needs_http()
        answers = self._once("answers", action, lambda: self._try_statuses(action))
        return {status: answers[status] for status in statuses}

    def _try_statuses(self, action: Action) -> dict[int, ObservedAttempt]:
        answers = {}
        with StubServer() as server:
            self.prepare(server)
            for status in (401, *REJECTED, *UNKNOWN, *NO_SUCCESS):
                server.otherwise = error_reply(status, server.url)
                server.requests.clear()
                with connect(self.connector, self.environ(server.url)) as connected:
                    outcome = self._attempt(connected, action)
                answers[status] = ObservedAttempt(outcome, list(server.requests))
                if not server.requests:
                    self._fail(f"{action.full_name}: the action did not send a request")
        return answers
