"""The web application, assembled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from bridge.errors import StoreUnavailable
from bridge.store.database import Database
from bridge.telemetry import Metrics, log
from bridge.web.health import WorkerMetrics, health_routes
from bridge.web.webhook import Receiver

WEBHOOK = "/webhooks/heppu"
"""Where Heppu's events arrive."""
Guard = Callable[[Sequence[BaseRoute]], Sequence[BaseRoute]]
"""Puts routes behind the admin token."""


class Application(Starlette):
    """Starlette, with the receiver before its middleware and router: they take longer than what it does."""

    receiver: Receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] != WEBHOOK:
            await super().__call__(scope, receive, send)
            return
        try:
            await self.receiver(scope, receive, send)
        except Exception as error:
            response = await _bug(Request(scope), error)
            await response(scope, receive, send)


def create_app(
    database: Database,
    receiver: Receiver,
    metrics: Metrics,
    *,
    guard: Guard,
    open_routes: Sequence[BaseRoute] = (),
    admin_routes: Sequence[BaseRoute] = (),
    worker_metrics: WorkerMetrics | None = None,
    rules_trouble: Callable[[], str | None] = lambda: None,
) -> Starlette:
    """Everything that the service answers over HTTP.

    `open_routes` guard themselves (callbacks by the partner's signature, links by their own); `admin_routes`, the
    metrics among them, are put behind `guard`.
    """
    for_everybody, for_operators = health_routes(
        database,
        metrics,
        worker_metrics=worker_metrics,
        rules_trouble=rules_trouble,
        stopping=lambda: receiver.stopping,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await receiver.close()

    app = Application(
        routes=[
            *for_everybody,
            *open_routes,
            # Strangers learn nothing of what is guarded.
            Route("/webhooks/{path:path}", _nothing_here, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            *guard([*for_operators, *admin_routes]),
        ],
        lifespan=lifespan,
        exception_handlers={
            StoreUnavailable: _unavailable,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            Exception: _bug,
        },
    )
    app.receiver = receiver
    return app


async def _nothing_here(_: Request) -> Response:
    return JSONResponse({"error": "nothing is here"}, 404)


async def _unavailable(_: Request, error: Exception) -> Response:
    log.error("the database cannot be used", error=str(error))
    return JSONResponse({"error": "the database cannot be used now"}, 503, {"Retry-After": "5"})


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _gone(_: Request, __: Exception) -> Response:
    """The sender left in the middle of a body: nobody reads this."""
    return Response(status_code=400)


async def _bug(request: Request, error: Exception) -> Response:
    log.error("a bug while answering", path=request.url.path, exc_info=error)
    return JSONResponse({"error": "something is wrong on our side; see the log"}, 500)
