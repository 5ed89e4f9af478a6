"""Harness of the fault tests: the whole service as real processes, with a real database, the sandbox and a sender.

Nothing here reaches into the processes under test. They are started, signaled and killed by their process ID. Their
side effects are counted at the mock providers, and their remaining work is read from their database.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import itertools
import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from sqlalchemy import text

from bridge.errors import StoreUnavailable
from bridge.sandbox import RunningSandbox
from bridge.store.database import Database

T = TypeVar("T")

SECRET = "fault-tests-sign-with-this"
ROOT = Path(__file__).resolve().parents[2]
FINAL = ("succeeded", "needs_review", "failed", "cancelled", "suppressed")

SMS_EVENT_TYPES = ("call.busy", "call.no-answer")
"""Event types for which all rules here send a text message; the others create a call record in HubSpot."""
RULES = """\
version: 1
messaging:
  quiet_hours: none
  caps: {sms: 1000 per 24h, total: {sms: 99999 per 1h}}
alerts:
  - use: slack.post
rules:
  - name: text-after-busy
    when: call.busy
    do:
      - use: twilio.send_sms
        with: {body: "We tried to reach you."}
  - name: log-calls
    when: call.completed
    do:
      - use: hubspot.log_call
"""

BUSY_FACTOR = 3
"""The deadlines of all waits are multiplied by it. A test that passes never waits that long."""

_numbers = itertools.count(1)


def event_body(
    event_type: str, phone: str | None = None, conversation_id: str | None = None
) -> dict[str, Any]:
    """Build the body of a new event, by default with a contact and a conversation that no other event has."""
    number = next(_numbers)
    return {
        "event": event_type,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "webhookId": f"whd_{uuid4().hex[:16]}",
        "conversationId": conversation_id or f"conv_{uuid4().hex[:16]}",
        "status": event_type.removeprefix("call."),
        "direction": "outbound",
        "duration": 42,
        "metadata": {
            "contactPhone": phone or f"+1646{2_000_000 + number}",
            "contactName": f"Contact {number}",
        },
    }


def call_events(count: int) -> list[dict[str, Any]]:
    """Build `count` events, alternating between a completed call (a record) and a busy line (a text message)."""
    return [event_body("call.busy" if index % 2 else "call.completed") for index in range(count)]


@dataclass
class Outcome:
    """The result of one scenario, as a row of the table that the tests print."""

    scenario: str
    database: str
    events: int
    kills: int
    lost: int
    duplicated: int
    needs_review: int
    seconds: float
    note: str = ""


Report = Callable[[Outcome], None]
"""Adds a row to the table."""


class WebhookSender:
    """Sends signed events to the running servers, as Heppu does, each until the response is 2xx."""

    def __init__(self, urls: Callable[[], Sequence[str]], senders: int = 6) -> None:
        self._urls = urls
        self._queue: queue.SimpleQueue[tuple[float, dict[str, Any]] | None] = queue.SimpleQueue()
        self.accepted: list[dict[str, Any]] = []
        self.responses: Counter[int | str] = Counter()
        """Number of responses by HTTP status, or `unreachable` without a response."""
        self._total = 0
        self._stopping = threading.Event()
        self._senders = [threading.Thread(target=self._work, daemon=True) for _ in range(senders)]
        for sender in self._senders:
            sender.start()

    def send(self, bodies: Sequence[dict[str, Any]], per_second: float = 1000.0) -> None:
        """Start to send these events, at this rate."""
        start = time.monotonic()
        self._total += len(bodies)
        for index, body in enumerate(bodies):
            self._queue.put((start + index / per_second, body))

    def wait(self, seconds: float = 60.0) -> None:
        """Wait until every event is accepted."""
        wait_for(
            lambda: len(self.accepted) == self._total, seconds, "every event to be accepted", self.responses
        )

    def close(self) -> None:
        """Stop sending."""
        self._stopping.set()
        for _ in self._senders:
            self._queue.put(None)
        for sender in self._senders:
            sender.join(15)

    def _work(self) -> None:
        for attempt in itertools.count():
            item = self._queue.get()
            if item is None:
                return
            at, body = item
            self._stopping.wait(max(0.0, at - time.monotonic()))
            while not self._stopping.is_set():
                urls = self._urls()
                if urls and self.post(urls[attempt % len(urls)], body):
                    break
                attempt += 1
                self._stopping.wait(0.1)

    def post(self, url: str, body: Mapping[str, Any]) -> bool:
        """Send an event once; return True if the response is 2xx."""
        status = post(url, body)
        self.responses[status] += 1
        if isinstance(status, int) and 200 <= status < 300:
            self.accepted.append(dict(body))
            return True
        return False


def post(url: str, body: Mapping[str, Any], seconds: float = 15.0) -> int | str:
    """Post one event as Heppu does, signed here and not by the bridge's own code.

    Return the HTTP status, or `unreachable`.
    """
    raw = json.dumps(body).encode()
    headers = {
        "Content-Type": "application/json",
        "X-Webhook-Timestamp": str(int(time.time())),
        "X-Webhook-Signature-256": "sha256=" + hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest(),
    }
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=seconds)
    try:
        connection.request("POST", "/webhooks/heppu", raw, headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return "unreachable"
    finally:
        connection.close()


def get(url: str | None, path: str, seconds: float = 10.0) -> int | str:
    """Return the HTTP status of one GET request, or `unreachable`."""
    connection = http.client.HTTPConnection(urlsplit(url or "").netloc, timeout=seconds)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return "unreachable"
    finally:
        connection.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a JSON log. A line that is not an entry becomes one, so that nothing is overlooked."""
    entries = []
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"line": line}
        entries.append(entry if isinstance(entry, dict) else {"line": line})
    return entries


