"""Implementation of `bridge replay`: confirm, then route stored events again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import typer
from rich.progress import Progress

from bridge.cli.arguments import id_prefix, parse_time_option
from bridge.cli.bootstrap import address_hasher
from bridge.cli.db import open_store
from bridge.cli.delivery_commands import current_operator
from bridge.cli.dry_run import load_file
from bridge.cli.output import as_items, echo, errors, pluralize, print_status, result_line
from bridge.dryrun.effects import effects_of_replay
from bridge.errors import ConfigError
from bridge.events import Event
from bridge.policy.effects import Effects
from bridge.rules.model import Rules
from bridge.rules.route import route
from bridge.settings import Settings, environment
from bridge.store.contact_history import contact_history
from bridge.store.database import Database
from bridge.store.policy_inputs import inputs_for_planned
from bridge.store.queries import NotFound, stored_event
from bridge.store.replay import ReplayResult, events_between, replay

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


@dataclass(frozen=True)
class ReplayPreview:
    """Preview of `bridge replay`: the result of `--dry-run`."""

    events: int
    effects: Effects

    ok = True

    def to_json(self) -> dict[str, Any]:
        """Return the preview for programs."""
        return {"dry_run": True, "events": self.events} | self.effects.to_json()

    def print_text(self) -> None:
        """Print the preview for people."""
        echo(f"{pluralize(self.events, 'event')} would lead to: {self.effects.text}")


def replay_events(
    events: Sequence[str],
    since: str | None,
    until: str | None,
    rule: str | None,
    force: bool,
    yes: bool,
    dry_run: bool,
) -> ReplayReport | ReplayPreview:
    """Replay these events, or those of a time range.

    Ask for confirmation if the effect may be larger than the operator expects: a time range, or messages that are sent
    a second time. With `dry_run`, only return what would happen.
    """
    if bool(events) == bool(since or until):
        raise typer.BadParameter("name events, or a time range with --since and --until")
    for event_id in events:
        if id_prefix(event_id) != "evt":
            raise typer.BadParameter(f"`{event_id}` is not an event; for deliveries, use `bridge retry`")
    start, end = parse_time_option(since, "--since"), parse_time_option(until, "--until")
    settings = Settings.load(environment())
    rules = load_file(settings.bridge_rules_file, settings)
    if rule is not None and rules.named(rule) is None:
        raise ConfigError(f"unknown rule `{rule}` in {rules.path}")
    with open_store(settings) as database:
        event_ids = list(events) or events_between(database, start, end)
        if dry_run:
            return ReplayPreview(len(event_ids), _effects(database, event_ids, rules, rule, force, settings))
        if not yes and event_ids and (force or not events):
            is_small = len(event_ids) <= PREVIEW_LIMIT
            effects = _effects(database, event_ids, rules, rule, force, settings) if is_small else None
            if effects is not None:
                print_status(f"This would lead to: {effects.text}")
            typer.confirm(_confirmation(len(event_ids), effects, rule, force), abort=True, err=True)
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


def _confirmation(events: int, effects: Effects | None, rule: str | None, force: bool) -> str:
    """Return the prompt: the number of events and, with `force`, the number of messages that are sent again.

    `effects` is None if there are too many events to compute them.
    """
    if effects is None:
        subject = f"{'at most ' if rule else ''}{pluralize(events, 'event')}"
    else:
        subject = pluralize(effects.events if rule else events, "event")
    if not force:
        return f"Route {subject} again?"
    prompt = f"Route {subject} again and repeat actions that already succeeded?"
    if effects is None:
        return f"{prompt} Recipients WILL be contacted again"
    if not effects.messages:
        return f"{prompt} This sends no messages to recipients"
    return f"{prompt} Recipients WILL be contacted again: {pluralize(effects.messages, 'message')}"


def _effects(
    database: Database,
    event_ids: Sequence[str],
    rules: Rules,
    rule: str | None,
    force: bool,
    settings: Settings,
) -> Effects:
    """Return what a replay of these events would do; `replay` reports those that are not stored."""
    if rule is not None:
        rules = replace(rules, rules=tuple(item for item in rules.rules if item.name == rule))
    hasher = address_hasher(settings)
    with contact_history(database) as history:
        return effects_of_replay(
            _stored(database, event_ids),
            rules,
            database.clock.now(),
            load_inputs=lambda planned, event: inputs_for_planned(
                database, planned, event, rules.messaging, hasher
            ),
            history=history,
            allowlist=settings.bridge_recipient_allowlist,
            force=force,
        )


def _stored(database: Database, event_ids: Sequence[str]) -> Iterator[Event]:
    for event_id in event_ids:
        with suppress(NotFound):
            yield stored_event(database, event_id)
