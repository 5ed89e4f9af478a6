"""Server process: the listening socket, signal handling and graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import uvicorn
import uvloop

from bridge.cli.bootstrap import Service
from bridge.cli.connection_limits import ConnectionLimits, connections_for, raise_file_limit
from bridge.cli.process import STOP_SECONDS, exit_immediately, tune_gc
from bridge.cli.web_service import WebService
from bridge.cli.worker_supervisor import Supervisor
from bridge.errors import ConfigError, StoreUnavailable
from bridge.settings import local_url
from bridge.telemetry import log

RULES_POLL_SECONDS = 2.0
SWITCH_INTERVAL_SECONDS = 0.0005
"""Maximum time a computing thread delays a response; Python's default of 5 ms adds up over many requests."""
KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers usually keep idle connections, so that they do not use a connection that is closing."""


class HttpServer(uvicorn.Server):
    """uvicorn without signal handlers and with a callback when it listens."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing, because with its own handlers uvicorn exits with the signal instead of 0."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()


class ServiceRunner:
    """Runs one service, and its worker process if it has one, from start to shutdown."""

    def __init__(
        self,
        service: Service,
        web: WebService,
        listener: socket.socket,
        supervisor: Supervisor | None,
        on_ready: Callable[[], None],
    ) -> None:
        self._service = service
        self._receiver = web.receiver
        self._listener = listener
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
                backlog=2048,
            ),
            on_ready,
        )

    def run(self) -> None:
        """Serve until a signal stops the service."""
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        tune_gc()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run())
        self._service.database.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        watcher = loop.create_task(self._watch_rules())
        if self._supervisor is not None:
            self._supervisor.start()
        self._service.start()
        await self._server.serve(sockets=[self._listener])
        watcher.cancel()

    def _on_stop(self, number: int) -> None:
        """Shut down gracefully. On a second signal, exit immediately."""
        if self._stop is not None:
            if self._supervisor is not None:
                self._supervisor.kill()
            exit_immediately(number)
        log.info("stopping", advice="a second signal stops immediately")
        self._stop = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Answer 503 to new events while running attempts finish."""
        self._receiver.stop()
        await asyncio.to_thread(self._service.stop)
        if self._supervisor is not None:
            await self._supervisor.stop()
        self._server.should_exit = True

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


def work_until_stopped(service: Service) -> bool:
    """Run only the worker until a signal stops it. Return whether all running attempts finished."""
    stop = threading.Event()

    def on_stop(number: int, _: object) -> None:
        if stop.is_set():
            exit_immediately(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_stop)
    tune_gc()
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=service.rules.reload).start())
    service.start()
    log.info("worker started")
    stop.wait()
    log.info("stopping", advice="a second signal stops immediately")
    clean = service.stop(STOP_SECONDS)
    service.close()
    return clean


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raise ConfigError if the address cannot be used."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            "choose another address with --host and --port (BRIDGE_HOST, BRIDGE_PORT)"
        ) from None


def url_of(listener: socket.socket) -> str:
    """Return the URL of the service on this machine."""
    return local_url(*listener.getsockname()[:2])
