"""The health check of a container: each role is asked at the port where it listens."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bridge.healthcheck import check


class _Handler(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b"why")

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[str]:
    """The port of a process whose `/readyz` answers with the status of the test."""
    monkeypatch.setattr(_Handler, "status", getattr(request, "param", 200))
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        yield str(server.server_port)
        server.shutdown()


UNUSED = "1"
"""A port at which nothing listens."""


@pytest.mark.parametrize("host", ["", "127.0.0.1", "0.0.0.0"])
def test_server_is_asked_at_its_port(port: str, host: str) -> None:
    assert check([], {"BRIDGE_PORT": port, "BRIDGE_HOST": host}) is None
    assert check([port], {}) is None


def test_worker_is_asked_at_the_port_of_its_metrics(port: str) -> None:
    assert check([], {"BRIDGE_PORT": UNUSED, "BRIDGE_METRICS_PORT": port}) is None


@pytest.mark.parametrize("port", [503], indirect=True)
def test_process_that_is_not_ready_says_why(port: str) -> None:
    assert check([], {"BRIDGE_PORT": port}) == "why"


def test_nothing_listens_or_the_port_is_none() -> None:
    assert "set BRIDGE_METRICS_PORT" in str(check([], {"BRIDGE_PORT": UNUSED}))
    assert "ValueError" in str(check([], {"BRIDGE_PORT": "eighty"}))


def test_it_loads_nothing_but_the_standard_library(port: str) -> None:
    """It runs every few seconds."""
    code = f"""
import sys
from bridge.healthcheck import check
assert check(["{port}"], {{}}) is None
sys.exit(str([name for name in sys.modules if name.split(".")[0] in ("pydantic", "typer", "sqlalchemy")] or ""))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""
