"""Implementation of `bridge cancel --rule`: confirm, then cancel or rerender the waiting deliveries of a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import typer
from rich.progress import Progress

from bridge.cli.db import open_store
from bridge.cli.delivery_commands import current_operator
from bridge.cli.dry_run import load_file
from bridge.cli.output import Record, errors, pluralize
from bridge.errors import ConfigError
from bridge.rules.route import route
from bridge.settings import Settings, environment
from bridge.store.rerender import RerenderReport, rerender_rule
from bridge.store.rule_deliveries import (
    CancelledDeliveries,
    WaitingDeliveries,
    cancel_rule,
    waiting_deliveries,
)


def cancel_deliveries(rule: str, yes: bool) -> Record:
    """Cancel the waiting deliveries of a rule, which the rules file may no longer have."""
    with open_store(Settings.load(environment())) as database:
        waiting = waiting_deliveries(database, rule)
        if waiting.total and not yes:
            typer.confirm(f"Cancel {_describe(waiting)}?", abort=True, err=True)
        with progress("Cancelling", waiting.total) as on_progress:
            result: CancelledDeliveries = cancel_rule(database, current_operator(), rule, on_progress)
    return Record(asdict(result), result.text)


def rerender_deliveries(rule: str, yes: bool) -> Record:
    """Apply the rule of the rules file to its waiting deliveries."""
    settings = Settings.load(environment())
    rules = load_file(settings.bridge_rules_file, settings)
    if rules.named(rule) is None:
        raise ConfigError(
            f"unknown rule `{rule}` in {rules.path}; to cancel the deliveries of a removed rule, leave out --rerender"
        )
    with open_store(settings) as database:
        waiting = waiting_deliveries(database, rule)
        if waiting.total and not yes:
            prompt = f"Apply {rules.path} to {_describe(waiting)}? Those that the rule would not create are cancelled"
            typer.confirm(prompt, abort=True, err=True)
        with progress("Rendering", waiting.total) as on_progress:
            report: RerenderReport = rerender_rule(
                database, current_operator(), rule, rules,
                lambda event, now, history: route(event, rules, now, history), on_progress,
            )  # fmt: skip
    return Record(report.to_json(), "\n".join(report.lines))


def _describe(waiting: WaitingDeliveries) -> str:
    return f"{pluralize(waiting.total, 'waiting delivery')} of {waiting.rule} ({waiting.description})"


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show the progress of an action on a terminal; yield the function that is called with what was done."""
    with Progress(console=errors(), transient=True, disable=not errors().is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)
