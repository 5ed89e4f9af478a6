"""Conformance suite that every connector passes, shipped or not. Subclass `ConnectorConformance` in a test file:

class TestDesk(ConnectorConformance):
    connector = load_connector("desk", "connectors")

    def environ(self, url: str) -> dict[str, str]:
        return {"DESK_URL": url, "DESK_TOKEN": "desk-secret-1"}
"""

# ruff: noqa: D102, S101 - the test names are the documentation

from __future__ import annotations

from typing import Any

import pytest

from bridge.connector import Action, Success
from bridge.errors import AccountError, DeliveryError, OutcomeUnknown, PermanentError, TransientError
from bridge.testing.deadline_tests import DeadlineTests
from bridge.testing.definition import conformance_errors
from bridge.testing.lookup_tests import LookupTests
from bridge.testing.response_tests import ResponseTests
from bridge.testing.secrecy_tests import SecrecyTests
from bridge.testing.side_effect_tests import SideEffectTests
from bridge.testing.stub_server import Reply
from bridge.testing.suite_base import CONTACT, listing
from bridge.testing.token_tests import TokenTests


class ConnectorConformance(
    ResponseTests, DeadlineTests, SecrecyTests, LookupTests, SideEffectTests, TokenTests
):
    """The conformance suite. Subclass it once per connector; pytest runs each test for each action."""

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """Parametrize tests by action."""
        if "action" in metafunc.fixturenames:
            actions = metafunc.cls.connector.actions.values() if metafunc.cls else ()
            metafunc.parametrize("action", actions, ids=lambda action: action.name)

    # ------------------------------------------------------------ definition

    def test_connector_is_fully_described(self) -> None:
        errors = conformance_errors(self.connector)
        assert not errors, "\n".join(errors)

    def test_sample_params_are_valid(self, action: Action) -> None:
        problem = self._invalid_params(action)
        assert problem is None, problem

    # ------------------------------------------------------------ opt-out flags

    def test_error_is_never_read_as_no_opt_out_flags(self) -> None:
        wrong = {}
        for status in (200, 204, 302, 400, 401, 403, 404, 422, 429, 500, 503):
            body = (
                None if status in (204, 304) else {"error": "no"} if status >= 400 else "<html>Log in</html>"
            )
            failure = self._flags_failure(Reply(status, body))
            if not isinstance(failure, PermanentError | AccountError | TransientError | OutcomeUnknown):
                wrong[status] = type(failure).__name__
        if wrong:
            self._fail(
                f"{self.connector.name}: raise a DeliveryError unless the flags are certain: {listing(wrong)}"
            )

    def test_opt_out_flags_are_not_read_past_the_deadline(self) -> None:
        failure = self._flags_failure(Reply(200, {}), seconds=-1.0, sends=False)
        assert isinstance(failure, TransientError)

    def _flags_failure(
        self, reply: Reply, *, seconds: float | None = None, sends: bool = True
    ) -> DeliveryError | None:
        """Return the error of reading opt-out flags if all requests are answered with `reply`."""
        if self.connector.read_opt_out_flags is None:
            pytest.skip("the connector has no opt-out flags")
        emails, phones = [CONTACT["metadata.contactEmail"]], [CONTACT["metadata.contactPhone"]]
        with self._connected() as (server, connected):
            server.otherwise = reply
            try:
                connected.opt_out_flags(emails, phones, seconds=seconds)
            except DeliveryError as error:
                if error.reason == "internal_error":
                    self._fail(f"{self.connector.name}: {error}; classify it in @connector.classify_error")
                return error
            finally:
                assert bool(server.requests) == sends
        return None

    # ------------------------------------------------------------ batches

    def test_batch_returns_one_result_per_delivery(self, action: Action) -> None:
        if action.batch == 1:
            pytest.skip("the action takes one delivery at a time")
        for status in (200, 400, 429, 500):
            with self._connected() as (server, connected):
                server.otherwise = Reply(status, {"results": []})
                deliveries: list[Any] = [(self.params(action), self.event(action), None) for _ in range(3)]
                results = connected.run_batch(action.name, deliveries)
            kinds = [type(result).__name__ for result in results]
            if len(results) != len(deliveries) or not all(
                isinstance(result, Success | DeliveryError) for result in results
            ):
                self._fail(f"{action.full_name}: three deliveries have the results {kinds} after {status}")
            # A 200 response that omits deliveries is a bug of the provider.
            if status != 200 and any(getattr(result, "reason", "") == "internal_error" for result in results):
                self._fail(f"{action.full_name}: after {status}, a batch fails with {results[0]}")
