"""POST /webhooks/heppu: verify, store, answer. Nothing else is on this path: no rule, no partner.

Requests that arrive at once share one transaction (group commit): while one group is being written, the next one
gathers. The answer goes out when the group is on disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from bridge.clock import Clock
from bridge.errors import Refused, StoreUnavailable
from bridge.signing import MAX_BODY, SIGNATURE_HEADER, TIMESTAMP_HEADER, SignedRefusal, verify
from bridge.store.database import Database
from bridge.store.ingest import Answer, IncomingEvent, RejectedRequest, accept, record_rejected_requests
from bridge.telemetry import Metrics, log

MAX_GROUP: Final = 256
"""Events that one transaction takes."""
MAX_WAITING: Final = 4096
"""Events that may wait for a transaction; more are answered 503, and Heppu sends them again."""
BODY_SECONDS: Final = 30.0
"""How long a sender may take for a body: Heppu's own time limit for an answer."""
MAX_QUEUED_REJECTIONS: Final = 200
"""Refused requests that wait to be written down; under a flood the rest is only counted."""

_HEADERS: Final = {name.encode(): name for name in ("content-length", SIGNATURE_HEADER, TIMESTAMP_HEADER)}
"""Those that are read."""
_ANSWERS: Final[dict[int, bytes]] = {
    400: b'{"error": "not an event"}',
    401: b'{"error": "not signed"}',
    405: b'{"error": "POST only"}',
    408: b'{"error": "too slow"}',
    413: b'{"error": "too large"}',
    503: b'{"error": "not stored, send it again"}',
}
_RECEIVED: Final = b'{"received": true}'
_DUPLICATE: Final = b'{"received": true, "duplicate": true}'


class GroupCommit:
    """Gathers events and stores them in groups, one transaction at a time, on a thread of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: deque[tuple[IncomingEvent, asyncio.Future[Answer]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bridge-receipts")

    async def accept(self, receipt: IncomingEvent) -> Answer:
        """Store one event; returns once it is on disk, or cannot be stored now."""
        if len(self._waiting) >= MAX_WAITING:
            return "unavailable"
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((receipt, future))
        if self._task is None:
            self._task = loop.create_task(self._commit(loop))
        return await future

    async def _commit(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]
            receipts = [receipt for receipt, _ in group]
            answers = await loop.run_in_executor(self._thread, accept, self._database, receipts)
            for (_, future), answer in zip(group, answers, strict=True):
                if not future.done():  # the sender may have gone away
                    future.set_result(answer)
        self._task = None

    def close(self) -> None:
        """End the thread; nothing may be waiting any more."""
        self._thread.shutdown(wait=True)


class RejectedRequestLog:
    """Writes refused requests down in the background, in groups, without ever holding up an answer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[RejectedRequest] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, rejected_request: RejectedRequest) -> None:
        """Note a refused request; dropped when too many are waiting."""
        if len(self._waiting) < MAX_QUEUED_REJECTIONS:
            self._waiting.append(rejected_request)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        await asyncio.sleep(0.05)
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(record_rejected_requests, self._database, group)
            except StoreUnavailable as error:
                log.error("rejections not written", count=len(group), error=str(error))
            except Exception as error:
                log.error("rejections not written", count=len(group), exc_info=error)
        self._task = None

    async def flush(self) -> None:
        """Wait until everything noted is written."""
        if self._task is not None:
            await self._task


@dataclass
class ReceiverSettings:
    """Who may sign, and how far the clocks may be apart."""

    secrets: Sequence[bytes]
    """Heppu's secrets; none means that nothing is verified."""
    tolerance: int = 300


class Receiver:
    """The ASGI application behind `POST /webhooks/heppu`."""

    def __init__(
        self, database: Database, settings: ReceiverSettings, metrics: Metrics, clock: Clock
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._commit = GroupCommit(database)
        self._rejections = RejectedRequestLog(database)
        self._count = metrics.receipts
        self.stopping = False
        """Set on the way out: new events are answered 503."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Whatever a stranger sends is a 4xx."""
        if scope["method"] != "POST":
            await self._answer(send, 405, _ANSWERS[405], ((b"allow", b"POST"),))
            return
        if self.stopping:
            await self._answer(send, 503, _ANSWERS[503], ((b"retry-after", b"5"),))
            return
        given = dict(scope["headers"])
        headers = {name: given[raw].decode("latin-1") for raw, name in _HEADERS.items() if raw in given}
        now = self._clock.now()
        body = b""
        try:
            body = await _read(receive, headers.get("content-length"))
            event = verify(body, headers, self._settings.secrets, now, self._settings.tolerance)
        except Refused as refused:
            self._reject(refused, body, now)
            await self._answer(send, refused.status, _ANSWERS[refused.status])
            return
        except ConnectionError:
            return
        stored = await self._commit.accept(IncomingEvent(event, body))
        if stored == "stored":
            await self._answer(send, 200, _RECEIVED)
        elif stored == "unavailable":
            await self._answer(send, 503, _ANSWERS[503], ((b"retry-after", b"60"),))
        else:
            if stored == "conflict":
                log.error("same id, another body", advice="see `bridge rejected`; nothing was routed")
            await self._answer(send, 200, _DUPLICATE, label=stored)

    def _reject(self, refused: Refused, body: bytes, now: datetime) -> None:
        signed = isinstance(refused, SignedRefusal) and bool(self._settings.secrets)
        log.warning("request refused", kind=refused.kind, detail=refused.detail, status=refused.status)
        self._rejections.add(
            RejectedRequest(
                refused.kind, refused.detail, refused.status, signed, now, body if signed else None
            )
        )

    async def _answer(
        self,
        send: Send,
        status: int,
        body: bytes,
        extra: tuple[tuple[bytes, bytes], ...] = (),
        label: str | None = None,
    ) -> None:
        self._count.labels(label or str(status)).inc()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *extra,
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def close(self) -> None:
        """Let what was received be written, then end."""
        await self._rejections.flush()
        self._commit.close()


async def _read(receive: Receive, announced: str | None) -> bytes:
    """The whole body; raises Refused when it is too large or too slow, ConnectionError when the sender left."""
    if announced is not None and announced.isdigit() and int(announced) > MAX_BODY:
        raise Refused("too_large", f"the body is announced with {announced[:12]} bytes", 413)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        return _bounded(body)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read_rest(message, receive)
    except TimeoutError:
        raise Refused("too_slow", f"no whole body within {BODY_SECONDS:.0f} s", 408) from None


async def _read_rest(message: Any, receive: Receive) -> bytes:
    chunks = bytearray()
    while message["type"] == "http.request":
        chunks += message.get("body", b"")
        _bounded(chunks)
        if not message.get("more_body"):
            return bytes(chunks)
        message = await receive()
    raise ConnectionError("the sender left")


def _bounded(body: bytes | bytearray) -> bytes:
    if len(body) > MAX_BODY:
        raise Refused("too_large", f"the body has more than {MAX_BODY} bytes", 413)
    return bytes(body)
