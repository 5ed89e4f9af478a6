"""Provider callbacks: POST /webhooks/<connection>/<callback>, stored before the provider gets its response.

The connector authenticates the provider by its signature over the URL, the form or the body. All of these reach the
connector unchanged.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.connector import Callback, CallbackReply, CallbackRequest, Connector
from bridge.connector.discovery import name_variables_of
from bridge.errors import Refused, StoreUnavailable
from bridge.store.database import Database
from bridge.store.delivery_status import apply_callback
from bridge.telemetry import log
from bridge.telemetry.metrics import Metrics
from bridge.web.rejection_log import RejectionLog

MAX_BODY: Final = 64 * 1024
MAX_FIELDS: Final = 1000
_FORM: Final = "application/x-www-form-urlencoded"


class CallbackConnection(Protocol):
    """The part of a connection that its callbacks need."""

    @property
    def connector(self) -> Connector:
        """The connector that handles the callback."""
        ...

    @property
    def settings(self) -> Any:
        """The settings of the connection, which contain the provider's signing secret."""
        ...


def callback_routes(
    database: Database,
    find_connection: Callable[[str], CallbackConnection | None],
    public_url: str | None,
    metrics: Metrics,
    rejection_log: RejectionLog,
) -> list[Route]:
    """Return the route of the callbacks of every connection that `find_connection` returns at the time of the request.

    `public_url` (BRIDGE_PUBLIC_URL) is the address that providers call. They sign that address, and a proxy may have
    changed it on the way.
    """

    async def endpoint(request: Request) -> Response:
        """Run the callback, store the events that it returns, and respond."""
        name = request.path_params["connection"]
        connection = find_connection(name)
        callback = connection.connector.callbacks.get(request.path_params["callback"]) if connection else None
        if connection is None or callback is None:
            raise HTTPException(404, "not found")
        try:
            _require_signature(request, callback)
            callback_request = _callback_request(request, await request.body(), public_url)
            if inspect.iscoroutinefunction(callback.run):
                reply = await callback.run(connection.settings, callback_request)
            else:
                reply = await asyncio.to_thread(callback.run, connection.settings, callback_request)
        except Refused as error:
            rejection_log.report(
                error.kind, "callback rejected", request.scope,
                connection=name, callback=callback.name, detail=error.detail,
                advice="set BRIDGE_PUBLIC_URL to the exact address that the provider calls, because it signs that"
                if error.kind == "signature" else None,
            )  # fmt: skip
            metrics.web.callbacks.labels(name, callback.name, str(error.status)).inc()
            return Response(status_code=error.status)
        except HTTPException as error:  # the body is too large
            metrics.web.callbacks.labels(name, callback.name, str(error.status_code)).inc()
            raise
        if reply.account_error is not None:
            name_variables_of(reply.account_error, connection.connector, name)
        try:
            await asyncio.to_thread(_store_reply, database, name, callback, reply)
        except StoreUnavailable:
            metrics.web.callbacks.labels(name, callback.name, "503").inc()
            raise
        metrics.web.callbacks.labels(name, callback.name, "200").inc()
        return Response(reply.body, media_type=reply.media_type)

    return [Route("/webhooks/{connection}/{callback}", endpoint, methods=["POST"], max_body_size=MAX_BODY)]


def _require_signature(request: Request, callback: Callback) -> None:
    """Raise Refused, before the body is read, if the request lacks the header with the provider's signature."""
    if callback.signature_header is not None and callback.signature_header not in request.headers:
        raise Refused("signature_missing", f"the request has no {callback.signature_header} header", 403)


def _store_reply(database: Database, name: str, callback: Callback, reply: CallbackReply) -> None:
    if reply.problem:
        log.warning(
            "callback could not be read", connection=name, callback=callback.name, detail=reply.problem
        )
    if not reply.learned and reply.account_error is None:
        return
    for unmatched in apply_callback(database, name, reply.learned, reply.account_error):
        log.warning(
            "message status matched no delivery",
            connection=name,
            callback=callback.name,
            status=unmatched.update.state,
            external_id=unmatched.update.id,
            delivery=unmatched.update.delivery,
            detail=unmatched.reason,
        )


def _callback_request(request: Request, body: bytes, public_url: str | None) -> CallbackRequest:
    """Return the request as the provider sent it. Raise Refused if its form has too many fields."""
    return CallbackRequest(
        url=_called_url(request, public_url),
        headers=dict(request.headers),
        form=_form(body) if request.headers.get("content-type", "").lower().startswith(_FORM) else [],
        query=dict(request.query_params),
        body=body,
    )


def _called_url(request: Request, public_url: str | None) -> str:
    """Return the address that the provider called. Forwarding headers are ignored, because anyone can set them.

    Without a public address it is the address in the request. An attacker can forge that, but cannot sign it.
    """
    called = f"{request.scope['scheme']}://{request.headers.get('host', '')}"
    origin = public_url.rstrip("/") if public_url else called
    path = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1")
    query = request.scope["query_string"].decode("latin-1")
    return f"{origin}{path}?{query}" if query else f"{origin}{path}"


def _form(body: bytes) -> list[tuple[str, str]]:
    """Return every field of a form, including empty ones, with the value that was sent. Raise Refused."""
    try:
        return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Refused("form", f"the form has more than {MAX_FIELDS} fields", 400) from None
