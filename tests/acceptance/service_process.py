"""Helpers that run the real service as a separate process inside a `with` block, and commands next to it."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, redirect_stderr
from dataclasses import dataclass, field
from http.client import HTTPException
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any
from unittest.mock import patch
from urllib.request import urlopen

import httpx
from typer.testing import CliRunner

from bridge.cli import output
from bridge.cli.program import app
from bridge.errors import BridgeError
from tests.acceptance.forked_command import ForkedCommand, forked_command

BRIDGE = str(Path(sys.executable).with_name("bridge"))
SECRET = "whsec_acceptance"
ADMIN = "acceptance-admin-token"
SERVICES = ("serve", "worker", "sandbox", "demo")


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(**variables: str) -> dict[str, str]:
    """Return the environment without the settings of this machine."""
    prefixes = (
        "BRIDGE_", "HEPPU_", "HUBSPOT_", "SALESFORCE_", "PIPEDRIVE_", "TWILIO_", "EMAIL_", "SLACK_", "TEAMS_",
        "APPRISE_", "ZENDESK_", "HTTP_",
        "COLUMNS",  # the commands have no terminal
    )  # fmt: skip
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)} | variables


def eventually(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Return the first true value of `check`, or its last value after the timeout."""
    end = time.monotonic() + seconds
    while not (value := check()) and time.monotonic() < end:
        time.sleep(0.03)
    return value


def run_command(
    folder: Path, environ: Mapping[str, str], *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command as `bridge.cli.main` does, but in this process, without starting and importing everything again.

    Services run in a separate process, because they configure the logging and the signals of their process.
    """
    if arguments[0] in SERVICES:
        return _run_forked(folder, {"BRIDGE_PORT": "0"} | dict(environ), *arguments)
    for console in (output.console, output.errors):
        console.cache_clear()  # its width depends on the environment
    errors = StringIO()
    with chdir(folder), patch.dict(os.environ, environ, clear=True):
        result = CliRunner().invoke(app, arguments, input=stdin, prog_name="bridge")
        if isinstance(result.exception, BridgeError):
            with redirect_stderr(errors):
                output.print_error(result.exception)
        elif result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
    return subprocess.CompletedProcess(
        arguments, result.exit_code, result.stdout, result.stderr + errors.getvalue()
    )


def _run_forked(
    folder: Path, environ: Mapping[str, str], *arguments: str
) -> subprocess.CompletedProcess[str]:
    with TemporaryDirectory() as outputs:
        out, err = Path(outputs, "out"), Path(outputs, "err")
        with forked_command(folder, environ, *arguments, out=out, err=err) as process:
            code = process.wait(120)
        return subprocess.CompletedProcess(arguments, code, out.read_text("utf-8"), err.read_text("utf-8"))


def run_process(
    folder: Path, environ: Mapping[str, str], *arguments: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command in a separate process."""
    return subprocess.run(
        [BRIDGE, *arguments],
        cwd=folder,
        env=environ,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )


@contextmanager
def bridge_process(
    folder: Path, environ: Mapping[str, str], *arguments: str, **options: Any
) -> Iterator[subprocess.Popen[Any]]:
    """Start a command in a separate process, and kill it at the end of the block if it is still running."""
    with subprocess.Popen([BRIDGE, *arguments], cwd=folder, env=environ, **options) as process:
        try:
            yield process
        finally:
            process.kill()


@dataclass
class ServiceProcess:
    """A `bridge serve` process."""

    url: str
    folder: Path
    environ: dict[str, str]
    process: ForkedCommand
    log: Path = field(default_factory=Path)

    def post(self, body: dict[str, Any] | bytes) -> httpx.Response:
        """Send a body as documented by Heppu, signed with an independent HMAC implementation."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Heppu-Webhooks/1.0",
            "X-Webhook-Signature-256": "sha256=" + hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest(),
            "X-Webhook-Timestamp": str(int(time.time())),
        }
        return httpx.post(f"{self.url}/webhooks/heppu", content=raw, headers=headers, timeout=30)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the environment of the service."""
        return run_command(self.folder, self.environ, *arguments)

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the items that a listing command prints with `--json`."""
        result = self.run(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return list(json.loads(result.stdout)["items"])

    def api_items(self, listing: str) -> list[dict[str, Any]]:
        """Return the items of an API listing."""
        headers = {"Authorization": f"Bearer {ADMIN}"}
        response = httpx.get(f"{self.url}/api/{listing}", headers=headers, timeout=30)
        return list(response.raise_for_status().json()["items"])

    def kill(self) -> None:
        """Kill the server with SIGKILL, and wait until its worker has exited too, which releases the SQLite lock."""
        self.process.kill()
        self.process.wait()
        with (self.folder / "bridge.db.lock").open("rb") as lock:
            assert eventually(lambda: _is_free(lock)), self.log.read_text()

    def stop(self) -> int:
        """Stop the service gracefully, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(100)


@contextmanager
def running_service(
    folder: Path, providers: dict[str, str], *options: str, **variables: str
) -> Iterator[ServiceProcess]:
    """Start `bridge serve` in `folder`, which contains rules.yaml, and wait until it is ready."""
    port = variables.get("BRIDGE_PORT") or free_port()
    basics = {
        "HEPPU_WEBHOOK_SECRET": SECRET, "BRIDGE_ADMIN_TOKEN": ADMIN, "BRIDGE_PORT": str(port),
        "BRIDGE_SECRET_KEY": "acceptance-secret-0000",
    }  # fmt: skip
    environ = clean_environment(**basics | providers | variables)
    log = folder / "serve.log"
    with forked_command(folder, environ, "serve", *options, out=log, err=log) as process:
        running = ServiceProcess(f"http://127.0.0.1:{port}", folder, environ, process, log)
        assert eventually(lambda: process.poll() is not None or _ready(running.url)), log.read_text()
        assert process.poll() is None, log.read_text()
        yield running


def _is_free(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/readyz", timeout=1) as response:  # costs less than a client of httpx
            return bool(response.status == 200)
    except (OSError, HTTPException):
        return False
