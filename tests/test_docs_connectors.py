"""The guides for connector authors, executed: the connectors that they build can be imported, and their tests pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import bridge.connector
import bridge.errors
import bridge.testing
from bridge.connector.discovery import Registry
from bridge.connector.scaffold import new_connector
from bridge.rules.load import load_or_raise
from bridge.testing import Reply, StubServer, connect, load_connector, run_action
from bridge.testing.suite_base import SuiteBase
from tests.acceptance.service_process import clean_environment, run_command

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "connectors.md").read_text("utf-8")
CRM_PAGE = (ROOT / "docs" / "connectors-crm.md").read_text("utf-8")
TESTING_PAGE = (ROOT / "docs" / "connector-testing.md").read_text("utf-8")
HEADINGS = re.findall(r"^## (.+)$", PAGE, flags=re.MULTILINE)
SECTIONS = dict(zip(HEADINGS, re.split(r"^## .+$", PAGE, flags=re.MULTILINE)[1:], strict=True))
KNOWN_ELSEWHERE = {
    "Literal",
    "SecretStr",
    "ProxyManager",
    "RecordExistsError",
    "None",
    "Link",
    "False",
    "True",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file that it belongs to, its text."""

    language: str
    file: str
    text: str


def blocks(text: str) -> list[Block]:
    fences = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in fences]


def write(folder: Path, last_heading: str) -> None:
    """Write the files as they are after a section. Blocks of one file are concatenated."""
    contents: dict[str, str] = {}
    for heading in HEADINGS[: HEADINGS.index(last_heading) + 1]:
        for block in blocks(SECTIONS[heading]):
            if block.file:
                contents[block.file] = contents.get(block.file, "") + block.text
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")


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


def bridge_command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return run_command(folder, clean_environment(), *arguments)


@pytest.mark.parametrize("heading", HEADINGS[HEADINGS.index("Settings") :])
def test_section_leaves_a_connector_that_can_be_imported(heading: str, tmp_path: Path) -> None:
    write(tmp_path, heading)
    lantern = load_connector("lantern", tmp_path / "connectors")
    complete = HEADINGS[: HEADINGS.index(heading) + 1]
    assert list(lantern.actions) == (["open_ticket"] if "Actions" in complete else [])


def test_connectors_pass_mypy_and_ruff(tmp_path: Path) -> None:
    write(tmp_path, HEADINGS[-1])
    extended, _ = extended_scaffold(tmp_path)
    config = str(ROOT / "pyproject.toml")
    path = str(tmp_path / "connectors" / "lantern.py")
    for command in (
        ("mypy", "--config-file", config, path, str(extended)),
        ("ruff", "check", "--config", config, "--extend-ignore=I001,INP001,ARG001", path),
        ("ruff", "format", "--check", "--config", config, path),
    ):
        result = python("-m", *command, folder=ROOT)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("page", "name"), [(SECTIONS["Quick start"], "lantern_desk"), (CRM_PAGE, "meadow")])
def test_quick_start_commands_succeed(page: str, name: str, tmp_path: Path) -> None:
    [commands] = [block.text for block in blocks(page) if block.language == "console"]
    for command in commands.splitlines():
        program, *arguments = command.split()
        if program == "pytest":  # test_connector_scaffold.py runs these tests
            assert arguments == ["connectors/tests"]
            continue
        result = bridge_command(*arguments, folder=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "connectors" / f"{name}.py").exists()
    assert (tmp_path / "connectors" / "tests" / f"test_{name}.py").exists()


def extended_scaffold(folder: Path) -> tuple[Path, str]:
    """Write the connector that the page about CRMs builds. Return its path, and the scaffold that it began with."""
    connector, _ = new_connector("meadow", folder / "connectors", crm=True)
    scaffold = connector.read_text("utf-8")
    extension = "".join(block.text for block in blocks(CRM_PAGE) if block.file == "connectors/meadow.py")
    connector.write_text(f"{scaffold}\n\n{extension}", "utf-8")
    return connector, scaffold


def test_crm_page_explains_the_scaffold_and_extends_it(tmp_path: Path) -> None:
    _, scaffold = extended_scaffold(tmp_path)
    explained = [block.text for block in blocks(CRM_PAGE) if block.file == "scaffold"]
    assert [text for text in explained if text not in scaffold] == []
    meadow = load_connector("meadow", tmp_path / "connectors")
    assert list(meadow.actions) == ["log_call", "log_chat", "upsert_contact"]


def test_flags_of_the_crm_page_are_those_of_the_contacts(tmp_path: Path) -> None:
    extended_scaffold(tmp_path)
    contacts = [
        {"id": 1, "email": "maya@example.com", "no_calls": True},
        {"id": 2, "email": "ines@example.com"},
    ]
    with StubServer() as server:
        server.answer("GET", "/contacts", Reply(200, {"contacts": contacts}))
        for contact in contacts:
            server.answer("GET", f"/contacts/{contact['id']}", Reply(200, contact))
        meadow = load_connector("meadow", tmp_path / "connectors")
        with connect(meadow, {"MEADOW_URL": server.url, "MEADOW_TOKEN": "t"}) as connected:
            flags = connected.opt_out_flags(["maya@example.com", "ines@example.com"], [])
    assert {address: [flag.field for flag in found] for address, found in flags.items()} == {
        "maya@example.com": ["no_calls"]
    }


