"""What `bridge replay` does."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.progress import Progress

from bridge.cli.acts import who
from bridge.cli.output import counted, errors, print_items, say
from bridge.cli.rehearsals import load_file
from bridge.cli.show import instant_of
from bridge.cli.storage import open_store
from bridge.errors import ConfigError
from bridge.rules.route import route
from bridge.settings import Settings, environment
from bridge.store.acts import events_between, replay


def replay_events(
    events: Sequence[str],
    since: str | None,
    until: str | None,
    rule: str | None,
    again: bool,
    yes: bool,
    as_json: bool,
) -> bool:
    """Replay these events, or those of a span of time; returns whether none had to be skipped."""
    if bool(events) == bool(since or until):
        raise typer.BadParameter("name events, or a span of time with --since and --until")
    wrong = [ident for ident in events if not ident.startswith("evt_")]
    if wrong:
        raise ConfigError(f"`{wrong[0]}` is no event; `bridge retry` takes deliveries")
    settings = Settings.load(environment())
    rules = load_file(settings.bridge_rules)
    if rule is not None and rules.named(rule) is None:
        raise ConfigError(f"no rule in {rules.path} is called `{rule}`")
    with open_store(settings) as database:
        chosen = list(events) or events_between(
            database, instant_of(since, database), instant_of(until, database)
        )
        if not yes and not events and chosen:
            what = "again, whatever was done before" if again else "once more"
            typer.confirm(f"Route {counted(len(chosen), 'event')} {what}?", abort=True, err=True)
        with Progress(console=errors(), transient=True, disable=not errors().is_terminal) as progress:
            task = progress.add_task("Routing", total=len(chosen))
            replayed = replay(
                database,
                who(),
                chosen,
                rules,
                lambda event, now: route(event, rules, now),
                rule=rule,
                again=again,
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
