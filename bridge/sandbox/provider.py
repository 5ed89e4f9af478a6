"""What every stand-in for a partner is made of: a call, an answer or a refusal, and the partner's state.

Handlers are plain functions that run one at a time under the partner's lock, so state needs no other care and
a test may read or change it from its own thread at any time.
"""

from __future__ import annotations

import json
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import unquote

from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse, Response

from bridge.clock import Clock
from bridge.sandbox.faults import Faults

RECORDS_KEPT = 100_000
"""How many records one partner holds before it asks for a reset: the sandbox's memory is bounded."""


class Refusal(Exception):
    """The partner says no: `response` is its own status, headers and body."""

    def __init__(self, response: Response) -> None:
        super().__init__(f"refused with {response.status_code}")
        self.response = response


@dataclass(frozen=True)
class Call:
    """One HTTP request to a partner, read whole; `path` is below the partner's prefix, still percent-encoded."""

    method: str
    path: str
    query: QueryParams
    headers: Headers
    body: bytes
    prefix: str = ""
    args: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """The body as JSON; raises ValueError, also for what JSON does not know and endless depths."""
        try:
            return json.loads(self.body, parse_constant=_no_constant)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    def bearer(self) -> str | None:
        """The token of the Authorization header, when it is a bearer token."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def whole_number(text: object, least: int, most: int) -> int | None:
    """A number that travelled as text; None when it is none from `least` to `most`."""
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,12}", text):
        return None
    return int(text) if least <= int(text) <= most else None


Handler = Callable[[Call], Response]


class Partner(ABC):
    """A stand-in for one partner: routes, state, and how it says no."""

    name: ClassVar[str]

    def __init__(self, clock: Clock, faults: Faults) -> None:
        self.clock = clock
        self.faults = faults
        self.lock = threading.RLock()
        self._routes = [
            (method, re.compile(_pattern(path)), handler) for method, path, handler in self.routes()
        ]

    @abstractmethod
    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Method, path with {names}, handler; the first that fits answers."""

    def controls(self) -> Iterable[tuple[str, Callable[[Any], Any]]]:
        """What `POST /_sandbox/<partner>/<word>` does: a function from the JSON body to a JSON answer."""
        return ()

    @abstractmethod
    def failure(self, status: int, message: str | None = None) -> Response:
        """The partner's own error body for an HTTP status."""

    @abstractmethod
    def quota_exhausted(self) -> Response:
        """What the partner answers when its quota is used up."""

    @abstractmethod
    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Everything the partner holds, by kind, as JSON."""

    @abstractmethod
    def reset(self) -> None:
        """Back to the state of a fresh account."""

    def authorize(self, call: Call) -> None:  # noqa: B027 - a partner may ask for nothing
        """Raise Refusal when the call does not carry this account's credentials."""

    def now(self) -> datetime:
        """The partner's clock, which a test may share with the bridge."""
        return self.clock.now()

    def answer(self, call: Call) -> Response:
        """What the partner answers; its state has changed when this returns."""
        with self.lock:
            try:
                return self._handle(call)
            except Refusal as refusal:
                return refusal.response

    def _handle(self, call: Call) -> Response:
        other_method = False
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(call.path)
            if match is None:
                continue
            if method != call.method:
                other_method = True
                continue
            args = {name: unquote(value) for name, value in match.groupdict().items()}
            found = Call(call.method, call.path, call.query, call.headers, call.body, call.prefix, args)
            self.authorize(found)
            return handler(found)
        return self.failure(405 if other_method else 404)

    def full(self) -> Refusal:
        """The refusal of a sandbox that holds as many records as it may."""
        return Refusal(
            JSONResponse(
                {"message": f"the sandbox holds {RECORDS_KEPT} {self.name} records: POST /_sandbox/reset"},
                507,
            )
        )


def _pattern(path: str) -> str:
    """`/a/{b}/c` as a regular expression; `{b*}` also takes slashes."""
    parts = re.split(r"(\{\w+\*?\})", path)
    return "".join(
        re.escape(part)
        if not part.startswith("{")
        else f"(?P<{part[1:-2]}>.+)"
        if part.endswith("*}")
        else f"(?P<{part[1:-1]}>[^/]+)"
        for part in parts
    )
