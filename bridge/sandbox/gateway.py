"""The HTTP entry point of the mock providers: reads and records each request, then applies the active faults."""

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
from bridge.sandbox.hostile_responses import send_hostile, wait_for_disconnect
from bridge.sandbox.provider import MockProvider, ProviderRequest

MAX_REQUESTS = 100_000
MAX_LOG_BYTES = 256 * 1024 * 1024
MAX_BODY_BYTES = 16 * 1024 * 1024
_SECRET_HEADERS = ("authorization", "x-api-key", "x-api-token")


@dataclass
class RecordedRequest:
    """A request as received. `status` is that of the response, or None if none was sent (yet)."""

    provider: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes
    received_at: datetime
    status: int | None = None

    @property
    def body(self) -> Any:
        """The body as the provider reads it: JSON, form fields, or a string."""
        text = self.raw.decode("utf-8", "replace")
        content_type = self.headers.get("content-type", "")
        if content_type.startswith("application/x-www-form-urlencoded"):
            return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()}
        try:
            return json.loads(text) if text else None
        except ValueError:
            return text

    def as_json(self) -> dict[str, Any]:
        """Return the request as `/_sandbox/requests` shows it."""
        return {
            "provider": self.provider,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": self.headers,
            "body": self.body,
            "status": self.status,
            "at": self.received_at.isoformat(),
        }


class RequestLog:
    """The received requests, oldest first, up to a memory limit. Thread-safe."""

    def __init__(self) -> None:
        self._requests: deque[RecordedRequest] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, request: RecordedRequest) -> RecordedRequest:
        """Store `request`, and drop the oldest ones if there are too many."""
        with self._lock:
            self._requests.append(request)
            self._bytes += len(request.raw)
            while len(self._requests) > MAX_REQUESTS or self._bytes > MAX_LOG_BYTES:
                self._bytes -= len(self._requests.popleft().raw)
        return request

    def all(self, provider: str | None = None) -> list[RecordedRequest]:
        """Return the stored requests, of one provider or of all."""
        with self._lock:
            return [request for request in self._requests if provider in (None, request.provider)]

    def clear(self) -> None:
        """Remove all requests."""
        with self._lock:
            self._requests.clear()
            self._bytes = 0


class Gateway:
    """An ASGI application that passes requests to a mock provider, subject to faults."""

    def __init__(
        self, provider: MockProvider, log: RequestLog, faults: Faults, stopping: asyncio.Event
    ) -> None:
        self.provider = provider
        self.log = log
        self.faults = faults
        self.stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request."""
        request = await _read_request(scope, receive)
        if request is None:
            return
        recorded = self.log.add(
            RecordedRequest(
                self.provider.name,
                request.method,
                request.path,
                dict(request.query),
                _redacted(request.headers),
                request.body,
                self.provider.now(),
            )
        )
        fault = self.faults.take(self.provider.name, request.method, request.path)
        response = await self._respond(request, fault, scope, receive)
        if response is None:
            return
        recorded.status = response.status_code
        if fault is not None and fault.response is not None:
            await send_hostile(fault.response, response.status_code, scope, receive, send)
        else:
            await response(scope, receive, send)

    async def _respond(
        self, request: ProviderRequest, fault: Fault | None, scope: Scope, receive: Receive
    ) -> Response | None:
        """Return the response, or None if the connection was closed instead."""
        if fault is not None and fault.delay:
            await self._wait(fault.delay)
        if not self.faults.spend_quota(self.provider.name, request.method, request.path):
            return self.provider.quota_error_response()
        if len(request.body) > MAX_BODY_BYTES:
            return self.provider.error_response(413)
        if fault is None:
            return self.provider.handle(request)
        if fault.drop == "after":
            self.provider.handle(request)
        if fault.status is not None:
            return _fault_response(self.provider, fault, fault.status)
        if fault.hang:
            await self._hang_until_disconnect(receive)
        if fault.hang or fault.drop is not None or self.stopping.is_set():
            await _abort_connection(scope, receive)
            return None
        return self.provider.handle(request)

    async def _wait(self, seconds: float) -> None:
        """Wait even if the client has disconnected: a slow provider keeps processing the request."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    async def _hang_until_disconnect(self, receive: Receive) -> None:
        waiters = [
            asyncio.ensure_future(wait_for_disconnect(receive)),
            asyncio.ensure_future(self.stopping.wait()),
        ]
        await asyncio.wait(waiters, timeout=HANG_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)


def _fault_response(provider: MockProvider, fault: Fault, status: int) -> Response:
    if isinstance(fault.body, str):
        response: Response = PlainTextResponse(fault.body, status)
    elif fault.body is not None:
        response = JSONResponse(fault.body, status)
    else:
        response = provider.error_response(status)
    if fault.retry_after is not None:
        response.headers["Retry-After"] = f"{fault.retry_after:g}"
    for name, value in fault.headers.items():
        response.headers[name] = value
    return response


async def _read_request(scope: Scope, receive: Receive) -> ProviderRequest | None:
    """Return the complete request, or None if the client disconnected while sending it."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return None
        size += len(message.get("body", b""))
        if size <= MAX_BODY_BYTES + 1:
            chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    prefix = scope.get("root_path", "")
    path = scope["raw_path"].decode("ascii", "replace").split("?")[0].removeprefix(prefix)
    body = b"".join(chunks)
    return ProviderRequest(
        scope["method"],
        path,
        QueryParams(scope["query_string"]),
        Headers(scope=scope),
        body if size <= MAX_BODY_BYTES else b" " * (MAX_BODY_BYTES + 1),
        prefix,
    )


def _redacted(headers: Headers) -> dict[str, str]:
    """Return the headers with each credential reduced to its scheme, because requests are shown and printed."""
    return {
        name: f"{value.split(' ')[0]} ***"
        if name in _SECRET_HEADERS and " " in value
        else "***"
        if name in _SECRET_HEADERS
        else value
        for name, value in headers.items()
    }


async def _abort_connection(scope: Scope, receive: Receive) -> None:
    """Close the TCP connection without a response. Return when it is closed."""
    scope["state"]["transport"].abort()
    await wait_for_disconnect(receive)
