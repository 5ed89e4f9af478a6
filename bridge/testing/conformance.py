"""Conformance suite that every connector passes, shipped or not. Subclass `ConnectorConformance` in a test file:

class TestDesk(ConnectorConformance):
    connector = load_connector("desk", "connectors")

    def environ(self, url: str) -> dict[str, str]:
        return {"DESK_URL": url, "DESK_TOKEN": "desk-secret-1"}
"""

# ruff: noqa: D102, S101 - the test names are the documentation

from __future__ import annotations

import inspect
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import Any, ClassVar, Literal, Protocol, get_args

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from bridge.connector import Action, Connector, Context, Success
from bridge.connector.deadline import count_requests
from bridge.connector.params import example_of, template_of
from bridge.errors import (
    AccountError,
    ConfigError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    TransientError,
)
from bridge.rules.templates import is_template
from bridge.testing.connection import Connected, build_context, connect, event
from bridge.testing.stub_server import Reply, StubServer
from bridge.testing.wire import HOSTILE_RESPONSES

REJECTED = (400, 401, 402, 403, 404, 405, 406, 409, 410, 411, 413, 415, 422, 451)
"""The provider rejected the request: nothing happened."""
UNKNOWN = (408, 500, 501, 502, 503, 504, 520, 529)
"""The request may have taken effect before this status was returned."""
NO_SUCCESS = (200, 201, 202, 204, 206, 301, 302, 304, 307)
"""Not a success if the body is not the provider's: from a proxy, a captive portal, a moved site."""

_NOT_THE_SECRET_ITSELF = ("_file", "_sid", "_url")
"""Endings of settings that say where a secret is, or which one, and are shown: `api_key_sid`, `token_url`."""
_SECRET_NAME = re.compile(
    r"(token|secret|password|passphrase|private_key|api_key|shared_key|credential)", re.I
)
_CONTACT = {
    "metadata.contactName": "Wilhelmina Quistgaard",
    "metadata.contactPhone": "+12125550193",
    "metadata.contactEmail": "wilhelmina.q@quistgaard.example",
}
_PERSONAL = (*_CONTACT.values(), "12125550193", "2125550193", "Quistgaard", "wilhelmina")


class FakeProvider(Protocol):
    """A provider that stores its records, for the tests of lost responses."""

    environ: Mapping[str, str]

    def drop_next_response(self, when: Literal["before", "after"]) -> None:
        """Close the connection of the next request with a side effect, before or after it takes effect."""
        ...

    def side_effect_count(self) -> int:
        """Return the number of records, messages or calls that exist."""
        ...


def conformance_errors(connector: Connector) -> list[str]:
    """Return what is missing in a connector's definition, one message per error, for its author."""
    errors = []
    name = connector.name
    if not connector.description:
        errors.append(f"Connector({name!r}): add a description of one sentence")
    if not connector.actions:
        errors.append(f"{name}: define at least one action")
    for decorator, function in {
        "client": connector.build_client,
        "check": connector.run_check,
        "classify_error": connector.classify,
    }.items():
        if function is None:
            errors.append(f"{name}: decorate a function with @connector.{decorator}")
        elif not inspect.getdoc(function):
            errors.append(f"{name}: add a docstring to the function under @connector.{decorator}")
    if connector.read_opt_out_flags is not None and not inspect.getdoc(connector.read_opt_out_flags):
        errors.append(f"{name}: add a docstring to the function under @connector.opt_out_flags")
    for field, info in connector.settings.model_fields.items():
        plain = not any(part is SecretStr for part in _types_in(info.annotation))
        if _SECRET_NAME.search(field) and not field.endswith(_NOT_THE_SECRET_ITSELF) and plain:
            errors.append(f"{name}: the setting {field} must be a SecretStr")
    for callback in connector.callbacks.values():
        if not inspect.getdoc(callback.run):
            errors.append(f"{name}: add a docstring to the callback {callback.name}")
    for action in connector.actions.values():
        errors += _action_errors(action)
    return errors


def _action_errors(action: Action) -> Iterator[str]:
    name = action.full_name
    if not action.description:
        yield f"{name}: add a docstring; its first line is the description"
    if action.channel and action.recipient not in action.params.model_fields:
        yield f"{name}: an action with a channel needs a param `{action.recipient}`"
    if action.run_lookup is not None and not inspect.getdoc(action.run_lookup):
        yield f"{name}: add a docstring to its lookup"
    if action.run_lookup is not None and action.idempotent:
        yield f"{name}: an idempotent action does not need a lookup"
    for field, info in action.params.model_fields.items():
        if not info.description:
            yield f"{name}: add a description to the param {field}"
        example = example_of(info)
        if example is None:
            yield f"{name}: add an example to the param {field}"
        elif not (isinstance(example, str) and is_template(example)):
            try:
                TypeAdapter(info.rebuild_annotation()).validate_python(example)
            except ValidationError as error:
                yield f"{name}: the example of {field} is not valid: {error.errors()[0]['msg']}"


