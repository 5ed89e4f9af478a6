"""The documentation names only what exists: commands, options, variables, metrics, make targets, files and rules."""

from __future__ import annotations

import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from bridge.cli.program import app
from bridge.cli.worker_supervisor import KILL_AFTER
from bridge.connector.discovery import Registry
from bridge.lifecycle import ALLOWED, DeliveryState
from bridge.rules.load import load
from bridge.settings import Settings

ROOT = Path(__file__).parents[2]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
PAGES = {
    name: (ROOT / name).read_text("utf-8")
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md")),
        *(str(path.relative_to(ROOT)) for path in DECISIONS),
    )
}
OPERATIONS = PAGES["docs/operations.md"]
DOTENV = (ROOT / ".env.example").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def _commands() -> list[tuple[str, str]]:
    """Return every `bridge ...` command of the pages: lines of console blocks, and inline code."""
    commands = []
    for page, text in PAGES.items():
        lines = [
            line[2:] for block in _blocks(text, "console") for line in block.splitlines() if line[:2] == "$ "
        ]
        lines += re.findall(r"`(bridge [^`]+)`", _without_blocks(text))
        commands += [(page, line) for line in lines if line.startswith("bridge ")]
    return commands


@cache
def _root_command() -> Any:
    """Return the command `bridge`. Building all its commands takes 30 ms."""
    return typer.main.get_command(app)


