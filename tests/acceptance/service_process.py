"""The real service as a process of its own, beside a sandbox, for as long as a `with` block."""

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
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(**own: str) -> dict[str, str]:
    """The environment without settings of this machine."""
    prefixes = (
        "BRIDGE_", "HEPPU_", "HUBSPOT_", "SALESFORCE_", "TWILIO_", "EMAIL_", "SLACK_", "HTTP_",
        "COLUMNS",  # of a terminal that no command here has
    )  # fmt: skip
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)} | own


def eventually(check: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `check` gives once it is true; the last it gave when it never is."""
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


@dataclass
class Running:
    """A `bridge serve` process."""

    url: str
    folder: Path
    environ: dict[str, str]
    process: subprocess.Popen[bytes]
    log: Path = field(default_factory=Path)

    def post(self, body: dict[str, Any] | bytes) -> httpx.Response:
        """Send a body as Heppu documents it, signed by an HMAC that is not the bridge's."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Heppu-Webhooks/1.0",
            "X-Webhook-Signature-256": "sha256=" + hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest(),
            "X-Webhook-Timestamp": str(int(time.time())),
        }
        return httpx.post(f"{self.url}/webhooks/heppu", content=raw, headers=headers, timeout=30)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command beside the service."""
        return subprocess.run(
            [BRIDGE, *arguments],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """What a listing command prints with `--json`."""
        found = self.run(*arguments, "--json")
        assert found.returncode == 0, found.stderr
        return list(json.loads(found.stdout)["items"])

    def asked(self, listing: str) -> list[dict[str, Any]]:
        """The same over HTTP, for who waits: a process at every look would be the load under which it waits."""
        headers = {"Authorization": f"Bearer {ADMIN}"}
        answer = httpx.get(f"{self.url}/api/{listing}", headers=headers, timeout=30)
        return list(answer.raise_for_status().json()["items"])

    def stop(self) -> int:
        """Ask the service to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40)


@contextmanager
def serving(folder: Path, partners: dict[str, str], **own: str) -> Iterator[Running]:
    """Start `bridge serve` in `folder`, where its rules.yaml is, and wait until it is ready."""
    port = own.get("BRIDGE_PORT") or free_port()
    basics = {
        "HEPPU_WEBHOOK_SECRET": SECRET, "BRIDGE_ADMIN_TOKEN": ADMIN, "BRIDGE_PORT": str(port),
        "BRIDGE_SECRET_KEY": "acceptance-secret-0000",
    }  # fmt: skip
    environ = clean_environment(**basics | partners | own)
    log = folder / "serve.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [BRIDGE, "serve"], cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    running = Running(f"http://127.0.0.1:{port}", folder, environ, process, log)
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