def test_single_attempt_prints_the_documented_output(tmp_path: Path) -> None:
    write(tmp_path, "Usage")
    [expected] = [block.text for block in blocks(SECTIONS["Usage"]) if block.language == "text"]
    result = python("try.py", folder=tmp_path)
    assert (result.returncode, result.stdout) == (0, expected), result.stderr


def test_rule_loads_without_a_warning(tmp_path: Path) -> None:
    write(tmp_path, "Usage")
    registry = Registry([tmp_path / "connectors"])
    rules = load_or_raise((tmp_path / "rules.yaml").read_text(), path="rules.yaml", registry=registry)
    assert [step.use for step in rules.rules[0].do] == ["lantern.open_ticket"]


def test_command_line_shows_and_checks_the_connector(tmp_path: Path) -> None:
    write(tmp_path, "Callbacks")
    show = bridge_command("connectors", "show", "lantern", folder=tmp_path)
    assert show.returncode == 0, show.stderr
    for word in ("LANTERN_TOKEN", "open_ticket", "Open a ticket.", "A call failed"):
        assert word in show.stdout
    (tmp_path / ".env").write_text("LANTERN_TOKEN=t\n")
    check = bridge_command("check", folder=tmp_path)
    assert check.returncode == 0, check.stdout + check.stderr
    explain = bridge_command("explain", "call.failed", folder=tmp_path)
    assert explain.returncode == 0, explain.stderr
    assert "lantern.open_ticket" in explain.stdout


def test_documented_commands_exist() -> None:
    import typer

    from bridge.cli.program import app

    root = typer.main.get_command(app)
    for words in set(re.findall(r"`bridge ((?:[a-z]+ ?)+)", PAGE + CRM_PAGE + TESTING_PAGE)):
        command = root
        for word in words.split():
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, f"bridge {words}"
            command = command.commands[word]


def test_documented_tests_pass(tmp_path: Path) -> None:
    write(tmp_path, "Callbacks")  # the last section with tests
    extended_scaffold(tmp_path)
    # test_connector_scaffold.py runs the tests of the scaffold that the page about CRMs does not extend.
    selected = ("-k", "test_lantern or log_chat or upsert_contact or opt_out")
    options = ("-q", "-W", "error", "-p", "no:cacheprovider", *selected)
    result = python("-m", "pytest", *options, "connectors/tests", folder=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_folder_is_discovered_like_a_file(tmp_path: Path) -> None:
    write(tmp_path, "Several files")
    shown = bridge_command("connectors", "show", "harbor.open_ticket", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert str(tmp_path / "connectors" / "harbor") in shown.stdout
    with StubServer() as server:
        server.answer("POST", "/tickets", Reply(201, {"id": 17}))
        result = run_action(
            load_connector("harbor", tmp_path / "connectors"),
            "open_ticket",
            {"subject": "A call failed"},
            environ={"HARBOR_URL": server.url, "HARBOR_TOKEN": "t"},
        )
    assert result.id == "17"


def test_documented_entry_point_is_that_of_the_example() -> None:
    [block] = [
        block for block in blocks(SECTIONS["Publishing your connector"]) if block.file == "pyproject.toml"
    ]
    example = ROOT / "examples" / "heppu-bridge-lighthouse" / "pyproject.toml"  # test_wheel.py installs it
    assert block.text in example.read_text("utf-8")


def test_names_of_the_guides_exist() -> None:
    """A name in code that looks like a class or a constant is one of the API."""
    known = {*bridge.connector.__all__, *bridge.testing.__all__, *vars(bridge.errors), *KNOWN_ELSEWHERE}
    for page in (PAGE, CRM_PAGE, TESTING_PAGE):
        prose = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
        names = set(re.findall(r"`([A-Z][A-Za-z]+)`", prose)) - known
        assert names == set()


def test_every_hook_of_the_suite_is_described() -> None:
    hooks = {name for name, value in vars(SuiteBase).items() if callable(value) and not name.startswith("_")}
    rows = re.findall(r"^\| `(\w+)\(.*?` \|", TESTING_PAGE, flags=re.MULTILINE)
    assert hooks == set(rows)


def test_messages_of_the_testing_page_are_those_of_the_suite() -> None:
    sources = [path.read_text("utf-8") for path in (ROOT / "bridge" / "testing").glob("*.py")]
    suite = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources))  # a message of several lines
    table = TESTING_PAGE.split("| The message | The usual cause |")[1].partition("\n\n")[0]
    quoted = [text for row in table.splitlines() for text in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    parts = [part.strip() for text in quoted for part in re.split(r"\.\.\.|\d+ ?|TransientError", text)]
    assert len(parts) > 10
    assert [part for part in parts if part not in suite] == []


def test_testing_page_lists_exactly_the_exported_tools() -> None:
    tools = TESTING_PAGE.split("| Tool | Purpose |")[1].partition("\n\n")[0]
    documented = set(re.findall(r"`(\w+)`", tools))
    assert set(bridge.testing.__all__) - {"Connected", "RunningSandbox"} == documented - {"find"}


def test_every_error_is_documented() -> None:
    errors = {
        name
        for name, kind in vars(bridge.errors).items()
        if isinstance(kind, type)
        and issubclass(kind, bridge.errors.DeliveryError)
        and name != "DeliveryError"
    }
    assert errors == set(re.findall(r"^\| `(\w+)` \|", SECTIONS["Errors"], flags=re.MULTILINE))
