"""Serving an ASGI application with a real server, on a free port and in a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from bridge.cli.connection_limits import ConnectionLimits
from bridge.http_server import AbortingServer
from bridge.telemetry.metrics import Metrics
from bridge.web.rejection_log import RejectionLog


@contextmanager
def serving(app: Any, **config: Any) -> Iterator[str]:
    """Serve `app`, by default with the limits of `bridge serve`, and yield its URL, `http://127.0.0.1:PORT`."""
    config = {"http": ConnectionLimits(RejectionLog(Metrics())).protocol, "proxy_headers": False} | config
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        ready = threading.Event()
        server = AbortingServer(
            uvicorn.Config(app, log_level="error", access_log=False, **config), on_ready=ready.set
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            assert ready.wait(10)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.stop()
            thread.join(10)
