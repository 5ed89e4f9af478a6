"""`bridge db backup` and `bridge db restore`: what the files contain, who can read them, and what a kill leaves."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bridge.cli import server_lock
from bridge.cli.restore import Restored, restore
from bridge.clock import Clock
from bridge.errors import ConfigError, StoreUnavailable
from bridge.settings import Settings
from bridge.store import migrate, sqlite_backup
from bridge.store.audit_log import list_audit_entries
from bridge.store.connection_status import pause_of_all
from bridge.store.database import Database
from bridge.store.operator_actions import cancel
from bridge.store.pause_all import resume_all
from bridge.store.sqlite_backup import back_up
from tests.integration.engine import Engine

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Database]:
    """The database, with one event."""
    database = Database(sqlite_url)
    Engine(database).event("call.completed")
    yield database
    database.close()


@pytest.fixture
def backup(store: Database, tmp_path: Path) -> Path:
    """A backup with one event. The database has a second event by now, and nobody uses it."""
    file = tmp_path / "backup.db"
    back_up(store, file)
    Engine(store).event("call.busy")
    store.close()
    return file


def count_events(path: Path) -> int:
    with closing(sqlite3.connect(path)) as conn:
        return int(conn.execute("SELECT count(*) FROM events").fetchone()[0])


def restore_into(path: Path, file: Path, *, pause: bool = True) -> Restored:
    return restore(
        Settings.load({"BRIDGE_DATABASE_URL": f"sqlite:///{path}"}), file, pause=pause, actor="ada"
    )


def is_paused(path: Path) -> bool:
    database = Database(f"sqlite:///{path}")
    try:
        return pause_of_all(database) is not None
    finally:
        database.close()


def test_backup_is_private_and_one_snapshot_and_lets_others_write(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While half of it is copied, an event is stored at once; the backup is of the moment when it began."""
    steps: list[int] = []

    def progress(_status: int, remaining: int, _total: int) -> None:
        if not steps:
            Engine(store).event("call.busy")
        steps.append(remaining)
        modes.update(stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("copy.db*"))

    modes: set[int] = set()
    monkeypatch.setattr(sqlite_backup, "PAGES_PER_STEP", 20)
    monkeypatch.setattr(sqlite_backup, "_interruptible", progress)
    previous = os.umask(0)
    try:
        content = back_up(store, tmp_path / "copy.db")
    finally:
        os.umask(previous)
    assert len(steps) > 2, "the copy must be interrupted for this test"
    assert (content.events, count_events(tmp_path / "copy.db"), count_events(tmp_path / "bridge.db")) == (
        1,
        1,
        2,
    )
    assert modes | {stat.S_IMODE((tmp_path / "copy.db").stat().st_mode)} == {0o600}
    assert sorted(file.name for file in tmp_path.glob("copy.db*")) == ["copy.db"]


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_backup_replaces_no_file(store: Database, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "copy.db"
    target.write_text("mine") if kind == "file" else target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="does not replace it"):
        back_up(store, target)
    assert not (tmp_path / "elsewhere").exists()
    assert kind != "file" or target.read_text() == "mine"


def test_file_that_appears_during_a_backup_is_not_replaced(
    store: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copy.db"
    monkeypatch.setattr(sqlite_backup, "_interruptible", lambda *_: target.write_text("of someone else"))
    with pytest.raises(ConfigError, match="already exists"):
        back_up(store, target)
    assert target.read_text() == "of someone else"


def test_backup_of_a_damaged_database_is_refused(store: Database, path: Path, tmp_path: Path) -> None:
    store.close()
    content = bytearray(path.read_bytes())
    content[-4096:] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"damaged|malformed"):
        back_up(store, tmp_path / "copy.db")
    assert list(tmp_path.glob("copy.db*")) == []


def test_restore_pauses_and_keeps_the_replaced_database(backup: Path, path: Path) -> None:
    restored = restore_into(path, backup)
    assert (count_events(path), stat.S_IMODE(path.stat().st_mode), is_paused(path)) == (1, 0o600, True)
    assert restored.replaced is not None
    assert count_events(restored.replaced) == 2
    database = Database(f"sqlite:///{path}")
    entries = [(entry["actor"], entry["action"]) for entry in list_audit_entries(database)]
    database.close()
    assert entries == [("ada", "restore"), ("ada", "pause")]


