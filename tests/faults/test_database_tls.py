"""TLS to a real PostgreSQL server with a certificate of a private authority.

The server of the other tests is built without TLS, so this test needs that of Debian.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from bridge.errors import StoreUnavailable
from bridge.store.database import Database
from bridge.store.migrate import newest_revision, upgrade
from tests.acceptance.service_process import free_port
from tests.certificates import Authority, create_authority

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@contextmanager
def server(authority: Authority) -> Iterator[int]:
    """Run a server with the certificate of this authority; yield its port."""
    user = (
        pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    )  # it never runs as root
    programs, port = PROGRAMS[-1].parent, free_port()

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/",
            user=user.pw_uid, group=user.pw_gid, timeout=60,
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        os.chown(name, user.pw_uid, user.pw_gid)
        run("initdb", "-D", str(folder), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
        for source in (authority.certificate, authority.key):
            shutil.copy(source, folder)
            os.chown(folder / source.name, user.pw_uid, user.pw_gid)
            (folder / source.name).chmod(0o600)
        settings = {
            "ssl": "on", "ssl_cert_file": authority.certificate.name, "ssl_key_file": authority.key.name,
            "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off",
        }  # fmt: skip
        with (folder / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in settings.items())
        run("pg_ctl", "-w", "-D", str(folder), "-l", str(folder / "log"), "start")
        try:
            yield port
        finally:
            run("pg_ctl", "-w", "-D", str(folder), "-m", "immediate", "stop")


@pytest.mark.faults
@pytest.mark.skipif(not PROGRAMS, reason="Debian's PostgreSQL is not installed: TLS to it was not tested")
def test_certificate_of_postgresql_is_verified(tmp_path: Path) -> None:
    authority = create_authority(tmp_path)
    (tmp_path / "other").mkdir()
    other = create_authority(tmp_path / "other")
    with server(authority) as port:
        url = f"postgresql://postgres@localhost:{port}/postgres?sslmode=verify-full&sslrootcert="
        verified, wrong = (Database(f"{url}{each.file}", pool_size=1) for each in (authority, other))
        try:
            assert upgrade(verified) == newest_revision()
            with verified.read() as conn:
                query = text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
                assert conn.execute(query).scalar_one() is True
            with pytest.raises(StoreUnavailable, match="certificate verify failed"):
                wrong.has_tables()
        finally:
            verified.close()
            wrong.close()
