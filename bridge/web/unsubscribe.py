"""Unsubscribe links: /unsubscribe/<token> adds the recipient of an email to the opt-out list.

GET shows a button, because email scanners follow links. POST stores the opt-out: sent by the button, or by an email
client's one-click unsubscribe (RFC 8058), which sends no cookies and follows no redirects. The token is signed and
never expires, because a link in an old email must work.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from typing import Final, get_args

from itsdangerous import BadSignature, URLSafeSerializer
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.connector.callbacks import Channel
from bridge.errors import StoreUnavailable
from bridge.store.database import Database
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.telemetry import log, mask_address
from bridge.web.headers import SecurityHeaders
from bridge.web.html import render

MAX_BODY: Final = 64 * 1024
_MESSAGE_NAMES: Final[Mapping[Channel, str]] = {
    "email": "emails",
    "sms": "text messages",
    "whatsapp": "WhatsApp messages",
    "call": "calls",
}


def unsubscribe_link(public_url: str | None, secret: str | None) -> Callable[[str, str], str | None]:
    """Return a function that builds the link for a channel and an address.

    The function returns None if BRIDGE_PUBLIC_URL or BRIDGE_SECRET_KEY is not set.
    """
    if not public_url or not secret:
        return lambda _channel, _address: None
    serializer, root = _serializer(secret), public_url.rstrip("/")
    return lambda channel, address: f"{root}/unsubscribe/{serializer.dumps([channel, address])}"


def unsubscribe_routes(database: Database, secret: str | None) -> list[Route]:
    """Return the routes for links signed with `secret`. Without a secret, every link is invalid."""
    serializer = _serializer(secret) if secret else None

    async def show(request: Request) -> Response:
        """Ask for confirmation."""
        target = _read_token(serializer, request.path_params["token"])
        return _not_found(request) if target is None else _page(request, "confirm", *target)

    async def opt_out(request: Request) -> Response:
        """Store the opt-out."""
        target = _read_token(serializer, request.path_params["token"])
        if target is None:
            return _not_found(request)
        channel, address = target
        try:
            await asyncio.to_thread(
                save_opt_out, database, OptOutChange(channel, address, True, "unsubscribe link")
            )
        except StoreUnavailable as error:
            log.error("opt-out not stored", channel=channel, error=str(error))
            return _page(request, "error", channel, address, status=503)
        log.info("opted out", channel=channel, recipient=mask_address(address), source="unsubscribe link")
        return _page(request, "done", channel, address)

    headers = [Middleware(SecurityHeaders)]
    path = "/unsubscribe/{token}"
    return [
        Route(path, show, methods=["GET"], middleware=headers),
        Route(path, opt_out, methods=["POST"], middleware=headers, max_body_size=MAX_BODY),
    ]


def _serializer(secret: str) -> URLSafeSerializer:
    return URLSafeSerializer(
        secret, salt="bridge.unsubscribe", signer_kwargs={"digest_method": hashlib.sha256}
    )


def _read_token(serializer: URLSafeSerializer | None, token: str) -> tuple[Channel, str] | None:
    """Return the channel and address in a token, or None if its signature is invalid."""
    if serializer is None:
        return None
    try:
        channel, address = serializer.loads(token)
    except (BadSignature, ValueError, TypeError):
        return None
    return (channel, address) if channel in get_args(Channel) and isinstance(address, str) else None


def _page(request: Request, step: str, channel: Channel, address: str, status: int = 200) -> Response:
    """Return the page with the address masked, because the email may have been forwarded."""
    return render(
        request,
        "unsubscribe.html",
        status=status,
        step=step,
        messages=_MESSAGE_NAMES[channel],
        address=mask_address(address),
    )


def _not_found(request: Request) -> Response:
    return render(request, "unsubscribe.html", status=404, step="invalid", messages="", address="")
