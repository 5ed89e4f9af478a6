"""The program `bridge`: the table of its commands, each loaded when it is called."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import bridge.cli
from bridge.cli import program


def test_table_has_every_module_with_commands() -> None:
    folder = Path(bridge.cli.__file__).parent
    with_commands = {
        path.stem for path in folder.glob("*.py") if "\ndef register(app" in path.read_text("utf-8")
    }
    assert set(program.MODULES.values()) == with_commands


@pytest.mark.parametrize("module", sorted(set(program.MODULES.values())))
def test_table_has_every_command_of_a_module_and_no_other(module: str) -> None:
    app = typer.Typer()
    import_module(f"bridge.cli.{module}").register(app)
    commands = {command for command, its_module in program.MODULES.items() if its_module == module}
    assert set(typer.main.get_group(app).commands) == commands


def test_misspelled_command_is_answered_with_a_similar_one() -> None:
    result = CliRunner().invoke(program.app, ["evnts"])
    assert (result.exit_code, "Did you mean 'events'?" in result.output) == (2, True)


def test_help_has_the_commands_in_the_order_of_the_table() -> None:
    lines = CliRunner().invoke(program.app, ["--help"], env={"COLUMNS": "200"}).output.splitlines()
    listed = [
        line.split()[1] for line in lines if line.startswith("│ ") and line.split()[1] in program.MODULES
    ]
    assert sorted(listed) == sorted(program.MODULES)
    assert listed[:3] == ["serve", "worker", "sandbox"]
