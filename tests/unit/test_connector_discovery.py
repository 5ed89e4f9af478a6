"""Discovery of connectors: files and folders, in the shipped folder and next to rules.yaml."""

from __future__ import annotations

import ast
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from bridge.connector.action_name import ActionName
from bridge.connector.discovery import Registry, shipped_folder, sources_in
from bridge.errors import ConfigError

ROOT = Path(__file__).parents[2]
AUTHOR_API = ("bridge.connector", "bridge.errors")
SDKS = {"bridge.heppu_api": "heppu.py"}
"""The client that the bridge has for Heppu -> the connector that uses it."""
INIT = """
\"\"\"Help desk connector.\"\"\"

from . import tickets
from .settings import connector
"""
SETTINGS = """
from bridge.connector import Connector, ConnectorSettings

connector = Connector("desk", settings=ConnectorSettings)
"""
TICKETS = """
from bridge.connector import Context, Params, Success, per_event

from .settings import connector


class Ticket(Params):
    pass


@connector.action(idempotency=per_event)
def {action}(client, ticket: Ticket, context: Context) -> Success:
    \"\"\"Open a ticket.\"\"\"
    return Success()
"""


def write_folder_connector(folder: Path, action: str = "open_ticket") -> Path:
    path = folder / "desk"
    path.mkdir(parents=True)
    (path / "__init__.py").write_text(INIT)
    (path / "settings.py").write_text(SETTINGS)
    (path / "tickets.py").write_text(TICKETS.format(action=action))
    return path


def test_folder_is_discovered_like_a_file(tmp_path: Path) -> None:
    path = write_folder_connector(tmp_path)
    registry = Registry([tmp_path])
    assert "desk" in registry.names()
    assert registry.origin("desk") == str(path)
    assert list(registry.connector("desk").actions) == ["open_ticket"]


def test_folder_without_init_and_tests_are_not_connectors(tmp_path: Path) -> None:
    for name in ("data", "tests", "_shared"):
        (tmp_path / name).mkdir()
    (tmp_path / "tests" / "__init__.py").touch()
    (tmp_path / "_shared" / "__init__.py").touch()
    (tmp_path / "notes.txt").touch()
    assert list(sources_in(tmp_path)) == []


def test_folder_and_file_of_one_name_are_an_error(tmp_path: Path) -> None:
    write_folder_connector(tmp_path)
    (tmp_path / "desk.py").write_text(SETTINGS)
    with pytest.raises(ConfigError, match="two connectors are named `desk`"):
        Registry([tmp_path])


def test_folders_of_one_name_do_not_share_modules(tmp_path: Path) -> None:
    actions = []
    for folder, action in (("first", "open_ticket"), ("second", "close_ticket")):
        write_folder_connector(tmp_path / folder, action)
        actions += Registry([tmp_path / folder]).connector("desk").actions
    assert actions == ["open_ticket", "close_ticket"]


def test_failed_import_leaves_no_modules(tmp_path: Path) -> None:
    path = write_folder_connector(tmp_path)
    (path / "tickets.py").write_text("raise RuntimeError('broken')")
    with pytest.raises(ConfigError, match="desk cannot be imported: RuntimeError: broken"):
        Registry([tmp_path]).connector("desk")
    assert [name for name in sys.modules if name.startswith("bridge_connectors.desk")] == []
    (path / "tickets.py").write_text(TICKETS.format(action="reopen_ticket"))
    assert list(Registry([tmp_path]).connector("desk").actions) == ["reopen_ticket"]


def test_packages_in_pyproject_include_every_shipped_folder() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package, folder in setuptools["package-dir"].items():
        existing = {
            ".".join((package, *path.parent.relative_to(ROOT / folder).parts))
            for path in (ROOT / folder).rglob("__init__.py")
        }
        listed = {name for name in setuptools["packages"] if name.split(".")[0] == package}
        assert existing == listed


def imported_modules(path: Path) -> list[str]:
    """Return the modules that a file imports, relative ones with their leading dots."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append("." * node.level + (node.module or ""))
    return names


def test_shipped_connector_imports_only_the_author_api_and_its_own_folder() -> None:
    for path in shipped_folder().rglob("*.py"):
        is_in_folder = path.parent != shipped_folder()
        for name in imported_modules(path):
            if name.startswith("."):
                assert is_in_folder, (path, name)
                assert not name.startswith(".."), (path, name)
            else:
                assert name.split(".")[0] not in ("connectors", "bridge_connectors"), (path, name)
                assert name.split(".")[0] != "bridge" or name in AUTHOR_API or path.name == SDKS.get(name), (
                    path,
                    name,
                )


def test_only_action_name_splits_the_name_of_an_action() -> None:
    splitting = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "bridge").rglob("*.py"))
        if '.partition(".")' in path.read_text("utf-8")
    ]
    assert splitting == ["bridge/connector/action_name.py"]


def test_action_name_for_display_shows_another_connection() -> None:
    name = ActionName.parse("twilio.send_sms")
    assert name == ActionName("twilio", "send_sms")
    assert name.with_connection("twilio") == str(name) == "twilio.send_sms"
    assert name.with_connection("twilio_eu") == "twilio.send_sms (twilio_eu)"


@pytest.mark.parametrize("folder", ["hubspot", "pipedrive", "salesforce"])
def test_modules_of_a_folder_import_each_other_in_one_direction(folder: str) -> None:
    imports = {
        path.stem: {name[1:] for name in imported_modules(path) if name.startswith(".")}
        for path in (shipped_folder() / folder).glob("*.py")
    }
    order = list(TopologicalSorter(imports).static_order())  # raises CycleError
    assert order[-1] == "__init__"
