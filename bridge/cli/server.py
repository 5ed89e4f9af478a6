"""Running a service: its socket, its signals, and stopping without losing anything."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
import uvloop

from bridge.cli.bootstrap import Service
from bridge.cli.db import sqlite_path
from bridge.cli.http_limits import BoundedProtocol
from bridge.cli.worker_supervisor import Supervisor
from bridge.clock import uptime
from bridge.errors import ConfigError, StoreUnavailable
from bridge.telemetry import log

STOP_SECONDS = 25.0
"""How long a stop waits for attempts that run; what runs longer is looked up by whoever serves next."""
LOOK_AT_RULES_EVERY = 2.0
SWITCH_SECONDS = 0.0005
"""How long a thread that computes may keep an answer waiting; Python's own 5 ms add up over a crowd of requests."""
COLLECT_AFTER = 20_000
"""New objects after which Python looks for garbage; its own 700 come about with every few events."""
LOCK_SECONDS = 5.0
"""How long a start waits for what is left of a server that was killed."""
KEEP_ALIVE_SECONDS = 75
"""Longer than the usual load balancer keeps an idle connection, so that it never meets a closing one."""


class HttpServer(uvicorn.Server):
    """uvicorn, with signals left to the service, telling when it listens."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing: uvicorn would end with the signal instead of with 0."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()


class Serving:
    """One service from its first request to its last; its worker, if it has one, beside it."""

    def __init__(
        self,
        service: Service,
        listener: socket.socket,
        supervisor: Supervisor | None,
        on_ready: Callable[[], None],
    ) -> None:
        self._service = service
        self._listener = listener
        self._supervisor = supervisor
        self._stop: asyncio.Task[None] | None = None
        self._server = HttpServer(
            uvicorn.Config(
                service.app,
                http=BoundedProtocol,
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
        """Serve until a signal ends it."""
        sys.setswitchinterval(SWITCH_SECONDS)
        tune_interpreter()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run())
        self._service.database.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        watching = loop.create_task(self._watch_rules())
        if self._supervisor is not None:
            self._supervisor.rules = lambda: self._service.rules.current.text
            if self._service.database.is_sqlite:  # on PostgreSQL each of the two is notified by the database
                self._service.database.on_change.append(self._supervisor.wake)
                self._supervisor.on_wake = self._service.database.wake
            self._supervisor.start()
        self._service.start()
        await self._server.serve(sockets=[self._listener])
        watching.cancel()

    def _on_stop(self, number: int) -> None:
        """Stop in order; asked a second time, at once."""
        if self._stop is not None:
            if self._supervisor is not None:
                self._supervisor.kill()
            at_once(number)
        log.info("stopping", advice="a second signal stops at once")
        self._stop = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        """Answer 503 to new events while what runs comes to its end."""
        self._service.receiver.stopping = True
        await asyncio.to_thread(self._service.stop)
        if self._supervisor is not None:
            await self._supervisor.stop()
        self._server.should_exit = True

    def _on_hangup(self) -> None:
        if self._supervisor is not None:
            self._supervisor.reload()
        reload = asyncio.get_running_loop().run_in_executor(None, self._service.rules.reload)
        reload.add_done_callback(lambda done: done.exception())  # the log has what went wrong

    async def _watch_rules(self) -> None:
        """Follow the rules file: the log page tells of it, and new connections have callbacks to take."""
        while True:
            await asyncio.sleep(LOOK_AT_RULES_EVERY)
            try:
                await asyncio.to_thread(self._service.rules.reload_if_changed)
            except StoreUnavailable as error:
                log.error("rules not reloaded", error=str(error), advice="trying again")
            except Exception as error:
                log.error("a bug; the rules file is looked at again", exc_info=error)


def work_until_stopped(service: Service) -> bool:
    """Run the worker alone until a signal ends it; returns whether everything that ran could be finished."""
    stop = threading.Event()

    def on_stop(number: int, _: object) -> None:
        if stop.is_set():
            at_once(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_stop)
    tune_interpreter()
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=service.rules.reload).start())
    service.start()
    log.info("working")
    stop.wait()
    log.info("stopping", advice="a second signal stops at once")
    clean = service.stop(STOP_SECONDS)
    service.close()
    return clean


def tune_interpreter() -> None:
    """Let the search for garbage hold up nothing for long.

    What was made until now is never searched again: it stays as long as the process.
    """
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
    gc.freeze()


def at_once(number: int) -> None:
    """End the process now; what runs is looked up by whoever serves next."""
    log.warning("stopped at once", signal=signal.Signals(number).name)
    os._exit(128 + number)


def leave(clean: bool) -> None:
    """End with 0; attempts that hang in their threads must not hold the process up."""
    if not clean:
        log.warning("attempts were still running", advice="they are looked up by whoever serves next")
        sys.stdout.flush()
        os._exit(0)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises ConfigError that says what to change."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            "choose another with --host and --port (BRIDGE_HOST, BRIDGE_PORT)"
        ) from None


def url_of(listener: socket.socket) -> str:
    """The address under which this machine reaches the service."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def only_server(url: str) -> Iterator[tuple[int, ...]]:
    """Be the one server of a SQLite file; raises ConfigError that names the other one.

    Yields what a process must hold to be part of this server: the kernel gives the lock back when all have ended,
    however they ended. After a server was killed its worker follows in a moment, so the lock is waited for a little.
    """
    path = sqlite_path(url)
    if path is None:
        yield ()
        return
    real = path.resolve()  # by whichever link it is reached
    with _opened(real.with_name(real.name + ".lock")) as handle:
        end = uptime() + LOCK_SECONDS
        while not _locked(handle):
            owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
            if uptime() >= end or _runs(owner):
                raise ConfigError(
                    f"{path} is already served by process {owner or 'unknown'}; SQLite has one serving process. "
                    "Stop that one, or use PostgreSQL (BRIDGE_DATABASE_URL) to run several"
                ) from None
            time.sleep(0.05)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield (handle,)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _runs(process: str) -> bool:
    """Whether there is such a process; one of our own number was in a container before us."""
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # somebody else's
        return True
    return int(process) != os.getpid()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}; the folder of the database must be writable"
        ) from None
    try:
        yield handle
    finally:
        os.close(handle)
