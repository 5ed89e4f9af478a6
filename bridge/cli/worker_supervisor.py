"""Worker supervisor: the server's side of the worker process of `bridge serve`.

The worker is a separate process because one interpreter runs one thread at a time: in the same process, computations
of an SDK would delay responses to Heppu. The two processes share the database and a socket. Over the socket, the
server wakes, reloads and stops the worker and requests its metrics; the worker reports events to route. A closed
socket means that the other process has exited: the server then starts another worker, and a worker without its server
exits immediately (`bridge.cli.worker_process`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from bridge.cli.ipc import Message, MetricsText, Reload, RequestMetrics, Start, Stop, Wake, decode, encode
from bridge.cli.worker_start import Process, WorkerStarter
from bridge.clock import uptime
from bridge.store.database import EVENTS_TOPIC, Database
from bridge.telemetry import log
from bridge.telemetry.metrics import ProcessMetrics
from bridge.worker.rules_reloader import RulesFile
from bridge.worker.worker_exits import WorkerExits

KILL_AFTER: Final = 30.0
"""Seconds until a worker that received `stop` is killed; normally it exits within 25."""
MIN_RESTART_DELAY, MAX_RESTART_DELAY = 1.0, 30.0
"""Seconds before another worker is started. The delay doubles each time."""
STABLE_SECONDS: Final = 60.0
"""Uptime of a worker after which the restart delay is reset."""
METRICS_TIMEOUT_SECONDS: Final = 2.0
MAX_LINE: Final = 4 * 1024 * 1024
"""Maximum bytes of one line from the worker."""
MAX_WRITE_BUFFER: Final = 64 * 1024
"""Bytes buffered for a worker that does not read; further messages are dropped, because the worker also polls."""


class Supervisor:
    """Keeps one worker process running, and exchanges messages with it."""

    def __init__(
        self,
        starter: WorkerStarter,
        database: Database,
        rules: RulesFile,
        metrics: ProcessMetrics,
        exits: WorkerExits,
    ) -> None:
        self._starter = starter
        self._database = database
        self._rules = rules
        """Their text is what a new worker uses if the rules file is invalid."""
        metrics.add_worker_process()
        self._restarts, self._exits = metrics.worker_restarts, exits
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._metrics_requests: set[asyncio.Future[str]] = set()
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start a worker on the running event loop, and another one whenever it exits."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._keep_running())
        if self._database.is_sqlite:  # PostgreSQL itself notifies both processes
            self._database.listeners.append(self._wake)

    def _wake(self, topics: frozenset[str]) -> None:
        """Tell the worker which connections may have new deliveries. Callable from any thread; never blocks."""
        names = topics - {EVENTS_TOPIC}  # the server itself routes events
        if names and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._send, Wake(sorted(names)))

    def reload(self) -> None:
        """Tell the worker to reload the rules."""
        self._send(Reload())

    async def metrics(self) -> bytes:
        """Return the worker's metrics in Prometheus' text format, or nothing if it does not respond."""
        if self._writer is None:
            return b""
        request: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._metrics_requests.add(request)
        self._send(RequestMetrics())
        try:
            async with asyncio.timeout(METRICS_TIMEOUT_SECONDS):
                return (await request).encode()
        except TimeoutError:
            return b""
        finally:
            self._metrics_requests.discard(request)

    async def stop(self) -> None:
        """Stop the worker after its running attempts have finished."""
        self._stopping.set()
        self._send(Stop())
        if self._task is not None:
            await asyncio.wait([self._task], timeout=KILL_AFTER)
            self.kill()
            await self._task

    def kill(self) -> None:
        """Kill the worker now."""
        if self._process is not None:
            self._process.kill()

    def _send(self, message: Message) -> None:
        if self._writer is None or self._writer.is_closing():
            return  # the next worker polls everything when it starts
        if isinstance(message, Stop) or self._writer.transport.get_write_buffer_size() < MAX_WRITE_BUFFER:
            self._writer.write(encode(message))

    async def _keep_running(self) -> None:
        delay = MIN_RESTART_DELAY
        while not self._stopping.is_set():
            started = uptime()
            try:
                cause = f"exit code {await self._run_worker()}"
            except Exception as error:
                cause = f"{type(error).__name__}: {error}"
            if self._stopping.is_set():
                return
            if uptime() - started > STABLE_SECONDS:
                delay = MIN_RESTART_DELAY
            self._restarts.inc()
            self._exits.note()
            log.error(
                "worker exited",
                cause=cause,
                advice=f"another worker starts in {delay:.0f} s; events are still stored",
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            delay = min(MAX_RESTART_DELAY, delay * 2)

    async def _run_worker(self) -> int:
        """Run one worker until it exits, and return its exit code."""
        worker = self._starter.start()
        process = self._process = worker.process
        reader, self._writer = await asyncio.open_connection(sock=worker.connection, limit=MAX_LINE)
        reading = asyncio.get_running_loop().create_task(self._read_messages(reader))
        try:
            self._send(Start(self._rules.current.text))
            if self._stopping.is_set():
                self._send(Stop())
            return await asyncio.to_thread(process.wait)
        finally:
            reading.cancel()
            self._writer.close()
            self._writer = None
            process.kill()  # no effect if the worker has already exited

    async def _read_messages(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while line := await reader.readline():
                self._handle_message(decode(line))

    def _handle_message(self, message: Message) -> None:
        match message:
            case Wake(topics):
                self._database.notify_local(frozenset(topics))
            case MetricsText(text):
                for request in self._metrics_requests:
                    if not request.done():
                        request.set_result(text)
