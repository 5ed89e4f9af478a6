"""The door of every partner: requests are read whole, recorded, and meet the faults that stand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from bridge.sandbox.faults import HANG_SECONDS, Fault, Faults
from bridge.sandbox.provider import Call, Partner

REQUESTS_KEPT = 100_000
BYTES_KEPT = 256 * 1024 * 1024
LARGEST_BODY = 16 * 1024 * 1024
_SECRET_HEADERS = ("authorization", "x-api-key")


@dataclass
class RecordedRequest:
    """One request as it arrived; `status` is what was answered, None when the client got no answer (yet)."""

    partner: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes
    at: datetime
    status: int | None = None

    @property
    def body(self) -> Any:
        """The body as the partner reads it: JSON, the fields of a form, or text."""
        text = self.raw.decode("utf-8", "replace")
        kind = self.headers.get("content-type", "")
        if kind.startswith("application/x-www-form-urlencoded"):
            return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()}
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text

    def as_json(self) -> dict[str, Any]:
        """As `/_sandbox/requests` shows it."""
        return {
            "partner": self.partner,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": self.headers,
            "body": self.body,
            "status": self.status,
            "at": self.at.isoformat(),
        }


class RequestLog:
    """The requests that arrived, oldest first, as many as memory allows; safe from any thread."""

    def __init__(self) -> None:
        self._requests: deque[RecordedRequest] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, request: RecordedRequest) -> RecordedRequest:
        """Keep `request`, and forget the oldest ones when there are too many."""
        with self._lock:
            self._requests.append(request)
            self._bytes += len(request.raw)
            while len(self._requests) > REQUESTS_KEPT or self._bytes > BYTES_KEPT:
                self._bytes -= len(self._requests.popleft().raw)
        return request

    def all(self, partner: str | None = None) -> list[RecordedRequest]:
        """The requests kept, of one partner or of all."""
        with self._lock:
            return [request for request in self._requests if partner in (None, request.partner)]

    def clear(self) -> None:
        """Forget them all."""
        with self._lock:
            self._requests.clear()
            self._bytes = 0


class Gate:
    """An ASGI application that lets a partner answer, unless a fault comes between."""

    def __init__(self, partner: Partner, log: RequestLog, faults: Faults, stopping: asyncio.Event) -> None:
        self.partner = partner
        self.log = log
        self.faults = faults
        self.stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        call = await _read(scope, receive)
        if call is None:
            return
        request = self.log.add(
            RecordedRequest(
                self.partner.name,
                call.method,
                call.path,
                dict(call.query),
                _without_secrets(call.headers),
                call.body,
                self.partner.now(),
            )
        )
        fault = self.faults.take(self.partner.name, call.method, call.path)
        response = await self._play(call, fault, scope, receive)
        if response is not None:
            request.status = response.status_code
            await response(scope, receive, send)

    async def _play(self, call: Call, fault: Fault | None, scope: Scope, receive: Receive) -> Response | None:
        """The answer, or None when the connection is cut instead."""
        if fault is not None and fault.delay:
            await self._wait(fault.delay)
        if not self.faults.quota_left(self.partner.name, call.method, call.path):
            return self.partner.quota_exhausted()
        if len(call.body) > LARGEST_BODY:
            return self.partner.failure(413)
        if fault is None:
            return self.partner.answer(call)
        if fault.drop == "after":
            self.partner.answer(call)
        if fault.status is not None:
            return _as_told(self.partner, fault, fault.status)
        if fault.hang:
            await self._hang(receive)
        if fault.hang or fault.drop is not None or self.stopping.is_set():
            await _cut(scope, receive)
            return None
        return self.partner.answer(call)

    async def _wait(self, seconds: float) -> None:
        """Wait whether or not the client is still there: a slow partner goes on working."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def _hang(self, receive: Receive) -> None:
        ends = [asyncio.ensure_future(_left(receive)), asyncio.ensure_future(self.stopping.wait())]
        await asyncio.wait(ends, timeout=HANG_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


def _as_told(partner: Partner, fault: Fault, status: int) -> Response:
    if isinstance(fault.body, str):
        response: Response = PlainTextResponse(fault.body, status)
    elif fault.body is not None:
        response = JSONResponse(fault.body, status)
    else:
        response = partner.failure(status)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = f"{fault.retry_after:g}"
    for name, value in fault.headers.items():
        response.headers[name] = value
    return response


async def _read(scope: Scope, receive: Receive) -> Call | None:
    """The whole request; None when the client left before it was sent."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return None
        size += len(message.get("body", b""))
        if size <= LARGEST_BODY + 1:
            chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    prefix = scope.get("root_path", "")
    path = scope["raw_path"].decode("ascii", "replace").split("?")[0].removeprefix(prefix)
    body = b"".join(chunks)
    return Call(
        scope["method"],
        path,
        QueryParams(scope["query_string"]),
        Headers(scope=scope),
        body if size <= LARGEST_BODY else b" " * (LARGEST_BODY + 1),
        prefix,
    )


def _without_secrets(headers: Headers) -> dict[str, str]:
    """What arrived, but of a credential only its scheme: records are shown and printed."""
    return {
        name: f"{value.split(' ')[0]} ***"
        if name in _SECRET_HEADERS and " " in value
        else "***"
        if name in _SECRET_HEADERS
        else value
        for name, value in headers.items()
    }


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cut(scope: Scope, receive: Receive) -> None:
    """Close the TCP connection without an answer; returns when it is gone."""
    scope["state"]["transport"].abort()
    await _left(receive)
