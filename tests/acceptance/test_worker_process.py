"""`bridge serve` is two processes: what each of them does when the other one ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from bridge.samples import sample, stamped
from bridge.sandbox import RunningSandbox, start_sandbox
from tests.acceptance.commands import states
from tests.acceptance.service_process import ADMIN, Running, eventually, serving

RULES = """
version: 1
messaging: {quiet_hours: none}
rules:
  - name: log
    when: call.completed
    do: [use: hubspot.log_call]
  - name: text
    when: call.busy
    do:
      - use: twilio.send_sms
        with: {body: "We tried to reach you."}
    on_failure:
      - use: slack.post
        with: {text: "The text failed."}
"""


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """Partners of one test alone."""
    with start_sandbox() as running:
        yield running


@pytest.fixture
def service(tmp_path: Path, sandbox: RunningSandbox) -> Iterator[Running]:
    (tmp_path / "rules.yaml").write_text(RULES)
    with serving(tmp_path, sandbox.environment) as running:
        yield running


def worker_of(service: Running) -> int | None:
    """The id of its worker, once there is one."""
    found = subprocess.run(
        ["pgrep", "-P", str(service.process.pid)], capture_output=True, text=True, check=False
    )
    return int(found.stdout.split()[0]) if found.stdout else None


def _runs(pid: int) -> bool:
    """Whether there is such a process that has not ended; one that nobody waited for has."""
    found = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(found) and not found.startswith("Z")


def _post(service: Running, *names: str) -> None:
    for number, name in enumerate(names):
        body = stamped(sample(name), datetime.now(UTC))
        body["conversationId"] = f"call_{name}_{number}_{time.time_ns()}"
        body["metadata"]["contactPhone"] = f"+1212555{1000 + number}"
        assert service.post(body).status_code == 200


def test_a_worker_that_starts_while_the_file_is_bad_runs_the_rules_of_the_server(
    service: Running, sandbox: RunningSandbox
) -> None:
    first = eventually(lambda: worker_of(service))
    (service.folder / "rules.yaml").write_text(RULES.replace("call.busy", "call.buzy"))
    assert eventually(lambda: "rules not reloaded" in service.log.read_text())
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: worker_of(service) not in (None, first), 30)
    _post(service, "call.busy")
    assert eventually(lambda: states(service) == ["succeeded"], 30)
    (service.folder / "rules.yaml").write_text(
        RULES + "  - {name: more, when: call.failed, do: [{use: slack.post, with: {text: failed}}]}\n"
    )
    assert eventually(lambda: "rules reloaded" in service.log.read_text())


def test_another_worker_takes_over_when_one_is_killed(service: Running, sandbox: RunningSandbox) -> None:
    sandbox.fault("hubspot", delay=1.0, times=None)
    first = eventually(lambda: worker_of(service))
    _post(service, *["call.completed"] * 5)
    assert eventually(lambda: "running" in states(service))
    os.kill(first, signal.SIGKILL)
    _post(service, "call.completed")  # what comes in meanwhile is stored
    sandbox.clear_faults()
    second = eventually(lambda: (pid := worker_of(service)) != first and pid)
    assert second
    assert eventually(lambda: states(service) == ["succeeded"] * 6, 60), states(service)
    assert len(sandbox.hubspot.calls) == 6
    assert "the worker ended" in service.log.read_text()
    assert service.stop() == 0


def test_a_worker_ends_with_its_server_and_leaves_the_database_to_the_next(
    tmp_path: Path, sandbox: RunningSandbox
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    with serving(tmp_path, sandbox.environment) as running:
        worker = eventually(lambda: worker_of(running))
        running.process.kill()
        running.process.wait()
        with serving(
            tmp_path, sandbox.environment
        ) as successor:  # SQLite has one server: it waits for the rest
            assert eventually(lambda: not _runs(worker), 5)
            _post(successor, "call.completed")
            assert eventually(lambda: states(successor) == ["succeeded"])


def test_a_signal_to_both_stops_in_order(service: Running, sandbox: RunningSandbox) -> None:
    """A terminal and a supervisor of services signal every process of a service."""
    sandbox.fault("hubspot", delay=1.5, times=None)
    _post(service, "call.completed")
    assert eventually(lambda: "running" in states(service))
    worker = eventually(lambda: worker_of(service))
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker, number)
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(30) == 0
    assert states(service) == ["succeeded"]
    assert not _runs(worker)


def test_the_worker_wakes_who_routes_when_a_failure_is_to_be_followed_up(
    service: Running, sandbox: RunningSandbox
) -> None:
    _post(service, "call.completed")
    assert eventually(lambda: states(service) == ["succeeded"])  # the worker has begun
    sandbox.fault("twilio", status=400, times=None)
    begin = time.monotonic()
    _post(service, "call.busy")
    assert eventually(lambda: sandbox.slack.messages)
    assert time.monotonic() - begin < 4, "nobody was woken: it was found by looking every few seconds"


def test_the_metrics_tell_of_both_processes(service: Running) -> None:
    _post(service, "call.completed")
    assert eventually(lambda: states(service) == ["succeeded"])

    def metrics() -> str:
        return httpx.get(f"{service.url}/metrics", headers={"Authorization": f"Bearer {ADMIN}"}).text

    found = metrics()
    assert 'bridge_webhook_requests_total{status="200"} 1.0' in found
    assert 'bridge_attempts_total{connection="hubspot",reason="succeeded"} 1.0' in found
    assert "bridge_local_worker_up 1.0" in found
    names = re.findall(r"^# TYPE (\S+)", found, re.MULTILINE)
    assert len(names) == len(set(names))
    worker = eventually(lambda: worker_of(service))
    os.kill(worker, signal.SIGSTOP)
    try:
        assert "bridge_local_worker_up 0.0" in metrics()
        assert httpx.get(f"{service.url}/readyz").status_code == 200
    finally:
        os.kill(worker, signal.SIGCONT)
