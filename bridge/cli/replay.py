"""What `bridge replay` does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import typer
from rich.progress import Progress

from bridge.cli.arguments import instant_of, kind_of
from bridge.cli.db import open_store
from bridge.cli.delivery_commands import who
from bridge.cli.dry_run import load_file
from bridge.cli.output import counted, errors, print_items, say
from bridge.errors import ConfigError
from bridge.rules.model import Planned, Rules
from bridge.rules.route import route
from bridge.settings import Settings, environment
from bridge.store.database import Database
from bridge.store.operator_actions import events_between, replay
from bridge.store.queries import NotFound, stored_event

COUNTED = 500
"""Events up to which a question says what they lead to; to route more of them twice takes too long."""


def replay_events(
    events: Sequence[str],
    since: str | None,
    until: str | None,
    rule: str | None,
    force: bool,
    yes: bool,
    as_json: bool,
) -> bool:
    """Replay these events, or those of a span of time; returns whether none had to be skipped.

    It asks first where it may be about more than a person thinks of: a span of time, or people written to twice.
    """
    if bool(events) == bool(since or until):
        raise typer.BadParameter("name events, or a span of time with --since and --until")
    for ident in events:
        if kind_of(ident) != "evt":
            raise typer.BadParameter(f"`{ident}` is no event; `bridge retry` takes deliveries")
    begins, ends = instant_of(since, "--since"), instant_of(until, "--until")
    settings = Settings.load(environment())
    rules = load_file(settings.bridge_rules_file)
    if rule is not None and rules.named(rule) is None:
        raise ConfigError(f"no rule in {rules.path} is called `{rule}`")
    with open_store(settings) as database:
        chosen = list(events) or events_between(database, begins, ends)
        if not yes and chosen and (force or not events):
            typer.confirm(_question(database, chosen, rules, rule, force), abort=True, err=True)
        with Progress(console=errors(), transient=True, disable=not errors().is_terminal) as progress:
            task = progress.add_task("Routing", total=len(chosen))
            replayed = replay(
                database,
                who(),
                chosen,
                rules,
                lambda event, now: route(event, rules, now),
                rule=rule,
                force=force,
                on_progress=lambda count: progress.advance(task, count),
            )
    if as_json:
        print_items([vars(item) for item in replayed])
    else:
        for item in replayed:
            if item.skipped:
                say(f"✗ {item.id}: {item.skipped}")
        made = sum(len(item.deliveries) for item in replayed)
        routed = sum(not item.skipped for item in replayed)
        events, new = counted(routed, "event"), counted(made, "new delivery")
        say(f"{events} routed with today's rules, {new}: see `bridge deliveries`")
    return not any(item.skipped for item in replayed)


def _question(database: Database, idents: Sequence[str], rules: Rules, rule: str | None, force: bool) -> str:
    """What a person says yes to: how many events, and with `again` how many messages people get twice."""
    planned = _planned(database, idents, rules, rule) if len(idents) <= COUNTED else None
    if planned is None:
        events = f"{'at most ' if rule else ''}{counted(len(idents), 'event')}"
    else:
        events = counted(sum(map(bool, planned)) if rule else len(planned), "event")
    if not force:
        return f"Route {events} once more?"
    asked = f"Route {events} again, whatever was done before?"
    if planned is None:
        return f"{asked} People ARE written to twice"
    now = database.clock.now()
    messages = sum(_reaches_somebody(step, now) for steps in planned for step in steps)
    if not messages:
        return f"{asked} No message to a person is among it"
    return f"{asked} People ARE written to twice: {counted(messages, 'message')}"


def _reaches_somebody(step: Planned, now: datetime) -> bool:
    """Whether it is a message that can be sent and is still worth sending."""
    worth_it = step.expires_at is None or step.expires_at > now
    return step.channel is not None and step.problem is None and worth_it


def _planned(
    database: Database, idents: Sequence[str], rules: Rules, rule: str | None
) -> list[list[Planned]]:
    """What each event that is still kept leads to with today's rules."""
    found = []
    for ident in idents:
        try:
            event = stored_event(database, ident)
        except NotFound:
            continue  # the replay says so
        steps = route(event, rules, database.clock.now()).planned
        found.append([step for step in steps if rule is None or step.rule == rule])
    return found