class Process:
    """One `bridge serve` or `bridge worker` process."""

    def __init__(
        self,
        environ: Mapping[str, str],
        folder: Path,
        *command: str,
        log: Path | None = None,
        files: int | None = None,
    ) -> None:
        self.environ = dict(environ)
        self.command = command
        self._log = log or folder / f"bridge-{uuid4().hex[:8]}.log"
        self._output = self._log.open("wb")
        limit = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"] if files else []
        self._process = subprocess.Popen(
            [*limit, sys.executable, "-m", "bridge", *command],
            env=self.environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.address: str | None = None
        """The URL it listens at. Read from its log if the test did not choose the port."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def worker_pid(self) -> int:
        """The ID of the worker process: a child of the server, or the process itself."""
        children = subprocess.run(
            ["pgrep", "-P", str(self.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        return int(children[0]) if children else self.pid

    @property
    def log(self) -> list[dict[str, Any]]:
        """The entries of its log."""
        return read_log(self._log)

    @property
    def output(self) -> str:
        """The end of its output, for the message of a failed test."""
        return self._log.read_text("utf-8", "replace")[-4000:]

    @property
    def url(self) -> str | None:
        """The URL it listens at; None before it listens, and after it has exited."""
        if self.address is None:
            serving = [entry for entry in self.log if entry.get("event") == "serving"]
            self.address = serving[0]["url"] if serving else None
        return self.address if self.running else None

    def ready(self, seconds: float = 30.0) -> Self:
        """Wait until it is ready; for a server, also until its worker is."""
        is_ready = self._worker_is_up if self.command[0] == "serve" else self._has_started
        wait_for(
            lambda: not self.running or is_ready(),
            seconds,
            f"`bridge {' '.join(self.command)}` to be ready",
        )
        assert self.running, self.output
        return self

    def _has_started(self) -> bool:
        return any(entry.get("event") == "worker started" for entry in self.log)

    def _worker_is_up(self) -> bool:
        return self.url is not None and "\nbridge_local_worker_up 1" in self.metrics()

    def metrics(self) -> str:
        """Return the metrics of a server; empty if it does not respond."""
        connection = http.client.HTTPConnection(urlsplit(self.url or "").netloc, timeout=10)
        try:
            connection.request(
                "GET", "/metrics", headers={"Authorization": f"Bearer {self.environ['BRIDGE_ADMIN_TOKEN']}"}
            )
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return ""
        finally:
            connection.close()

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it with SIGKILL. Fail if it has already exited."""
        assert self.running, self.output
        self._process.kill()
        self.wait()

    def kill_worker(self) -> None:
        """Kill its worker with SIGKILL; the server starts another one."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.worker_pid, signal.SIGKILL)

    def freeze(self) -> None:
        """Suspend it and its worker, like a suspended virtual machine."""
        self._signal_both(signal.SIGSTOP)

    def unfreeze(self) -> None:
        """Resume it and its worker."""
        self._signal_both(signal.SIGCONT)

    def _signal_both(self, number: signal.Signals) -> None:
        for pid in {self.pid, self.worker_pid}:
            with contextlib.suppress(ProcessLookupError):  # it has exited
                os.kill(pid, number)

    def stop(self, seconds: float = 40.0) -> int:
        """Send SIGTERM; return the exit code."""
        self.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float = 40.0) -> int:
        """Wait for its exit; return the exit code."""
        code = self._process.wait(seconds)
        self._output.close()
        return code

    def clean_up(self) -> None:
        """Kill it in any state, and close its log."""
        if self.running:
            self.unfreeze()
            self._process.kill()
            self._process.wait(10)
        self._output.close()

    def cpu_seconds(self) -> float:
        """Return the processor time it has used."""
        return sum(_ticks(pid) for pid in {self.pid, self.worker_pid}) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """Return its resident memory in bytes."""
        pages = (
            int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
            for pid in {self.pid, self.worker_pid}
        )
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


@dataclass
class Deployment:
    """The processes of one installation, their database, the mock providers, and the sender of events."""

    folder: Path
    database_url: str
    sandbox: RunningSandbox
    rules: str = RULES
    kills: int = 0
    processes: list[Process] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        (self.folder / "rules.yaml").write_text(self.rules, "utf-8")
        self.heppu = WebhookSender(lambda: [process.url for process in list(self.processes) if process.url])
        self.store = Database(self.database_url, pool_size=2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heppu.close()
        for process in self.processes:
            process.clean_up()
        self.store.close()

    @property
    def database_kind(self) -> str:
        return "SQLite" if self.database_url.startswith("sqlite") else "PostgreSQL"

    @property
    def environ(self) -> dict[str, str]:
        """The environment of every process, without anything of the test's own that it does not need."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            **self.sandbox.environment,
            "HEPPU_WEBHOOK_SECRET": SECRET,
            "BRIDGE_ADMIN_TOKEN": "admin-token-of-the-fault-tests",
            "BRIDGE_DATABASE_URL": self.database_url,
            "BRIDGE_LOG_FORMAT": "json",
            **self.variables,
        }

    def start(self, *command: str, files: int | None = None) -> Process:
        """Start another process, by default `bridge serve` on a free port. `files` is its `ulimit -n`."""
        process = Process(self.environ, self.folder, *(command or ("serve", "--port", "0")), files=files)
        self.processes.append(process)
        return process

    def start_with_unwritable_log(self) -> Process:
        """Start a `bridge serve` whose log cannot be written, and wait until it is ready."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = Process(self.environ, self.folder, "serve", "--port", str(port), log=Path("/dev/full"))
        self.processes.append(process)
        process.address = f"http://127.0.0.1:{port}"
        wait_for(
            lambda: get(process.address, "/readyz") == 200, 20, "the server to be ready", process.running
        )
        return process

    def restart(self, process: Process) -> Process:
        """Start a successor of a process that has exited."""
        self.processes.remove(process)
        return self.start(*process.command)

    def kill(self, process: Process) -> None:
        process.kill()
        self.kills += 1

    def kill_worker(self, process: Process) -> None:
        process.kill_worker()
        self.kills += 1

    def run_command(self, *command: str, seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run another `bridge` command while the service runs, as an operator does."""
        return subprocess.run(
            [sys.executable, "-m", "bridge", *command], env=self.environ, cwd=self.folder, timeout=seconds,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    # Remaining work, read from the database

    def query(self, statement: str, **values: Any) -> list[Any]:
        """Return rows of the database. Raise StoreUnavailable if it is unavailable."""

        def read() -> list[Any]:
            with self.store.read() as conn:
                return list(conn.execute(text(statement), values).all())

        return _retry_once(read)

    def change(self, statement: str, **values: Any) -> None:
        def write() -> None:
            with self.store.write() as conn:
                conn.execute(text(statement), values)

        _retry_once(write)

    def states(self) -> Counter[str]:
        """Count deliveries by state, and events that are not routed yet as `unrouted`."""
        rows = self.query("SELECT state, count(*) FROM deliveries GROUP BY state")
        counts = Counter({row[0]: row[1] for row in rows})
        unrouted = self.query("SELECT count(*) FROM events WHERE routed_at IS NULL")[0][0]
        return counts + Counter({"unrouted": unrouted})

    def is_final(self) -> bool:
        """Return True if every event is routed and every delivery is final."""
        try:
            return all(state in FINAL for state in self.states())
        except StoreUnavailable:
            return False

    def wait_until_final(self, seconds: float = 90.0, skip_waits: bool = False) -> float:
        """Wait until everything is final; return the seconds it took. For `skip_waits`, see the method of that name."""
        start = time.monotonic()

        def done() -> bool:
            if skip_waits:
                self.skip_waits()
            return self.is_final()

        wait_for(done, seconds, "every delivery to be final", self.states, every=0.5 if skip_waits else 0.2)
        return time.monotonic() - start

    def skip_waits(self) -> None:
        """End the waits after a kill immediately: the leases of dead workers, and the time of the next attempt.

        The short tests use it; the long ones really wait.
        """
        dead = "', '".join(self.dead_workers())
        with contextlib.suppress(StoreUnavailable):
            self.change(
                f"UPDATE deliveries SET lease_expires_at = 0 WHERE state = 'running' AND worker_id IN ('{dead}')"
            )
            self.change("UPDATE deliveries SET run_at = 0 WHERE state = 'retrying'")

    def running_attempts(self, process: Process) -> int:
        """Count the running attempts of this process or its worker."""
        statement = "SELECT count(*) FROM deliveries WHERE state = 'running' AND worker_id LIKE :pattern"
        return int(self.query(statement, pattern=f"%-{process.worker_pid}-%")[0][0])

    def dead_workers(self) -> list[str]:
        """Return the workers that have running attempts and have exited; their IDs contain the process ID."""
        alive = {str(process.worker_pid) for process in self.processes if process.running}
        rows = self.query(
            "SELECT DISTINCT worker_id FROM deliveries WHERE state = 'running' AND worker_id IS NOT NULL"
        )
        return [row[0] for row in rows if row[0].rsplit("-", 2)[1] not in alive]

    # Side effects at the providers

    def text_messages(self) -> Counter[str]:
        """Count text messages by recipient."""
        return Counter(message.to for message in self.sandbox.twilio.messages)

    def call_records(self) -> Counter[str]:
        """Count call records in HubSpot by conversation."""
        return Counter(call.properties["heppu_conversation_id"] for call in self.sandbox.hubspot.calls)

    def contacts(self) -> Counter[str]:
        """Count contacts in HubSpot by phone number."""
        return Counter(contact.properties.get("phone", "") for contact in self.sandbox.hubspot.contacts)

    def lost_events(self) -> list[str]:
        """Return the webhook IDs of accepted events without a side effect."""
        messages, records = self.text_messages(), self.call_records()
        return [
            body["webhookId"]
            for body in self.heppu.accepted
            if not (
                messages[body["metadata"]["contactPhone"]]
                if body["event"] in SMS_EVENT_TYPES
                else records[body["conversationId"]]
            )
        ]

    def duplicates(self) -> list[str]:
        """Return what exists more than once: a text message to one recipient, a call record, or a contact."""
        messages = Counter(f"{message.to}: {message.body}" for message in self.sandbox.twilio.messages)
        side_effects = [*messages.items(), *self.call_records().items(), *self.contacts().items()]
        return [key for key, count in side_effects if count > 1]

    def taken_over_attempts(self) -> int:
        """Count attempts that another process took over, because theirs was dead or frozen."""
        return sum(entry.get("event") == "attempt taken over" for entry in self.log())

    def log(self) -> list[dict[str, Any]]:
        """Return the log entries of all processes, including those that have exited."""
        logs = self.folder.glob("bridge-*.log")
        return [entry for path in sorted(logs) for entry in read_log(path)]

    def unexpected_errors(self) -> list[str]:
        """Return the exceptions in the logs of all processes."""
        return [
            str(entry)[:2000]
            for entry in self.log()
            if "exception" in entry or "Traceback" in entry.get("line", "")
        ]

    def outcome(
        self, scenario: str, seconds: float, note: str = "", allow_exceptions: bool = False
    ) -> Outcome:
        """Build the row of this scenario. Fail after an exception, or if a call record does not have one contact."""
        assert allow_exceptions or not self.unexpected_errors(), self.unexpected_errors()
        for call in self.sandbox.hubspot.calls:
            assert len(self.sandbox.hubspot.associated("calls", call.id, "contacts")) == 1, call
        return Outcome(
            scenario, self.database_kind, len(self.heppu.accepted), self.kills,
            len(self.lost_events()), len(self.duplicates()), self.states()["needs_review"], round(seconds, 1), note,
        )  # fmt: skip


def kill_randomly(deployment: Deployment, kills: int, seed: int) -> None:
    """Repeatedly kill one of the processes with `kill -9` and start its successor, sometimes before it is ready.

    Every third time, kill only the worker of a server, which starts the next one.
    """
    rng = random.Random(seed)
    for number in range(kills):
        time.sleep(rng.uniform(0.2, 2.0))
        victim = rng.choice(deployment.processes)
        if number % 3 == 1 and victim.worker_pid != victim.pid:
            deployment.kill_worker(victim)
        else:
            deployment.kill(victim)
            deployment.restart(victim)


def kill_during_attempts(deployment: Deployment, process: Process) -> None:
    """Kill the worker of a server during attempts. It is frozen first, so that no attempt finishes before the kill."""

    def frozen_during_attempts() -> bool:
        process.freeze()
        if deployment.running_attempts(process):
            return True
        process.unfreeze()
        return False

    wait_for(frozen_during_attempts, 20, "running attempts", deployment.states)
    deployment.kill_worker(process)
    process.unfreeze()


def _retry_once(operation: Callable[[], T]) -> T:
    """Run the operation, and once more if a pooled connection did not survive a restart of the database."""
    try:
        return operation()
    except StoreUnavailable:
        return operation()


def wait_for(
    done: Callable[[], object], seconds: float, condition: str, state: object = None, every: float = 0.05
) -> None:
    """Poll until `done`. On a timeout, fail with the name of the condition and the last `state`.

    `seconds` is for an idle machine. On a busy one everything takes longer.
    """
    end = time.monotonic() + seconds * BUSY_FACTOR
    while not done():
        if time.monotonic() > end:
            last_state = state() if callable(state) else state
            raise AssertionError(
                f"timed out after {seconds * BUSY_FACTOR:.0f} s waiting for {condition}: {last_state}"
            )
        time.sleep(every)


@contextlib.contextmanager
def slow_providers(sandbox: RunningSandbox, seconds: float) -> Iterator[None]:
    """Delay every response of the providers, so that a kill hits running attempts."""
    sandbox.fault("twilio", delay=seconds, times=None)
    sandbox.fault("hubspot", delay=seconds, times=None)
    try:
        yield
    finally:
        sandbox.clear_faults()
