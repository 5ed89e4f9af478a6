"""Implementation of `bridge apply`: check, test, plan, ask, and replace the rules file atomically."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from bridge.cli import dry_run
from bridge.cli.bootstrap import registry_for
from bridge.cli.check import read_rules_file
from bridge.cli.db import sqlite_path
from bridge.cli.output import echo, pluralize
from bridge.dryrun.required_tests import require_passing_tests
from bridge.errors import ConfigError
from bridge.rules.load import load
from bridge.rules.report import report
from bridge.settings import Settings, environment


@dataclass(frozen=True)
class ApplyReport:
    """The result of `bridge apply`. The file was applied unless there is an `error`."""

    new: Path
    active: Path
    error: str = ""
    """Why the file cannot be applied: its diagnostics, or its failed tests."""
    tests: int = 0
    """Number of tests that passed."""
    previous: Path | None = None
    """Copy of the file that was replaced."""

    @property
    def applied(self) -> bool:
        """True if the new rules are in effect."""
        return not self.error

    def to_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {
            "applied": self.applied,
            "path": str(self.active),
            "error": self.error or None,
            "tests": self.tests,
            "previous": str(self.previous) if self.previous else None,
        }

    def print_text(self) -> None:
        """Print the report for people."""
        if self.error:
            echo(self.error)
            return
        echo(f"Applied to {self.active}. A running service loads it within seconds.")
        echo("`bridge check --deployed` verifies that.")
        if self.previous is not None:
            echo(f"To go back: bridge apply {self.previous}")


def apply(new: Path, since: str, *, yes: bool) -> ApplyReport:
    """Put a new rules file into effect, or change nothing if it has errors or its tests fail.

    Unless `yes`, prints the plan and asks first.
    """
    environ = environment()
    settings = Settings.load(environ)
    active = settings.bridge_rules_file
    source = read_rules_file(new)
    registry = registry_for(active)
    loaded = load(source, path=str(new), registry=registry, environ=environ)
    text = report(loaded.diagnostics, source.decode("utf-8", "replace"), str(new))
    if loaded.rules is None:
        return ApplyReport(new, active, text)
    # The connectors and the test files are those next to the active file, where the new one will be.
    rules = replace(loaded.rules, path=str(active))
    try:
        tests = require_passing_tests(rules, registry, settings.bridge_default_country)
    except ConfigError as error:
        return ApplyReport(new, active, str(error))
    if not yes:
        if text:
            echo(text)
        echo(f"{new} is valid: {pluralize(len(rules.rules), 'rule')}, {pluralize(tests, 'test')} passed\n")
        _print_plan(new, since, settings)
        typer.confirm(f"\nApply {new} to {active}?", abort=True)
        if read_rules_file(new) != source:
            raise ConfigError(
                f"{new} changed while you read the plan: nothing was applied; run the command again"
            )
    return ApplyReport(new, active, tests=tests, previous=replace_file(active, source))


def _print_plan(new: Path, since: str, settings: Settings) -> None:
    database = sqlite_path(settings.bridge_database_url)
    if not settings.bridge_rules_file.exists() or (database is not None and not database.exists()):
        echo("There are no stored events to compare the rules over.")
    elif not dry_run.plan(new, since, None, [], 3, as_json=False):
        echo("\nWith the new rules, more deliveries could not be rendered.")


def replace_file(path: Path, content: bytes) -> Path | None:
    """Replace a file atomically, with the permissions of the old one; return the copy of the old one, if there was one.

    A service that reads the file at the same time sees the old or the new content, also after a power failure.
    """
    target = path.resolve()
    previous = target.with_name(f"{target.stem}.previous{target.suffix}") if target.exists() else None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if previous is None:
                os.chmod(name, 0o644)
            else:
                shutil.copymode(target, name)
                shutil.copy2(target, previous)
            os.replace(name, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError(
            f"{target} cannot be replaced: {error.strerror}; nothing was applied. The folder must be writable, and a "
            "container must mount the folder, not the file"
        ) from None
    return previous
