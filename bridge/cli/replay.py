"""Implementation of `bridge replay`: confirm, then route stored events again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import typer

from bridge.cli.arguments import id_prefix, parse_time_option
from bridge.cli.bootstrap import address_hasher
from bridge.cli.db import open_store
from bridge.cli.delivery_commands import current_operator
from bridge.cli.dry_run import load_file
from bridge.cli.output import Record, as_items, echo, pluralize, print_status, result_line
from bridge.cli.rule_deliveries import progress
from bridge.dryrun.replay_preview import PREVIEW_LIMIT, ReplayPreview, preview_replay
from bridge.errors import ConfigError
from bridge.policy.effects import count_people
from bridge.rules.route import route
from bridge.settings import Settings, environment
from bridge.store.queries import EventCriteria
from bridge.store.replay import (
    ReplayOrder,
    ReplayResult,
    SelectedEvents,
    audit_criteria,
    replay,
    select_events,
)


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
class EventOptions:
    """The options of the filter, as they were typed."""

    event_type: str | None
    since: str | None
    until: str | None
    nothing_done: bool

    @property
    def is_empty(self) -> bool:
        """True if the filter has no criterion."""
        return not any(vars(self).values())

    def criteria(self) -> EventCriteria:
        """Return the criteria. Raise BadParameter for a time that is none."""
        if not (self.since or self.until):
            raise typer.BadParameter("add a time range with --since or --until to the filter")
        return {
            "event_type": self.event_type,
            "since": parse_time_option(self.since, "--since"),
            "until": parse_time_option(self.until, "--until"),
            "without_deliveries": self.nothing_done,
        }


def replay_events(
    events: Sequence[str],
    options: EventOptions,
    rule: str | None,
    force: bool,
    reason: str | None,
    yes: bool,
    dry_run: bool,
) -> ReplayReport | Record:
    """Replay these events, or all that match a filter.

    Ask for confirmation if the effect may be larger than the operator expects: a filter, or messages that are sent
    a second time. With `dry_run`, only return what would happen.
    """
    if bool(events) != options.is_empty:
        raise typer.BadParameter("name events, or a time range with --since and --until")
    for event_id in events:
        if id_prefix(event_id) != "evt":
            raise typer.BadParameter(f"`{event_id}` is not an event; for deliveries, use `bridge retry`")
    criteria = None if events else options.criteria()
    if criteria is not None and force and not reason and not dry_run:
        raise typer.BadParameter("say with --reason why people are contacted again; the audit log keeps it")
    settings = Settings.load(environment())
    rules = load_file(settings.bridge_rules_file, settings)
    if rule is not None and rules.named(rule) is None:
        raise ConfigError(f"unknown rule `{rule}` in {rules.path}")
    order = ReplayOrder(
        rules, lambda event, now, history: route(event, rules, now, history), rule, force, reason
    )
    with open_store(settings) as database:
        selected = SelectedEvents(events) if criteria is None else select_events(database, **criteria)
        must_ask = not yes and selected.ids and (force or criteria is not None)
        if dry_run or must_ask:
            preview = preview_replay(
                database,
                selected,
                order,
                hash_address=address_hasher(settings),
                allowlist=settings.bridge_recipient_allowlist,
                limit=None if dry_run else PREVIEW_LIMIT,
            )
            if dry_run:
                return Record(preview.to_json(), "\n".join(_described(preview)))
            for line in _obstacles(preview):
                print_status(line)
            if preview.effects is not None:
                print_status(f"This would lead to: {preview.effects.text}")
            typer.confirm(_confirmation(preview, rule, force), abort=True, err=True)
            order = replace(order, previewed_at=preview.previewed_at)
        with progress("Routing", len(selected.ids)) as on_progress:
            replayed = replay(
                database,
                current_operator(),
                selected.ids,
                order,
                criteria=None if criteria is None else audit_criteria(criteria),
                on_progress=on_progress,
            )
    return ReplayReport(replayed)


def _described(preview: ReplayPreview) -> list[str]:
    effects = preview.effects.text if preview.effects else "unknown"
    return [f"{pluralize(preview.events, 'event')} would lead to: {effects}", *_obstacles(preview)]


def _obstacles(preview: ReplayPreview) -> list[str]:
    return [f"{number:,} cannot be replayed: {problem}" for problem, number in preview.obstacles.items()]


def _confirmation(preview: ReplayPreview, rule: str | None, force: bool) -> str:
    """Return the prompt: the number of events and, with `force`, of the people who are contacted again."""
    effects = preview.effects
    if effects is None:
        subject = f"{'at most ' if rule else ''}{pluralize(preview.events, 'event')}"
    else:
        subject = pluralize(effects.events if rule else preview.events, "event")
    if not force:
        return f"Route {subject} again?"
    prompt = f"Route {subject} again and repeat actions that already succeeded?"
    if effects is None:
        return f"{prompt} Recipients WILL be contacted again"
    if not effects.messages:
        return f"{prompt} This sends no messages to recipients"
    messages = f"{pluralize(effects.messages, 'message')} to {count_people(effects.people)}"
    return f"{prompt} This sends {messages}; {count_people(effects.again)} WILL be contacted again"
