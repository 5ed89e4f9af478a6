"""Upgrades without downtime: workers that start simultaneously, and old workers on a newer database."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from pathlib import Path

import pytest

from bridge.errors import StoreUnavailable
from bridge.store.migrate import newest_revision
from tests.faults.harness import (
    ROOT,
    Deployment,
    Process,
    Report,
    call_events,
    slow_providers,
    wait_for,
)

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


NEWER_MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{previous}"


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("from_newer_version", sa.Text()))
    op.add_column("connections", sa.Column("from_newer_version", sa.Text(), nullable=False, server_default="x"))
    op.create_table("from_newer_version", sa.Column("id", sa.Text(), primary_key=True))
    op.create_index("deliveries_newer", "deliveries", ["from_newer_version"])
"""


def newer_version(folder: Path) -> Path:
    """Return a folder with a later version of the bridge: this one, with one more migration."""
    for name in ("bridge", "connectors"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    migrations = folder / "bridge" / "store" / "migrations" / "versions"
    (migrations / "m9999_newer.py").write_text(NEWER_MIGRATION.format(previous=newest_revision()))
    package = folder / "bridge" / "__init__.py"
    package.write_text(re.sub(r'__version__ = ".*"', '__version__ = "99.0.0"', package.read_text()))
    return folder


@pytest.mark.faults
@pytest.mark.postgres
def test_two_versions_work_side_by_side_and_the_older_one_takes_over_again(
    postgres_deployment: Deployment, tmp_path: Path, report: Report
) -> None:
    """A rolling upgrade and its reversal under load: both versions receive and deliver at the same time."""
    deployment = postgres_deployment
    environ = {**deployment.environ, "PYTHONPATH": str(newer_version(tmp_path / "newer"))}

    def wait_for_deliveries(process: Process) -> None:
        """Send events until this process or its worker has finished some deliveries."""
        pattern = f"%-{process.worker_pid}-%"

        def finished() -> int:
            statement = (
                "SELECT count(*) FROM attempts WHERE worker_id LIKE :pattern AND finished_at IS NOT NULL"
            )
            return int(deployment.query(statement, pattern=pattern)[0][0])

        def has_more() -> bool:
            deployment.heppu.send(call_events(2))
            return finished() > before + 3

        before = finished()
        wait_for(has_more, 20, "deliveries of this version", deployment.states, every=0.2)

    def version() -> str:
        return str(deployment.query("SELECT version_num FROM alembic_version")[0][0])

    older = deployment.start().ready()
    with slow_providers(deployment.sandbox, 0.1):
        wait_for_deliveries(older)
        newer = Process(environ, deployment.folder, "serve", "--port", "0")
        deployment.processes.append(newer)
        newer.ready()
        assert version() == "9999"
        wait_for_deliveries(newer)
        wait_for_deliveries(older)
        assert older.stop() == 0  # the upgrade is complete
        older = deployment.restart(older).ready()  # and is taken back
        assert newer.stop() == 0
        deployment.processes.remove(newer)
        wait_for_deliveries(older)
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(60)
    assert "of a newer version of the bridge than this one" in deployment.run_command("db", "current").stdout
    assert version() == "9999"
    report(deployment.outcome("two versions side by side, and back", seconds))
    assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}