def _types_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _types_in(part)


class ConnectorConformance:
    """The conformance suite. Subclass it once per connector; pytest runs each test for each action."""

    connector: ClassVar[Connector]
    http: ClassVar[bool] = True
    """Set to False for a connector that does not use HTTP: the tests of HTTP statuses are then skipped."""

    def environ(self, url: str) -> Mapping[str, str]:
        """Return the environment variables that point the connector at a provider under `url`."""
        raise NotImplementedError

    def params(self, action: Action) -> Mapping[str, Any]:
        """Return a rule's params under `with:`; by default the examples of the required params."""
        return {
            name: example_of(info)
            for name, info in action.params.model_fields.items()
            if info.is_required()
            or (template_of(info) is None and info.default is None and not _optional(info))
        }

    def prepare(self, server: StubServer) -> None:
        """Define responses that every test needs, such as a login. By default there are none."""

    def provider(self) -> AbstractContextManager[FakeProvider] | None:
        """Return a fake provider. By default there is none, and the tests of lost responses are skipped."""
        return None

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """Parametrize tests by action."""
        if "action" in metafunc.fixturenames:
            actions = metafunc.cls.connector.actions.values() if metafunc.cls else ()
            metafunc.parametrize("action", actions, ids=lambda action: action.name)

    # ------------------------------------------------------------ definition

    def test_connector_is_fully_described(self) -> None:
        assert conformance_errors(self.connector) == []

    def test_invalid_setting_is_reported_without_its_value(self) -> None:
        prefix = self.connector.settings.prefix(self.connector.name)
        invalid = dict.fromkeys(self.environ("http://127.0.0.1:9"), "\x00unguessable-value")
        with pytest.raises(ConfigError) as error:
            self.connector.settings.from_environment(invalid, prefix)
        assert prefix in str(error.value)
        assert "unguessable" not in str(error.value)

    # ------------------------------------------------------------ responses

    @pytest.mark.parametrize("status", REJECTED)
    def test_rejected_request_has_a_definite_outcome(self, action: Action, status: int) -> None:
        failure = self._failure(action, Reply(status, {"error": "no"}))
        assert isinstance(failure, PermanentError | AccountError | TransientError)

    @pytest.mark.parametrize("status", UNKNOWN)
    def test_server_error_leaves_the_outcome_unknown(self, action: Action, status: int) -> None:
        failure = self._failure(action, Reply(status, {"error": "broken"}))
        assert isinstance(failure, OutcomeUnknown | TransientError)

    @pytest.mark.parametrize("status", NO_SUCCESS)
    def test_foreign_response_is_not_a_success(self, action: Action, status: int) -> None:
        body = None if status in (204, 304) else "<html>Please log in to the hotel's network</html>"
        headers = {"Location": "http://127.0.0.1:9/login"} if status in (301, 302, 307) else {}
        if not self.validates_response_body(action) and status < 300:
            pytest.skip("the provider confirms with any 2xx status")
        if status == 204 and self.confirms_without_body(action):
            pytest.skip("the provider confirms without a body")
        failure = self._failure(action, Reply(status, body, headers))
        assert isinstance(failure, OutcomeUnknown | TransientError | PermanentError)

    def validates_response_body(self, action: Action) -> bool:
        """Return whether a successful response has a body to validate. Override for webhooks of unknown services."""
        del action
        return True

    def confirms_without_body(self, action: Action) -> bool:
        """Return whether 204 is a success. Override if a server that the connector supports answers so."""
        del action
        return False

    def test_retry_after_header_is_honored(self, action: Action) -> None:
        failure = self._failure(action, Reply(429, {"error": "slow down"}, {"Retry-After": "7"}))
        assert isinstance(failure, TransientError)
        assert failure.reason in ("rate_limited", "quota")
        assert isinstance(failure, QuotaExhausted) or failure.retry_after == timedelta(seconds=7)

    # ------------------------------------------------------------ no response

    def test_unreachable_provider_is_a_transient_error(self, action: Action) -> None:
        with StubServer() as stopped:
            url = stopped.url
        with connect(self.connector, self.environ(url)) as connected:
            assert type(self._run(connected, action)) is TransientError

    def test_hanging_provider_times_out(self, action: Action) -> None:
        self._needs_http()
        with StubServer() as server, connect(self.connector, self.environ(server.url)) as connected:
            server.otherwise = Reply(200)
            server.fail(Reply(hang=True), times=5)
            started = time.monotonic()
            failure = self._run(connected, action, seconds=0.4)
            assert time.monotonic() - started < 3.0
        assert isinstance(failure, OutcomeUnknown | TransientError)
        assert failure.reason in ("timeout", "network")

    def test_dripping_response_ends_with_the_attempt(self, action: Action) -> None:
        self._needs_http()
        failure, seconds = self._hostile(action, "drips its headers", limit=0.15)
        assert seconds < 2.0
        assert isinstance(failure, OutcomeUnknown | TransientError)
        assert failure.reason == "timeout"

    @pytest.mark.parametrize("response", HOSTILE_RESPONSES)
    def test_hostile_response_ends_with_the_attempt_and_is_not_kept(self, response: str) -> None:
        """It has at most 5 MiB and the attempt's time, and a connector that reads its body gets no success from it."""
        self._needs_http()
        action = next(iter(self.connector.actions.values()))
        failure, seconds = self._hostile(action, response, limit=0.5)
        assert seconds < 4.0
        if failure is None:
            assert not self.validates_response_body(action)
        else:
            assert isinstance(failure, OutcomeUnknown | TransientError | PermanentError)

    def _hostile(self, action: Action, response: str, limit: float) -> tuple[DeliveryError | None, float]:
        """Return the error of an attempt that gets this response, None for a success, and its seconds."""
        failure: DeliveryError | None = None
        with StubServer() as server, connect(self.connector, self.environ(server.url)) as connected:
            self.prepare(server)
            server.otherwise = HOSTILE_RESPONSES[response]
            started = time.monotonic()
            try:
                connected.run(action.name, self.params(action), context=self._context(action), seconds=limit)
            except DeliveryError as error:
                failure = error
            seconds = time.monotonic() - started
        assert failure is None or failure.reason != "internal_error"
        return failure, seconds

    def test_dropped_connection_leaves_the_outcome_unknown(self, action: Action) -> None:
        failure = self._failure(action, Reply(drop="before"))
        assert isinstance(failure, OutcomeUnknown | TransientError)
        assert failure.reason in ("network", "timeout")

    def test_attempt_past_its_deadline_sends_nothing(self, action: Action) -> None:
        with StubServer() as server, connect(self.connector, self.environ(server.url)) as connected:
            failure = self._run(connected, action, seconds=-1.0)
            assert server.requests == []
        assert isinstance(failure, TransientError)

    @pytest.mark.parametrize("status", [200, 400, 500])
    def test_every_request_is_counted(self, action: Action, status: int) -> None:
        """The limit of requests per second holds only if the transport counts them, or `count_request` is called."""
        self._needs_http()
        with StubServer() as server:
            server.answer("*", "*", Reply(status, {}))
            self.prepare(server)
            with count_requests() as count, connect(self.connector, self.environ(server.url)) as connected:
                with suppress(DeliveryError):
                    connected.run(action.name, self.params(action), context=self._context(action))
                assert count.sent == len(server.requests) > 0

    # ------------------------------------------------------------ secrets and personal data

    @pytest.mark.parametrize("status", [200, 400, 401, 404, 409, 422, 429, 500])
    def test_messages_contain_no_secrets_or_personal_data(
        self, action: Action, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The provider echoes the whole request, as some providers do."""
        self._needs_http()
        with StubServer() as server:
            server.answer(
                "*",
                "*",
                lambda request: Reply(status, _echo(request.headers, request.body, request.query)),
            )
            self.prepare(server)
            environ = self.environ(server.url)
            with caplog.at_level(logging.INFO), connect(self.connector, environ) as connected:
                try:
                    outcome: object = connected.run(
                        action.name, self.params(action), context=self._context(action)
                    )
                except DeliveryError as failure:
                    outcome = failure
                output = f"{outcome!s} {outcome!r} {caplog.text} {connected.settings!r} {connected.client!r}"
                output += getattr(outcome, "fix", "")
                secrets = _secrets(connected)
        for secret in (*secrets, *_PERSONAL):
            assert secret not in output

    # ------------------------------------------------------------ opt-out flags

    @pytest.mark.parametrize("status", [*REJECTED, *UNKNOWN, *NO_SUCCESS, 429])
    def test_error_is_never_read_as_no_opt_out_flags(self, status: int) -> None:
        body = None if status in (204, 304) else {"error": "no"} if status >= 400 else "<html>Log in</html>"
        failure = self._flags_failure(Reply(status, body))
        assert isinstance(failure, PermanentError | AccountError | TransientError | OutcomeUnknown)

    def test_opt_out_flags_are_not_read_past_the_deadline(self) -> None:
        failure = self._flags_failure(Reply(200, {}), seconds=-1.0, sends=False)
        assert isinstance(failure, TransientError)

    def _flags_failure(
        self, reply: Reply, *, seconds: float | None = None, sends: bool = True
    ) -> DeliveryError:
        """Return the error of reading opt-out flags if all requests are answered with `reply`."""
        if self.connector.read_opt_out_flags is None:
            pytest.skip("the connector has no opt-out flags")
        emails, phones = [_CONTACT["metadata.contactEmail"]], [_CONTACT["metadata.contactPhone"]]
        with StubServer() as server, connect(self.connector, self.environ(server.url)) as connected:
            self.prepare(server)
            server.otherwise = reply
            with pytest.raises(DeliveryError) as raised:
                connected.opt_out_flags(emails, phones, seconds=seconds)
            assert bool(server.requests) == sends
        assert raised.value.reason != "internal_error"
        return raised.value

    # ------------------------------------------------------------ batches

    @pytest.mark.parametrize("status", [200, 400, 429, 500])
    def test_batch_returns_one_result_per_delivery(self, action: Action, status: int) -> None:
        if action.batch == 1:
            pytest.skip("the action takes one delivery at a time")
        with StubServer() as server, connect(self.connector, self.environ(server.url)) as connected:
            self.prepare(server)
            server.otherwise = Reply(status, {"results": []})
            deliveries: list[Any] = [(self.params(action), self._event(), None) for _ in range(3)]
            results = connected.run_batch(action.name, deliveries)
        assert len(results) == len(deliveries)
        assert all(isinstance(result, Success | DeliveryError) for result in results)
        if status != 200:  # a 200 response that omits deliveries is a bug of the provider
            assert not any(getattr(result, "reason", "") == "internal_error" for result in results)

    # ------------------------------------------------------------ lost responses

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_lost_response_never_repeats_the_side_effect(
        self, action: Action, when: Literal["before", "after"]
    ) -> None:
        with self._provider() as provider, connect(self.connector, provider.environ) as connected:
            context = self._context(action)
            initial_count = provider.side_effect_count()
            provider.drop_next_response(when)
            failure = self._run(connected, action, context=context)
            if isinstance(failure, OutcomeUnknown) and action.run_lookup and not action.idempotent:
                result = connected.find(action.name, self.params(action), context=context)
                assert (result is not None) == (when == "after")
                retry = result is None
            else:
                retry = action.idempotent or not isinstance(failure, OutcomeUnknown)
            if retry:
                connected.run(action.name, self.params(action), context=context)
            expected = 1 if retry or when == "after" else 0
            assert provider.side_effect_count() - initial_count == expected

    # ------------------------------------------------------------

    def _event(self) -> Any:
        return event("call.completed", _CONTACT)

    def _context(self, action: Action) -> Context:
        return build_context(self._event(), action, self.connector.name)

    def _failure(self, action: Action, reply: Reply) -> DeliveryError:
        """Return the error of an attempt whose requests are all answered with `reply`. It must not be a bug."""
        self._needs_http()
        with StubServer() as server, connect(self.connector, self.environ(server.url)) as connected:
            self.prepare(server)
            server.otherwise = reply
            failure = self._run(connected, action)
            assert server.requests, "the action did not send a request"
        return failure

    def _run(
        self,
        connected: Connected,
        action: Action,
        *,
        context: Context | None = None,
        seconds: float | None = None,
    ) -> DeliveryError:
        try:
            result = connected.run(
                action.name, self.params(action), context=context or self._context(action), seconds=seconds
            )
        except DeliveryError as failure:
            if failure.reason == "internal_error":
                raise AssertionError(
                    f"@connector.classify_error does not classify this error: {failure}"
                ) from failure
            return failure
        raise AssertionError(f"the attempt succeeded: {result}")

    def _needs_http(self) -> None:
        if not self.http:
            pytest.skip("the connector does not use HTTP")

    @contextmanager
    def _provider(self) -> Iterator[FakeProvider]:
        provider = self.provider()
        if provider is None:
            pytest.skip("define provider() to run this test")
        with provider as fake:
            yield fake


def _optional(info: Any) -> bool:
    return type(None) in get_args(info.annotation) or info.annotation is None


def _echo(headers: Mapping[str, str], body: bytes, query: Mapping[str, str]) -> dict[str, Any]:
    message = f"rejected: {body.decode('utf-8', 'replace')} {dict(query)} {dict(headers)}"
    return {
        "error": {"message": message, "code": message, "status": message},
        "message": message,
        "errors": [{"message": message}],
        "detail": message,
    }


def _secrets(connected: Connected) -> list[str]:
    values = [
        value.get_secret_value()
        for name in type(connected.settings).model_fields
        if isinstance(value := getattr(connected.settings, name), SecretStr)
    ]
    return [secret for secret in values if len(secret) >= 6]
