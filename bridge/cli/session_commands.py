"""`bridge sessions`: list and end the sessions of the dashboard."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli.delivery_commands import current_operator
from bridge.cli.output import Json, Record, Table, pluralize, render
from bridge.clock import format_timestamp


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    commands = typer.Typer(invoke_without_command=True, help=sessions.__doc__)
    commands.callback()(sessions)
    commands.command()(end)
    app.add_typer(commands, name="sessions", rich_help_panel="Setup")


def sessions(context: typer.Context, as_json: Json = False) -> None:
    """List the sessions of the dashboard, newest first. Times are UTC.

    A session ends at logout, after twelve hours, or if its token is no longer in the settings; then it stays in the
    list until it expires.
    """
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.sessions import list_sessions

    if context.invoked_subcommand:
        return
    with open_store(Settings.load(environment())) as database:
        items = list_sessions(database)
    render(
        Table(
            items,
            {
                "Actor": "actor",
                "Access": "access",
                "From": "client",
                "Since": lambda item: format_timestamp(item["created_at"]),
                "Until": lambda item: format_timestamp(item["expires_at"]),
            },
            empty="No sessions.",
        ),
        as_json,
    )


def end(
    actor: Annotated[
        str | None,
        typer.Option(help="End only the sessions of this token's name. Default: all.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """End sessions of the dashboard. Their users have to log in again.

    Tokens stay valid: to lock out a person, remove the token from the settings and restart the service.
    """
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.sessions import end_sessions

    with open_store(Settings.load(environment())) as database:
        count = end_sessions(database, current_operator(), actor)
    render(Record({"ended": count}, f"Ended {pluralize(count, 'session')}."), as_json)
