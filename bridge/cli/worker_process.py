"""The worker of `bridge serve`: the process that `bridge.cli.worker_supervisor` starts.

    python -m bridge.cli.worker_process SOCKET [HELD...]

All are file descriptors; those held are held until it ends. Over the socket it takes a line of JSON, the text of the
rules that the server runs, for a file that went bad meanwhile; and then orders, a line each:

    wake TOPICS      there may be work
    reload           read the rules again
    metrics NUMBER   answer with the metrics
    stop             finish what runs, and end

and says, a line of JSON each:

    {"wake": true}                        there may be something to route: failures to follow up
    {"metrics": "...", "number": NUMBER}  in Prometheus' text format

Signals are the server's business: a terminal or a supervisor of services sends them to both.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from prometheus_client.exposition import generate_latest

from bridge.cli.bootstrap import Service, build_service
from bridge.cli.server import STOP_SECONDS, leave, tune_interpreter
from bridge.errors import BridgeError
from bridge.settings import Settings
from bridge.store.database import EVENTS
from bridge.telemetry import configure_logging, log

NICENESS: Final = 5
"""Where processors are short, an answer to Heppu goes before what can wait."""
MOST_UNSAID: Final = 100
"""Words that may wait for a server that does not read; it looks by itself."""


def main(descriptor: int, *held: int) -> None:
    """Work until the server says stop or is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ignore)
    os.nice(NICENESS)
    line = socket.socket(fileno=descriptor)
    orders = line.makefile("rb")
    # A child that a plug-in forks must not stand for us when we are gone.
    os.register_at_fork(after_in_child=partial(_close_all, (descriptor, *held)))
    environ = dict(os.environ)  # the server read `.env`
    try:
        configure_logging(Settings.load(environ).bridge_log_format)
        rules = json.loads(orders.readline() or "null")
        service = build_service(environ, insecure=True, route=False, running_rules=rules)
        words = _Words(line)
        if service.database.is_sqlite:
            service.database.on_change.append(words.on_change)
        service.start()
    except BridgeError as error:
        log.error(
            "the worker cannot start", error=str(error), advice="meanwhile events are stored and routed"
        )
        sys.exit(1)
    tune_interpreter()
    for order in orders:
        _obey(order.decode().split(), service, words)
    log.warning("stopped at once: the serving process is gone")
    os._exit(1)


def _close_all(descriptors: Iterable[int]) -> None:
    for number in descriptors:
        with suppress(OSError):
            os.close(number)


def _ignore(*_: object) -> None:
    """Unlike SIG_IGN, a handler is not handed down to programs that a connector starts."""


class _Words:
    """What is said to the server, by a thread of its own: nobody waits for a server that does not listen."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._unsaid: SimpleQueue[dict[str, Any]] = SimpleQueue()
        threading.Thread(target=self._say_all, name="bridge-words", daemon=True).start()

    def say(self, **words: Any) -> None:
        if self._unsaid.qsize() < MOST_UNSAID:
            self._unsaid.put(words)

    def on_change(self, topics: frozenset[str]) -> None:
        if EVENTS in topics:
            self.say(wake=True)

    def _say_all(self) -> None:
        while True:
            words = json.dumps(self._unsaid.get())
            try:
                self._line.sendall(words.encode() + b"\n")
            except OSError:  # the server is gone, and so are we in a moment
                return


def _obey(order: list[str], service: Service, words: _Words) -> None:
    match order:
        case ["wake", topics]:
            service.database.wake(frozenset(topics.split(",")))
        case ["reload"]:
            threading.Thread(target=service.rules.reload).start()
        case ["metrics", number]:
            words.say(metrics=generate_latest(service.metrics.work).decode(), number=int(number))
        case ["stop"]:
            threading.Thread(target=_stop, args=[service]).start()


def _stop(service: Service) -> None:
    try:
        clean = service.stop(STOP_SECONDS)
        service.close()
        leave(clean)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
