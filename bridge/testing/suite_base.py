"""What the tests of the conformance suite share: the hooks of its subclasses, and attempts at a provider."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar, get_args

import pytest
from pydantic import ValidationError

from bridge.connector import Action, Connector, Context, Event, Success
from bridge.connector.params import example_of, template_of
from bridge.errors import DeliveryError
from bridge.testing.connection import Connected, build_context, connect, event, render_params
from bridge.testing.stub_server import Received, StubServer

T = TypeVar("T")

CONTACT = {
    "metadata.contactName": "Wilhelmina Quistgaard",
    "metadata.contactPhone": "+12125550193",
    "metadata.contactEmail": "wilhelmina.q@quistgaard.example",
}
"""The contact of the suite's events."""


class FakeProvider(Protocol):
    """A provider that stores its records. Its lists should have pages of two, so that lookups meet a second page."""

    environ: Mapping[str, str]
    """The settings of a connection to it."""

    def drop_next_response(
        self, when: Literal["before", "after"], *, nth: int = 1, status: int | None = None
    ) -> None:
        """Lose the response of the nth next request that changes something, before or after it takes effect.

        Close its connection, or answer with `status`. Requests that only read are answered as usual.
        """
        ...

    def side_effect_count(self) -> int:
        """Return the number of records, messages or calls that exist."""
        ...

    def received_text(self) -> str:
        """Return what the provider received, decoded; a test looks for the values of params in it."""
        ...


@dataclass(frozen=True)
class ObservedAttempt:
    """The outcome of one attempt, and the requests that it sent."""

    outcome: Success | DeliveryError
    requests: list[Received]

    @property
    def kind(self) -> str:
        """The class of the outcome: `Success`, `TransientError`."""
        return type(self.outcome).__name__


class SuiteBase:
    """Hooks for subclasses, and helpers."""

    connector: ClassVar[Connector]
    """The connector under test."""
    http: ClassVar[bool] = True
    """Set to False for a connector that does not use HTTP: the tests of HTTP statuses are then skipped."""
    one_account: ClassVar[bool] = True
    """Set to False if rules name the receiver, as of a webhook: 401 then fails a delivery, not the connection."""
    _reported: ClassVar[set[str]]
    _results: ClassVar[dict[tuple[str, str], Any]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._reported, cls._results = set(), {}

    # ------------------------------------------------------------ hooks

    def environ(self, url: str) -> Mapping[str, str]:
        """Return the environment variables that point the connector at a provider under `url`."""
        raise NotImplementedError

    def event(self, action: Action) -> Event:
        """Return the event of an attempt at `action`; by default a completed call with a contact."""
        del action
        return event("call.completed", CONTACT)

    def params(self, action: Action) -> Mapping[str, Any]:
        """Return a rule's params under `with:`; by default the examples of those that the event does not fill."""
        rendered = render_params(action, {}, self.event(action))
        return {
            name: example_of(info)
            for name, info in action.params.model_fields.items()
            if info.is_required()
            or (
                (info.default if template_of(info) is None else rendered.get(name)) is None
                and not _optional(info)
            )
        }

    def params_not_sent(self, action: Action) -> Collection[str]:
        """Return the params that the provider does not get, because they only choose what the action does."""
        del action
        return ()

    def prepare(self, server: StubServer) -> None:
        """Define responses that every test needs, such as a login. By default there are none."""

    def provider(self) -> AbstractContextManager[FakeProvider] | None:
        """Return a fake provider. By default there is none, and the tests of side effects are skipped."""
        return None

    def confirming_statuses(self, action: Action) -> Collection[int]:
        """Return the statuses that confirm whatever the body is, such as 202 of a webhook.

        By default none: a response without the provider's body may come from a proxy.
        """
        del action
        return ()

    # ------------------------------------------------------------ helpers

    def _fail(self, message: str) -> None:
        """Fail with a message; skip the test if another test of this class has failed with it."""
        if message in self._reported:
            pytest.skip(f"reported by another test: {message}")
        self._reported.add(message)
        raise AssertionError(message)

    def _once(self, name: str, action: Action, compute: Callable[[], T]) -> T:
        """Return a result that several tests judge."""
        key = (name, action.name)
        if key not in self._results:
            self._results[key] = compute()
        result: T = self._results[key]
        return result

    def _context(self, action: Action, about: Event | None = None, **overrides: Any) -> Context:
        return build_context(about or self.event(action), action, self.connector.name, **overrides)

    def _invalid_params(self, action: Action) -> str | None:
        """Return what is wrong with the params of the suite's attempts."""
        try:
            values = render_params(action, self.params(action), self.event(action))
            action.params.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors()
            )
            return f"{action.full_name}: {problems}; add an example to the param, or override params(action)"
        return None

    def _attempt(
        self,
        connected: Connected,
        action: Action,
        *,
        context: Context | None = None,
        seconds: float | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Success | DeliveryError:
        """Make one attempt. Its outcome must not be a bug."""
        if params is None:
            if self._invalid_params(action):
                pytest.skip("the sample params are invalid")
            params = self.params(action)
        context = context or self._context(action)
        outcome = connected.run_batch(action.name, [(params, None, context)], seconds=seconds)[0]
        if isinstance(outcome, DeliveryError) and outcome.reason == "internal_error":
            self._fail(
                f"{action.full_name}: {outcome}; fix it, or classify the exception in @connector.classify_error"
            )
        return outcome

    def _needs_http(self) -> None:
        if not self.http:
            pytest.skip("the connector does not use HTTP")

    @contextmanager
    def _connected(self, *, prepared: bool = True) -> Iterator[tuple[StubServer, Connected]]:
        """Yield a stub server and a connection to it."""
        with StubServer() as server, connect(self.connector, self.environ(server.url)) as connected:
            if prepared:
                self.prepare(server)
            yield server, connected

    @contextmanager
    def _provider(self) -> Iterator[tuple[FakeProvider, Connected]]:
        provider = self.provider()
        if provider is None:
            pytest.skip("define provider() to run this test")
        with provider as fake, connect(self.connector, fake.environ) as connected:
            yield fake, connected


def listing(wrong: Mapping[int, str]) -> str:
    """Return statuses by what they led to: `404, 422: TransientError; 500: Success`."""
    kinds: dict[str, list[str]] = {}
    for status, kind in wrong.items():
        kinds.setdefault(kind, []).append(str(status))
    return "; ".join(f"{', '.join(statuses)}: {kind}" for kind, statuses in kinds.items())


def _optional(info: Any) -> bool:
    return type(None) in get_args(info.annotation) or info.annotation is None
