"""docs/connectors.md, run: every step leaves a connector that works, and the last one a test that passes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import bridge.connector
from bridge.connector.discovery import Registry
from bridge.rules.load import load_or_raise
from bridge.testing import load_connector

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "connectors.md").read_text("utf-8")
STEPS = re.split(r"^## ", PAGE, flags=re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it belongs to, its text."""

    language: str
    file: str
    text: str


def blocks(text: str) -> list[Block]:
    found = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in found]


def write(folder: Path, upto: int) -> None:
    """The files as they are after a step: blocks of one file follow each other."""
    texts: dict[str, str] = {}
    for block in blocks("## ".join(STEPS[: upto + 1])):
        if block.file:
            texts[block.file] = texts.get(block.file, "") + block.text
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def numbered() -> list[int]:
    return [number for number, step in enumerate(STEPS) if re.match(r"\d+\. ", step)]


@pytest.mark.parametrize("step", numbered(), ids=lambda number: STEPS[number].split("\n")[0])
def test_every_step_leaves_a_connector_that_can_be_imported(step: int, tmp_path: Path) -> None:
    write(tmp_path, step)
    lantern = load_connector("lantern", tmp_path / "connectors")
    assert list(lantern.actions) == ["open_ticket", "tag_person"][: 2 if step >= 7 else step >= 4]


def test_the_connector_of_the_page_passes_mypy_and_ruff(tmp_path: Path) -> None:
    write(tmp_path, len(STEPS))
    config = str(ROOT / "pyproject.toml")
    path = str(tmp_path / "connectors" / "lantern.py")
    for command in (
        ("mypy", "--config-file", config, path),
        ("ruff", "check", "--config", config, "--extend-ignore=I001,INP001,ARG001", path),
        ("ruff", "format", "--check", "--config", config, path),
    ):
        result = python("-m", *command, folder=ROOT)
        assert result.returncode == 0, result.stdout + result.stderr


def test_the_attempt_of_step_5_prints_what_the_page_says(tmp_path: Path) -> None:
    write(tmp_path, 5)
    [expected] = [block.text for block in blocks(STEPS[5]) if block.language == "text"]
    result = python("try.py", folder=tmp_path)
    assert (result.returncode, result.stdout) == (0, expected), result.stderr


def test_the_rule_of_step_5_loads_without_a_warning(tmp_path: Path) -> None:
    write(tmp_path, 5)
    registry = Registry([tmp_path / "connectors"])
    rules = load_or_raise((tmp_path / "rules.yaml").read_text(), path="rules.yaml", registry=registry)
    assert [step.use for step in rules.rules[0].do] == ["lantern.open_ticket"]


def bridge_command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return python("-c", "from bridge.cli import main; main()", *arguments, folder=folder)


def test_the_command_of_the_introduction_writes_what_the_page_says(tmp_path: Path) -> None:
    [command] = [block.text for block in blocks(STEPS[0]) if block.language == "console"]
    result = bridge_command(*command.split()[1:], folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "connectors" / "lantern_desk.py").exists()
    assert (tmp_path / "connectors" / "tests" / "test_lantern_desk.py").exists()


def test_the_command_line_knows_the_connector_of_the_page(tmp_path: Path) -> None:
    write(tmp_path, 8)
    shown = bridge_command("connectors", "show", "lantern", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    for word in ("LANTERN_TOKEN", "open_ticket", "Open a ticket.", "A call failed"):
        assert word in shown.stdout
    (tmp_path / ".env").write_text("LANTERN_TOKEN=t\n")
    checked = bridge_command("check", folder=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    explained = bridge_command("explain", "call.failed", folder=tmp_path)
    assert explained.returncode == 0, explained.stderr
    assert "lantern.open_ticket" in explained.stdout


def test_every_command_that_the_page_names_exists() -> None:
    import typer

    from bridge.cli import app

    known = typer.main.get_command(app)
    for words in set(re.findall(r"`bridge ((?:[a-z]+ ?)+)", PAGE)):
        command = known
        for word in words.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, f"bridge {words}"
            command = command.commands[word]


def test_the_test_of_step_9_passes(tmp_path: Path) -> None:
    write(tmp_path, 9)
    result = python(
        "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "connectors/tests", folder=tmp_path
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_package_of_step_10_is_found_by_its_entry_point(tmp_path: Path) -> None:
    write(tmp_path, 10)
    site = tmp_path / "site"
    info = site / "bridge_lantern-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "connectors" / "lantern.py").rename(site / "bridge_lantern.py")
    declared = (tmp_path / "pyproject.toml").read_text()
    group, entry = re.findall(r'entry-points\."(.+)"\]\n(.+)', declared)[0]
    name, target = re.findall(r'(\w+) = "(.+)"', entry)[0]
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bridge-lantern\nVersion: 1.0\n")
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from bridge.connector.discovery import Registry\n"
        "found = Registry()\n"
        "print(found.connector('lantern').description, found.origin('lantern'), sep='|')"
    )
    result = python("-c", code, folder=tmp_path)
    assert result.stdout.strip() == "Opens tickets in Lantern and tags people there.|bridge-lantern", (
        result.stderr
    )


def test_the_reference_names_exactly_what_is_exported() -> None:
    named = set(re.findall(r"`(\w+)`", STEPS[-1]))
    assert set(bridge.connector.__all__) <= named
    assert {name for name in named if name[0].isupper()} <= set(bridge.connector.__all__) | {"E164"}


def test_every_failure_is_in_the_table() -> None:
    import bridge.errors

    failures = {
        name
        for name, kind in vars(bridge.errors).items()
        if isinstance(kind, type)
        and issubclass(kind, bridge.errors.DeliveryError)
        and name != "DeliveryError"
    }
    assert failures == set(re.findall(r"^\| `(\w+)` \|", STEPS[3], flags=re.MULTILINE))
