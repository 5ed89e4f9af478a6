"""`bridge connections`: list and set up connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.output import Json, Table, Yes, render
from bridge.clock import format_timestamp
from bridge.store.pauses import Pause

if TYPE_CHECKING:
    from bridge.store.database import Database

FindPause = Callable[[Mapping[str, Any]], Pause | None]
"""Returns the pause that a delivery waits for, or None."""


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(invoke_without_command=True, help=connections.__doc__)
    group.callback()(connections)
    group.command()(setup)
    app.add_typer(group, name="connections", rich_help_panel="Inspect")


def connections(context: typer.Context, as_json: Json = False) -> None:
    """List connections with their state, the cause and end of a pause, and the number of waiting deliveries.

    Times are UTC.
    """
    if context.invoked_subcommand is not None:
        return
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.connection_status import connection_statuses, pause_of_all
    from bridge.store.waiting import waiting_by_connection

    with open_store(Settings.load(environment())) as database:
        statuses, waiting = connection_statuses(database), waiting_by_connection(database)
        paused = pause_of_all(database)
    rows = [status.to_json() | {"waiting": waiting.get(status.name, 0)} for status in statuses]
    pauses = {status.name: status.pause for status in statuses if status.pause}
    render(
        Table(
            rows,
            {
                "Name": "name",
                "State": lambda item: (
                    f"paused by {pauses[item['name']].label}" if item["paused"] else "active"
                ),
                "Until": lambda item: _until(pauses.get(item["name"])),
                "Waiting": lambda item: str(item["waiting"]),
                "Reason": "pause_reason",
            },
            empty="No connections yet. `bridge serve` creates them from the rules.",
            footer=[
                *([f"{_stopped(paused)}: {paused.reason}; {paused.hint}"] if paused else ()),
                *(f"{pause.connection}: {pause.hint}" for pause in pauses.values() if not pause.is_of_all),
            ],
        ),
        as_json,
    )


def setup(
    connection: Annotated[
        str | None,
        typer.Argument(
            metavar="CONNECTION",
            help="Connection to set up. Default: all connections that rules.yaml uses.",
            show_default=False,
        ),
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Create what the accounts need, such as the property that prevents duplicate call logs.

    Changes the account, and asks for confirmation first. Safe to repeat. Exits with code 1 if the setup fails.
    """
    from bridge.cli import connector_catalog

    if not connector_catalog.set_up_accounts(connection, yes, as_json):
        raise typer.Exit(1)


def blocking_pauses(database: Database) -> FindPause:
    """Return the function that returns the pause that a delivery waits for, or None."""
    from bridge.store.connection_status import connection_statuses, pause_of_all

    pauses = {status.name: status.pause for status in connection_statuses(database)}
    of_all = pause_of_all(database)

    def find(item: Mapping[str, Any]) -> Pause | None:
        if item["state"] not in ("pending", "retrying"):
            return None
        return pauses.get(item["connection"]) or (of_all if item["channel"] else None)

    return find


def _stopped(pause_of_all: Pause) -> str:
    return "messages to people are stopped" if pause_of_all.only_messages else "all connections are paused"


def _until(pause: Pause | None) -> str:
    if pause is None:
        return ""
    if pause.cause == "circuit_open":
        return "an attempt succeeds"
    return format_timestamp(pause.until) or "resumed"
