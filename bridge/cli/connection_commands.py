"""`bridge connections`: list and set up connections, and describe pauses to the operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.output import Json, Yes, echo, format_timestamp, print_items, print_table

if TYPE_CHECKING:
    from bridge.store.database import Database

Paused = Mapping[str, Mapping[str, Any]]
"""The records of paused connections, by name."""

_CAUSES = {
    "operator": "an operator",
    "auth": "rejected credentials",
    "rate_limit": "the provider's rate limit",
    "quota": "an exhausted quota",
    "circuit_open": "the circuit breaker",
}


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

    with open_store(Settings.load(environment())) as database:
        rows = connection_rows(database)
    if as_json:
        print_items(rows)
        return
    print_table(
        rows,
        {
            "Name": "name",
            "State": lambda item: f"paused by {_CAUSES[item['pause_cause']]}" if item["paused"] else "active",
            "Until": _until,
            "Waiting": lambda item: str(item["waiting"]),
            "Reason": "pause_reason",
        },
        empty="No connections yet. `bridge serve` creates them from the rules.",
    )
    for item in rows:
        if item["paused"]:
            echo(f"{item['name']}: {resume_hint(item)}")


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
    """Create the objects that accounts need, such as the property that prevents duplicate call logs.

    Changes the account, and asks for confirmation first. Safe to repeat. Exits with 1 if the setup fails.
    """
    from bridge.cli import connector_catalog

    if not connector_catalog.set_up_accounts(connection, yes, as_json):
        raise typer.Exit(1)


def connection_rows(database: Database) -> list[dict[str, Any]]:
    """Return every connection as in the API, plus the number of deliveries that wait for their next attempt."""
    from bridge.store.connections import all_connections
    from bridge.store.queries import waiting_by_connection
    from bridge.web.admin_service import connection_record

    now, waiting = database.clock.now(), waiting_by_connection(database)
    return [
        connection_record(row, now) | {"waiting": waiting.get(row["name"], 0)}
        for row in all_connections(database)
    ]


def paused_connections(database: Database) -> Paused:
    """Return the connections that are paused now."""
    return {item["name"]: item for item in connection_rows(database) if item["paused"]}


def blocking_pause(delivery: Mapping[str, Any], paused: Paused) -> Mapping[str, Any] | None:
    """Return the paused connection that a delivery waits for, or None."""
    return paused.get(delivery["connection"]) if delivery["state"] in ("pending", "retrying") else None


def resume_hint(item: Mapping[str, Any]) -> str:
    """Return the advice to the operator for ending a pause."""
    resume = f"`bridge resume {item['name']}`"
    if item["pause_cause"] == "auth":
        return f"fix the credentials and restart `bridge serve`; if the provider was at fault, run {resume}"
    return f"resume it with {resume}"


def describe_pause(item: Mapping[str, Any]) -> str:
    """Return the cause of a pause, with its reason if there is one."""
    return f"{_CAUSES[item['pause_cause']]}" + (f": {item['pause_reason']}" if item["pause_reason"] else "")


def _until(item: Mapping[str, Any]) -> str:
    if not item["paused"]:
        return ""
    if item["pause_cause"] == "circuit_open":
        return "an attempt succeeds"
    return format_timestamp(item["paused_until"]) or "resumed"
