"""Server process: the listening socket, signal handling and graceful shutdown."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable

import uvicorn
import uvloop

from bridge.cli.bootstrap import Service
from bridge.cli.connection_limits import ConnectionLimits, connections_for, raise_file_limit
from bridge.cli.listener import BACKLOG
from bridge.cli.process import exit_immediately, tune_gc
from bridge.cli.web_service import WebService
from bridge.cli.worker_supervisor import Supervisor
from bridge.errors import StoreUnavailable
from bridge.http_server import HttpServer
from bridge.telemetry import log

RULES_POLL_SECONDS = 2.0
SWITCH_INTERVAL_SECONDS = 0.0005
"""Maximum time a computing thread delays a response; Python's default of 5 ms adds up over many requests."""
KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers usually keep idle connections, so that they do not use a connection that is closing."""


class ServiceRunner:
    """Runs one service, and its worker process if it has one, from start to shutdown."""

    def __init__(
        self,
        service: Service,
        web: WebService,
        listeners: list[socket.socket],
        supervisor: Supervisor | None,
        on_ready: Callable[[], None],
        *,
        shared: socket.socket | None,
    ) -> None:
        """`shared` is the one of the `listeners` whose port other processes share."""
        self._service = service
        self._receiver = web.receiver
        self._listeners, self._shared = listeners, shared
        self._supervisor = supervisor
        self._stop: asyncio.Task[None] | None = None
        limits = ConnectionLimits(web.rejection_log, connections_for(raise_file_limit()))
        service.metrics.web.open_connections.set_function(lambda: len(limits.open))
        self._server = HttpServer(
            uvicorn.Config(
                web.app,
                http=limits.protocol,  # type: ignore[arg-type]  # uvicorn only calls it
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=5,
                backlog=BACKLOG,
            ),
            on_ready,
        )

    def run(self) -> None:
        """Serve until a signal stops the service."""
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        tune_gc()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run())
        self._service.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        watcher = loop.create_task(self._watch_rules())
        if self._supervisor is not None:
            self._supervisor.start()
        self._service.start()
        await self._server.serve(sockets=self._listeners)
        watcher.cancel()

    def _on_stop(self, number: int) -> None:
        """Shut down gracefully. On a second signal, exit immediately."""
        if self._stop is not None:
            if self._supervisor is not None:
                self._supervisor.kill()
            exit_immediately(number)
        delay = self._service.settings.bridge_stop_delay.total_seconds()
        log.info("stopping", delay_seconds=delay, advice="a second signal stops immediately")
        self._stop = asyncio.get_running_loop().create_task(self._drain(delay))

    async def _drain(self, delay: float) -> None:
        """Let load balancers notice, then answer 503 to new events while running attempts finish.

        If other processes share the port, leave it to them at once, and answer what has reached this process.
        """
        self._receiver.leave()
        if self._shared is not None:
            await self._server.leave(self._shared)
        await asyncio.sleep(delay)
        if self._shared is None:
            self._receiver.stop()
        await asyncio.to_thread(self._service.stop)
        if self._supervisor is not None:
            await self._supervisor.stop()
        self._server.stop()

    def _on_hangup(self) -> None:
        if self._supervisor is not None:
            self._supervisor.reload()
        reload = asyncio.get_running_loop().run_in_executor(None, self._service.rules.reload)
        reload.add_done_callback(lambda done: done.exception())  # already logged

    async def _watch_rules(self) -> None:
        """Reload a changed rules file, for the dashboard and for the callback routes of new connections."""
        while True:
            await asyncio.sleep(RULES_POLL_SECONDS)
            try:
                await asyncio.to_thread(self._service.rules.reload_if_changed)
            except StoreUnavailable as error:
                log.error("rules not reloaded", error=str(error), advice="retrying")
            except Exception as error:
                log.error("unexpected error while watching the rules file, continuing", exc_info=error)
