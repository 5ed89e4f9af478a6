"""PostgreSQL: connection parameters, encodings that are refused, and migrations without limits of time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Connection, text

from bridge.clock import Clock
from bridge.errors import ConfigError, StoreUnavailable
from bridge.store import migrate, postgres_engine, stalled_transactions
from bridge.store.database import Database
from bridge.store.migrate import upgrade
from tests.postgres import database_of


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [("one", None), ("one,two", "read-write"), ("/name?host=one:5433&host=two:5434", "read-write"),
     ("one,two/name?target_session_attrs=any", "any")],
)  # fmt: skip
def test_several_hosts_are_tried_until_one_accepts_writes(hosts: str, expected: str | None) -> None:
    database = Database(f"postgresql://user:pass@{hosts}" + ("" if "/" in hosts else "/name"), pool_size=1)
    assert database.driver_arguments().get("target_session_attrs") == expected


def test_lost_server_is_noticed_and_the_url_takes_precedence() -> None:
    arguments = Database("postgresql://host/name?keepalives_idle=60", pool_size=1).driver_arguments()
    assert (arguments["keepalives"], arguments["tcp_user_timeout"], arguments["connect_timeout"]) == (
        1,
        10_000,
        5,
    )
    assert arguments["keepalives_idle"] == "60"


def test_options_of_the_url_are_added_to_those_of_the_bridge() -> None:
    arguments = Database("postgresql://host/name?options=-c%20work_mem%3D8MB", pool_size=1).driver_arguments()
    assert arguments["options"].endswith("-c work_mem=8MB")
    assert "statement_timeout=60s" in arguments["options"]


@contextmanager
def new_database(server: str, encoding: str) -> Iterator[str]:
    name = f"encoded_{uuid4().hex[:8]}"
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        yield database_of(server, name)
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.postgres
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_database_with_another_encoding_is_refused(postgres_server: str, encoding: str) -> None:
    with new_database(postgres_server, encoding) as url:
        database = Database(url, pool_size=1)
        with pytest.raises(
            ConfigError, match=f"encoding {encoding}, and the bridge needs UTF8: create one with"
        ):
            upgrade(database)
        database.close()


@pytest.mark.postgres
def test_client_encoding_of_the_environment_is_ignored(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    database = Database(postgres_url, pool_size=1)
    with database.read() as conn:
        assert conn.execute(text("SELECT '語'")).scalar_one() == "語"
    database.close()


@pytest.mark.postgres
def test_migration_has_no_limit_for_statements_and_waits_for_another_start(
    new_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = "-c lock_timeout=50ms -c statement_timeout=50ms"
    monkeypatch.setattr(postgres_engine, "SERVER_OPTIONS", short)
    first, second = Database(new_postgres_url, Clock()), Database(new_postgres_url, Clock())
    entered, leave = threading.Event(), threading.Event()

    def slow_migration(conn: Connection) -> None:
        conn.execute(text("SELECT pg_sleep(0.1)"))
        entered.set()
        leave.wait(5)

    monkeypatch.setattr(migrate, "run_migrations", slow_migration)
    with psycopg.connect(new_postgres_url, autocommit=True) as conn:
        conn.execute("UPDATE alembic_version SET version_num = '0001'")
    threads = [threading.Thread(target=upgrade, args=[database]) for database in (first, second)]
    threads[0].start()
    assert entered.wait(5), "the first migration was ended by the limit for statements"
    entered.clear()
    threads[1].start()
    assert not entered.wait(0.2), "two processes migrate at the same time"
    leave.set()
    assert entered.wait(5), "the second start did not wait for the first one"
    for thread in threads:
        thread.join(5)
    first.close()
    second.close()


@pytest.mark.postgres
def test_stalled_transaction_ends_and_the_pool_recovers(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalled_transactions, "POLL_INTERVAL", 0.02)
    database = Database(postgres_url, pool_size=1)
    with pytest.raises(StoreUnavailable) as error, database.write(limit=0.1) as conn:
        conn.execute(text("SELECT pg_sleep(5)"))
    assert (error.value.kind, error.value.connection_dropped) == ("unreachable", True)
    with database.write(limit=0.1) as conn:
        conn.execute(text("SELECT 1"))
    database.close()
