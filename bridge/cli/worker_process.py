"""Worker process of `bridge serve`, started by `bridge.cli.worker_start`: `main` in a fork of the server, or a program.

    python -m bridge.cli.worker_process SOCKET [INHERITED...]

All arguments are file descriptors; the inherited ones stay open until the process exits. `bridge.cli.ipc` defines the
messages on the socket.

The worker ignores signals, because a terminal or a service manager sends them to both processes.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Final

from bridge.cli.bootstrap import Role, Service, build_service
from bridge.cli.ipc import Message, MetricsText, Reload, RequestMetrics, Start, Stop, Wake, decode, encode
from bridge.cli.process import STOP_SECONDS, exit_process, tune_gc
from bridge.errors import BridgeError
from bridge.settings import Settings
from bridge.store.database import EVENTS_TOPIC
from bridge.telemetry import configure_logging, log
from bridge.worker.exported_metrics import export_metrics

NICENESS: Final = 5
"""Priority of the worker: if processors are scarce, responses to Heppu come first."""
MAX_QUEUED_MESSAGES: Final = 100
"""Messages queued for a server that does not read; the server also polls."""


def main(connection: socket.socket, *inherited_fds: int) -> None:
    """Run deliveries until the server sends `stop` or exits."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ignore)
    os.nice(NICENESS)
    messages = map(decode, connection.makefile("rb"))
    # A child process forked by a plug-in must not keep the lock and the socket open.
    os.register_at_fork(after_in_child=partial(_close_all, (connection.fileno(), *inherited_fds)))
    environ = dict(os.environ)  # the server has already merged `.env`
    try:
        settings = Settings.load(environ)
        configure_logging(settings.bridge_log_format, settings.bridge_log_level)
        match next(messages, None):
            case Start(rules):
                service = build_service(Role.WORKER_PROCESS, environ, fallback_rules=rules)
                service.metrics.worker.add_process()
            case _:
                return  # the server has already exited
        channel = _ServerChannel(connection)
        if service.database.is_sqlite:
            service.database.listeners.append(channel.on_change)
        service.start()
    except BridgeError as error:
        log.error("worker failed to start", error=str(error), advice="events are still stored and routed")
        sys.exit(1)
    tune_gc()
    with suppress(OSError):  # the server was killed before it had read all messages
        for message in messages:
            _handle_message(message, service, channel)
    log.warning("stopped immediately, server process exited")
    os._exit(1)


def _close_all(descriptors: Iterable[int]) -> None:
    for number in descriptors:
        with suppress(OSError):
            os.close(number)


def _ignore(*_: object) -> None:
    """Do nothing. Unlike SIG_IGN, child processes started by a connector do not inherit a handler."""


class _ServerChannel:
    """Sends messages to the server from a separate thread, so that a server that does not read blocks nothing."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._queue: SimpleQueue[Message] = SimpleQueue()
        threading.Thread(target=self._send_queued, name="bridge-server-channel", daemon=True).start()

    def send(self, message: Message) -> None:
        if self._queue.qsize() < MAX_QUEUED_MESSAGES:
            self._queue.put(message)

    def on_change(self, topics: frozenset[str]) -> None:
        if EVENTS_TOPIC in topics:
            self.send(Wake([EVENTS_TOPIC]))

    def _send_queued(self) -> None:
        while True:
            line = encode(self._queue.get())
            try:
                self._connection.sendall(line)
            except OSError:  # the server has exited, and this process is about to
                return


def _handle_message(message: Message, service: Service, channel: _ServerChannel) -> None:
    match message:
        case Wake(topics):
            service.database.notify_local(frozenset(topics))
        case Reload():
            threading.Thread(target=service.rules.reload).start()
        case RequestMetrics():
            channel.send(MetricsText(export_metrics(service.metrics, service.accounts).decode()))
        case Stop():
            threading.Thread(target=_stop, args=[service]).start()


def _stop(service: Service) -> None:
    try:
        clean = service.stop(STOP_SECONDS)
        service.close()
        exit_process(clean)
    finally:
        os._exit(0)


if __name__ == "__main__":
    descriptor, *others = map(int, sys.argv[1:])
    main(socket.socket(fileno=descriptor), *others)
