"""Upgrades without a pause: replicas that start at once, and old ones beside a newer database."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from bridge.errors import StoreUnavailable
from tests.faults.harness import Deployment, Outcome, calls, slow, wait_for

Report = Callable[[Outcome], None]

NEWER = (
    "ALTER TABLE deliveries ADD COLUMN of_a_newer_version TEXT",
    "ALTER TABLE events ADD COLUMN of_a_newer_version TEXT",
    "ALTER TABLE connections ADD COLUMN of_a_newer_version TEXT NOT NULL DEFAULT 'x'",
    "CREATE TABLE of_a_newer_version (id TEXT PRIMARY KEY)",
    "CREATE INDEX deliveries_newer ON deliveries (of_a_newer_version)",
    "UPDATE alembic_version SET version_num = 'newer'",
)
"""What the migration of a later version may do: it only adds."""


def _migrate(deployment: Deployment) -> None:
    """As `bridge db upgrade` would: one transaction, once more when it met the service's own in a deadlock."""
    for _ in range(20):
        with contextlib.suppress(StoreUnavailable), deployment.store.write() as connection:
            for statement in NEWER:
                connection.exec_driver_sql(statement)
            return
        time.sleep(0.2)
    raise AssertionError("the migration never got through")


@pytest.mark.postgres
def test_replicas_that_start_at_once_on_an_empty_database_all_work(
    postgres_deployment: Deployment, report: Report
) -> None:
    deployment = postgres_deployment
    processes = [deployment.start() for _ in range(2)] + [deployment.start("worker") for _ in range(2)]
    for process in processes:
        process.ready()
    deployment.heppu.send(calls(20))
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(30)
    report(deployment.outcome("4 replicas start at once", seconds))
    assert (deployment.lost(), deployment.doubled()) == ([], [])
    assert deployment.query("SELECT count(*) FROM alembic_version") == [(1,)]


def test_an_older_process_works_on_while_the_database_becomes_newer(
    deployment: Deployment, report: Report
) -> None:
    """A newer version migrates under load; the old processes go on, and one more may even start."""
    process = deployment.start().ready()
    with slow(deployment.sandbox, 0.1):
        deployment.heppu.send(calls(80), per_second=20)
        wait_for(lambda: deployment.states()["succeeded"] > 6, 20, "some to be sent", deployment.states)
        _migrate(deployment)
        wait_for(lambda: deployment.states()["succeeded"] > 30, 20, "more to be sent", deployment.states)
        assert process.stop() == 0
        deployment.restart(process).ready()
        assert "newer" in deployment.bridge("db", "upgrade").stdout
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(40)
    report(deployment.outcome("a newer database under load", seconds))
    assert (deployment.lost(), deployment.doubled()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}
