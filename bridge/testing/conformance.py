"""The suite that every connector passes, shipped or not: subclass `ConnectorConformance` in a test file.

class TestDesk(ConnectorConformance):
    connector = load_connector("desk", "connectors")

    def environ(self, url: str) -> dict[str, str]:
        return {"DESK_URL": url, "DESK_TOKEN": "desk-secret-1"}
"""

# ruff: noqa: D102, S101 - these are tests: their names are the sentences

from __future__ import annotations

import inspect
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import Any, ClassVar, Literal, Protocol, get_args

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from bridge.connector import Action, Connector, Context, Success
from bridge.connector.api import example_of, template_of
from bridge.errors import (
    AuthenticationError,
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

REFUSED = (400, 401, 402, 403, 404, 405, 406, 409, 410, 411, 413, 415, 422, 451)
"""Documented refusals: nothing happened, whatever is done about it."""
UNKNOWN = (408, 500, 501, 502, 503, 504, 520, 529)
"""The request may have been carried out before somebody answered this."""
NO_SUCCESS = (200, 201, 202, 204, 206, 301, 302, 304, 307)
"""With a body that is not the partner's: a proxy, a captive portal, a moved site."""

_SECRET_NAME = re.compile(
    r"(token|secret|password|passphrase|private_key|api_key|shared_key|credential)", re.I
)
_PERSON = {
    "metadata.contactName": "Wilhelmina Quistgaard",
    "metadata.contactPhone": "+12125550193",
    "metadata.contactEmail": "wilhelmina.q@quistgaard.example",
}
_PERSONAL = (*_PERSON.values(), "12125550193", "2125550193", "Quistgaard", "wilhelmina")


class FakeProvider(Protocol):
    """A partner that keeps what reached it, for the tests of lost answers."""

    environ: Mapping[str, str]

    def drop_next_response(self, when: Literal["before", "after"]) -> None:
        """Hang up on the next request that would change something, before or after it does."""
        ...

    def side_effect_count(self) -> int:
        """How many records, messages or calls there are."""
        ...


def conformance_problems(connector: Connector) -> list[str]:
    """What is missing in how a connector describes itself, in words for its author; empty when nothing is."""
    found = []
    name = connector.name
    if not connector.description:
        found.append(f"Connector({name!r}): give it a description of one sentence")
    if not connector.actions:
        found.append(f"{name}: it has no action")
    for part, function in {
        "client": connector.build_client,
        "check": connector.run_check,
        "failure": connector.classify,
    }.items():
        if function is None:
            found.append(f"{name}: decorate a function with @connector.{part}")
        elif not inspect.getdoc(function):
            found.append(f"{name}: the function under @connector.{part} needs a docstring")
    for field, info in connector.settings.model_fields.items():
        plain = not any(part is SecretStr for part in _types_in(info.annotation))
        if _SECRET_NAME.search(field) and not field.endswith("_file") and plain:
            found.append(f"{name}: the setting {field} must be a SecretStr")
    for callback in connector.callbacks.values():
        if not inspect.getdoc(callback.run):
            found.append(f"{name}: the callback {callback.name} needs a docstring")
    for action in connector.actions.values():
        found += _problems_of(action)
    return found


def _problems_of(action: Action) -> Iterator[str]:
    where = action.full_name
    if not action.description:
        yield f"{where}: it needs a docstring; its first line is the description"
    if action.channel and action.recipient not in action.params.model_fields:
        yield f"{where}: it writes to a person, so it needs a param `{action.recipient}`"
    if action.finder is not None and not inspect.getdoc(action.finder):
        yield f"{where}: its lookup needs a docstring"
    if action.finder is not None and action.idempotent:
        yield f"{where}: a idempotent action needs no lookup"
    for field, info in action.params.model_fields.items():
        if not info.description:
            yield f"{where}: the param {field} needs a description"
        example = example_of(info)
        if example is None:
            yield f"{where}: the param {field} needs an example"
        elif not (isinstance(example, str) and is_template(example)):
            try:
                TypeAdapter(info.rebuild_annotation()).validate_python(example)
            except ValidationError as error:
                yield f"{where}: the example of {field} is not valid: {error.errors()[0]['msg']}"


def _types_in(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _types_in(part)


class ConnectorConformance:
    """One test class per connector; pytest runs every test for every action."""

    connector: ClassVar[Connector]
    http: ClassVar[bool] = True
    """Whether it speaks HTTP with its partner; otherwise the tests of HTTP statuses are left out."""

    def environ(self, url: str) -> Mapping[str, str]:
        """The environment that points the connector at a partner under `url`."""
        raise NotImplementedError

    def params(self, action: Action) -> Mapping[str, Any]:
        """What a rule writes under `with:`; by default the examples of the params that must be given."""
        return {
            name: example_of(info)
            for name, info in action.params.model_fields.items()
            if info.is_required()
            or (template_of(info) is None and info.default is None and not _optional(info))
        }

    def prepare(self, stand_in: StubServer) -> None:
        """What the partner answers in any case, such as a login; by default nothing."""

    def partner(self) -> AbstractContextManager[FakeProvider] | None:
        """A partner with a memory; without one the tests of lost answers are left out."""
        return None

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """One test for each action, and for each status."""
        if "action" in metafunc.fixturenames:
            actions = metafunc.cls.connector.actions.values() if metafunc.cls else ()
            metafunc.parametrize("action", actions, ids=lambda action: action.name)

    # ------------------------------------------------------------ what it says of itself

    def test_everything_is_described(self) -> None:
        assert conformance_problems(self.connector) == []

    def test_a_wrong_setting_is_named_and_not_shown(self) -> None:
        prefix = self.connector.settings.prefix(self.connector.name)
        wrong = dict.fromkeys(self.environ("http://127.0.0.1:9"), "\x00unguessable-value")
        with pytest.raises(ConfigError) as caught:
            self.connector.settings.from_environment(wrong, prefix)
        assert prefix in str(caught.value)
        assert "unguessable" not in str(caught.value)

    # ------------------------------------------------------------ what an answer means

    @pytest.mark.parametrize("status", REFUSED)
    def test_a_refusal_is_final_or_waits_for_the_operator(self, action: Action, status: int) -> None:
        failure = self._failure(action, Reply(status, {"error": "no"}))
        assert isinstance(failure, PermanentError | AuthenticationError | TransientError)

    @pytest.mark.parametrize("status", UNKNOWN)
    def test_a_server_error_proves_nothing(self, action: Action, status: int) -> None:
        failure = self._failure(action, Reply(status, {"error": "broken"}))
        assert isinstance(failure, OutcomeUnknown | TransientError)

    @pytest.mark.parametrize("status", NO_SUCCESS)
    def test_a_page_that_is_not_the_partners_is_no_success(self, action: Action, status: int) -> None:
        body = None if status in (204, 304) else "<html>Please log in to the hotel's network</html>"
        headers = {"Location": "http://127.0.0.1:9/login"} if status in (301, 302, 307) else {}
        if not self.judges_bodies(action) and status < 300:
            pytest.skip("any 2xx is this partner's yes")
        failure = self._failure(action, Reply(status, body, headers))
        assert isinstance(failure, OutcomeUnknown | TransientError | PermanentError)

    def judges_bodies(self, action: Action) -> bool:
        """Whether a success has a body that tells it from a stranger's; not so for webhooks of one's own."""
        del action
        return True

    def test_the_partners_own_wait_is_kept(self, action: Action) -> None:
        failure = self._failure(action, Reply(429, {"error": "slow down"}, {"Retry-After": "7"}))
        assert isinstance(failure, TransientError)
        assert failure.reason in ("rate_limited", "quota")
        assert isinstance(failure, QuotaExhausted) or failure.retry_after == timedelta(seconds=7)

    # ------------------------------------------------------------ when there is no answer

    def test_without_a_connection_nothing_happened(self, action: Action) -> None:
        with StubServer() as gone:
            url = gone.url
        with connect(self.connector, self.environ(url)) as connected:
            assert type(self._run(connected, action)) is TransientError

    def test_a_partner_that_hangs_is_left_in_time(self, action: Action) -> None:
        self._needs_http()
        with StubServer() as stand_in, connect(self.connector, self.environ(stand_in.url)) as connected:
            stand_in.otherwise = Reply(200)
            stand_in.fail(Reply(hang=True), times=5)
            began = time.monotonic()
            failure = self._run(connected, action, seconds=0.4)
            assert time.monotonic() - began < 3.0
        assert isinstance(failure, OutcomeUnknown | TransientError)
        assert failure.reason in ("timeout", "network")

    def test_a_partner_that_hangs_up_leaves_the_outcome_open(self, action: Action) -> None:
        failure = self._failure(action, Reply(drop="before"))
        assert isinstance(failure, OutcomeUnknown | TransientError)
        assert failure.reason in ("network", "timeout")

    def test_an_attempt_that_is_out_of_time_sends_nothing(self, action: Action) -> None:
        with StubServer() as stand_in, connect(self.connector, self.environ(stand_in.url)) as connected:
            failure = self._run(connected, action, seconds=-1.0)
            assert stand_in.requests == []
        assert isinstance(failure, TransientError)

    # ------------------------------------------------------------ what must not be told

    @pytest.mark.parametrize("status", [200, 400, 401, 404, 409, 422, 429, 500])
    def test_no_message_holds_a_secret_or_a_persons_data(
        self, action: Action, status: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The partner repeats everything it got, as some do."""
        self._needs_http()
        with StubServer() as stand_in:
            stand_in.answer("*", "*", lambda got: Reply(status, _echo(got.headers, got.body, got.query)))
            self.prepare(stand_in)
            environ = self.environ(stand_in.url)
            with caplog.at_level(logging.INFO), connect(self.connector, environ) as connected:
                try:
                    outcome: object = connected.run(
                        action.name, self.params(action), context=self._context(action)
                    )
                except DeliveryError as failure:
                    outcome = failure
                told = f"{outcome!s} {outcome!r} {caplog.text} {connected.settings!r} {connected.client!r}"
                secrets = _secrets(connected)
        for secret in (*secrets, *_PERSONAL):
            assert secret not in told

    # ------------------------------------------------------------ batches

    @pytest.mark.parametrize("status", [200, 400, 429, 500])
    def test_every_delivery_of_a_batch_gets_its_own_answer(self, action: Action, status: int) -> None:
        if action.batch == 1:
            pytest.skip("it takes one delivery at a time")
        with StubServer() as stand_in, connect(self.connector, self.environ(stand_in.url)) as connected:
            self.prepare(stand_in)
            stand_in.otherwise = Reply(status, {"results": []})
            deliveries: list[Any] = [
                (self.params(action), about, None) for about in (self._event(), self._event(), self._event())
            ]
            answers = connected.run_batch(action.name, deliveries)
        assert len(answers) == len(deliveries)
        assert all(isinstance(answer, Success | DeliveryError) for answer in answers)
        if status != 200:  # an answer that leaves deliveries out is nobody's but the partner's bug
            assert not any(getattr(answer, "reason", "") == "internal_error" for answer in answers)

    # ------------------------------------------------------------ lost answers

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_lost_answer_never_doubles(self, action: Action, when: Literal["before", "after"]) -> None:
        with self._partner() as partner, connect(self.connector, partner.environ) as connected:
            context = self._context(action)
            before = partner.side_effect_count()
            partner.drop_next_response(when)
            failure = self._run(connected, action, context=context)
            if isinstance(failure, OutcomeUnknown) and action.finder and not action.idempotent:
                found = connected.find(action.name, self.params(action), context=context)
                assert (found is not None) == (when == "after")
                again = found is None
            else:
                again = action.idempotent or not isinstance(failure, OutcomeUnknown)
            if again:
                connected.run(action.name, self.params(action), context=context)
            assert partner.side_effect_count() - before == (1 if again or when == "after" else 0)

    # ------------------------------------------------------------

    def _event(self) -> Any:
        return event("call.completed", _PERSON)

    def _context(self, action: Action) -> Context:
        return build_context(self._event(), action, self.connector.name)

    def _failure(self, action: Action, reply: Reply) -> DeliveryError:
        """What the action makes of a partner that answers everything with `reply`; never a bug."""
        self._needs_http()
        with StubServer() as stand_in, connect(self.connector, self.environ(stand_in.url)) as connected:
            self.prepare(stand_in)
            stand_in.otherwise = reply
            outcome = self._run(connected, action)
            assert stand_in.requests, "the action never asked the partner"
        return outcome

    def _run(
        self,
        connected: Connected,
        action: Action,
        *,
        context: Context | None = None,
        seconds: float | None = None,
    ) -> DeliveryError:
        try:
            sent = connected.run(
                action.name, self.params(action), context=context or self._context(action), seconds=seconds
            )
        except DeliveryError as failure:
            if failure.reason == "internal_error":
                raise AssertionError(
                    f"an error that @connector.classify_error does not know: {failure}"
                ) from failure
            return failure
        raise AssertionError(f"taken for a success: {sent}")

    def _needs_http(self) -> None:
        if not self.http:
            pytest.skip("it does not speak HTTP")

    @contextmanager
    def _partner(self) -> Iterator[FakeProvider]:
        partner = self.partner()
        if partner is None:
            pytest.skip("no partner with a memory: define partner()")
        with partner as double:
            yield double


def _optional(info: Any) -> bool:
    return type(None) in get_args(info.annotation) or info.annotation is None


def _echo(headers: Mapping[str, str], body: bytes, query: Mapping[str, str]) -> dict[str, Any]:
    words = f"refused: {body.decode('utf-8', 'replace')} {dict(query)} {dict(headers)}"
    return {
        "error": {"message": words, "code": words, "status": words},
        "message": words,
        "errors": [{"message": words}],
        "detail": words,
    }


def _secrets(connected: Connected) -> list[str]:
    found = [
        value.get_secret_value()
        for name in type(connected.settings).model_fields
        if isinstance(value := getattr(connected.settings, name), SecretStr)
    ]
    return [secret for secret in found if len(secret) >= 6]
