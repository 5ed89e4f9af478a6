"""Restore drill: a backup under load, more work, a crash, the restore, and the operator's look at what waits."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from bridge.sandbox import RunningSandbox
from bridge.store.database import Database
from tests.acceptance.service_process import run_command
from tests.faults.harness import Deployment, Report, call_events, slow_providers, wait_for
from tests.faults.own_postgres import Postgres
from tests.postgres import database_of

EARLIER, DURING, LATER = 4, 16, 4


@dataclass
class SqliteBackup:
    """The commands of docs/deployment.md on SQLite."""

    deployment: Deployment

    def back_up(self) -> None:
        result = run(self.deployment, "db", "backup", "backup.db")
        assert result.returncode == 0, result.stderr
        assert "passed SQLite's integrity check" in result.stdout

    def restore(self) -> None:
        self.deployment.store.engine.dispose()
        refused = run(self.deployment, "db", "restore", "--yes", "backup.db.missing")
        assert "is not a file" in refused.stderr
        result = run(self.deployment, "db", "restore", "--yes", "backup.db")
        assert result.returncode == 0, result.stderr
        assert "All connections are paused" in result.stdout
        print(result.stdout)


@dataclass
class PostgresBackup:
    """The commands of docs/deployment.md on PostgreSQL, with its own tools."""

    deployment: Deployment
    server: Postgres

    @property
    def dump(self) -> Path:
        return self.deployment.folder / "backup.dump"

    def start(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        environ = {**os.environ, "PGOPTIONS": "-c statement_timeout=0"}
        return subprocess.Popen([self.server.program(program), *arguments], env=environ, umask=0o077)

    def back_up(self) -> None:
        arguments = ("--format=custom", f"--file={self.dump}", f"--dbname={self.deployment.database_url}")
        killed = self.start("pg_dump", *arguments)
        killed.kill()
        killed.wait()
        assert self.start("pg_dump", *arguments).wait(60) == 0
        assert self.dump.stat().st_mode & 0o777 == 0o600

    def restore(self) -> None:
        """Restore into a new database, which then takes the place of the old one by its URL."""
        self.deployment.store.close()
        url = database_of(self.server.url, "restored")
        with psycopg.connect(self.server.url, autocommit=True) as conn:
            conn.execute("CREATE DATABASE restored ENCODING 'UTF8' TEMPLATE template0")
        arguments = ("--single-transaction", "--no-owner", f"--dbname={url}", str(self.dump))
        killed = self.start("pg_restore", *arguments)
        killed.kill()
        killed.wait()
        assert self.start("pg_restore", *arguments).wait(60) == 0
        self.deployment.database_url = url
        self.deployment.store = Database(url, pool_size=2)
        paused = run(self.deployment, "pause", "--all", "--reason", "restored from a backup")
        assert paused.returncode == 0, paused.stderr


def run(deployment: Deployment, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as an operator does."""
    return run_command(deployment.folder, deployment.environ, *command)


def drill(deployment: Deployment, backup: SqliteBackup | PostgresBackup, report: Report) -> None:
    """Every contact gets exactly one text and one record, although the restored database knows of fewer."""
    process = deployment.start().ready()
    deployment.heppu.send(call_events(EARLIER))
    deployment.heppu.wait()
    deployment.wait_until_final()
    earlier = [row[0] for row in deployment.query("SELECT id FROM events")]
    with slow_providers(deployment.sandbox, 2.5):
        deployment.heppu.send(call_events(DURING))
        deployment.heppu.wait()
        wait_for(lambda: deployment.states()["running"], 20, "running attempts", deployment.states)
        backup.back_up()
    deployment.heppu.send(call_events(LATER))
    deployment.heppu.wait()
    deployment.wait_until_final()
    texts, records = deployment.text_messages(), deployment.call_records()
    deployment.kill(process)

    backup.restore()
    (stored,) = deployment.query("SELECT count(*) FROM events")[0]
    assert stored == EARLIER + DURING
    waiting = sum(count for state, count in deployment.states().items() if state != "succeeded")
    assert waiting, "the backup must be of a moment with unfinished work"
    process = deployment.restart(process).ready()
    wait_for(lambda: deployment.states()["unrouted"] == 0, 20, "every event to be routed", deployment.states)
    run(deployment, "connections")  # the service has the time of a command to send what it must not
    assert (deployment.text_messages(), deployment.call_records()) == (texts, records)

    # The operator looks at the providers: all of it was sent before the crash.
    for rule in ("text-after-busy", "log-calls"):
        cancelled = run(deployment, "cancel", "--rule", rule, "--yes")
        assert cancelled.returncode == 0, cancelled.stderr
    resumed = run(deployment, "resume", "--all", "--yes")
    assert resumed.returncode == 0, resumed.stderr
    deployment.heppu.send(call_events(LATER))
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(skip_waits=True)
    replayed = run(deployment, "replay", *earlier, "--yes")
    assert replayed.returncode == 0, replayed.stderr
    deployment.wait_until_final(skip_waits=True)
    row = deployment.outcome("restore drill", seconds, f"{waiting} deliveries waited in the backup")
    print(row)
    report(row)
    assert (deployment.lost_events(), deployment.duplicates()) == ([], [])


@pytest.mark.faults
def test_restore_drill_on_sqlite(
    tmp_path: Path, sqlite_url: str, sandbox: RunningSandbox, report: Report
) -> None:
    with Deployment(tmp_path, sqlite_url, sandbox) as deployment:
        drill(deployment, SqliteBackup(deployment), report)


@pytest.mark.faults
@pytest.mark.postgres
def test_restore_drill_on_postgresql(
    tmp_path: Path, own_postgres: Postgres, sandbox: RunningSandbox, report: Report
) -> None:
    with Deployment(tmp_path, own_postgres.url, sandbox) as deployment:
        drill(deployment, PostgresBackup(deployment, own_postgres), report)
