"""The base of every mock provider: routes, requests, error responses and state.

Handlers are plain functions that run one at a time under the provider's lock. State therefore needs no further
synchronization, and a test may read or change it from its own thread at any time.
"""

from __future__ import annotations

import json
import re
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import unquote

from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse, Response

from bridge.clock import Clock
from bridge.sandbox.faults import Faults

MAX_RECORDS = 100_000
"""Records that one provider stores before it asks for a reset. This bounds the sandbox's memory."""


class ProviderError(Exception):
    """The provider rejected the request. `response` has its own status, headers and body."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"rejected with status {response.status_code}")
        self.response = response


@dataclass(frozen=True)
class ProviderRequest:
    """A complete HTTP request to a provider. `path` is relative to the provider's prefix and percent-encoded."""

    method: str
    path: str
    query: QueryParams
    headers: Headers
    body: bytes
    prefix: str = ""
    path_params: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """Return the body as JSON. Raise ValueError for invalid JSON, including NaN, Infinity and excessive depth."""
        try:
            return json.loads(self.body, parse_constant=_reject_constant)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    def bearer_token(self) -> str | None:
        """Return the bearer token of the Authorization header, if it has one."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")


def parse_whole_number(value: object, minimum: int, maximum: int) -> int | None:
    """Return a number sent as a string, or None if it is not a whole number from `minimum` to `maximum`."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,12}", value):
        return None
    return int(value) if minimum <= int(value) <= maximum else None


def spend(recent: deque[datetime], limit: int | None, window: timedelta, now: datetime) -> bool:
    """Return whether a rolling limit has room for one more request, and count it if so. None: no limit."""
    if limit is None:
        return True
    while recent and recent[0] <= now - window:
        recent.popleft()
    if len(recent) >= limit:
        return False
    recent.append(now)
    return True


Handler = Callable[[ProviderRequest], Response]


class MockProvider(ABC):
    """A mock of one provider: its routes, state and error responses."""

    name: ClassVar[str]

    def __init__(self, clock: Clock, faults: Faults) -> None:
        self.clock = clock
        self.faults = faults
        self.lock = threading.RLock()
        self._routes = [
            (method, re.compile(_path_pattern(path)), handler) for method, path, handler in self.routes()
        ]
        self.reset()

    @abstractmethod
    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return (method, path with {parameters}, handler) tuples. The first match handles the request."""

    def commands(self) -> Iterable[tuple[str, Callable[[Any], Any]]]:
        """Return the commands of `POST /_sandbox/{provider}/{command}`: functions from JSON body to JSON result."""
        return ()

    @abstractmethod
    def error_response(self, status: int, message: str | None = None) -> Response:
        """Return the provider's own error response for an HTTP status."""

    @abstractmethod
    def quota_error_response(self) -> Response:
        """Return the provider's response to requests over its quota."""

    @abstractmethod
    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Return everything the provider stores, by record type, as JSON."""

    @abstractmethod
    def reset(self) -> None:
        """Restore the state of a new account."""

    def authorize(self, request: ProviderRequest) -> None:  # noqa: B027 - not every provider authenticates
        """Raise ProviderError if the request lacks this account's credentials."""

    def now(self) -> datetime:
        """Return the time of the provider's clock, which a test may share with the bridge."""
        return self.clock.now()

    def handle(self, request: ProviderRequest) -> Response:
        """Return the response to a request. Its changes to the provider's state are complete on return."""
        with self.lock:
            try:
                return self._dispatch(request)
            except ProviderError as error:
                return error.response

    def _dispatch(self, request: ProviderRequest) -> Response:
        path_exists = False
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            if method != request.method:
                path_exists = True
                continue
            path_params = {name: unquote(value) for name, value in match.groupdict().items()}
            matched = replace(request, path_params=path_params)
            self.authorize(matched)
            return handler(matched)
        return self.error_response(405 if path_exists else 404)

    def storage_full_error(self) -> ProviderError:
        """Return the error for a provider that stores the maximum number of records."""
        return ProviderError(
            JSONResponse(
                {"message": f"the sandbox is full ({MAX_RECORDS} {self.name} records): POST /_sandbox/reset"},
                507,
            )
        )


def _path_pattern(path: str) -> str:
    """Return `/a/{b}/c` as a regular expression. `{b*}` also matches slashes."""
    parts = re.split(r"(\{\w+\*?\})", path)
    return "".join(
        re.escape(part)
        if not part.startswith("{")
        else f"(?P<{part[1:-2]}>.+)"
        if part.endswith("*}")
        else f"(?P<{part[1:-1]}>[^/]+)"
        for part in parts
    )
