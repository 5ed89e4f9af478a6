"""`bridge connectors new`: the files it writes are discovered, pass their tests, and pass ruff and mypy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bridge.connector.discovery import Registry
from bridge.connector.scaffold import new_connector
from bridge.errors import ConfigError

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


NOT_TESTED = {
    "the action takes one delivery at a time",
    "the connector has no opt-out flags",
    "the connector obtains no tokens",
}


def test_new_connectors_are_discovered_and_pass_the_conformance_suite(tmp_path: Path) -> None:
    folder = tmp_path / "connectors"
    new_connector("ticket_desk", folder)
    new_connector("meadow", folder, crm=True)
    registry = Registry([folder])
    assert list(registry.connector("ticket_desk").actions) == ["open_ticket"]
    assert list(registry.connector("meadow").actions) == ["log_call"]
    assert registry.connector("ticket_desk").settings.prefix("ticket_desk") == "TICKET_DESK_"

    options = ("-q", "-W", "error", "-p", "no:cacheprovider", "--junitxml=results.xml")
    result = run("pytest", *options, "connectors/tests", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    skipped: dict[str, set[str]] = {"test_ticket_desk": set(), "test_meadow": set()}
    for case in ElementTree.parse(tmp_path / "results.xml").iter("testcase"):
        name = next(name for name in skipped if name in case.attrib["classname"])
        skipped[name] |= {skip.attrib["message"] for skip in case.iter("skipped")}
    assert skipped == {
        "test_ticket_desk": {*NOT_TESTED, "a second delivery with the same key is a duplicate"},
        "test_meadow": NOT_TESTED,
    }


def test_new_connector_passes_ruff_and_mypy(tmp_path: Path) -> None:
    folder = tmp_path / "connectors"
    written = (*new_connector("zeppelin", folder), *new_connector("zeppelin_crm", folder, crm=True))
    files = [str(path) for path in written]
    config = f"--config={ROOT / 'pyproject.toml'}"
    for command in (("check", "--extend-ignore=D,S101,INP001,I001"), ("format", "--check")):
        result = run("ruff", *command, config, *files, cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
    # As authors do, in a folder outside the checkout: the types of the bridge reach them.
    shared = (f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={ROOT / '.mypy_cache'}")
    result = run("mypy", *shared, *files, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "name", ["", "Tickets", "ticket-desk", "1desk", "../desk", "class", "d" * 41, "dësk"]
)
def test_invalid_name_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="not a valid connector name"):
        new_connector(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    connector, _ = new_connector("desk", tmp_path)
    connector.write_text("mine")
    with pytest.raises(ConfigError, match="already exists"):
        new_connector("desk", tmp_path)
    assert connector.read_text() == "mine"
    (tmp_path / "helpdesk").mkdir()
    with pytest.raises(ConfigError, match=r"helpdesk already exists"):
        new_connector("helpdesk", tmp_path)


@pytest.mark.parametrize("name", ["slack", "hubspot"])
def test_name_of_a_shipped_connector_is_rejected(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"shipped connector named `{name}`"):
        new_connector(name, tmp_path)


def test_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "connectors").write_text("a file")
    with pytest.raises(ConfigError, match="cannot write"):
        new_connector("desk", tmp_path / "connectors")
