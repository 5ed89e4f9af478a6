"""A PostgreSQL that freezes, is cut off, or only reads: events get a 503 in time, and nothing is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.sandbox import RunningSandbox
from bridge.store.claim import LEASE
from tests.faults.harness import (
    Deployment,
    Process,
    Report,
    call_events,
    event_body,
    get,
    post,
    slow_providers,
    wait_for,
)
from tests.faults.own_postgres import Postgres
from tests.tcp_proxy import proxied

pytestmark = [pytest.mark.faults, pytest.mark.postgres, pytest.mark.timeout(300)]

ANSWER_WITHIN = 10.0


@contextmanager
def _busy(deployment: Deployment, calls: int = 60) -> Iterator[Process]:
    """Start a service, and send events until attempts at slow providers are running."""
    process = deployment.start().ready()
    with slow_providers(deployment.sandbox, 0.2):
        deployment.heppu.send(call_events(calls), per_second=40)
        wait_for(lambda: deployment.states()["running"] > 2, 20, "attempts", deployment.states)
        yield process


def _assert_refused_in_time(process: Process) -> float:
    """Assert that events and probes are answered, and that the process is alive; return the longest wait."""
    waits = []
    for _ in range(3):
        start = time.monotonic()
        assert post(process.url or "", event_body("call.unknown"), 30) == 503
        waits.append(time.monotonic() - start)
        start = time.monotonic()
        assert get(process.url, "/readyz") == 503
        assert get(process.url, "/healthz") == 200
        assert "\nbridge_database_up 0" in process.metrics()
        assert time.monotonic() - start < 5
    assert max(waits) < ANSWER_WITHIN
    return max(waits)


def _finish(deployment: Deployment, scenario: str, report: Report, note: str) -> None:
    deployment.heppu.wait(90)
    seconds = deployment.wait_until_final(90)
    wait_for(
        lambda: all(get(each.url, "/readyz") == 200 for each in deployment.processes if each.url),
        10,
        "readiness",
    )
    report(deployment.outcome(scenario, seconds, note))
    assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}


def test_frozen_postgres(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox, report: Report
) -> None:
    with Deployment(tmp_path, own_postgres.url, sandbox) as deployment, _busy(deployment) as process:
        with own_postgres.frozen():
            start = time.monotonic()
            waited = _assert_refused_in_time(process)
            time.sleep(max(0.0, 20 - (time.monotonic() - start)))
        _finish(deployment, "PostgreSQL frozen for 20 s", report, f"answered in {waited:.1f} s")


def test_read_only_postgres(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox, report: Report
) -> None:
    with Deployment(tmp_path, own_postgres.url, sandbox) as deployment, _busy(deployment) as process:
        with own_postgres.read_only():
            waited = _assert_refused_in_time(process)
            time.sleep(3)
        _finish(deployment, "PostgreSQL read-only", report, f"answered in {waited:.1f} s")


def test_partition_between_service_and_postgres(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox, report: Report
) -> None:
    with proxied(own_postgres.url) as proxy, Deployment(tmp_path, own_postgres.url, sandbox) as deployment:
        deployment.variables["BRIDGE_DATABASE_URL"] = proxy.url
        with _busy(deployment) as process:
            proxy.partition()
            waited = _assert_refused_in_time(process)
            proxy.heal()
            _finish(deployment, "partition: service, database", report, f"answered in {waited:.1f} s")


def test_partition_between_worker_and_postgres_past_its_lease(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox, report: Report
) -> None:
    """Another worker takes over; the one that was cut off must not repeat or overwrite anything."""
    with proxied(own_postgres.url) as proxy, Deployment(tmp_path, own_postgres.url, sandbox) as deployment:
        deployment.start("serve", "--port", "0").ready()
        deployment.variables["BRIDGE_DATABASE_URL"] = proxy.url
        cut_off = deployment.start("worker").ready()
        with slow_providers(sandbox, 0.5):
            deployment.heppu.send(call_events(80), per_second=40)
            wait_for(lambda: deployment.running_attempts(cut_off) >= 2, 20, "attempts", deployment.states)
            proxy.partition()
            time.sleep(LEASE.total_seconds() + 5)
            proxy.heal()
            taken_over = deployment.taken_over_attempts()
            _finish(deployment, "partition: worker, database", report, f"{taken_over} attempts taken over")


def test_service_stops_while_postgres_is_frozen(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox, report: Report
) -> None:
    """It cannot record its results, but must not wait for the database. The next one looks the outcomes up."""
    with Deployment(tmp_path, own_postgres.url, sandbox) as deployment:
        with _busy(deployment, 40) as process:
            with own_postgres.frozen():
                start = time.monotonic()
                process.stop(60)
                stopped_in = time.monotonic() - start
            deployment.restart(process).ready()
            deployment.heppu.wait(90)
            seconds = deployment.wait_until_final(90, skip_waits=True)
        report(deployment.outcome("stop, PostgreSQL frozen", seconds, f"stopped in {stopped_in:.1f} s"))
        assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