def _resolve(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that the words name, and the remaining words."""
    command = _root_command()
    while getattr(command, "commands", None) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    return command, words


def test_commands_in_docs_exist_with_their_options() -> None:
    for page, line in _commands():
        command, arguments = _resolve(shlex.split(line.partition(" > ")[0])[1:])
        options = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
        assert command.name != "bridge" or line == "bridge --version", f"{page}: no such command: {line}"
        unknown = [word for word in arguments if word.startswith("-") and word not in options]
        assert not unknown, f"{page}: `{line}` has no option {unknown}"


def test_docs_contain_enough_commands() -> None:
    assert len(_commands()) > 30
    assert {page for page, _ in _commands()} >= {"README.md", "docs/getting-started.md", "docs/operations.md"}


def _known_variables() -> set[str]:
    registry = Registry()
    known = {*Settings.variables("")}
    for name in registry.names():
        connector = registry.connector(name)
        known |= {*connector.settings.variables(connector.settings.prefix(name))}
    return known


def _is_of_second_connection(name: str, known: set[str]) -> bool:
    """Whether the name is TWILIO_EU_ACCOUNT_SID for the connector's TWILIO_ACCOUNT_SID."""
    connector = name.partition("_")[0] + "_"
    return connector not in ("BRIDGE_", "HEPPU_") and any(
        name.endswith("_" + setting.removeprefix(connector))
        for setting in known
        if setting.startswith(connector)
    )


def test_variable_in_docs_is_a_setting() -> None:
    known = _known_variables()
    pattern = r"\b(?:HEPPU|BRIDGE|HUBSPOT|SALESFORCE|TWILIO|EMAIL|SLACK|HTTP)_[A-Z][A-Z_]+[A-Z]\b"
    placeholders = {
        "TWILIO_EU",
        "EMAIL_CHANNELS",
    }  # the beginning of a variable, and a name of the connector SDK
    for page, text in {**PAGES, ".env.example": DOTENV}.items():
        unknown = {
            name
            for name in set(re.findall(pattern, text)) - known - placeholders
            if not _is_of_second_connection(name, known) and not name.startswith("HTTP_TARGETS_")
        }
        assert not unknown, f"{page}: {unknown}"


def test_example_environment_has_every_setting_of_the_bridge() -> None:
    for field in Settings.model_fields:
        variable = Settings.variable("", field)
        assert re.search(rf"^#?{variable}=", DOTENV, re.MULTILINE), variable


def test_operations_page_has_every_setting_of_the_bridge() -> None:
    table = OPERATIONS.partition("## Settings")[2].partition("\n## ")[0]
    for field in Settings.model_fields:
        assert f"`{Settings.variable('', field)}`" in table


def test_example_environment_loads_unchanged() -> None:
    lines = [line for line in DOTENV.splitlines() if line and not line.startswith("#")]
    settings = Settings.load(dict(line.split("=", 1) for line in lines))
    assert settings.bridge_database_url == "sqlite:///bridge.db"


@pytest.mark.parametrize("page", ["README.md", "docs/email.md", "docs/getting-started.md", "docs/hubspot.md"])
def test_rules_in_docs_load_without_diagnostics(page: str) -> None:
    blocks = _blocks(PAGES[page], "yaml")
    assert blocks
    for block in blocks:
        loaded = load(block, path=page, registry=Registry())
        assert loaded.rules is not None
        assert loaded.diagnostics == ()


def test_make_target_in_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    for page, text in PAGES.items():
        named = set(re.findall(r"(?:`|^\$ )make ([a-z-]+)", text, re.MULTILINE))
        assert named <= targets, f"{page}: {named - targets}"


def test_make_help_lists_every_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    assert set(re.findall(r'echo "make ([a-z-]+) ', MAKEFILE)) == targets - {"help"}


def test_file_in_docs_exists() -> None:
    """Inline code that starts with a directory of the repository is a path, except a connector of the reader's own."""
    for page, text in PAGES.items():
        folders = "bridge|bench|deploy|docs|tests" + (
            "" if page.startswith("docs/connector") else "|connectors"
        )
        for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", _without_blocks(text)):
            assert (ROOT / path).exists(), f"{page}: {path}"


def test_metric_in_docs_is_exported() -> None:
    from bridge.telemetry.metrics import Metrics

    metrics = Metrics()
    groups = (metrics.process, metrics.web, metrics.worker, metrics.database)
    names = {family.name for group in groups for metric in group.metrics() for family in metric.describe()}
    for page, text in PAGES.items():
        for name in re.findall(r"`(bridge_(?!worker_process_|connectors)[a-z_]+)", text):
            assert name.removesuffix("_total") in names, f"{page}: {name}"


def test_fault_in_docs_is_accepted_by_the_sandbox() -> None:
    from bridge.sandbox.faults import Fault

    faults = re.findall(r"/_sandbox/faults -d '(.+?)'", OPERATIONS)
    assert faults
    for fault in faults:
        Fault.model_validate_json(fault)


def test_stop_timeouts_in_docs_exceed_the_stop() -> None:
    timeouts = re.findall(
        r"(?:stop_grace_period: |terminationGracePeriodSeconds: |docker stop -t )(\d+)", OPERATIONS
    )
    assert len(timeouts) == 3
    assert min(map(int, timeouts)) > KILL_AFTER


def test_repository_names_no_package_index() -> None:
    for name in ("Makefile", "README.md", "CONTRIBUTING.md", "Dockerfile", ".ci/run", "pyproject.toml"):
        text = (ROOT / name).read_text("utf-8")
        assert "index-url" not in text
        assert "pypi.org" not in text


def test_state_diagram_has_exactly_the_allowed_transitions() -> None:
    drawn = re.findall(r"^    (\S+) --> (\w+): ", _states_section(), re.MULTILINE)
    allowed = [(str(state or "[*]"), str(after)) for state, states in ALLOWED.items() for after in states]
    assert sorted(drawn) == sorted(allowed)
    assert set(ALLOWED) == {None, *DeliveryState}


def test_state_table_has_every_state() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", _states_section(), re.MULTILINE)) == set(DeliveryState)


def _states_section() -> str:
    return PAGES["docs/design.md"].partition("## Delivery states")[2].partition("\n## ")[0]


def test_decision_records_are_complete_and_indexed() -> None:
    for path in DECISIONS:
        record = path.read_text("utf-8")
        title = re.fullmatch(rf"# {path.stem[:4]} (.+)", record.splitlines()[0])
        date = re.search(r"^Date: (\d{4}-\d\d-\d\d)", record, re.MULTILINE)
        assert title, path.name
        assert date, path.name
        assert re.findall(r"^## (.+)", record, re.MULTILINE) == ["Context", "Decision", "Consequence"], (
            path.name
        )
        index = (path.parent / "README.md").read_text("utf-8")
        row = rf"^\| \[{path.stem[:4]}\]\({path.name}\) \| {title[1]} \| .+ \| {date[1]} \|$"
        assert re.search(row, index, re.M), path.name


def test_decision_records_are_numbered_without_gaps() -> None:
    assert [int(path.stem[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_pre_commit_hooks_run_what_make_check_runs_except_the_audit() -> None:
    recipe = re.search(r"^check: .*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe
    commands = [line.removeprefix("\t@").replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert commands.pop() == ".venv/bin/python .ci/audit.py --allow-offline"  # it needs the network
    assert [hook["entry"] for hook in hooks] == commands
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in hooks)


def test_workflow_runs_ci_on_the_oldest_supported_python() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    job = workflow["jobs"]["checks"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == f">={min(job['strategy']['matrix']['python'])}"
    assert {"run": ".ci/run"} in job["steps"]
