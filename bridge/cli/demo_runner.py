"""Runner of `bridge demo`: starts the processes, sends events, waits, compares the results and cleans up."""

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

import httpx
from rich.status import Status

from bridge.cli import demo_report as report
from bridge.cli.data import read_data_file
from bridge.cli.output import console, print_status
from bridge.cli.send import WebhookResponse, post
from bridge.errors import BridgeError, StoreUnavailable
from bridge.events import HEPPU_EVENTS, SMS_RECEIVED
from bridge.samples import refresh_sample, sample
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.store.database import Database
from bridge.store.delivery_list import list_deliveries
from bridge.store.queries import list_events, queue_stats

EVENT_AGE: Final = timedelta(minutes=40)
"""Age of the sent events. It is longer than the longest delay in the shipped rules (30 minutes)."""
REPLY: Final = "Sorry I missed you. Please call again after 5 pm."
START_SECONDS: Final = 60.0
FINAL_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0

_ZONES: Final = (
    "Pacific/Honolulu", "America/Los_Angeles", "America/New_York", "Europe/London", "Europe/Istanbul",
    "Asia/Kolkata", "Asia/Tokyo", "Pacific/Auckland",
)  # fmt: skip
_INHERITED_VARIABLES: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV")
"""No other variables are passed on, because they may configure real accounts."""


@dataclass(frozen=True)
class SentEvent:
    """One request of the demo and its response."""

    name: str
    contact: str
    response: WebhookResponse
    expected: tuple[int, str]
    """The expected status, and a substring of the expected body."""

    @property
    def as_expected(self) -> bool:
        """True if the service responded as expected."""
        status, substring = self.expected
        return self.response.status == status and substring in self.response.text


