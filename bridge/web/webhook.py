"""Webhook receiver: POST /webhooks/heppu verifies an event, stores it and responds. It runs no rule or provider.

Concurrent requests share one transaction (group commit): while one group is being written, the next one collects.
The receiver responds when the group is on disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from bridge.clock import Clock, uptime
from bridge.errors import Refused, StoreUnavailable
from bridge.events import EVENT_TYPES, Event
from bridge.signing import (
    MAX_BODY,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    SignedHeaders,
    SignedRequestRejected,
    read_event,
    read_headers,
    read_signature,
    verify,
    verify_signature,
)
from bridge.store.database import Database
from bridge.store.ingest import (
    IncomingEvent,
    IngestResult,
    RejectedRequest,
    record_rejected_requests,
)
from bridge.telemetry import log, tracing
from bridge.telemetry.metrics import WEBHOOK_STATUSES, Metrics
from bridge.web.group_commit import GroupCommit
from bridge.web.headers import PLAIN_HEADERS, RawHeaders
from bridge.web.misdirected import describe_wrong_path
from bridge.web.rejection_log import RejectionLog

STALE_BODY_SECONDS: Final = 1.0
"""Seconds that the body of a request with a wrong timestamp may take. It is kept if the signature matches."""
MAX_QUEUED_REJECTED_REQUESTS: Final = 200
"""Rejected requests that may wait to be stored. During a flood, further ones are only counted."""

MAX_UNDOCUMENTED_TYPES: Final = 100
"""Event types that the log reports as undocumented."""

_HEADERS: Final = {name.encode(): name for name in ("content-length", SIGNATURE_HEADER, TIMESTAMP_HEADER)}
"""The request headers that the receiver reads, by their ASGI name."""
_ERRORS: Final[dict[int, bytes]] = {
    400: b'{"error": "not a valid event"}',
    401: b'{"error": "invalid signature or timestamp"}',
    404: b'{"error": "not found: the path of the webhook is /webhooks/heppu"}',
    405: b'{"error": "use POST"}',
    413: b'{"error": "body too large"}',
    503: b'{"error": "not stored; send it again"}',
}
_HEADERS_OF_RESPONSE: Final[RawHeaders] = (*PLAIN_HEADERS, (b"content-type", b"application/json"))
_RECEIVED: Final = b'{"received": true}'
_DUPLICATE: Final = b'{"received": true, "duplicate": true}'


class RejectedRequestWriter:
    """Stores rejected requests in groups, in the background, so that no response has to wait for it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: list[RejectedRequest] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, rejected_request: RejectedRequest) -> None:
        """Queue a rejected request. Drop it if the queue is full."""
        if len(self._queue) < MAX_QUEUED_REJECTED_REQUESTS:
            self._queue.append(rejected_request)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        await asyncio.sleep(0.05)
        while self._queue:
            group, self._queue = self._queue, []
            try:
                await asyncio.to_thread(record_rejected_requests, self._database, group)
            except StoreUnavailable as error:
                log.error("rejected requests not stored", count=len(group), error=str(error))
            except Exception as error:
                log.error("rejected requests not stored", count=len(group), exc_info=error)
        self._task = None

    async def flush(self) -> None:
        """Wait until the queue is written."""
        if self._task is not None:
            await self._task


@dataclass
class ReceiverSettings:
    """Signing secrets and clock tolerance of the receiver."""

    secrets: Sequence[bytes]
    """Heppu's webhook secrets. If there are none, no signature is verified."""
    tolerance: int = 300
    """Seconds that the timestamp of a request may differ from the clock, in either direction."""


