"""`bridge pause` and `bridge resume`: stop and resume sending over one connection, several or all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.delivery_commands import DryRunOption, current_operator
from bridge.cli.output import Json, Record, Yes, as_items, render
from bridge.lifecycle import StopScope

if TYPE_CHECKING:
    from bridge.store.database import Database
    from bridge.store.pauses import ConnectionStatus

_PANEL = "Manage deliveries"

Connections = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CONNECTION...",
        help="Names of connections in rules.yaml: twilio, hubspot ...",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (pause, resume):
        app.command(rich_help_panel=_PANEL)(command)


def pause(
    names: Connections = None,
    every: Annotated[
        bool, typer.Option("--all", help="Pause all connections, also those that are added later.")
    ] = False,
    scope: Annotated[
        StopScope,
        typer.Option(
            help="With --all: stop messages to people only, all deliveries except alerts, or everything."
        ),
    ] = StopScope.DELIVERIES,
    reason: Annotated[
        str, typer.Option(help="Reason to show on the dashboard and in the audit log.", show_default=False)
    ] = "",
    as_json: Json = False,
) -> None:
    """Pause connections. Their deliveries stay queued until you run `bridge resume`.

    With `--all`, only alerts to your team are still sent, and they say who stopped the sending and why.
    With `--all --scope messages`, CRM records are still written as well.
    """
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store import connections
    from bridge.store.pause_all import pause_all

    _check_names(names, every)
    actor = current_operator()
    reason = reason.strip() or "no reason given"
    with open_store(Settings.load(environment())) as database:
        _statuses(database, names)
        if every:
            pause_all(database, reason, actor, scope)
        for name in names or ():
            connections.pause(database, name, reason, actor)
        statuses = _statuses(database, names)
    lines = [f"{name} is paused; resume it with `bridge resume {name}`" for name in names or ()]
    if every:
        lines = [f"sending is stopped: {scope.description} Start it with `bridge resume --all`"]
    _render(statuses, lines, as_json)


def resume(
    names: Connections = None,
    every: Annotated[bool, typer.Option("--all", help="End the pause of `bridge pause --all`.")] = False,
    cancel_older: Annotated[
        str,
        typer.Option(
            metavar="AGE",
            help="With --all: first cancel what is due and was created longer ago, such as 6h.",
            show_default=False,
        ),
    ] = "",
    yes: Yes = False,
    dry_run: DryRunOption = False,
    as_json: Json = False,
) -> None:
    """Resume paused connections, whatever the cause. If messages wait, it says how many, and asks.

    Possible causes: an operator, rejected credentials, a rate limit, an exhausted quota, or an open circuit breaker.
    `--all` ends the pause of all connections; one that is paused by itself stays paused.
    """
    from bridge.cli.arguments import parse_duration_option
    from bridge.cli.db import open_store
    from bridge.cli.resume_preview import confirm_resume, effects_of_resume
    from bridge.settings import Settings, environment
    from bridge.store import connections
    from bridge.store.held_deliveries import cancel_held
    from bridge.store.pause_all import current_stop, resume_all

    _check_names(names, every)
    age = parse_duration_option(cancel_older, "--cancel-older") if cancel_older else None
    actor = current_operator()
    lines = []
    with open_store(Settings.load(environment())) as database:
        stop = current_stop(database) if every else None
        paused = [status.name for status in _statuses(database, names) if status.pause or stop]
        only_messages = stop is not None and stop.scope is StopScope.MESSAGES
        if dry_run:
            effects = effects_of_resume(database, paused, only_messages=only_messages)
            render(Record({"dry_run": True} | effects.to_json(), f"Waiting: {effects.text}"), as_json)
            return
        if not yes:
            confirm_resume(database, paused, only_messages=only_messages)
        if every:
            if age is not None and stop is not None:
                cancelled = cancel_held(database, actor, age, stop.scope).done
                lines.append(f"cancelled: {cancelled}")
            was_paused = resume_all(database, actor)
            lines.append(
                "all connections are resumed"
                if was_paused
                else "all connections were not paused with `--all`"
            )
        for name in names or ():
            connections.resume(database, name, actor)
        statuses = _statuses(database, names)
    for status in statuses:
        if status.pause:
            lines.append(f"{status.name} is still {status.pause}; {status.pause.hint}")
        elif not every:
            lines.append(f"{status.name} is resumed")
    _render(statuses, lines, as_json)


def _check_names(names: Sequence[str] | None, every: bool) -> None:
    if bool(names) == every:
        raise typer.BadParameter("name connections, or use --all for all of them")


def _render(statuses: Sequence[ConnectionStatus], lines: Sequence[str], as_json: bool) -> None:
    render(Record(as_items([status.to_json() for status in statuses]), "\n".join(lines)), as_json)


def _statuses(database: Database, names: Sequence[str] | None) -> list[ConnectionStatus]:
    """Return these connections, or all of them. Raise ConfigError if one does not exist."""
    from bridge.errors import ConfigError
    from bridge.store.connection_status import connection_statuses

    statuses = {status.name: status for status in connection_statuses(database)}
    for name in names or ():
        if name not in statuses:
            existing = ", ".join(statuses) or "none; `bridge serve` creates them from the rules"
            raise ConfigError(f"unknown connection `{name}`; existing connections: {existing}")
    return [statuses[name] for name in names or statuses]
