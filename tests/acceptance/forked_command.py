"""A command in a separate process that is forked from one that has already imported the bridge.

Importing everything costs a starting service a second of CPU time, several times more than the rest of its start. The
worker process of a service is started as usual.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "tests.acceptance.forked_command",
        "bridge.cli.server",
        "bridge.cli.web_service",
        "bridge.cli.worker_runner",
        "bridge.cli.worker_supervisor",
    ]
)


class ForkedCommand:
    """A running command, with the methods of `subprocess.Popen` that tests use."""

    def __init__(
        self, folder: Path, environ: Mapping[str, str], arguments: tuple[str, ...], out: Path, err: Path
    ) -> None:
        self._process = CONTEXT.Process(
            target=_run, args=(str(folder), dict(environ), arguments, str(out), str(err))
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, or None while the command runs."""
        return self._process.exitcode

    def wait(self, seconds: float = 100) -> int:
        """Return the exit code. Raise `subprocess.TimeoutExpired` if the command still runs after that time."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("bridge", seconds)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the command has exited."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the command, unless it has exited."""
        self._process.kill()


@contextmanager
def forked_command(
    folder: Path, environ: Mapping[str, str], *arguments: str, out: Path, err: Path
) -> Iterator[ForkedCommand]:
    """Start a command that appends its output to two files, and kill it at the end of the block."""
    process = ForkedCommand(folder, environ, arguments, out, err)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _run(folder: str, environ: dict[str, str], arguments: tuple[str, ...], out: str, err: str) -> None:
    """Run a command as the program `bridge` does."""
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = ["bridge", *arguments]
    from bridge.cli import main

    try:
        main()
    finally:
        logging.shutdown()
