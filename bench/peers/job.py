"""Code that all peers share: signature verification, and the job, which records its events in a file."""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.peers import MARK_SIZE

STORE_URL = os.environ["PEER_STORE_URL"]
_SECRET = os.environ["PEER_SECRET"].encode()
_done = os.open(os.environ["PEER_DONE_FILE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


_seconds = float(os.environ.get("PEER_JOB_SECONDS", "0"))


def do_job(body: str) -> None:
    """Do nothing with the event, or take a while, and record that it is done."""
    if _seconds:
        time.sleep(_seconds)
    os.write(_done, hashlib.sha256(body.encode()).digest()[:MARK_SIZE])


def receiver(
    enqueue: Callable[[str], Awaitable[Any]], lifespan: Callable[[Any], AbstractAsyncContextManager[None]]
) -> Starlette:
    """Return an application that answers once `enqueue` has taken the body of a verified event."""

    async def receive(request: Request) -> JSONResponse:
        body = await request.body()
        digest = "sha256=" + hmac.new(_SECRET, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(digest, request.headers.get("x-webhook-signature-256", "")):
            return JSONResponse({"error": "invalid signature"}, 401)
        await enqueue(body.decode())
        return JSONResponse({"received": True})

    return Starlette(routes=[Route("/webhooks/heppu", receive, methods=["POST"])], lifespan=lifespan)
