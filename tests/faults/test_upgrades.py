"""Upgrades without downtime: workers that start simultaneously, and old workers on a newer database."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from bridge.errors import StoreUnavailable
from tests.faults.harness import Deployment, Outcome, call_events, slow_providers, wait_for

Report = Callable[[Outcome], None]

NEWER = (
    "ALTER TABLE deliveries ADD COLUMN from_newer_version TEXT",
    "ALTER TABLE events ADD COLUMN from_newer_version TEXT",
    "ALTER TABLE connections ADD COLUMN from_newer_version TEXT NOT NULL DEFAULT 'x'",
    "CREATE TABLE from_newer_version (id TEXT PRIMARY KEY)",
    "CREATE INDEX deliveries_newer ON deliveries (from_newer_version)",
    "UPDATE alembic_version SET version_num = 'newer'",
)
"""What the migration of a later version may do: only add."""


def _migrate(deployment: Deployment) -> None:
    """Migrate as `bridge db upgrade` does: in one transaction, repeated after a deadlock with the service."""
    for _ in range(20):
        with contextlib.suppress(StoreUnavailable), deployment.store.write() as conn:
            for statement in NEWER:
                conn.exec_driver_sql(statement)
            return
        time.sleep(0.2)
    raise AssertionError("the migration did not succeed")


@pytest.mark.faults
@pytest.mark.postgres
def test_processes_starting_simultaneously_on_empty_database_all_work(
    postgres_deployment: Deployment, report: Report
) -> None:
    deployment = postgres_deployment
    processes = [deployment.start() for _ in range(2)] + [deployment.start("worker") for _ in range(2)]
    for process in processes:
        process.ready()
    deployment.heppu.send(call_events(20))
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(30)
    report(deployment.outcome("4 processes start simultaneously", seconds))
    assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
    assert deployment.query("SELECT count(*) FROM alembic_version") == [(1,)]


@pytest.mark.faults
def test_old_process_keeps_working_on_a_newer_database(deployment: Deployment, report: Report) -> None:
    """A newer version migrates under load; the old process continues, and another old one can start."""
    process = deployment.start().ready()
    with slow_providers(deployment.sandbox, 0.1):
        deployment.heppu.send(call_events(80), per_second=20)
        wait_for(lambda: deployment.states()["succeeded"] > 6, 20, "some deliveries", deployment.states)
        _migrate(deployment)
        wait_for(lambda: deployment.states()["succeeded"] > 30, 20, "more deliveries", deployment.states)
        assert process.stop() == 0
        deployment.restart(process).ready()
        assert "newer" in deployment.run_command("db", "upgrade").stdout
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(40)
    report(deployment.outcome("a newer database under load", seconds))
    assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}
