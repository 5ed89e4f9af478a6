"""Metrics and health checks of `bridge worker`, on BRIDGE_METRICS_PORT: a small HTTP server in its own thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from ipaddress import ip_address

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from bridge.cli.bootstrap import Service
from bridge.cli.connection_limits import ConnectionLimits
from bridge.errors import ConfigError
from bridge.http_server import HttpServer
from bridge.settings import Settings
from bridge.web.access import Access, TokenTable
from bridge.web.headers import SecurityHeaders
from bridge.web.health import health_routes, writability
from bridge.web.metrics import metrics_routes
from bridge.web.rejection_log import RejectionLog
from bridge.web.store_errors import StoreErrorReport
from bridge.worker.exported_metrics import export_metrics

MAX_CONNECTIONS = 100
WRONG_TOKEN_SECONDS = 1.0
"""Delay of the response to a wrong token."""


def required_tokens(settings: Settings) -> TokenTable | None:
    """Return the tokens that open the metrics; None if none is needed. Raise ConfigError if one has to be set."""
    tokens = {
        Access.ADMIN: settings.bridge_admin_token,
        Access.READ: settings.bridge_read_token,
        Access.METRICS: settings.bridge_metrics_token,
    }
    if any(tokens.values()):
        return TokenTable(tokens)
    if _is_loopback(settings.bridge_host):
        return None
    raise ConfigError(
        f"BRIDGE_METRICS_PORT on {settings.bridge_host} needs a token: set BRIDGE_METRICS_TOKEN, or "
        "BRIDGE_HOST=127.0.0.1"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class MetricsServer:
    """Serves `/metrics`, `/healthz` and `/readyz` of a worker."""

    def __init__(
        self,
        service: Service,
        tokens: TokenTable | None,
        listener: socket.socket,
        stopping: Callable[[], bool],
    ) -> None:
        database, metrics = service.database, service.metrics
        database.write_health.on_error = StoreErrorReport(metrics)
        is_writable = writability(database)
        rejection_log = RejectionLog(metrics, service.settings.bridge_trusted_proxies)

        async def worker_metrics() -> bytes:
            return export_metrics(metrics, service.accounts)

        probes = health_routes(is_writable, stopping=stopping, is_alive=service.is_alive)
        exported = metrics_routes(
            database,
            metrics,
            rules=service.rules,
            is_writable=is_writable,
            worker_metrics=worker_metrics,
            receives=False,
        )
        check = [Middleware(_TokenCheck, tokens, rejection_log)] if tokens else []
        app = Starlette(routes=[*probes, Mount("", routes=exported, middleware=check)])
        limits = ConnectionLimits(rejection_log, MAX_CONNECTIONS)
        self._server = HttpServer(
            uvicorn.Config(
                SecurityHeaders(app),
                http=limits.protocol,  # type: ignore[arg-type]  # uvicorn only calls it
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            ),
            on_ready=lambda: None,
        )
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name="bridge-metrics-server", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.stop()
        self._thread.join(timeout=3)

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._listener]))


class _TokenCheck:
    """ASGI middleware that requires one of the tokens as bearer token."""

    def __init__(self, app: ASGIApp, tokens: TokenTable, rejection_log: RejectionLog) -> None:
        self._app = app
        self._tokens = tokens
        self._rejection_log = rejection_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and self._tokens.find(token.strip()) is not None:
            await self._app(scope, receive, send)
            return
        if header:
            self._rejection_log.report("wrong_token", "login rejected", scope)
            await asyncio.sleep(WRONG_TOKEN_SECONDS)
        response = JSONResponse(
            {"error": "send a token: Authorization: Bearer $BRIDGE_METRICS_TOKEN"},
            401,
            {"WWW-Authenticate": "Bearer"},
        )
        await response(scope, receive, send)