def test_restore_without_pause_on_a_new_machine(backup: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "bridge.db"
    path.parent.mkdir()
    assert restore_into(path, backup, pause=False).replaced is None
    assert (count_events(path), is_paused(path)) == (1, False)


def test_changes_that_a_killed_process_left_go_to_the_replaced_database(backup: Path, path: Path) -> None:
    """They are in bridge.db-wal. Applied to the restored file, they would damage it."""
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("UPDATE events SET type = 'changed'")
    writer.commit()
    left = {suffix: path.with_name(path.name + suffix).read_bytes() for suffix in ("", "-wal")}
    writer.close()
    for suffix, content in left.items():
        path.with_name(path.name + suffix).write_bytes(content)
    restored = restore_into(path, backup)
    assert restored.replaced is not None
    for file, expected in ((restored.replaced, 2), (path, 0)):
        with closing(sqlite3.connect(file)) as conn:
            count = conn.execute("SELECT count(*) FROM events WHERE type = 'changed'").fetchone()
            assert (count, conn.execute("PRAGMA integrity_check").fetchone()) == ((expected,), ("ok",))


def test_damaged_database_can_be_replaced(backup: Path, path: Path) -> None:
    path.write_bytes(b"\xff" * 100_000)
    path.with_name("bridge.db-wal").write_bytes(b"\xff" * 10_000)
    restored = restore_into(path, backup)
    assert restored.replaced is not None
    assert restored.replaced.read_bytes() == b"\xff" * 100_000
    assert (count_events(path), is_paused(path)) == (1, True)


def test_restore_needs_a_database_that_nobody_uses(
    backup: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_lock, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(sqlite_backup, "LOCK_SECONDS", 0.1)
    url = f"sqlite:///{path}"
    with server_lock.sqlite_server_lock(url), pytest.raises(ConfigError, match="stop the service first"):
        restore_into(path, backup)
    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT * FROM events").fetchone()
        with pytest.raises(ConfigError, match="another process uses"):
            restore_into(path, backup)
    assert count_events(path) == 2
    assert list(path.parent.glob("*.re*")) == []


def test_unusable_backup_leaves_the_database(backup: Path, path: Path, tmp_path: Path) -> None:
    damaged, other, absent = (tmp_path / name for name in ("damaged.db", "other.db", "absent.db"))
    damaged.write_bytes(backup.read_bytes()[:-4096] + b"\xff" * 4096)
    with closing(sqlite3.connect(other)) as conn:
        conn.execute("CREATE TABLE events (id)")
    for file, message in {
        damaged: "damaged",
        other: "other tables",
        absent: "not a file",
        path: "itself",
    }.items():
        with pytest.raises(ConfigError, match=message):
            restore_into(path, file)
    assert (count_events(path), is_paused(path)) == (2, False)
    assert list(tmp_path.glob("bridge.db.re*")) == []


def test_backup_of_an_older_version_is_migrated(path: Path, tmp_path: Path) -> None:
    older = Database(f"sqlite:///{tmp_path}/older.db")
    with older.migration() as conn:
        migrate.run_migrations(conn, "0009")
    older.close()
    restored = restore_into(path, tmp_path / "older.db")
    assert (restored.backup.revision, restored.revision) == ("0009", migrate.newest_revision())
    assert is_paused(path)


def test_backup_of_a_newer_version_is_kept_as_it_is(backup: Path, path: Path) -> None:
    with closing(sqlite3.connect(backup)) as conn:
        conn.execute("UPDATE alembic_version SET version_num = '9999'")
        conn.execute("ALTER TABLE deliveries ADD COLUMN of_a_newer_version TEXT")
        conn.commit()
    assert restore_into(path, backup).revision == "9999"
    assert is_paused(path)


def test_commands_on_postgresql_name_its_tools() -> None:
    settings = Settings.load({"BRIDGE_DATABASE_URL": "postgresql://bridge:secret-password@db/bridge"})
    with pytest.raises(ConfigError, match="pg_restore") as raised:
        restore(settings, Path("dump"), pause=True, actor="ada")
    assert "secret-password" not in str(raised.value)


def test_restored_database_sends_nothing_twice(sqlite_url: str, path: Path, tmp_path: Path) -> None:
    """The drill of tests/faults/test_restore.py without processes: texts before, during and after the backup."""
    clock, file = Clock(), tmp_path / "backup.db"
    database = Database(sqlite_url, clock)
    engine = Engine(database)
    earlier, during, later, new = ({"contactPhone": f"+1212555016{number}"} for number in range(4))
    event = engine.event(metadata=earlier)
    engine.deliver("send", event)
    engine.run_due()
    waiting = engine.deliver("send", engine.event(metadata=during))
    back_up(database, file)
    engine.deliver("send", engine.event(metadata=later))
    engine.run_due()
    assert len(engine.provider.messages) == 3
    database.close()

    restore_into(path, file)
    database = Database(sqlite_url, clock)
    restored = Engine(database)
    restored.run_for(minutes=1)
    assert (restored.provider.messages, restored.show(waiting)["state"]) == ([], "pending")
    cancel(database, "ada", [waiting])  # the operator has seen it at the provider
    assert resume_all(database, "ada")
    repeated = restored.deliver("send", event)
    restored.run_for(minutes=1)
    assert restored.provider.messages == []
    assert restored.show(repeated)["reason"] == "duplicate"
    restored.deliver("send", restored.event(metadata=new))
    restored.run_due()
    assert len(restored.provider.messages) == 1, "new events are delivered again"
    database.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from bridge.cli import restore as commands
from bridge.settings import Settings
from bridge.store import sqlite_backup
from bridge.store.database import Database

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def kill_after(function):
    def called(*arguments, **options):
        function(*arguments, **options)
        kill()
    return called

def run(point):
    sqlite_backup.PAGES_PER_STEP = 20
    match point:
        case "backup" | "copy": sqlite_backup._interruptible = kill
        case "checked": sqlite_backup._publish = kill
        case "published": os.link = kill_after(os.link)
        case "prepared": commands._give_to_owner = kill
        case "locked": os.link = kill
        case "kept": os.link = kill_after(os.link)
        case "renamed": os.rename = kill_after(os.rename)
    path = Path("bridge.db").resolve()
    url = f"sqlite:///{path}"
    if point in ("backup", "checked", "published"):
        sqlite_backup.back_up(Database(url), path.with_name("killed.db"))
    else:
        commands.restore(Settings.load({"BRIDGE_DATABASE_URL": url}), Path("backup.db"), pause=True, actor="ada")

for point in sys.argv[1:]:
    if child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, point
    else:
        os.chdir(point)
        run(point)
        os._exit(0)
"""


def kill_at(points: Iterable[str], folder: Path, *files: Path) -> None:
    """Run a process per point, in a folder of its own with these files, that kills itself there."""
    for point in points:
        (folder / point).mkdir()
        for file in files:
            (folder / point / file.name).write_bytes(file.read_bytes())
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", KILLED, *points], cwd=folder, env=environ, check=True, timeout=60)


def test_backup_killed_at_any_point_leaves_a_whole_file_or_none(
    backup: Path, path: Path, tmp_path: Path
) -> None:
    points = {"backup": False, "checked": False, "published": True}
    kill_at(points, tmp_path, backup, path)
    for point, exists in points.items():
        target = tmp_path / point / "killed.db"
        assert target.exists() == exists
        if not exists:
            database = Database(f"sqlite:///{tmp_path / point}/bridge.db")
            back_up(database, target)  # the next one replaces what is left
            database.close()
            assert list(target.parent.glob("*.partial")) == []
        assert count_events(target) == 2


def test_restore_killed_at_any_point_leaves_the_old_database_or_the_paused_one(
    backup: Path, path: Path, tmp_path: Path
) -> None:
    points = ("copy", "prepared", "locked", "kept", "renamed")
    kill_at(points, tmp_path, backup, path)
    for point in points:
        database = tmp_path / point / "bridge.db"
        state = (count_events(database), is_paused(database))
        assert state == ((1, True) if point == "renamed" else (2, False)), point
        restored = restore_into(database, tmp_path / point / "backup.db")
        assert (count_events(database), is_paused(database)) == (1, True)
        assert list(database.parent.glob("*.restoring*")) == []
        assert restored.replaced is not None
        with closing(sqlite3.connect(restored.replaced)) as conn:
            assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
