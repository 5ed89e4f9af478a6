"""The worker of `bridge serve` runs in a process of its own; this is the serving process's side of it.

One interpreter runs one thread at a time: in the same process, whatever an SDK computes would keep Heppu waiting for
its answer. The two share the database, and a socket over which the server wakes, reloads and stops the worker and
asks for its metrics, and the worker says when it left something to route. When it closes, the other side is gone,
however that came: a server without its worker starts another one, a worker without its server ends at once
(`bridge.cli.worker_process`).
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from bridge.clock import uptime
from bridge.store.database import EVENTS
from bridge.telemetry import log

KILL_AFTER: Final = 30.0
"""Seconds after which a worker that was asked to stop is killed; by itself it stops after 25."""
FIRST_PAUSE, LONGEST_PAUSE, LIVED_LONG = 1.0, 30.0, 60.0
"""Seconds before another worker is started: twice as many each time, until one has lived long."""
ANSWER_SECONDS: Final = 2.0
MOST_SAID: Final = 4 * 1024 * 1024
"""Bytes of one line."""
MOST_WAITING: Final = 64 * 1024
"""Bytes that may wait for a worker that does not read; it is awake enough then, and looks by itself."""


class Supervisor:
    """Starts the worker, keeps one running, and passes orders on."""

    def __init__(self, environ: Mapping[str, str], held: Sequence[int] = ()) -> None:
        self._environ = environ
        """The server's own, with what it read from `.env`: a file that changes later must not part the two."""
        self.on_wake: Callable[[frozenset[str]], None] = lambda _: None
        """Told when the worker left something to route."""
        self.rules: Callable[[], str] = lambda: ""
        """The text of the rules that run: a worker that starts while the file is bad runs them too."""
        self._held = held
        """File descriptors that the worker keeps open as long as it lives: the lock of the one server."""
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._asked: dict[int, asyncio.Future[str]] = {}
        self._number = 0
        self._stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start a worker, and another one whenever it ends, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._keeper = self._loop.create_task(self._keep_one())

    def wake(self, topics: frozenset[str]) -> None:
        """Say on which connections there may be work; from any thread, without ever waiting."""
        names = topics - {EVENTS}  # those are routed on this side
        if names and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._order, f"wake {','.join(sorted(names))}")

    def reload(self) -> None:
        """Have the rules read again."""
        self._order("reload")

    async def metrics(self) -> bytes:
        """The worker's metrics in Prometheus' text format; empty while it cannot answer."""
        if self._writer is None:
            return b""
        self._number += 1
        number = self._number
        self._asked[number] = asyncio.get_running_loop().create_future()
        self._order(f"metrics {number}")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return (await self._asked[number]).encode()
        except TimeoutError:
            return b""
        finally:
            del self._asked[number]

    async def stop(self) -> None:
        """Let what runs come to its end, and the worker with it."""
        self._stopping.set()
        self._order("stop")
        if self._keeper is not None:
            await asyncio.wait([self._keeper], timeout=KILL_AFTER)
            self.kill()
            await self._keeper

    def kill(self) -> None:
        """End the worker now."""
        if self._process is not None:
            self._process.kill()

    def _order(self, line: str) -> None:
        if self._writer is None or self._writer.is_closing():
            return  # there is no worker just now; the next one looks at everything first
        if line == "stop" or self._writer.transport.get_write_buffer_size() < MOST_WAITING:
            self._writer.write(f"{line}\n".encode())

    async def _keep_one(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = uptime()
            try:
                how = f"exit code {await self._run_one()}"
            except Exception as error:
                how = f"{type(error).__name__}: {error}"
            if self._stopping.is_set():
                return
            if uptime() - began > LIVED_LONG:
                pause = FIRST_PAUSE
            log.error(
                "the worker ended",
                how=how,
                advice=f"another one is started in {pause:.0f} s; meanwhile events are stored",
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _run_one(self) -> int:
        """Run one worker until it ends; returns its exit code."""
        ours, its = socket.socketpair()
        with its:
            process = self._process = subprocess.Popen(  # noqa: S603 - ourselves
                # -P: a file in the working folder must not stand in for a module.
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "bridge.cli.worker_process",
                    *map(str, (its.fileno(), *self._held)),
                ],
                env=dict(self._environ),
                pass_fds=(its.fileno(), *self._held),
                stdin=subprocess.DEVNULL,
                process_group=0,  # a terminal's Ctrl-C is for the server
            )
        words, self._writer = await asyncio.open_connection(sock=ours, limit=MOST_SAID)
        listening = asyncio.get_running_loop().create_task(self._listen(words))
        try:
            self._order(json.dumps(self.rules()))
            if self._stopping.is_set():
                self._order("stop")
            return await asyncio.to_thread(process.wait)
        finally:
            listening.cancel()
            self._writer.close()
            self._writer = None
            process.kill()  # it has ended, unless something went wrong on this side

    async def _listen(self, words: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while line := await words.readline():
                self._hear(json.loads(line))

    def _hear(self, words: dict[str, Any]) -> None:
        if "wake" in words:
            self.on_wake(frozenset([EVENTS]))
        asked = self._asked.get(words.get("number", 0))
        if asked is not None and not asked.done():
            asked.set_result(words["metrics"])
