"""Runs `bridge worker`: routing and deliveries without receiving events, until a signal stops it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping

from bridge.cli.bootstrap import Role, Service, build_service
from bridge.cli.process import STOP_SECONDS, exit_immediately, tune_gc
from bridge.settings import Settings
from bridge.telemetry import log


def run_worker(environ: Mapping[str, str]) -> bool:
    """Run a worker until a signal stops it. Return whether all running attempts finished. Raise ConfigError."""
    settings = Settings.load(environ)
    stop = threading.Event()

    def on_stop(number: int, _: object) -> None:
        if stop.is_set():
            exit_immediately(number)
        stop.set()

    start_metrics = _prepare_metrics(settings)
    service = build_service(Role.WORKER, environ)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_stop)
    tune_gc()
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=service.rules.reload).start())
    service.start()
    url, stop_metrics = start_metrics(service, stop.is_set)
    log.info("worker started", metrics=url)
    stop.wait()
    log.info("stopping", advice="a second signal stops immediately")
    clean = service.stop(STOP_SECONDS)
    stop_metrics()
    service.close()
    return clean


_StartMetrics = Callable[[Service, Callable[[], bool]], tuple[str | None, Callable[[], None]]]


def _prepare_metrics(settings: Settings) -> _StartMetrics:
    """Open BRIDGE_METRICS_PORT, if it is set. Return a function that serves the metrics of a service there.

    The function returns the URL, and a function that stops it. Raise ConfigError if the port cannot be used.
    """
    if settings.bridge_metrics_port is None:
        return lambda _, __: (None, lambda: None)
    from bridge.cli.listener import listen, url_of
    from bridge.cli.metrics_server import MetricsServer, required_tokens

    tokens = required_tokens(settings)
    listener = listen(settings.bridge_host, settings.bridge_metrics_port, "BRIDGE_HOST, BRIDGE_METRICS_PORT")

    def start(service: Service, stopping: Callable[[], bool]) -> tuple[str | None, Callable[[], None]]:
        server = MetricsServer(service, tokens, listener, stopping)
        server.start()
        return f"{url_of(listener)}/metrics", server.stop

    return start
