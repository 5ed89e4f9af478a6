"""README and docs/operations.md say only what is true: every command, variable, target and rule in them is tried."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from bridge.cli import app
from bridge.cli.worker_supervisor import KILL_AFTER
from bridge.connector.discovery import Registry
from bridge.rules.load import load
from bridge.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
OPERATING = (ROOT / "docs" / "operations.md").read_text("utf-8")
DOTENV = (ROOT / ".env.example").read_text("utf-8")
PAGES = {"README.md": README, "docs/operations.md": OPERATING}


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def _commands() -> list[tuple[str, str]]:
    """Every `bridge ...` in the pages: lines of console blocks, and what stands in backticks."""
    found = []
    for page, text in PAGES.items():
        lines = [
            line[2:] for block in _blocks(text, "console") for line in block.splitlines() if line[:2] == "$ "
        ]
        lines += re.findall(
            r"`(bridge [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        )
        found += [(page, line) for line in lines if line.startswith("bridge ")]
    return found


def _resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The command that the words name, and what is left of them."""
    command: Any = typer.main.get_command(app)
    while getattr(command, "commands", None) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
    return command, words


@pytest.mark.parametrize(("page", "line"), _commands())
def test_every_command_in_the_docs_exists_with_its_options(page: str, line: str) -> None:
    words = shlex.split(line)[1:]
    command, rest = _resolve(words)
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    assert command.name != "bridge" or line == "bridge --version", f"{page}: no such command: {line}"
    unknown = [word for word in rest if word.startswith("-") and word not in known]
    assert not unknown, f"{page}: `{line}` has no option {unknown}"


def test_the_docs_name_enough_commands_to_test() -> None:
    assert len(_commands()) > 30


def _known_variables() -> set[str]:
    registry = Registry()
    known = {Settings.variable("", field) for field in Settings.model_fields}
    for name in registry.names():
        connector = registry.connector(name)
        prefix = connector.settings.prefix(name)
        known |= {connector.settings.variable(prefix, field) for field in connector.settings.model_fields}
    return known


def test_every_variable_in_the_docs_is_read_by_something() -> None:
    known = _known_variables()
    pattern = r"\b(?:HEPPU|BRIDGE|HUBSPOT|SALESFORCE|TWILIO|EMAIL|SLACK|HTTP)_[A-Z][A-Z_]+\b"
    for page, text in {**PAGES, ".env.example": DOTENV}.items():
        named = set(re.findall(pattern, text)) - {"TWILIO_EU_ACCOUNT_SID"}
        assert named <= known, f"{page}: {named - known}"


def test_the_example_environment_has_every_setting_of_the_bridge() -> None:
    for field in Settings.model_fields:
        variable = Settings.variable("", field)
        assert re.search(rf"^#?{variable}=", DOTENV, re.MULTILINE), variable


def test_the_example_environment_can_be_loaded_as_it_is() -> None:
    lines = [line for line in DOTENV.splitlines() if line and not line.startswith("#")]
    settings = Settings.load(dict(line.split("=", 1) for line in lines))
    assert settings.bridge_database_url == "sqlite:///bridge.db"


def test_the_rules_in_the_readme_load_without_a_remark() -> None:
    blocks = _blocks(README, "yaml")
    assert blocks
    for block in blocks:
        loaded = load(block, path="README.md", registry=Registry())
        assert loaded.rules is not None
        assert loaded.problems == ()


def test_every_make_target_in_the_docs_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for text in PAGES.values():
        assert set(re.findall(r"(?:`|^\$ )make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_every_link_leads_somewhere() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            if not target.startswith("http"):
                assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_the_metrics_in_the_docs_are_measured() -> None:
    from prometheus_client import generate_latest

    from bridge.telemetry import Metrics

    metrics = Metrics()
    metrics.registry.register(metrics.worker_up)  # as where there is a worker
    measured = (generate_latest(metrics.registry) + generate_latest(metrics.stored)).decode()
    for name in re.findall(r"`(bridge_[a-z_]+)", OPERATING):
        assert re.search(rf"^# TYPE {name}", measured, re.MULTILINE), name


def test_who_ends_the_service_gives_it_longer_than_a_stop_takes() -> None:
    compose = (ROOT / "compose.yaml").read_text("utf-8")
    given = re.findall(r"^ *stop_grace_period: (\d+)s$", compose, re.MULTILINE)
    given += re.findall(
        r"(?:TimeoutStopSec=|stop_grace_period: |terminationGracePeriodSeconds: |docker stop -t )(\d+)",
        OPERATING,
    )
    assert len(given) == 5
    assert min(map(int, given)) > KILL_AFTER


def test_nothing_names_a_package_index() -> None:
    for name in ("Makefile", "README.md", "Dockerfile", ".ci/run", "pyproject.toml"):
        text = (ROOT / name).read_text("utf-8")
        assert "index-url" not in text
        assert "pypi.org" not in text
