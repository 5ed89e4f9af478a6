"""Disk, file descriptors or memory run out under load: nothing is lost or doubled, and the service recovers."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bridge.sandbox import RunningSandbox
from tests.faults.harness import Deployment, Outcome, Report, call_events, get, slow_providers, wait_for
from tests.faults.small_disk import fill

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

FREE_BYTES = (0, 8_192, 32_768, 131_072, 524_288)
"""What the full disk still has room for, so that the write that fails is another one each time: of an event, of its
deliveries, of a claim, of a result, of a checkpoint."""


@contextmanager
def limited(pid: int, kind: int, value: int) -> Iterator[None]:
    """Lower a soft limit of a running process."""
    soft, hard = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (value, hard))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it did not survive, and its successor has the usual limits
            resource.prlimit(pid, kind, (soft, hard))


def address_space(pid: int) -> int:
    """Return the bytes that count against RLIMIT_AS."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[0]) * resource.getpagesize()


def _assert_nothing_lost(deployment: Deployment, outcome: Outcome, report: Report) -> None:
    report(outcome)
    assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}


def test_disk_full_at_each_step(small_disk: Path, sandbox: RunningSandbox, report: Report) -> None:
    with Deployment(small_disk, f"sqlite:///{small_disk}/bridge.db", sandbox) as deployment:
        process = deployment.start().ready()
        ballast = small_disk / "ballast"
        not_ready = 0
        with slow_providers(sandbox, 0.2):
            for free in FREE_BYTES:
                deployment.heppu.send(call_events(20), per_second=40)
                wait_for(lambda: deployment.states()["running"] > 2, 20, "attempts", deployment.states)
                fill(ballast, free)
                deployment.heppu.send(call_events(40), per_second=40)
                end = time.monotonic() + 4
                while time.monotonic() < end:
                    not_ready += get(process.url, "/readyz") == 503
                    time.sleep(0.2)
                ballast.unlink()
                deployment.heppu.wait()
                wait_for(lambda: get(process.url, "/readyz") == 200, 10, "readiness")
            seconds = deployment.wait_until_final(60)
        assert process.running
        assert not_ready > 0
        note = f"{deployment.heppu.responses[503]} x 503"
        _assert_nothing_lost(deployment, deployment.outcome("disk full at each step", seconds, note), report)


def test_service_starts_once_the_disk_has_room(
    small_disk: Path, sandbox: RunningSandbox, report: Report
) -> None:
    """The first start on a full disk says why it fails."""
    with Deployment(small_disk, f"sqlite:///{small_disk}/bridge.db", sandbox) as deployment:
        fill(small_disk / "ballast")
        result = deployment.run_command("serve", "--port", "0")
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        advice = ("free space on the disk", "check the disk")
        assert any(text in result.stderr for text in advice), result.stderr
        (small_disk / "ballast").unlink()
        deployment.start().ready()
        deployment.heppu.send(call_events(10), per_second=40)
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(30)
        _assert_nothing_lost(deployment, deployment.outcome("disk full at start", seconds), report)


def test_out_of_file_descriptors(deployment: Deployment, report: Report) -> None:
    """Neither the server nor the worker can open another connection, file or socket for 5 seconds."""
    process = deployment.start().ready()
    with slow_providers(deployment.sandbox, 0.2):
        deployment.heppu.send(call_events(80), per_second=20)
        wait_for(lambda: deployment.states()["succeeded"] > 2, 20, "deliveries", deployment.states)
        server, worker = process.pid, process.worker_pid
        with limited(server, resource.RLIMIT_NOFILE, 3), limited(worker, resource.RLIMIT_NOFILE, 3):
            time.sleep(4)
            assert get(process.url, "/healthz", 1) == "unreachable"
        assert get(process.url, "/readyz") == 200
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(60)
    assert process.running
    outcome = deployment.outcome("out of file descriptors", seconds, allow_exceptions=True)
    _assert_nothing_lost(deployment, outcome, report)


def test_worker_out_of_memory(deployment: Deployment, report: Report) -> None:
    """The worker can allocate nothing for 5 seconds. It may exit: then the server starts the next one."""
    process = deployment.start().ready()
    with slow_providers(deployment.sandbox, 0.2):
        deployment.heppu.send(call_events(80), per_second=20)
        wait_for(lambda: deployment.states()["succeeded"] > 2, 20, "deliveries", deployment.states)
        worker = process.worker_pid
        with limited(worker, resource.RLIMIT_AS, address_space(worker)):
            time.sleep(5)
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(90)
    assert process.running
    note = "worker restarted" if process.worker_pid != worker else "worker survived"
    outcome = deployment.outcome("worker out of memory", seconds, note, allow_exceptions=True)
    _assert_nothing_lost(deployment, outcome, report)
