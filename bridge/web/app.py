"""Web application: the routes of the webhook, health checks, API and dashboard, and the error handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from bridge.errors import StoreUnavailable
from bridge.store.database import Database
from bridge.telemetry import log
from bridge.telemetry.metrics import Metrics
from bridge.web.headers import SecurityHeaders
from bridge.web.health import health_routes, writability
from bridge.web.html import error_page, prefers_html
from bridge.web.metrics import MetricsOfWorker, RulesStatus, metrics_routes
from bridge.web.misdirected import WEBHOOK, is_misdirected, is_webhook
from bridge.web.store_errors import StoreErrorReport
from bridge.web.too_large import TooLargeReport
from bridge.web.webhook import Receiver

RequireAdmin = Callable[[Sequence[BaseRoute]], Sequence[BaseRoute]]
"""Returns the given routes, protected by the admin token."""


_HTTP_ERRORS: Final = {
    404: ("Not found", "This page does not exist."),
    405: (
        "Not possible",
        "This address does not accept this kind of request. Open the page, and start the action there.",
    ),
}
"""Title and text of the error page for some statuses."""


class Application(Starlette):
    """Starlette application that passes webhook requests directly to the receiver.

    Starlette's middleware and router take longer than the receiver itself.
    """

    receiver: Receiver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif scope["path"] != WEBHOOK and not is_webhook(scope["path"]):
            if not (is_misdirected(scope) and await self.receiver.reject_wrong_path(scope, receive, send)):
                app = TooLargeReport(super().__call__, self.receiver.rejection_log)
                await SecurityHeaders(app)(scope, receive, send)
        else:
            try:
                await self.receiver(scope, receive, send)
            except Exception as error:
                response = await _internal_error(Request(scope), error)
                await SecurityHeaders(response)(scope, receive, send)


def create_app(
    database: Database,
    receiver: Receiver,
    metrics: Metrics,
    *,
    require_admin: RequireAdmin,
    public_routes: Sequence[BaseRoute] = (),
    admin_routes: Sequence[BaseRoute] = (),
    worker_metrics: MetricsOfWorker | None = None,
    rules: RulesStatus | None = None,
    shared_port: int | None = None,
) -> Starlette:
    """Return the application with every route of the service.

    `public_routes` authenticate requests themselves: callbacks by the provider's signature, unsubscribe links by a
    signed token. `admin_routes` and the metrics are protected by `require_admin`.
    """
    database.write_health.on_error = StoreErrorReport(metrics)
    is_writable = writability(database)
    probes = health_routes(is_writable, stopping=lambda: receiver.leaving)
    exported = metrics_routes(
        database,
        metrics,
        rules=rules,
        is_writable=is_writable,
        worker_metrics=worker_metrics,
        shared_port=shared_port,
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await receiver.close()

    app = Application(
        routes=[
            *probes,
            *public_routes,
            # An unknown webhook is a 404 and not a login, so that a wrong URL is easy to recognize.
            Route("/webhooks/{path:path}", _not_found, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            *require_admin([*exported, *admin_routes]),
        ],
        lifespan=lifespan,
        exception_handlers={
            StoreUnavailable: _store_unavailable,
            HTTPException: _http_error,
            ClientDisconnect: _client_disconnected,
            Exception: _internal_error,
        },
    )
    app.receiver = receiver
    return app


async def _not_found(_: Request) -> Response:
    return JSONResponse({"error": "not found"}, 404)


async def _store_unavailable(request: Request, error: Exception) -> Response:
    log.error("database unavailable", error=str(error))
    if prefers_html(request):
        message = (
            "The database is unavailable. Events are answered with 503 meanwhile, and Heppu sends them again."
        )
        return error_page(request, 503, "Temporarily unavailable", message, {"Retry-After": "5"})
    return JSONResponse({"error": "the database is unavailable; try again later"}, 503, {"Retry-After": "5"})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the handler is registered for this class only
    if prefers_html(request):
        title, message = _HTTP_ERRORS.get(error.status_code, ("Invalid request", error.detail))
        return error_page(request, error.status_code, title, message, error.headers)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _client_disconnected(_: Request, __: Exception) -> Response:
    """Return a response for the log: the client disconnected while sending the body."""
    return Response(status_code=400)


async def _internal_error(request: Request, error: Exception) -> Response:
    log.error("unexpected error while handling a request", path=request.url.path, exc_info=error)
    if prefers_html(request):
        message = "The page could not be shown because of an error in the bridge. The log of the service has details."
        return error_page(request, 500, "Internal error", message)
    return JSONResponse({"error": "internal error; see the log of the service"}, 500)
