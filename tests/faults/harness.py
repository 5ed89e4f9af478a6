"""The whole service as its neighbours see it: real processes, a real database, the sandbox, and Heppu sending.

Nothing here reaches into the processes under test. They are started, signalled and killed by their id; what they did
is counted at the partners, and what they still have to do is read from their database.
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

TEXTED = ("call.busy", "call.no-answer")
"""Events that every set of rules here answers with a text; the others make a record in HubSpot."""
RULES = """\
version: 1
messaging:
  quiet_hours: none
  caps: {sms: 1000 per 24h}
alerts:
  - use: slack.post
rules:
  - name: text-who-was-busy
    when: call.busy
    do:
      - use: twilio.send_sms
        with: {body: "We tried to reach you."}
  - name: log-calls
    when: call.completed
    do:
      - use: hubspot.log_call
"""

_numbers = itertools.count(1)


def happening(name: str, person: str | None = None, conversation: str | None = None) -> dict[str, Any]:
    """A fresh event, by default of a person and a conversation that no other event has."""
    number = next(_numbers)
    return {
        "event": name,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "webhookId": f"whd_{uuid4().hex[:16]}",
        "conversationId": conversation or f"conv_{uuid4().hex[:16]}",
        "status": name.removeprefix("call."),
        "direction": "outbound",
        "duration": 42,
        "metadata": {
            "contactPhone": person or f"+1646{2_000_000 + number}",
            "contactName": f"Person {number}",
        },
    }


def calls(count: int) -> list[dict[str, Any]]:
    """`count` events, each other one a busy line (a text) and a completed call (a record)."""
    return [happening("call.busy" if place % 2 else "call.completed") for place in range(count)]


@dataclass
class Outcome:
    """What one scenario did, as a row of the table that the tests print."""

    scenario: str
    database: str
    events: int
    kills: int
    lost: int
    doubled: int
    review: int
    seconds: float
    note: str = ""


class Heppu:
    """Sends signed events to whoever serves, each until it is answered 2xx, and remembers which were."""

    def __init__(self, urls: Callable[[], Sequence[str]], senders: int = 6) -> None:
        self._urls = urls
        self._queue: queue.SimpleQueue[tuple[float, dict[str, Any]] | None] = queue.SimpleQueue()
        self.answered: list[dict[str, Any]] = []
        self.answers: Counter[int | str] = Counter()
        """By HTTP status; `unreachable` when nobody answered."""
        self._open = 0
        self._stopping = threading.Event()
        self._senders = [threading.Thread(target=self._work, daemon=True) for _ in range(senders)]
        for sender in self._senders:
            sender.start()

    def send(self, bodies: Sequence[dict[str, Any]], per_second: float = 1000.0) -> None:
        """Begin to send these, at this pace."""
        begin = time.monotonic()
        self._open += len(bodies)
        for place, body in enumerate(bodies):
            self._queue.put((begin + place / per_second, body))

    def wait(self, seconds: float = 60.0) -> None:
        """Until everything is answered 2xx."""
        wait_for(
            lambda: len(self.answered) == self._open, seconds, "every event to be answered 2xx", self.answers
        )

    def close(self) -> None:
        """Send nothing more."""
        self._stopping.set()
        for _ in self._senders:
            self._queue.put(None)
        for sender in self._senders:
            sender.join(15)

    def _work(self) -> None:
        for turn in itertools.count():
            item = self._queue.get()
            if item is None:
                return
            at, body = item
            self._stopping.wait(max(0.0, at - time.monotonic()))
            while not self._stopping.is_set():
                urls = self._urls()
                if urls and self.post(urls[turn % len(urls)], body):
                    break
                turn += 1
                self._stopping.wait(0.1)

    def post(self, url: str, body: Mapping[str, Any]) -> bool:
        """One try; whether it was answered 2xx."""
        status = post(url, body)
        self.answers[status] += 1
        if isinstance(status, int) and 200 <= status < 300:
            self.answered.append(dict(body))
            return True
        return False


def post(url: str, body: Mapping[str, Any], seconds: float = 15.0) -> int | str:
    """Post one event as Heppu does, signed here and not by the bridge's own code; the status, or `unreachable`."""
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
    """The status of one GET, or `unreachable`."""
    connection = http.client.HTTPConnection(urlsplit(url or "").netloc, timeout=seconds)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return "unreachable"
    finally:
        connection.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a JSON log; a line that is no entry is one of its own, so that nothing is overlooked."""
    found = []
    for line in path.read_text("utf-8", "replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"line": line}
        found.append(entry if isinstance(entry, dict) else {"line": line})
    return found


class Process:
    """One `bridge serve` or `bridge worker`."""

    def __init__(
        self, environ: Mapping[str, str], folder: Path, *command: str, log: Path | None = None
    ) -> None:
        self.environ = dict(environ)
        self.command = command
        self._log = log or folder / f"bridge-{uuid4().hex[:8]}.log"
        self._output = self._log.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bridge", *command],
            env=self.environ, cwd=folder, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.listens_at: str | None = None
        """Set by who chose its port; otherwise its log tells."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def worker(self) -> int:
        """The id of the process that works: a child of one that serves, else itself."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        return int(found[0]) if found else self.pid

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it logged."""
        return read_log(self._log)

    @property
    def output(self) -> str:
        """All that it wrote, for the message of a test that fails."""
        return self._log.read_text("utf-8", "replace")[-4000:]

    @property
    def url(self) -> str | None:
        """Where it listens; None before it does, and once it is gone."""
        if self.listens_at is None:
            serving = [entry for entry in self.log if entry.get("event") == "serving"]
            self.listens_at = serving[0]["url"] if serving else None
        return self.listens_at if self.running else None

    def ready(self, seconds: float = 30.0) -> Self:
        """Wait until it works: a server also until the worker beside it does."""
        works = self._worker_answers if self.command[0] == "serve" else self._says_it_works
        wait_for(
            lambda: not self.running or works(),
            seconds,
            f"`bridge {' '.join(self.command)}` to be ready",
        )
        assert self.running, self.output
        return self

    def _says_it_works(self) -> bool:
        return any(entry.get("event") == "working" for entry in self.log)

    def _worker_answers(self) -> bool:
        if self.url is None:
            return False
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        try:
            connection.request(
                "GET", "/metrics", headers={"Authorization": f"Bearer {self.environ['BRIDGE_ADMIN_TOKEN']}"}
            )
            return b"\nbridge_worker_up 1" in connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Gone, in the middle of whatever it did; it must not have ended by itself before."""
        assert self.running, self.output
        self._process.kill()
        self.wait()

    def kill_worker(self) -> None:
        """Its worker is gone; what serves starts another one."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.worker, signal.SIGKILL)

    def freeze(self) -> None:
        """Stop its time and its worker's, as a suspended virtual machine's."""
        self._signal_both(signal.SIGSTOP)

    def wake(self) -> None:
        self._signal_both(signal.SIGCONT)

    def _signal_both(self, number: signal.Signals) -> None:
        for pid in {self.pid, self.worker}:
            with contextlib.suppress(ProcessLookupError):  # it was killed
                os.kill(pid, number)

    def stop(self, seconds: float = 40.0) -> int:
        """SIGTERM; the exit code."""
        self.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float = 40.0) -> int:
        """The exit code."""
        code = self._process.wait(seconds)
        self._output.close()
        return code

    def end(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self.running:
            self.wake()
            self._process.kill()
            self._process.wait(10)
        self._output.close()

    def cpu_seconds(self) -> float:
        """Processor time used so far."""
        return sum(_ticks(pid) for pid in {self.pid, self.worker}) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Resident memory in bytes."""
        pages = (
            int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) for pid in {self.pid, self.worker}
        )
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


@dataclass
class Deployment:
    """The processes of one installation, their database, the partners, and Heppu."""

    folder: Path
    database_url: str
    sandbox: RunningSandbox
    rules: str = RULES
    kills: int = 0
    processes: list[Process] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        (self.folder / "rules.yaml").write_text(self.rules, "utf-8")
        self.heppu = Heppu(lambda: [process.url for process in list(self.processes) if process.url])
        self.store = Database(self.database_url, pool_size=2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heppu.close()
        for process in self.processes:
            process.end()
        self.store.close()

    @property
    def kind(self) -> str:
        return "SQLite" if self.database_url.startswith("sqlite") else "PostgreSQL"

    @property
    def environ(self) -> dict[str, str]:
        """The environment of every process: nothing of ours but what it needs to start."""
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            **self.sandbox.environment,
            "HEPPU_WEBHOOK_SECRET": SECRET,
            "BRIDGE_ADMIN_TOKEN": "an-admin-token-of-the-fault-tests",
            "BRIDGE_DATABASE_URL": self.database_url,
            "BRIDGE_LOG_FORMAT": "json",
            **self.variables,
        }

    def start(self, *command: str) -> Process:
        """One more process, by default `bridge serve` on a free port."""
        process = Process(self.environ, self.folder, *(command or ("serve", "--port", "0")))
        self.processes.append(process)
        return process

    def start_unlogged(self) -> Process:
        """`bridge serve` whose log cannot be written; it is ready when this returns."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = Process(self.environ, self.folder, "serve", "--port", str(port), log=Path("/dev/full"))
        self.processes.append(process)
        process.listens_at = f"http://127.0.0.1:{port}"
        wait_for(lambda: get(process.listens_at, "/readyz") == 200, 20, "it to be ready", process.running)
        return process

    def restart(self, process: Process) -> Process:
        """A successor of one that is gone."""
        self.processes.remove(process)
        return self.start(*process.command)

    def kill(self, process: Process) -> None:
        process.kill()
        self.kills += 1

    def kill_worker(self, process: Process) -> None:
        process.kill_worker()
        self.kills += 1

    def bridge(self, *command: str, seconds: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Another command, as a person beside the service types it."""
        return subprocess.run(
            [sys.executable, "-m", "bridge", *command], env=self.environ, cwd=self.folder, timeout=seconds,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    # What is left to do, read from the database

    def query(self, statement: str, **values: Any) -> list[Any]:
        """Rows of the database; raises StoreUnavailable when it is away."""

        def read() -> list[Any]:
            with self.store.read() as connection:
                return list(connection.execute(text(statement), values).all())

        return _twice(read)

    def change(self, statement: str, **values: Any) -> None:
        def write() -> None:
            with self.store.write() as connection:
                connection.execute(text(statement), values)

        _twice(write)

    def states(self) -> Counter[str]:
        """Deliveries by state, and events not yet routed as `unrouted`."""
        rows = self.query("SELECT state, count(*) FROM deliveries GROUP BY state")
        found = Counter({row[0]: row[1] for row in rows})
        unrouted = self.query("SELECT count(*) FROM events WHERE routed_at IS NULL")[0][0]
        return found + Counter({"unrouted": unrouted})

    def final(self) -> bool:
        """Whether nothing is left to do."""
        try:
            return all(state in FINAL for state in self.states())
        except StoreUnavailable:
            return False

    def wait_until_final(self, seconds: float = 90.0, hurry: bool = False) -> float:
        """Until nothing is left to do; how many seconds that took. `hurry` lets time pass quickly, see `hurry`."""
        begin = time.monotonic()

        def done() -> bool:
            if hurry:
                self.hurry()
            return self.final()

        wait_for(done, seconds, "every delivery to be final", self.states, every=0.5 if hurry else 0.2)
        return time.monotonic() - begin

    def hurry(self) -> None:
        """Let the waits that belong to a kill pass at once: the lease of who is gone, and the next attempt's time.

        The short tests use it; the long ones wait in earnest.
        """
        gone = "', '".join(self.dead_replicas())
        with contextlib.suppress(StoreUnavailable):
            self.change(
                f"UPDATE deliveries SET lease_expires_at = 0 WHERE state = 'running' AND replica IN ('{gone}')"
            )
            self.change("UPDATE deliveries SET run_at = 0 WHERE state = 'retrying'")

    def attempts_of(self, process: Process) -> int:
        """How many attempts this process, or the worker beside it, has under way."""
        statement = "SELECT count(*) FROM deliveries WHERE state = 'running' AND replica LIKE :own"
        return int(self.query(statement, own=f"%-{process.worker}-%")[0][0])

    def dead_replicas(self) -> list[str]:
        """Replicas that have attempts and whose process is gone: their names hold the process id."""
        alive = {str(process.worker) for process in self.processes if process.running}
        rows = self.query(
            "SELECT DISTINCT replica FROM deliveries WHERE state = 'running' AND replica IS NOT NULL"
        )
        return [row[0] for row in rows if row[0].rsplit("-", 2)[1] not in alive]

    # What reached the partners

    def texts(self) -> Counter[str]:
        """Texts per person."""
        return Counter(message.to for message in self.sandbox.twilio.messages)

    def records(self) -> Counter[str]:
        """Call records in HubSpot per conversation."""
        return Counter(call.properties["heppu_conversation_id"] for call in self.sandbox.hubspot.calls)

    def contacts(self) -> Counter[str]:
        """Contacts in HubSpot per person."""
        return Counter(contact.properties.get("phone", "") for contact in self.sandbox.hubspot.contacts)

    def lost(self) -> list[str]:
        """Webhook ids of answered events that brought nothing about."""
        texts, records = self.texts(), self.records()
        return [
            body["webhookId"]
            for body in self.heppu.answered
            if not (
                texts[body["metadata"]["contactPhone"]]
                if body["event"] in TEXTED
                else records[body["conversationId"]]
            )
        ]

    def doubled(self) -> list[str]:
        """Everything that is there more than once: the same text to one person, a conversation's record, a contact."""
        texts = Counter(f"{message.to}: {message.body}" for message in self.sandbox.twilio.messages)
        there = [*texts.items(), *self.records().items(), *self.contacts().items()]
        return [key for key, count in there if count > 1]

    def cut_short(self) -> int:
        """Attempts that another process, or the next one, had to conclude: theirs was gone or frozen."""
        return sum(entry.get("event") == "taking over an attempt" for entry in self.log())

    def log(self) -> list[dict[str, Any]]:
        """What all processes logged, also those that are gone."""
        logs = self.folder.glob("bridge-*.log")
        return [entry for path in sorted(logs) for entry in read_log(path)]

    def crashes(self) -> list[str]:
        """What should not have happened, by the logs of all processes."""
        return [
            str(entry)[:2000]
            for entry in self.log()
            if "exception" in entry or "Traceback" in entry.get("line", "")
        ]

    def outcome(self, scenario: str, seconds: float, note: str = "") -> Outcome:
        """The row of this scenario. Partners' records must hang on one contact each, and nothing may have crashed."""
        assert not self.crashes(), self.crashes()
        for call in self.sandbox.hubspot.calls:
            assert len(self.sandbox.hubspot.associated("calls", call.id, "contacts")) == 1, call
        return Outcome(
            scenario, self.kind, len(self.heppu.answered), self.kills, len(self.lost()), len(self.doubled()),
            self.states()["needs_review"], round(seconds, 1), note,
        )  # fmt: skip


def kill_at_random(deployment: Deployment, kills: int, seed: int) -> None:
    """Kill one of the processes with `kill -9`, start its successor, and again; at some moments before it is ready.

    Every third time it is only the worker beside a server, whose successor the server starts.
    """
    chance = random.Random(seed)
    for number in range(kills):
        time.sleep(chance.uniform(0.2, 2.0))
        victim = chance.choice(deployment.processes)
        if number % 3 == 1 and victim.worker != victim.pid:
            deployment.kill_worker(victim)
        else:
            deployment.kill(victim)
            deployment.restart(victim)


def kill_at_work(deployment: Deployment, process: Process) -> None:
    """Kill the worker beside a server in the middle of attempts: it is frozen first, so none ends meanwhile."""

    def caught() -> bool:
        process.freeze()
        if deployment.attempts_of(process):
            return True
        process.wake()
        return False

    wait_for(caught, 20, "attempts under way", deployment.states)
    deployment.kill_worker(process)
    process.wake()


def _twice(act: Callable[[], T]) -> T:
    """Once more after a connection that did not survive the database's restart."""
    try:
        return act()
    except StoreUnavailable:
        return act()


def wait_for(
    done: Callable[[], object], seconds: float, what: str, state: object = None, every: float = 0.05
) -> None:
    """Ask until `done`; fail with `what` was waited for, and the `state` it was left in."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            found = state() if callable(state) else state
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}: {found}")
        time.sleep(every)


@contextlib.contextmanager
def slow(sandbox: RunningSandbox, seconds: float) -> Iterator[None]:
    """Partners take a while, so that a kill finds attempts under way."""
    faults = [
        sandbox.fault("twilio", delay=seconds, times=None),
        sandbox.fault("hubspot", delay=seconds, times=None),
    ]
    try:
        yield
    finally:
        del faults
        sandbox.clear_faults()
