"""`bridge serve --share-port`: several processes on one port of PostgreSQL, and a stop of one of them under load."""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import httpx
import psycopg
import pytest

from bridge.samples import refresh_sample, sample
from bridge.signing import SIGNATURE_HEADER, TIMESTAMP_HEADER
from tests.acceptance.commands import DISABLED_RULE, run_bridge
from tests.acceptance.forked_command import ForkedCommand, forked_command
from tests.acceptance.service_process import ADMIN, SECRET, clean_environment, eventually, free_port

POSTGRES = "postgresql://nobody@127.0.0.1:1/none"


class Receiver:
    """A process on the shared port, with a port of its own."""

    def __init__(self, process: ForkedCommand, port: int, log: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.log = log

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def answered(self) -> int:
        """Return how many events this process has accepted."""
        headers = {"Authorization": f"Bearer {ADMIN}"}
        counts = httpx.get(f"{self.url}/metrics/webhooks", headers=headers).raise_for_status().json()
        return int(counts["stored"])


@contextmanager
def receivers(folder: Path, database_url: str, port: int, number: int) -> Iterator[list[Receiver]]:
    """Run this many receivers on one port."""
    (folder / "rules.yaml").write_text(DISABLED_RULE)
    with ExitStack() as stack:
        started = []
        for index in range(number):
            own = free_port()
            environ = clean_environment(
                HEPPU_WEBHOOK_SECRET=SECRET, BRIDGE_ADMIN_TOKEN=ADMIN, BRIDGE_DATABASE_URL=database_url,
                BRIDGE_PORT=str(port), BRIDGE_METRICS_PORT=str(own),
            )  # fmt: skip
            log = folder / f"{index}.log"
            process = stack.enter_context(
                forked_command(folder, environ, "serve", "--no-worker", "--share-port", out=log, err=log)
            )
            started.append(Receiver(process, own, log))
        for receiver in started:
            assert eventually(receiver.is_ready), receiver.log.read_text()
        yield started


class Heppu:
    """Sends distinct events, some over new and some over kept connections, and repeats each until it is accepted."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[index % 2 == 0]) for index in range(6)]
        self.accepted: list[str] = []
        self.answers: Counter[int | str] = Counter()
        """Statuses, and the kinds of the errors without one."""

    def __enter__(self) -> Heppu:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, keeps_connection: bool) -> None:
        connection = self._connection()
        while not self._stopping.is_set():
            body = refresh_sample(sample("call.busy"), datetime.now(UTC))
            raw = json.dumps(body).encode()
            while not self._send(connection, raw):
                connection.close()
            self.accepted.append(body["conversationId"])
            if not keeps_connection:
                connection.close()
        connection.close()

    def _connection(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self._port, timeout=30)

    def _send(self, connection: HTTPConnection, body: bytes) -> bool:
        headers = {
            SIGNATURE_HEADER: "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
            TIMESTAMP_HEADER: str(int(time.time())),
        }
        try:
            connection.request("POST", "/webhooks/heppu", body, headers)
            response = connection.getresponse()
            response.read()
        except (OSError, HTTPException) as error:
            self.answers[type(error).__name__] += 1
            return False
        self.answers[response.status] += 1
        return response.status == 200


@pytest.mark.postgres
def test_processes_share_a_port_and_one_that_stops_refuses_no_event(
    tmp_path: Path, postgres_url: str
) -> None:
    port = free_port()
    with receivers(tmp_path, postgres_url, port, 2) as (staying, stopping), Heppu(port) as heppu:
        assert eventually(lambda: min(staying.answered(), stopping.answered()) >= 20)
        stopping.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: not stopping.is_ready(), 100)
        assert stopping.process.wait(100) == 0, stopping.log.read_text()
        before = staying.answered()
        assert eventually(lambda: staying.answered() >= before + 20)
    with closing(psycopg.connect(postgres_url)) as conn:
        stored = [row[0] for row in conn.execute("SELECT conversation_id FROM events")]
    assert sorted(stored) == sorted(heppu.accepted)
    assert {answer for answer in heppu.answers if isinstance(answer, int)} == {200}, heppu.answers


@pytest.mark.postgres
def test_metrics_are_those_of_one_process_and_only_on_its_own_port(tmp_path: Path, postgres_url: str) -> None:
    port = free_port()
    headers = {"Authorization": f"Bearer {ADMIN}"}
    with receivers(tmp_path, postgres_url, port, 1) as (receiver,):
        for path in ("/metrics", "/metrics/webhooks"):
            refused = httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers)
            assert (refused.status_code, "BRIDGE_METRICS_PORT" in refused.json()["error"]) == (421, True)
            assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 401
            assert httpx.get(f"{receiver.url}{path}", headers=headers).status_code == 200
            assert httpx.get(f"{receiver.url}{path}").status_code == 401


@pytest.mark.parametrize(
    ("variables", "advice"),
    [
        ({"BRIDGE_ADMIN_TOKEN": ADMIN}, "--share-port needs PostgreSQL"),
        ({"BRIDGE_DATABASE_URL": POSTGRES}, "--share-port needs BRIDGE_ADMIN_TOKEN"),
    ],
)
def test_sharing_needs_postgresql_and_one_token(
    tmp_path: Path, variables: dict[str, str], advice: str
) -> None:
    (tmp_path / "rules.yaml").write_text(DISABLED_RULE)
    variables |= {"HEPPU_WEBHOOK_SECRET": SECRET, "BRIDGE_PORT": "0"}
    result = run_bridge(tmp_path, "serve", "--share-port", **variables)
    assert (result.returncode, advice in result.stderr) == (1, True), result.stderr


def test_port_of_a_process_that_does_not_share_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(DISABLED_RULE)
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = run_bridge(
            tmp_path, "serve", "--share-port", "--port", str(other.getsockname()[1]),
            HEPPU_WEBHOOK_SECRET=SECRET, BRIDGE_ADMIN_TOKEN=ADMIN, BRIDGE_DATABASE_URL=POSTGRES,
        )  # fmt: skip
    assert (result.returncode, "choose another address with --host and --port" in result.stderr) == (1, True)
