"""File permissions: secrets that other users can read, and connectors that they can write."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.cli.bootstrap import registry_for
from bridge.cli.file_permissions import exposed_secrets, group_writable_connectors, require_safe_connectors
from bridge.errors import ConfigError
from bridge.settings import Settings

CONNECTOR = """
from bridge.connector import Connector

connector = Connector("desk_of_ours", description="Ours.")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of connectors with safe permissions."""
    folder = tmp_path / "config" / "connectors"
    (folder / "crm").mkdir(parents=True)
    (folder / "desk_of_ours.py").write_text(CONNECTOR)
    (folder / "crm" / "__init__.py").write_text("")
    for path in (folder.parent, folder, folder / "crm"):
        path.chmod(0o755)
    for path in folder.rglob("*.py"):
        path.chmod(0o644)
    return folder


def test_safe_connectors_are_accepted(folder: Path) -> None:
    require_safe_connectors(folder)
    assert group_writable_connectors(folder) == []


@pytest.mark.parametrize("name", ["..", ".", "desk_of_ours.py", "crm", "crm/__init__.py"])
def test_connectors_that_every_user_can_write_are_refused(folder: Path, name: str) -> None:
    path = folder / name if name != ".." else folder.parent
    path.chmod(path.stat().st_mode | 0o002)
    with pytest.raises(ConfigError, match=r"every user of this machine can write to .* chmod o-w "):
        registry_for(folder.parent / "rules.yaml", Settings.load({}))


def test_folder_in_a_temporary_folder_is_accepted(folder: Path) -> None:
    folder.parent.chmod(0o1777)
    require_safe_connectors(folder)


@pytest.mark.parametrize("name", [".", "desk_of_ours.py", "crm"])
def test_connectors_that_the_group_can_write_are_reported(folder: Path, name: str) -> None:
    path = folder / name
    path.chmod(path.stat().st_mode | 0o020)
    require_safe_connectors(folder)
    [warning] = group_writable_connectors(folder)
    assert f"chmod g-w {path}" in warning


def test_connectors_can_be_in_a_folder_of_their_own(folder: Path, tmp_path: Path) -> None:
    settings = Settings.load({"BRIDGE_CONNECTORS_DIR": str(folder)})
    assert "desk_of_ours" in registry_for(tmp_path / "data" / "rules.yaml", settings).names()
    with pytest.raises(ConfigError, match="BRIDGE_CONNECTORS_DIR: is not a folder"):
        Settings.load({"BRIDGE_CONNECTORS_DIR": str(folder / "missing")})


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (0o600, ""),
        (0o400, ""),
        (0o640, "can read"),
        (0o644, "can read"),
        (0o620, "can write"),
        (0o602, "can write"),
    ],
)
def test_secrets_that_other_users_can_read_or_write_are_reported(
    tmp_path: Path, mode: int, expected: str
) -> None:
    path = tmp_path / ".env"
    path.write_text("")
    path.chmod(mode)
    warnings = exposed_secrets([path, tmp_path / "missing"])
    assert len(warnings) == bool(expected)
    assert all(expected in warning and f"chmod 600 {path}" in warning for warning in warnings)
