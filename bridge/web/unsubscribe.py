"""Unsubscribe links: /unsubscribe/<token> adds the recipient of an email to the opt-out list.

GET shows a button, because email scanners follow links. POST stores the opt-out: sent by the button, or by an email
client's one-click unsubscribe (RFC 8058), which sends no cookies and follows no redirects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, cast, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.connector.callbacks import Channel
from bridge.errors import StoreUnavailable
from bridge.store.database import Database
from bridge.store.opt_outs import OptOutChange, save_opt_out
from bridge.telemetry import log, mask_address
from bridge.unsubscribe_links import read_unsubscribe_token
from bridge.web.html import render

MAX_BODY: Final = 64 * 1024
_MESSAGE_NAMES: Final[Mapping[Channel, str]] = {
    "email": "emails",
    "sms": "text messages",
    "whatsapp": "WhatsApp messages",
    "call": "calls",
}


def unsubscribe_routes(database: Database, keys: Sequence[str]) -> list[Route]:
    """Return the routes for links made with one of `keys` (BRIDGE_SECRET_KEY). Without a key, every link is invalid."""

    async def show(request: Request) -> Response:
        """Ask for confirmation."""
        target = _read_token(keys, request.path_params["token"])
        return _not_found(request) if target is None else _page(request, "confirm", *target)

    async def opt_out(request: Request) -> Response:
        """Store the opt-out."""
        target = _read_token(keys, request.path_params["token"])
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

    path = "/unsubscribe/{token}"
    return [
        Route(path, show, methods=["GET"]),
        Route(path, opt_out, methods=["POST"], max_body_size=MAX_BODY),
    ]


def _read_token(keys: Sequence[str], token: str) -> tuple[Channel, str] | None:
    """Return the channel and address in a token, or None if it is invalid."""
    target = read_unsubscribe_token(keys, token)
    if target is None or target[0] not in get_args(Channel):
        return None
    return cast(Channel, target[0]), target[1]


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
