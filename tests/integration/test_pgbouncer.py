"""PgBouncer with one session for each transaction, and TLS to the database with a private authority."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from bridge.cli.db import unverified_host
from bridge.errors import ConfigError, StoreUnavailable
from bridge.store import pg_notify
from bridge.store.database import ALL_TOPICS, Database
from bridge.store.pg_notify import ChangeNotifier
from bridge.store.postgres_engine import LIMITS
from tests.acceptance.service_process import eventually, free_port
from tests.certificates import Authority, create_authority
from tests.integration.engine import Engine

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed: PgBouncer was not tested"),
]
Start = Callable[..., str]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user of PgBouncer can read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def start(new_postgres_url: str, folder: Path) -> Iterator[Start]:
    """Start PgBouncer in front of the test's database, with these further settings, and return the URL through it."""
    processes: list[subprocess.Popen[bytes]] = []

    def start_one(*settings: str, role_limits: bool = True) -> str:
        target = make_url(new_postgres_url)
        name = str(target.database)
        if role_limits:
            with psycopg.connect(new_postgres_url, autocommit=True) as conn:
                for limit in LIMITS:
                    conn.execute(f"ALTER DATABASE \"{name}\" SET {limit} = '20s'")
                # It is off on the server of the tests.
                conn.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = on')
        port = free_port()
        address = f"host={target.query['host']} port={target.port or 5432}"
        (folder / "pgbouncer.ini").write_text(
            "\n".join(
                (
                    "[databases]",
                    f"bridge = {address} dbname={name} user={target.username or 'postgres'}",
                    "[pgbouncer]",
                    f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =",
                    "auth_type = any\npool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 200",
                    *settings,
                )
            )
        )
        # As root, the server runs as another user, whose socket only this user can reach. PgBouncer never runs as root.
        owner = Path(str(target.query["host"])).stat()
        with (folder / "log").open("wb") as log:
            processes.append(
                subprocess.Popen(
                    [str(PROGRAM), "-q", str(folder / "pgbouncer.ini")], user=owner.st_uid, group=owner.st_gid,
                    stdout=log, stderr=log,
                )
            )  # fmt: skip

        def answers() -> bool:
            try:
                psycopg.connect(f"postgresql://x@127.0.0.1:{port}/none", connect_timeout=2).close()
            except psycopg.OperationalError as error:
                return "refused" not in str(error)
            return True

        assert eventually(answers, 10), (folder / "log").read_text()
        return f"postgresql://bridge@127.0.0.1:{port}/bridge"

    yield start_one
    for process in processes:
        process.terminate()
        process.wait(10)


@contextmanager
def opened(url: str) -> Iterator[Database]:
    database = Database(url, pool_size=4)
    try:
        yield database
    finally:
        database.close()


IGNORED = "ignore_startup_parameters = options"


def test_refused_options_are_explained(start: Start) -> None:
    with opened(start()) as database, pytest.raises(ConfigError, match="ignore_startup_parameters = options"):
        database.has_tables()


def test_dropped_limits_are_explained(start: Start) -> None:
    """Without them, a frozen process would not lose its locks."""
    with (
        opened(start(IGNORED, role_limits=False)) as database,
        pytest.raises(ConfigError, match="ALTER ROLE bridge SET idle_in_transaction_session_timeout"),
    ):
        database.has_tables()


def test_deliveries_from_several_threads_share_few_sessions(start: Start) -> None:
    """More clients than sessions, and every statement more often than psycopg prepares it."""
    with opened(start(IGNORED)) as database:
        engines = [Engine(database, worker_id=f"worker-{number}") for number in range(4)]
        deliveries = [engines[0].deliver("record") for _ in range(24)]
        errors: list[BaseException] = []

        def work(engine: Engine) -> None:
            try:
                for _ in range(20):
                    engine.step()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=[engine]) for engine in engines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        engines[0].run_due()
        assert {engines[0].show(item)["state"] for item in deliveries} == {"succeeded"}
        calls = [call for engine in engines for call in engine.provider.calls]
        assert len(calls) == len(deliveries)


def test_changes_are_found_by_polling_and_commits_stay_durable(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting of a session would be that of the next client: its commits would be lost with the server's power."""
    monkeypatch.setattr(pg_notify, "POOLED_INTERVAL", 0.05)
    with opened(start(IGNORED, "default_pool_size = 1")) as database:
        heard: list[frozenset[str]] = []
        database.listeners.append(heard.append)
        notifier = ChangeNotifier(database)
        notifier.start()
        try:
            assert eventually(lambda: any(ALL_TOPICS in topics for topics in heard), 10)
            for _ in range(3):
                with database.write() as conn:
                    database.publish(conn, ["desk"])
            assert eventually(lambda: not notifier._unsent, 10)
        finally:
            notifier.stop()
        with database.read() as conn:
            assert conn.execute(text("SHOW synchronous_commit")).scalar_one() == "on"


def tls_settings(folder: Path, authority: Authority) -> Sequence[str]:
    """Return the settings of PgBouncer's own TLS, with files that its user can read."""
    for file in (authority.certificate, authority.key):
        shutil.copy(file, folder / file.name)
        (folder / file.name).chmod(0o644)
    return (
        "client_tls_sslmode = require",
        f"client_tls_cert_file = {folder}/{authority.certificate.name}",
        f"client_tls_key_file = {folder}/{authority.key.name}",
    )


def test_certificate_of_the_database_is_verified(start: Start, folder: Path, tmp_path: Path) -> None:
    authority = create_authority(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    url = start(IGNORED, *tls_settings(folder, authority))
    verified = f"{url}?sslmode=verify-full&sslrootcert={authority.file}"
    with opened(verified) as database:
        assert database.has_tables()
    wrong = f"{url}?sslmode=verify-full&sslrootcert={create_authority(other).file}"
    with opened(wrong) as database, pytest.raises(StoreUnavailable, match="certificate verify failed"):
        database.has_tables()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///bridge.db", None),
        ("postgresql://u:p@localhost/x", None),
        ("postgresql://u:p@127.0.0.1:6432/x", None),
        ("postgresql:///x?host=/run/postgresql", None),
        ("postgresql://u:p@db.example.com/x", "db.example.com"),
        ("postgresql://u:p@db.example.com/x?sslmode=require", "db.example.com"),
        ("postgresql://u:p@db.example.com/x?sslmode=verify-full", None),
        ("postgresql://u:p@/x?host=127.0.0.1:5432&host=db2:5433", "db2"),
        ("postgresql://u:p@db1,db2/x", "db1"),
    ],
)
def test_host_whose_certificate_is_not_verified_is_found(url: str, expected: str | None) -> None:
    assert unverified_host(url, {}) == expected
    if "sslmode" not in url:
        assert unverified_host(url, {"PGSSLMODE": "verify-full"}) is None
