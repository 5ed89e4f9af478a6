"""The two processes of `bridge serve`: behavior of each when the other one exits."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from bridge.cli.ipc import RequestMetrics, Start, encode
from bridge.samples import refresh_sample, sample
from bridge.sandbox import RunningSandbox
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from bridge.worker.router import POLL_INTERVAL
from tests.acceptance.commands import delivery_states
from tests.acceptance.service_process import (
    ADMIN,
    ServiceProcess,
    clean_environment,
    eventually,
    run_command,
    running_service,
)

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
def service(tmp_path: Path, sandbox: RunningSandbox) -> Iterator[ServiceProcess]:
    (tmp_path / "rules.yaml").write_text(RULES)
    with running_service(tmp_path, sandbox.environment) as running:
        yield running


def worker_of(service: ServiceProcess) -> int | None:
    """Return the process ID of the worker, or None if there is none."""
    result = subprocess.run(
        ["pgrep", "-P", str(service.process.pid)], capture_output=True, text=True, check=False
    )
    return int(result.stdout.split()[0]) if result.stdout else None


def _runs(pid: int) -> bool:
    """Return whether the process is running. A zombie process is not."""
    result = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(result) and not result.startswith("Z")


def _post(service: ServiceProcess, *names: str) -> None:
    for number, name in enumerate(names):
        body = refresh_sample(sample(name), datetime.now(UTC))
        body["conversationId"] = f"call_{name}_{number}_{time.time_ns()}"
        body["metadata"]["contactPhone"] = f"+1212555{1000 + number}"
        assert service.post(body).status_code == 200


def test_worker_started_with_invalid_file_uses_rules_of_server(service: ServiceProcess) -> None:
    first = eventually(lambda: worker_of(service))
    (service.folder / "rules.yaml").write_text(RULES.replace("call.busy", "call.buzy"))
    assert eventually(lambda: "rules not reloaded" in service.log.read_text())
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: worker_of(service) not in (None, first))
    _post(service, "call.busy")
    assert eventually(lambda: delivery_states(service) == ["succeeded"])
    (service.folder / "rules.yaml").write_text(
        RULES + "  - {name: more, when: call.failed, do: [{use: slack.post, with: {text: failed}}]}\n"
    )
    assert eventually(lambda: "rules reloaded" in service.log.read_text())


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def _sockets(pid: int) -> set[str]:
    targets = [os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()]
    return {target for target in targets if target.startswith("socket:")}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the first worker is a program")
def test_first_worker_is_a_fork_that_shares_no_socket_and_its_successor_a_program(
    service: ServiceProcess,
) -> None:
    first = eventually(lambda: worker_of(service))
    assert _command(first) == _command(service.process.pid)
    assert os.getpgid(first) == first  # Ctrl-C reaches only the server
    assert _sockets(first).isdisjoint(_sockets(service.process.pid))
    os.kill(first, signal.SIGKILL)
    second = eventually(lambda: (pid := worker_of(service)) != first and pid)
    assert "bridge.cli.worker_process" in _command(second)


def test_server_that_cannot_start_leaves_no_worker_with_its_lock(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("version: 1\nrules: []\n")
    (tmp_path / "bridge.db").write_text("This is not a database. " * 50)
    failed = run_command(tmp_path, clean_environment(), "serve", "--insecure")
    assert (failed.returncode, "not a database" in failed.stderr) == (1, True), failed.stderr
    with (tmp_path / "bridge.db.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises BlockingIOError while a worker has it


def test_killed_worker_is_replaced(service: ServiceProcess, sandbox: RunningSandbox) -> None:
    sandbox.fault("hubspot", delay=0.5, times=None)
    first = eventually(lambda: worker_of(service))
    _post(service, *["call.completed"] * 5)
    assert eventually(lambda: "running" in delivery_states(service))
    os.kill(first, signal.SIGKILL)
    _post(service, "call.completed")  # stored while there is no worker
    sandbox.clear_faults()
    second = eventually(lambda: (pid := worker_of(service)) != first and pid)
    assert second
    assert eventually(lambda: delivery_states(service) == ["succeeded"] * 6, 60), delivery_states(service)
    assert len(sandbox.hubspot.calls) == 6
    assert "worker exited" in service.log.read_text()
    assert service.stop() == 0


def test_worker_stops_immediately_if_the_server_dies_before_it_has_read_all_messages(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/bridge.db"
    database = Database(url)
    upgrade(database)
    database.close()
    (tmp_path / "rules.yaml").write_text("version: 1\nrules: []\n")
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "bridge.cli.worker_process", str(theirs.fileno())], pass_fds=[theirs.fileno()],
            env=os.environ | {"BRIDGE_DATABASE_URL": url}, cwd=tmp_path, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    ours.settimeout(30)
    ours.sendall(encode(Start("version: 1\nrules: []\n")) + encode(RequestMetrics()))
    assert ours.recv(1, socket.MSG_PEEK)  # its answer, which the server never reads
    ours.close()
    output, _ = process.communicate(timeout=100)
    assert (process.returncode, "Traceback" in output) == (1, False), output
    assert "stopped immediately, server process exited" in output


def test_worker_exits_with_server_and_releases_the_lock(tmp_path: Path, sandbox: RunningSandbox) -> None:
    (tmp_path / "rules.yaml").write_text(RULES)
    with running_service(tmp_path, sandbox.environment) as running:
        _post(running, "call.completed")
        assert eventually(lambda: delivery_states(running) == ["succeeded"])  # the worker has started
        worker = worker_of(running)
        running.process.kill()
        running.process.wait()
        with running_service(
            tmp_path, sandbox.environment
        ) as successor:  # waits for the lock, which the worker of the killed server still holds
            assert eventually(lambda: not _runs(worker))
            _post(successor, "call.completed")
            assert eventually(lambda: delivery_states(successor) == ["succeeded"] * 2)


def test_signal_to_both_processes_stops_gracefully(service: ServiceProcess, sandbox: RunningSandbox) -> None:
    """Terminals and service managers send signals to every process of a service."""
    sandbox.fault("hubspot", delay=0.3, times=None)
    _post(service, "call.completed")
    assert eventually(lambda: "running" in delivery_states(service))
    worker = eventually(lambda: worker_of(service))
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker, number)
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait() == 0
    assert delivery_states(service) == ["succeeded"]
    assert not _runs(worker)


def _wait_for_more_messages(sandbox: RunningSandbox, earlier: int) -> None:
    assert eventually(lambda: len(sandbox.slack.messages) > earlier)


def test_worker_wakes_the_router_for_follow_ups(service: ServiceProcess, sandbox: RunningSandbox) -> None:
    _post(service, "call.completed")
    assert eventually(lambda: delivery_states(service) == ["succeeded"])  # the worker has started
    sandbox.fault("twilio", status=400, times=None)
    started = time.monotonic()
    for _ in range(5):
        earlier = len(sandbox.slack.messages)
        _post(service, "call.busy")
        _wait_for_more_messages(sandbox, earlier)
    # Each follow-up begins after the previous one, so a router that only polls takes four of its intervals.
    assert time.monotonic() - started < 4 * POLL_INTERVAL


def test_metrics_contain_both_processes(service: ServiceProcess) -> None:
    _post(service, "call.completed")
    assert eventually(lambda: delivery_states(service) == ["succeeded"])

    def metrics() -> str:
        return httpx.get(f"{service.url}/metrics", headers={"Authorization": f"Bearer {ADMIN}"}).text

    result = metrics()
    assert 'bridge_webhook_requests_total{status="200"} 1.0' in result
    assert 'bridge_attempts_total{connection="hubspot",reason="succeeded"} 1.0' in result
    assert "bridge_local_worker_up 1.0" in result
    names = re.findall(r"^# TYPE (\S+)", result, re.MULTILINE)
    assert len(names) == len(set(names))
    worker = eventually(lambda: worker_of(service))
    os.kill(worker, signal.SIGSTOP)
    try:
        assert "bridge_local_worker_up 0.0" in metrics()
        assert httpx.get(f"{service.url}/readyz").status_code == 200
    finally:
        os.kill(worker, signal.SIGCONT)
