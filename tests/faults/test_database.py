"""Database outages and full disks under load: events get a 503 meanwhile, none is lost, and the service recovers."""

from __future__ import annotations

import resource
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from bridge.sandbox import RunningSandbox
from tests.faults.harness import (
    Deployment,
    Report,
    call_events,
    event_body,
    post,
    slow_providers,
    wait_for,
)
from tests.faults.own_postgres import Postgres
from tests.faults.small_disk import fill

pytestmark = pytest.mark.faults


def _restart_under_load(
    deployment: Deployment, server: Postgres, mode: str, downtime: float, count: int, report: Report
) -> None:
    first, second = deployment.start().ready(), deployment.start().ready()
    with slow_providers(deployment.sandbox, 0.2):
        deployment.heppu.send(call_events(count // 2), per_second=20)
        wait_for(lambda: deployment.states()["running"] > 2, 20, "running attempts", deployment.states)
        server.stop(mode)
        deployment.heppu.send(call_events(count // 2), per_second=20)
        start = time.monotonic()
        assert [post(process.url or "", event_body("call.unknown")) for process in (first, second)] == [
            503,
            503,
        ]
        rejected_in = time.monotonic() - start
        time.sleep(downtime)
        server.start()
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(90)
    assert first.running
    assert second.running
    assert deployment.heppu.responses[503] > 0
    assert rejected_in < 10
    report(
        deployment.outcome(
            f"PostgreSQL restarted ({mode})", seconds, f"{deployment.heppu.responses[503]} x 503"
        )
    )
    assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}
    assert deployment.sandbox.slack.messages == []


@pytest.mark.postgres
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_service_resumes_after_postgres_restart(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox, report: Report, mode: str
) -> None:
    with Deployment(tmp_path, own_postgres.url, sandbox) as deployment:
        _restart_under_load(deployment, own_postgres, mode, 1.0, 60, report)


@pytest.mark.postgres
@pytest.mark.timeout(400)
def test_repeated_postgres_outages_longer_than_a_lease_lose_nothing(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox, report: Report
) -> None:
    with Deployment(tmp_path, own_postgres.url, sandbox) as deployment:
        deployment.start().ready()
        deployment.start("worker").ready()
        with slow_providers(sandbox, 0.2):
            deployment.heppu.send(call_events(900), per_second=9)
            for mode, downtime in (("fast", 0.0), ("immediate", 0.0), ("immediate", 5.0), ("fast", 40.0)):
                time.sleep(6)
                own_postgres.stop(mode)
                time.sleep(downtime)
                own_postgres.start()
            deployment.heppu.wait(120)
            seconds = deployment.wait_until_final(90)
        report(deployment.outcome("PostgreSQL down 4 times", seconds, "at most 40 s"))
        assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
        assert set(deployment.states()) == {"succeeded"}


@pytest.mark.postgres
def test_service_waits_for_database_at_start(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox
) -> None:
    with Deployment(tmp_path, own_postgres.url, sandbox) as deployment:
        own_postgres.stop("fast")
        process = deployment.start()
        wait_for(
            lambda: "database unavailable" in process.output,
            10,
            "the outage to be logged",
            lambda: process.output,
        )
        own_postgres.start()
        process.ready()
        deployment.heppu.send(call_events(2))
        deployment.heppu.wait()
        deployment.wait_until_final(20)
        assert deployment.lost_events() == []


@pytest.mark.postgres
def test_service_shuts_down_cleanly_without_database(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox
) -> None:
    """It cannot record its results, but must neither hang nor spin. The next worker looks up the outcomes."""
    with Deployment(tmp_path, own_postgres.url, sandbox) as deployment:
        process = deployment.start().ready()
        with slow_providers(sandbox, 1.0):
            deployment.heppu.send(call_events(4))
            wait_for(lambda: deployment.states()["running"] > 1, 20, "running attempts", deployment.states)
            own_postgres.stop("immediate")
            start, used = time.monotonic(), process.cpu_seconds()
            process.send_signal(signal.SIGTERM)
            time.sleep(8)
            if process.running:
                assert process.cpu_seconds() - used < 2
            assert process.wait(40) == 0
            assert time.monotonic() - start < 35
            own_postgres.start()
            deployment.start().ready()
            deployment.heppu.wait()
            deployment.wait_until_final(60, skip_waits=True)
        assert (deployment.lost_events(), deployment.duplicates()) == ([], [])


def test_full_disk_rejects_events_until_space_is_free(
    small_disk: Path, sandbox: RunningSandbox, report: Report
) -> None:
    """The log cannot be written either, and the service is killed while the disk is full."""
    with Deployment(small_disk, f"sqlite:///{small_disk}/bridge.db", sandbox) as deployment:
        process = deployment.start().ready()
        ballast = small_disk / "ballast"
        with slow_providers(sandbox, 0.2):
            deployment.heppu.send(call_events(30), per_second=20)
            wait_for(lambda: deployment.states()["succeeded"] > 4, 20, "some deliveries", deployment.states)
            fill(ballast)
            deployment.heppu.send(call_events(25), per_second=20)
            wait_for(
                lambda: deployment.heppu.responses[503] > 20, 30, "503 responses", deployment.heppu.responses
            )
            assert process.running
            deployment.kill(process)
            ballast.unlink()
            deployment.restart(process).ready()
            with closing(sqlite3.connect(small_disk / "bridge.db", timeout=20)) as conn:
                conn.execute(
                    "PRAGMA wal_checkpoint(TRUNCATE)"
                )  # a log that keeps its size has room for events
            fill(ballast)
            deployment.heppu.send(call_events(25), per_second=20)
            rejected = deployment.heppu.responses[503]
            wait_for(
                lambda: deployment.heppu.responses[503] > rejected + 20,
                30,
                "more 503 responses",
                deployment.heppu.responses,
            )
            time.sleep(2)
            ballast.unlink()
            deployment.heppu.wait()
            seconds = deployment.wait_until_final(60)
        report(deployment.outcome("disk full", seconds, f"{deployment.heppu.responses[503]} x 503"))
        assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
        assert set(deployment.states()) == {"succeeded"}


def test_file_size_limit_rejects_events_until_it_is_lifted(
    tmp_path: Path, sandbox: RunningSandbox, report: Report
) -> None:
    """The process's file-size limit simulates a disk quota; setting it needs no privileges."""
    with Deployment(tmp_path, f"sqlite:///{tmp_path}/bridge.db", sandbox) as deployment:
        process = deployment.start().ready()
        with slow_providers(sandbox, 0.2):
            deployment.heppu.send(call_events(30), per_second=20)
            wait_for(lambda: deployment.states()["succeeded"] > 4, 20, "some deliveries", deployment.states)
            wal = tmp_path / "bridge.db-wal"
            old_limits = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            for pid in (process.pid, process.worker_pid):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (wal.stat().st_size, old_limits[1]))
            deployment.heppu.send(call_events(30), per_second=20)
            wait_for(
                lambda: deployment.heppu.responses[503] > 20, 30, "503 responses", deployment.heppu.responses
            )
            time.sleep(2)
            for pid in (process.pid, process.worker_pid):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, old_limits)
            deployment.heppu.wait()
            seconds = deployment.wait_until_final(60)
        assert process.running
        report(deployment.outcome("file size limited", seconds, f"{deployment.heppu.responses[503]} x 503"))
        assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
        assert set(deployment.states()) == {"succeeded"}


def test_unwritable_log_does_not_stop_the_service(
    tmp_path: Path, sandbox: RunningSandbox, report: Report
) -> None:
    """The worst effect of a full disk on the log: every line fails."""
    with Deployment(tmp_path, f"sqlite:///{tmp_path}/bridge.db", sandbox) as deployment:
        process = deployment.start_with_unwritable_log()
        sandbox.fault("twilio", status=429, times=2)
        deployment.heppu.send(call_events(20), per_second=40)
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(30)
        assert process.running
        report(deployment.outcome("log cannot be written", seconds))
        assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
        assert process.stop() in (
            0,
            120,
        )  # Python exits with 120 if it cannot flush stderr
