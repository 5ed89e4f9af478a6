"""/unsubscribe/<token>: the link in a mail that takes its reader off the list.

A GET shows a button, because mail scanners follow links; a POST does it, by the button or by a mail program's
one-click (RFC 8058), which sends no cookies and follows no redirect. The token is signed and never expires: a link in
an old mail must work.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Final, get_args

from itsdangerous import BadSignature, URLSafeSerializer
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.connector.api import Channel
from bridge.errors import StoreUnavailable
from bridge.store.database import Database
from bridge.store.opt_outs import Preference, set_preference
from bridge.telemetry import log, mask_address
from bridge.web.headers import SecurityHeaders
from bridge.web.html import html

MAX_BODY: Final = 64 * 1024
_WORDS: Final = {"email": "e-mails", "sms": "text messages", "call": "calls"}


def unsubscribe_link(public_url: str | None, secret: str | None) -> Callable[[str, str], str | None]:
    """What makes the link for a channel and an address: it needs BRIDGE_PUBLIC_URL and BRIDGE_SECRET_KEY, else None."""
    if not public_url or not secret:
        return lambda _channel, _address: None
    tokens, root = _tokens(secret), public_url.rstrip("/")
    return lambda channel, address: f"{root}/unsubscribe/{tokens.dumps([channel, address])}"


def unsubscribe_routes(database: Database, secret: str | None) -> list[Route]:
    """The page behind the links that this secret signed; without a secret there are none."""
    tokens = _tokens(secret) if secret else None

    async def show(request: Request) -> Response:
        """Ask."""
        found = _read(tokens, request.path_params["token"])
        return _not_found(request) if found is None else _page(request, "ask", *found)

    async def opt_out(request: Request) -> Response:
        """Do it."""
        found = _read(tokens, request.path_params["token"])
        if found is None:
            return _not_found(request)
        channel, address = found
        try:
            await asyncio.to_thread(
                set_preference, database, Preference(channel, address, True, "unsubscribe link")
            )
        except StoreUnavailable as error:
            log.error("an opt-out could not be written", channel=channel, error=str(error))
            return _page(request, "trouble", channel, address, status=503)
        log.info("opted out", channel=channel, recipient=mask_address(address), source="unsubscribe link")
        return _page(request, "done", channel, address)

    headers = [Middleware(SecurityHeaders)]
    path = "/unsubscribe/{token}"
    return [
        Route(path, show, methods=["GET"], middleware=headers),
        Route(path, opt_out, methods=["POST"], middleware=headers, max_body_size=MAX_BODY),
    ]


def _tokens(secret: str) -> URLSafeSerializer:
    return URLSafeSerializer(
        secret, salt="bridge.unsubscribe", signer_kwargs={"digest_method": hashlib.sha256}
    )


def _read(tokens: URLSafeSerializer | None, token: str) -> tuple[str, str] | None:
    """The channel and the address that we once signed."""
    if tokens is None:
        return None
    try:
        channel, address = tokens.loads(token)
    except (BadSignature, ValueError, TypeError):
        return None
    return (channel, address) if channel in get_args(Channel) and isinstance(address, str) else None


def _page(request: Request, step: str, channel: str, address: str, status: int = 200) -> Response:
    """The page names the address only in part: a mail may have been passed on."""
    return html(
        request,
        "unsubscribe.html",
        status=status,
        step=step,
        messages=_WORDS[channel],
        address=mask_address(address),
    )


def _not_found(request: Request) -> Response:
    return html(request, "unsubscribe.html", status=404, step="unknown", messages="", address="")