class DemoRun:
    """A sandbox, a service and their temporary folder, which exist until the context exits."""

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
        """Run the demo and print its results. Return the unexpected ones."""
        zone = _daytime_zone()
        with Status("Starting the mock providers ...", console=console()) as status:
            sandbox = self._sandbox = start_sandbox()
            status.update("Starting `bridge serve` ...")
            url = self._start_service(sandbox)
            status.update("Sending events ...")
            sent = self._send(url, zone)
            database = Database(self._database_url, pool_size=1)
            try:
                self._wait_until_done(database, status)
                sent.append(self._reply(sandbox, url, sent))
                self._wait_until_done(database, status)
                callbacks = sandbox.twilio.send_status_callbacks()
                events = list_events(database, limit=100).items
                deliveries = list_deliveries(database, limit=500).items
            finally:
                database.close()
        failures = [
            f"{item.name}: unexpected response {item.response.status} {item.response.text}"
            for item in sent
            if not item.as_expected
        ]
        failures += [
            f"a status callback of Twilio got a {item['http']}" for item in callbacks if item["http"] != 200
        ]
        failures += report.find_failures(sandbox, deliveries)
        report.print_tables(sandbox, sent, events, deliveries, zone)
        report.print_conclusion(failures, deliveries)
        if failures:
            print_status("Last lines of the service's log:\n" + self._log_tail())
        return failures

    def wait(self) -> None:
        """Keep everything running until Ctrl-C."""
        print_status(f"\nStill running. Dashboard: {self._url}/login#token={self._token}")
        if self._sandbox is not None:
            print_status(
                f"Data at the mock providers: {self._sandbox.url}/_sandbox/state\nCtrl-C stops the demo."
            )
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print_status("")

    @property
    def _database_url(self) -> str:
        return f"sqlite:///{self._folder}/bridge.db"

    def _environment(self, sandbox: RunningSandbox, port: int) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
        return inherited | sandbox.environment | {
            "HEPPU_WEBHOOK_SECRET": self._secret,
            "BRIDGE_DATABASE_URL": self._database_url,
            "BRIDGE_RULES_FILE": str(self._rules_file()),
            "BRIDGE_PORT": str(port),
            "BRIDGE_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "BRIDGE_ADMIN_TOKEN": self._token,
            "BRIDGE_SECRET_KEY": secrets.token_urlsafe(24),
            "BRIDGE_LOG_FORMAT": "json",
        }  # fmt: skip

    def _start_service(self, sandbox: RunningSandbox) -> str:
        """Start `bridge serve` and wait until it is ready. Retry if another process takes the free port first."""
        for _ in range(5):
            port = _free_port()
            with (self._folder / "log").open("wb") as log:
                self._service = subprocess.Popen(
                    [sys.executable, "-m", "bridge", "serve"],
                    cwd=self._folder,  # has no .env file
                    env=self._environment(sandbox, port),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self._url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=self._url, timeout=1, trust_env=False) as client:
                is_over = _wait_until(START_SECONDS, lambda: self._service_has_exited() or _is_ready(client))
            if is_over and not self._service_has_exited():
                return self._url
            if b"cannot listen" not in (self._folder / "log").read_bytes():
                break
        raise BridgeError(
            f"`bridge serve` did not start within {START_SECONDS:.0f} seconds; its log:\n{self._log_tail()}"
        )

    def _service_has_exited(self) -> bool:
        return self._service is None or self._service.poll() is not None

    def _stop_service(self) -> None:
        if self._service is None or self._service_has_exited():
            return
        self._service.terminate()
        try:
            self._service.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._service.kill()
            self._service.wait()

    def _send(self, url: str, zone: str) -> list[SentEvent]:
        """Send Heppu's seven events, a chat whose visitor left an address, a duplicate and a forged request."""
        webhook, key = f"{url}/webhooks/heppu", self._secret.encode()
        occurred_at = datetime.now(UTC) - EVENT_AGE
        visitor = {"contactName": "Ada Brennan", "contactEmail": "ada.brennan@example.com"}
        bodies = [sample(name) for name in (*HEPPU_EVENTS, "chat.abandoned")]
        bodies[-1]["metadata"] |= visitor
        for body in bodies:
            body["metadata"]["timezone"] = zone
        valid = [json.dumps(refresh_sample(body, occurred_at)).encode() for body in bodies]
        forged = json.dumps(refresh_sample(bodies[0], occurred_at)).encode()
        received = (200, '{"received": true}')
        return [
            *(
                SentEvent(body["event"], _contact_name(body), post(raw, webhook, key), received)
                for body, raw in zip(bodies, valid, strict=True)
            ),
            SentEvent(
                "a duplicate", _contact_name(bodies[0]), post(valid[0], webhook, key), (200, '"duplicate"')
            ),
            SentEvent("a forgery", "unknown sender", post(forged, webhook, b"guessed"), (401, "signature")),
        ]

    def _reply(self, sandbox: RunningSandbox, url: str, sent: Sequence[SentEvent]) -> SentEvent:
        """Let a customer answer the text that a busy call has led to."""
        call = next(item for item in sent if item.name == "call.busy")
        phone = sample("call.busy")["metadata"]["contactPhone"]
        inbound = f"{url}/webhooks/twilio/inbound"
        status = sandbox.twilio.receive(phone, REPLY, inbound)["http"]
        response = WebhookResponse(
            inbound, SMS_RECEIVED, None, call.response.conversation, status or 0, "", 0
        )
        return SentEvent(SMS_RECEIVED, call.contact, response, (200, ""))

    def _wait_until_done(self, database: Database, status: Status) -> None:
        def is_done() -> bool:
            try:
                stats = queue_stats(database)
            except StoreUnavailable:
                return False
            unfinished = sum(stats.deliveries[state] for state in ("pending", "running", "retrying"))
            finished = sum(stats.deliveries.values()) - unfinished
            status.update(f"Running deliveries: {finished} done, {unfinished + stats.unrouted} to go ...")
            return unfinished == 0 and stats.unrouted == 0

        _wait_until(FINAL_SECONDS, is_done)

    def _rules_file(self) -> Path:
        path = self._folder / "rules.yaml"
        path.write_bytes(read_data_file("demo_rules.yaml"))
        return path

    def _log_tail(self) -> str:
        try:
            return "\n".join((self._folder / "log").read_text("utf-8", "replace").splitlines()[-25:])
        except OSError:
            return "(no log)"


def _daytime_zone() -> str:
    """Return the time zone where it is closest to 1 p.m., because quiet hours apply in the demo too."""
    now = datetime.now(UTC)

    def distance(zone: str) -> float:
        wall = now.astimezone(ZoneInfo(zone))
        return abs(wall.hour + wall.minute / 60 - 13)

    return min(_ZONES, key=distance)


def _contact_name(body: dict[str, Any]) -> str:
    return str(body["metadata"].get("contactName") or "an anonymous visitor")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.HTTPError:
        return False


def _wait_until(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait until the condition is true, for at most `seconds`. Return whether it became true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False
