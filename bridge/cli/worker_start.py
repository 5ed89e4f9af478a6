"""Start of worker processes: the first one as a fork of the server, another one as a program of its own.

A fork shares the memory of what the server has imported, and is ready in a tenth of the time. It is only safe while the
server has neither threads nor connections: a lock that a thread holds at that moment would stay locked in the fork
forever. A worker that replaces another one is therefore a program of its own, and so is the first one on systems
without Linux' list of threads, such as macOS, whose frameworks do not support forks.
"""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

from bridge.cli import worker_process

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

_THREADS: Final = Path("/proc/self/task")


class Process(Protocol):
    """A started process: what `subprocess.Popen` and a fork have in common."""

    def kill(self) -> None:
        """Kill it, unless it has exited."""

    def wait(self) -> int:
        """Wait until it exits, and return its exit code: negative after a signal."""


@dataclass(frozen=True)
class StartedWorker:
    """A worker process, and the socket to it."""

    process: Process
    connection: socket.socket


class WorkerStarter:
    """Starts the worker processes of one server. At the end of its block, a fork that was not used exits."""

    def __init__(
        self, environ: Mapping[str, str], inherited_fds: Sequence[int], listeners: Sequence[socket.socket]
    ) -> None:
        """`environ` is the server's environment with the variables from `.env`: both use the same settings.

        A worker keeps the `inherited_fds` open until it exits: the lock of the SQLite server. It has no use for the
        `listeners`.
        """
        self._environ = environ
        self._inherited_fds = inherited_fds
        self._listeners = listeners
        self._fork: StartedWorker | None = None

    def __enter__(self) -> Self:
        """Return the starter."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the socket of a fork that was not used."""
        if self._fork is not None:
            self._fork.connection.close()

    def fork(self) -> None:
        """Fork the first worker, which waits for its first message, unless this process has several threads."""
        if not _is_single_threaded():
            return
        server_socket, worker_socket = socket.socketpair()
        gc.freeze()  # a garbage collection in either process would otherwise copy every page that it visits
        process = get_context("fork").Process(target=self._run_fork, args=(server_socket, worker_socket))
        process.start()
        worker_socket.close()
        self._fork = StartedWorker(_Fork(process), server_socket)

    def _run_fork(self, server_socket: socket.socket, worker_socket: socket.socket) -> None:
        os.setpgid(0, 0)  # Ctrl-C in a terminal reaches only the server
        server_socket.close()
        for listener in self._listeners:
            listener.close()
        os.environ.update(self._environ)
        worker_process.main(worker_socket, *self._inherited_fds)

    def start(self) -> StartedWorker:
        """Return the fork if it is not in use yet, otherwise start a program."""
        if self._fork is not None:
            started, self._fork = self._fork, None
            return started
        server_socket, worker_socket = socket.socketpair()
        with worker_socket:
            process = subprocess.Popen(  # noqa: S603 - this program
                # -P: a file in the working folder must not shadow a module.
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "bridge.cli.worker_process",
                    *map(str, (worker_socket.fileno(), *self._inherited_fds)),
                ],
                env=dict(self._environ),
                pass_fds=(worker_socket.fileno(), *self._inherited_fds),
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        return StartedWorker(process, server_socket)


class _Fork:
    def __init__(self, process: ForkProcess) -> None:
        self._process = process

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        self._process.join()
        return self._process.exitcode or 0


def _is_single_threaded() -> bool:
    """Return whether this process certainly has one thread only, counting those of libraries in C."""
    with suppress(OSError):
        return len(list(_THREADS.iterdir())) == 1
    return False
