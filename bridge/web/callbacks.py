"""POST /webhooks/<connection>/<callback>: what partners report back, written down before they are answered.

Who calls is for the connector to tell, by the partner's signature over the URL, the form or the body; so all of these
reach it as they came.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.connector import Callback, CallbackReply, CallbackRequest, Connector
from bridge.errors import Refused
from bridge.store.database import Database
from bridge.store.delivery_status import learn
from bridge.telemetry import log

MAX_BODY: Final = 64 * 1024
MAX_FIELDS: Final = 1000
_FORM: Final = "application/x-www-form-urlencoded"


class Account(Protocol):
    """One connection, as far as its callbacks need it."""

    @property
    def connector(self) -> Connector:
        """The code for the partner."""
        ...

    @property
    def settings(self) -> Any:
        """The account's settings: they hold the secret that the partner signs with."""
        ...


def callback_routes(
    database: Database, connections: Mapping[str, Account], public_url: str | None
) -> list[Route]:
    """A route for every callback of these connections.

    `public_url` is where partners reach the service (BRIDGE_PUBLIC_URL): they sign the address they called, which a
    proxy may have changed on the way.
    """
    return [
        Route(
            f"/webhooks/{name}/{callback.name}",
            _endpoint(database, name, account, callback, public_url),
            methods=["POST"],
            max_body_size=MAX_BODY,
        )
        for name, account in sorted(connections.items())
        for callback in account.connector.callbacks.values()
    ]


def _endpoint(
    database: Database, name: str, account: Account, callback: Callback, public_url: str | None
) -> Any:
    async def answer(request: Request) -> Response:
        """Run the callback, write down what it learned, answer."""
        try:
            called = _as_it_came(request, await request.body(), public_url)
            if inspect.iscoroutinefunction(callback.run):
                reply = await callback.run(account.settings, called)
            else:
                reply = await asyncio.to_thread(callback.run, account.settings, called)
        except Refused as refused:
            log.warning(
                "callback refused",
                connection=name, callback=callback.name, kind=refused.kind, detail=refused.detail,
                advice="partners sign the address they call: is BRIDGE_PUBLIC_URL exactly that?"
                if refused.kind == "signature" else None,
            )  # fmt: skip
            return Response(status_code=refused.status)
        await asyncio.to_thread(_learn, database, name, callback, reply)
        return Response(reply.body, media_type=reply.media_type)

    return answer


def _learn(database: Database, name: str, callback: Callback, reply: CallbackReply) -> None:
    if not reply.learned:
        return
    for unmatched in learn(database, name, reply.learned):
        log.warning(
            "a receipt that fits no delivery",
            connection=name,
            callback=callback.name,
            status=unmatched.update.state,
            external_id=unmatched.update.id,
            delivery=unmatched.update.delivery,
            why=unmatched.why,
        )


def _as_it_came(request: Request, body: bytes, public_url: str | None) -> CallbackRequest:
    """The request as the partner made it; raises Refused when its form has too many fields."""
    return CallbackRequest(
        url=_called_url(request, public_url),
        headers=dict(request.headers),
        form=_form(body) if request.headers.get("content-type", "").lower().startswith(_FORM) else [],
        query=dict(request.query_params),
        body=body,
    )


def _called_url(request: Request, public_url: str | None) -> str:
    """The address that the partner called. What a proxy or a stranger claims in headers is not consulted.

    Without a public address it is the one that the request itself names: a stranger can name any, but sign none.
    """
    called = f"{request.scope['scheme']}://{request.headers.get('host', '')}"
    origin = public_url.rstrip("/") if public_url else called
    path = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1")
    query = request.scope["query_string"].decode("latin-1")
    return f"{origin}{path}?{query}" if query else f"{origin}{path}"


def _form(body: bytes) -> list[tuple[str, str]]:
    """Every field of a form, empty ones too, with its value as it was sent."""
    try:
        return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Refused("form", f"the form has more than {MAX_FIELDS} fields", 400) from None
