"""Helpers that run the real service as a separate process inside a `with` block."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

BRIDGE = str(Path(sys.executable).with_name("bridge"))
SECRET = "whsec_acceptance"
ADMIN = "acceptance-admin-token"


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(**variables: str) -> dict[str, str]:
    """Return the environment without the settings of this machine."""
    prefixes = (
        "BRIDGE_", "HEPPU_", "HUBSPOT_", "SALESFORCE_", "TWILIO_", "EMAIL_", "SLACK_", "HTTP_",
        "COLUMNS",  # the commands have no terminal
    )  # fmt: skip
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)} | variables


def eventually(check: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return the first true value of `check`, or its last value after the timeout."""
    end = time.monotonic() + seconds
    while not (value := check()) and time.monotonic() < end:
        time.sleep(0.05)
    return value


@dataclass
class ServiceProcess:
    """A `bridge serve` process."""

    url: str
    folder: Path
    environ: dict[str, str]
    process: subprocess.Popen[bytes]
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
        return subprocess.run(
            [BRIDGE, *arguments],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """Return the items that a listing command prints with `--json`."""
        result = self.run(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return list(json.loads(result.stdout)["items"])

    def api_items(self, listing: str) -> list[dict[str, Any]]:
        """Return the items of an API listing, for polling: one process per poll would load the machine."""
        headers = {"Authorization": f"Bearer {ADMIN}"}
        response = httpx.get(f"{self.url}/api/{listing}", headers=headers, timeout=30)
        return list(response.raise_for_status().json()["items"])

    def stop(self) -> int:
        """Stop the service gracefully, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@contextmanager
def running_service(folder: Path, providers: dict[str, str], **variables: str) -> Iterator[ServiceProcess]:
    """Start `bridge serve` in `folder`, which contains rules.yaml, and wait until it is ready."""
    port = variables.get("BRIDGE_PORT") or free_port()
    basics = {
        "HEPPU_WEBHOOK_SECRET": SECRET, "BRIDGE_ADMIN_TOKEN": ADMIN, "BRIDGE_PORT": str(port),
        "BRIDGE_SECRET_KEY": "acceptance-secret-0000",
    }  # fmt: skip
    environ = clean_environment(**basics | providers | variables)
    log = folder / "serve.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [BRIDGE, "serve"], cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    running = ServiceProcess(f"http://127.0.0.1:{port}", folder, environ, process, log)
    try:
        assert eventually(lambda: process.poll() is not None or _ready(running.url)), log.read_text()
        assert process.poll() is None, log.read_text()
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False
