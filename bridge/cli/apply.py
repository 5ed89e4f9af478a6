"""Implementation of `bridge apply`: check, test, plan, ask, and replace a rules file atomically."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from bridge.cli import dry_run
from bridge.cli.bootstrap import registry_for
from bridge.cli.db import open_store, sqlite_path
from bridge.cli.output import echo, pluralize
from bridge.cli.rules_source import new_rules
from bridge.dryrun.required_tests import require_passing_tests
from bridge.errors import ConfigError
from bridge.rules.load import load
from bridge.rules.model import Rules
from bridge.rules.report import report
from bridge.settings import Settings, environment
from bridge.store.rule_deliveries import earlier_deliveries


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
            echo(f"To go back: bridge apply {self.previous} --file {self.active}")
        else:
            echo(f"To go back: delete {self.active}")


def apply(new: Path, since: str, *, yes: bool, file: Path | None = None) -> ApplyReport:
    """Put a new rules file into effect in place of `file`, or change nothing if it has errors or a test fails.

    Unless `yes`, prints the plan and asks first.
    """
    environ = environment()
    settings = Settings.load(environ)
    active = settings.bridge_rules_file
    source = new_rules(new, file, active)
    if source.target is None:
        raise ConfigError(
            f"{new} is what the service reads already, and it loads a change by itself: "
            "`bridge apply` puts another file in place of one of its files"
        )
    # The connectors and the test files are those next to the active file, where the new one will be.
    registry = registry_for(active, settings)
    loaded = load(source.files, path=str(active), registry=registry, environ=environ)
    text = report(loaded.diagnostics, loaded.texts)
    if loaded.rules is None:
        return ApplyReport(new, source.target, text)
    rules = loaded.rules
    try:
        tests = require_passing_tests(rules, registry, settings.bridge_default_country)
    except ConfigError as error:
        return ApplyReport(new, source.target, str(error))
    if not yes:
        if text:
            echo(text)
        passed = f"{pluralize(tests, 'test')} passed" if tests else "but it has no tests"
        echo(f"{new} is valid: {pluralize(len(rules.rules), 'rule')}, {passed}\n")
        _print_plan(new, file, since, settings, rules)
        typer.confirm(f"\nApply {new} to {source.target}?", abort=True)
        changed = {item.path for item in {*new_rules(new, file, active).files} ^ {*source.files}}
        if changed:
            raise ConfigError(
                f"{', '.join(sorted(changed))} changed while you read the plan: nothing was applied; "
                "run the command again"
            )
    content = next(item.content for item in source.files if item.path == str(new))
    previous = replace_file(source.target, content if isinstance(content, bytes) else content.encode())
    return ApplyReport(new, source.target, tests=tests, previous=previous)


def _print_plan(new: Path, file: Path | None, since: str, settings: Settings, rules: Rules) -> None:
    database = sqlite_path(settings.bridge_database_url)
    if not settings.bridge_rules_file.exists() or (database is not None and not database.exists()):
        echo("There are no stored events to compare the rules over.")
        return
    if not dry_run.plan(new, since, None, [], 3, as_json=False, file=file):
        echo("\nWith the new rules, more deliveries could not be rendered.")
    with open_store(settings) as store:
        waiting = earlier_deliveries(store, rules)
    if waiting:
        echo("\nWhat waits is not changed")
    for item in waiting:
        echo(f"  {item.message}; once the new rules are applied, {item.advice}")


def replace_file(path: Path, content: bytes) -> Path | None:
    """Replace a file atomically, with the permissions of the old one; return the copy of the old one, if there was one.

    A service that reads the file at the same time sees the old or the new content, also after a power failure.
    """
    target = path.resolve()
    target.parent.mkdir(exist_ok=True)
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
