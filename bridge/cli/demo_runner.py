"""What `bridge demo` does: start, send, wait, compare, show, and clear away."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

import httpx
from rich.status import Status

import bridge
from bridge.cli import demo_report as report
from bridge.cli.output import console, note
from bridge.cli.send import Answer, post
from bridge.errors import BridgeError, ConfigError, StoreUnavailable
from bridge.events import EVENT_NAMES
from bridge.samples import sample, stamped
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.store.database import Database
from bridge.store.queries import counts, list_deliveries, list_events

AGO: Final = timedelta(minutes=40)
"""How long ago the events happened: the longest delay in the shipped rules (30 minutes) is over by then."""
START_SECONDS: Final = 30.0
FINAL_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0

_ZONES: Final = (
    "Pacific/Honolulu", "America/Los_Angeles", "America/New_York", "Europe/London", "Europe/Istanbul",
    "Asia/Kolkata", "Asia/Tokyo", "Pacific/Auckland",
)  # fmt: skip
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
"""The rest of our environment may hold real accounts."""


@dataclass(frozen=True)
class SentEvent:
    """One request of the demonstration, and its answer."""

    name: str
    who: str
    answer: Answer
    expected: tuple[int, str]
    """The status, and a word that the answer holds."""

    @property
    def as_expected(self) -> bool:
        """Whether the service answered what it should."""
        status, word = self.expected
        return self.answer.status == status and word in self.answer.text


class Demonstration:
    """A sandbox, a service and their folder, for as long as the context lasts."""

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="bridge-demo-"))
        self._secret = "whsec_" + secrets.token_urlsafe(24)
        self._token = secrets.token_urlsafe(24)
        self._service: subprocess.Popen[bytes] | None = None
        self._sandbox: RunningSandbox | None = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stop_service()
            if self._sandbox is not None:
                self._sandbox.stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def run(self) -> list[str]:
        """Do all of it; returns what was not as it should be."""
        zone = _daytime_zone()
        with Status("Starting the partners' stand-ins ...", console=console()) as status:
            sandbox = self._sandbox = start_sandbox()
            status.update("Starting `bridge serve` ...")
            url = self._start_service(sandbox)
            status.update("Sending events ...")
            sent = self._send(url, zone)
            database = Database(self._database_url, pool_size=1)
            try:
                self._wait_until_final(database, status)
                receipts = sandbox.twilio.send_receipts()
                events = list_events(database, limit=100).items
                deliveries = list_deliveries(database, limit=500).items
            finally:
                database.close()
        problems = [
            f"{item.name}: answered {item.answer.status} {item.answer.text}"
            for item in sent
            if not item.as_expected
        ]
        problems += [
            f"a receipt of Twilio's was answered {item['http']}" for item in receipts if item["http"] != 200
        ]
        problems += report.differences(sandbox, deliveries)
        report.show(sandbox, sent, events, deliveries, zone)
        report.conclude(problems, deliveries)
        if problems:
            note("The service's log ends with:\n" + self._log_tail())
        return problems

    def wait(self) -> None:
        """Leave everything running until Ctrl-C."""
        note(f"\nStill running. Log page: {self._url}/login#token={self._token}")
        if self._sandbox is not None:
            note(f"What the partners hold: {self._sandbox.url}/_sandbox/state\nCtrl-C ends it.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            note("")

    @property
    def _database_url(self) -> str:
        return f"sqlite:///{self._folder}/bridge.db"

    def _environment(self, sandbox: RunningSandbox, port: int) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return inherited | sandbox.environment | {
            "HEPPU_WEBHOOK_SECRET": self._secret,
            "BRIDGE_DATABASE_URL": self._database_url,
            "BRIDGE_RULES_FILE": str(_shipped_rules()),
            "BRIDGE_PORT": str(port),
            "BRIDGE_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "BRIDGE_ADMIN_TOKEN": self._token,
            "BRIDGE_SECRET_KEY": secrets.token_urlsafe(24),
            "BRIDGE_LOG_FORMAT": "json",
        }  # fmt: skip

    def _start_service(self, sandbox: RunningSandbox) -> str:
        """Start `bridge serve` and wait until it is ready. Another process may be quicker to take the free port."""
        for _ in range(5):
            port = _free_port()
            with (self._folder / "log").open("wb") as log:
                self._service = subprocess.Popen(
                    [sys.executable, "-m", "bridge", "serve"],
                    cwd=self._folder,  # no .env there
                    env=self._environment(sandbox, port),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self._url = f"http://127.0.0.1:{port}"
            _until(START_SECONDS, lambda: self._service_ended() or _is_ready(self._url))
            if not self._service_ended():
                return self._url
            if b"cannot listen" not in (self._folder / "log").read_bytes():
                break
        raise BridgeError(f"`bridge serve` did not start; its log:\n{self._log_tail()}")

    def _service_ended(self) -> bool:
        return self._service is None or self._service.poll() is not None

    def _stop_service(self) -> None:
        if self._service is None or self._service_ended():
            return
        self._service.terminate()
        try:
            self._service.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._service.kill()
            self._service.wait()

    def _send(self, url: str, zone: str) -> list[SentEvent]:
        """Heppu's seven events, a chat whose visitor left an address, and two requests that change nothing."""
        webhook, key, happened = f"{url}/webhooks/heppu", self._secret.encode(), datetime.now(UTC) - AGO
        visitor = {"contactName": "Ada Brennan", "contactEmail": "ada.brennan@example.com"}
        bodies = [sample(name) for name in (*EVENT_NAMES, "chat.abandoned")]
        bodies[-1]["metadata"] |= visitor
        for body in bodies:
            body["metadata"]["timezone"] = zone
        stored = [json.dumps(stamped(body, happened)).encode() for body in bodies]
        forged = json.dumps(stamped(bodies[0], happened)).encode()
        received = (200, '{"received": true}')
        return [
            *(
                SentEvent(body["event"], _who(body), post(raw, webhook, key), received)
                for body, raw in zip(bodies, stored, strict=True)
            ),
            SentEvent(
                "the first one again", _who(bodies[0]), post(stored[0], webhook, key), (200, '"duplicate"')
            ),
            SentEvent("a forged one", "a stranger", post(forged, webhook, b"guessed"), (401, "not signed")),
        ]

    def _wait_until_final(self, database: Database, status: Status) -> None:
        def final() -> bool:
            try:
                found = counts(database)
            except StoreUnavailable:
                return False
            open_ones = sum(found.deliveries[state] for state in ("pending", "running", "retrying"))
            done = sum(found.deliveries.values()) - open_ones
            status.update(
                f"Carrying out what rules.yaml says: {done} done, {open_ones + found.unrouted} to go ..."
            )
            return open_ones == 0 and found.unrouted == 0

        _until(FINAL_SECONDS, final)

    def _log_tail(self) -> str:
        try:
            return "\n".join((self._folder / "log").read_text("utf-8", "replace").splitlines()[-25:])
        except OSError:
            return "(no log)"


def _shipped_rules() -> Path:
    path = Path(bridge.__file__).parents[1] / "rules.yaml"
    if not path.is_file():
        raise ConfigError("the demo needs the shipped rules.yaml: run it from a checkout of the repository")
    return path


def _daytime_zone() -> str:
    """Where it is nearest to one o'clock in the afternoon: quiet hours hold in a demo too."""
    now = datetime.now(UTC)

    def distance(zone: str) -> float:
        wall = now.astimezone(ZoneInfo(zone))
        return abs(wall.hour + wall.minute / 60 - 13)

    return min(_ZONES, key=distance)


def _who(body: dict[str, Any]) -> str:
    return str(body["metadata"].get("contactName") or "an anonymous visitor")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=1, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _until(seconds: float, done: Callable[[], bool]) -> bool:
    """Wait until `done`, for at most so many seconds; returns whether it came to be."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if done():
            return True
        time.sleep(0.1)
    return False
