"""Implementation of `bridge replay`: confirm, then route stored events again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import typer
from rich.progress import Progress

from bridge.cli.arguments import id_prefix, parse_time_option
from bridge.cli.db import open_store
from bridge.cli.delivery_commands import current_operator
from bridge.cli.dry_run import load_file
from bridge.cli.output import as_items, echo, errors, pluralize, result_line
from bridge.errors import ConfigError
from bridge.rules.model import PlannedDelivery, Rules
from bridge.rules.route import route
from bridge.settings import Settings, environment
from bridge.store.contact_history import contact_history
from bridge.store.database import Database
from bridge.store.operator_actions import ReplayResult, events_between, replay
from bridge.store.queries import NotFound, stored_event

PREVIEW_LIMIT = 500
"""Maximum number of events to preview in the confirmation prompt; routing more of them twice takes too long."""


@dataclass(frozen=True)
class ReplayReport:
    """The result of `bridge replay`."""

    results: Sequence[ReplayResult]

    @property
    def ok(self) -> bool:
        """True if no event was skipped."""
        return not any(result.skipped for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """Return the result of each event."""
        return as_items([vars(result) for result in self.results])

    def print_text(self) -> None:
        """Print the events that were skipped, and the number of the others."""
        for result in self.results:
            if result.skipped:
                echo(result_line(False, result.id, result.skipped))
        created = sum(len(result.deliveries) for result in self.results)
        routed = sum(not result.skipped for result in self.results)
        echo(
            f"Routed {pluralize(routed, 'event')} with the current rules, created "
            f"{pluralize(created, 'delivery')}: see `bridge deliveries`."
        )


def replay_events(
    events: Sequence[str],
    since: str | None,
    until: str | None,
    rule: str | None,
    force: bool,
    yes: bool,
) -> ReplayReport:
    """Replay these events, or those of a time range.

    Ask for confirmation if the effect may be larger than the operator expects: a time range, or messages that are sent
    a second time.
    """
    if bool(events) == bool(since or until):
        raise typer.BadParameter("name events, or a time range with --since and --until")
    for event_id in events:
        if id_prefix(event_id) != "evt":
            raise typer.BadParameter(f"`{event_id}` is not an event; for deliveries, use `bridge retry`")
    start, end = parse_time_option(since, "--since"), parse_time_option(until, "--until")
    settings = Settings.load(environment())
    rules = load_file(settings.bridge_rules_file)
    if rule is not None and rules.named(rule) is None:
        raise ConfigError(f"unknown rule `{rule}` in {rules.path}")
    with open_store(settings) as database:
        event_ids = list(events) or events_between(database, start, end)
        if not yes and event_ids and (force or not events):
            typer.confirm(_confirmation(database, event_ids, rules, rule, force), abort=True, err=True)
        with Progress(console=errors(), transient=True, disable=not errors().is_terminal) as progress:
            task = progress.add_task("Routing", total=len(event_ids))
            replayed = replay(
                database,
                current_operator(),
                event_ids,
                rules,
                lambda event, now, history: route(event, rules, now, history),
                rule=rule,
                force=force,
                on_progress=lambda count: progress.advance(task, count),
            )
    return ReplayReport(replayed)


def _confirmation(
    database: Database, event_ids: Sequence[str], rules: Rules, rule: str | None, force: bool
) -> str:
    """Return the prompt: the number of events and, with `force`, the number of messages that are sent again."""
    planned = _plan_deliveries(database, event_ids, rules, rule) if len(event_ids) <= PREVIEW_LIMIT else None
    if planned is None:
        events = f"{'at most ' if rule else ''}{pluralize(len(event_ids), 'event')}"
    else:
        events = pluralize(sum(map(bool, planned)) if rule else len(planned), "event")
    if not force:
        return f"Route {events} again?"
    prompt = f"Route {events} again and repeat actions that already succeeded?"
    if planned is None:
        return f"{prompt} Recipients WILL be contacted again"
    now = database.clock.now()
    messages = sum(_is_sendable_message(step, now) for steps in planned for step in steps)
    if not messages:
        return f"{prompt} This sends no messages to recipients"
    return f"{prompt} Recipients WILL be contacted again: {pluralize(messages, 'message')}"


def _is_sendable_message(step: PlannedDelivery, now: datetime) -> bool:
    """Return whether the step is a message that can be rendered and has not expired."""
    expired = step.expires_at is not None and step.expires_at <= now
    return step.channel is not None and step.render_error is None and not expired


def _plan_deliveries(
    database: Database, event_ids: Sequence[str], rules: Rules, rule: str | None
) -> list[list[PlannedDelivery]]:
    """Return the deliveries that the current rules plan for each event whose body is still stored."""
    planned = []
    with contact_history(database) as history:
        for event_id in event_ids:
            try:
                event = stored_event(database, event_id)
            except NotFound:
                continue  # `replay` reports it
            steps = route(event, rules, database.clock.now(), history).planned
            planned.append([step for step in steps if rule is None or step.rule == rule])
    return planned