class Receiver:
    """The ASGI application behind `POST /webhooks/heppu`."""

    def __init__(
        self,
        database: Database,
        settings: ReceiverSettings,
        metrics: Metrics,
        rejection_log: RejectionLog,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._default_country = database.default_country
        self._write_health = database.write_health
        self._group_commit = GroupCommit(database, metrics.web)
        self.rejection_log = rejection_log
        self._rejected_requests = RejectedRequestWriter(database)
        self._metrics = metrics
        self._undocumented_types: set[str] = set()
        web = metrics.web
        self._counts = {status: web.webhook_requests.labels(status) for status in WEBHOOK_STATUSES}
        self._seconds = web.webhook_seconds
        self.stopping = False
        """True if new events are answered with 503, because the service stops."""
        self.leaving = False
        """True if load balancers should send no more events: the service stops, or is about to."""

    def leave(self) -> None:
        """Let `/readyz` say from now on that the service stops. Events are still accepted."""
        self.leaving = True

    def stop(self) -> None:
        """Answer new events with 503 from now on."""
        self.leaving = self.stopping = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. An invalid request gets a 4xx response."""
        started_at = uptime()
        await self._handle(scope, receive, send, started_at)
        self._seconds.observe(uptime() - started_at)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, started_at: float) -> None:
        if scope["method"] != "POST":
            await self._respond(send, 405, _ERRORS[405], ((b"allow", b"POST"),))
            return
        if self.stopping:
            await self._respond(send, 503, _ERRORS[503], ((b"retry-after", b"5"),))
            return
        headers = {
            _HEADERS[name]: value.decode("latin-1") for name, value in scope["headers"] if name in _HEADERS
        }
        now, settings = self._clock.now(), self._settings
        body = b""
        try:
            signed = read_headers(headers, now, settings.tolerance) if settings.secrets else None
            body = await _read_signed_body(receive, headers.get("content-length"), signed)
            if signed is not None:
                verify(body, signed, settings.secrets)
            event = read_event(body, now, self._default_country)
        except Refused as error:
            self._reject(error, body, now, scope)
            await self._respond(send, error.status, _ERRORS[error.status])
            return
        except ConnectionError:
            return
        result = await self._store(event, body, started_at)
        if result == "stored":
            self._report_undocumented_type(event.type)
            self._report_unreadable_fields(event)
            await self._respond(send, 200, _RECEIVED)
        elif result == "unavailable":
            self._write_health.note_refused()
            await self._respond(send, 503, _ERRORS[503], ((b"retry-after", b"60"),))
        else:
            if result == "conflict":
                log.error(
                    "event conflicts with a stored event",
                    advice="not routed: same ID, different body; see `bridge rejected`",
                )
            await self._respond(send, 200, _DUPLICATE, label=result)

    async def _store(self, event: Event, body: bytes, started_at: float) -> IngestResult:
        """Store an event whose request started at `started_at` (an `uptime`)."""
        tracer = tracing.tracer()
        if tracer is None:
            return await self._group_commit.store(IncomingEvent(event, body))
        store_started_at = time.time_ns()
        request_started_at = store_started_at - int((uptime() - started_at) * 1e9)
        result = await self._group_commit.store(IncomingEvent(event, body))
        tracer.received(event.id, event.type, result, request_started_at, store_started_at, time.time_ns())
        return result

    def _report_undocumented_type(self, event_type: str) -> None:
        """Log an event type that Heppu does not document, once per process."""
        reported = self._undocumented_types
        if event_type in EVENT_TYPES or event_type in reported or len(reported) >= MAX_UNDOCUMENTED_TYPES:
            return
        reported.add(event_type)
        log.warning(
            "event type is not documented",
            event_type=event_type,
            advice="its events are stored; `bridge events --type` lists them",
        )

    def _report_unreadable_fields(self, event: Event) -> None:
        unreadable = [item for item in event.unreadable_fields if not item.withheld]
        if not unreadable:
            return
        for item in unreadable:
            is_contact_field = item.field != item.path
            metrics = self._metrics
            counter = (
                metrics.web.unreadable_contact_fields
                if is_contact_field
                else metrics.web.unreadable_event_fields
            )
            counter.labels(item.field).inc()
        log.warning(
            "event has unreadable fields",
            event_id=event.id,
            event_type=event.type,
            fields=[f"{item.path} {item.problem}" for item in unreadable],
            advice="the event is stored and routed without them; see `bridge show`",
        )

    async def reject_wrong_path(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer a request to another path than the webhook's with 404 if it is signed, and keep it as rejected.

        Return False, before the body is read, if its signature cannot be verified. One with a wrong signature is only
        counted and logged, because anyone can send it.
        """
        headers = dict(scope["headers"])
        signature = headers[SIGNATURE_HEADER.encode()].decode("latin-1")
        length = headers.get(b"content-length", b"").decode("latin-1")
        detail = describe_wrong_path(scope["path"])
        body = b""
        try:
            expected = read_signature(signature)
            body = await _read_body(receive, length)
            verify_signature(body, expected, self._settings.secrets)
        except ConnectionError:
            return True
        except Refused as error:
            if not body:
                return False
            self.rejection_log.report(
                error.kind, "request rejected", scope, detail=f"{error.detail}; {detail}"
            )
        else:
            self._reject(SignedRequestRejected("wrong_path", detail, 404), body, self._clock.now(), scope)
        await self._respond(send, 404, _ERRORS[404])
        return True

    def _reject(self, error: Refused, body: bytes, now: datetime, scope: Scope) -> None:
        signature_valid = isinstance(error, SignedRequestRejected) and bool(self._settings.secrets)
        is_logged = self.rejection_log.report(
            error.kind, "request rejected", scope, detail=error.detail, status=error.status
        )
        if not is_logged and not signature_valid:
            return  # anyone can send thousands of them per second
        self._rejected_requests.add(
            RejectedRequest(
                reason=error.kind,
                detail=error.detail,
                status=error.status,
                signature_valid=signature_valid,
                received_at=now,
                body=body if signature_valid else None,
            )
        )

    async def _respond(
        self,
        send: Send,
        status: int,
        body: bytes,
        extra_headers: RawHeaders = (),
        label: str | None = None,
    ) -> None:
        self._counts[label or str(status)].inc()
        headers = [*_HEADERS_OF_RESPONSE, (b"content-length", b"%d" % len(body)), *extra_headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def close(self) -> None:
        """Store the rejected requests that are queued, then end the thread."""
        await self._rejected_requests.flush()
        self._group_commit.close()


async def _read_signed_body(
    receive: Receive, content_length: str | None, signed: SignedHeaders | None
) -> bytes:
    """Return the body.

    A request that only has a wrong timestamp may be genuine: its body is kept for `bridge rejected accept` if it
    arrives within a second. Raise Refused if it does not.
    """
    if signed is None or signed.timestamp_error is None:
        return await _read_body(receive, content_length)
    error = signed.timestamp_error
    try:
        async with asyncio.timeout(STALE_BODY_SECONDS):
            return await _read_body(receive, content_length)
    except TimeoutError:
        raise Refused(error.kind, error.detail, error.status) from None


async def _read_body(receive: Receive, content_length: str | None) -> bytes:
    """Return the whole body. The server limits the time, `bridge.cli.http_limits`.

    Raise Refused if the body is too large, ConnectionError if the sender disconnected.
    """
    if content_length is not None and content_length.isdigit() and int(content_length) > MAX_BODY:
        raise Refused("too_large", f"the Content-Length is {content_length[:12]} bytes", 413)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        _limit_size(body)
        return body
    return await _read_chunks(message, receive)


async def _read_chunks(message: Any, receive: Receive) -> bytes:
    body = bytearray()
    while message["type"] == "http.request":
        body += message.get("body", b"")
        _limit_size(body)
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()
    raise ConnectionError("the sender disconnected")


def _limit_size(body: bytes | bytearray) -> None:
    if len(body) > MAX_BODY:
        raise Refused("too_large", f"the body has more than {MAX_BODY} bytes", 413)
