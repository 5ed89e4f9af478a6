"""`bridge connections`, and what a paused connection means for the deliveries that wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.output import Json, instant, print_items, print_table, say

if TYPE_CHECKING:
    from bridge.store.database import Database

Paused = Mapping[str, Mapping[str, Any]]
"""The paused connections' records by name."""

_BY = {
    "operator": "an operator",
    "auth": "refused credentials",
    "rate_limit": "the provider's rate limit",
    "quota": "an exhausted quota",
    "circuit_open": "too many failures",
}


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    group = typer.Typer(invoke_without_command=True, help=connections.__doc__)
    group.callback()(connections)
    group.command()(setup)
    app.add_typer(group, name="connections", rich_help_panel="Inspect")


def connections(context: typer.Context, as_json: Json = False) -> None:
    """The accounts that deliveries leave over: paused or open, by what, until when, and how many deliveries wait.

    Times are UTC.
    """
    if context.invoked_subcommand is not None:
        return
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment

    with open_store(Settings.load(environment())) as database:
        found = records(database)
    if as_json:
        print_items(found)
        return
    print_table(
        found,
        {
            "Name": "name",
            "State": lambda item: f"paused by {_BY[item['pause_cause']]}" if item["paused"] else "open",
            "Until": _until,
            "Waiting": lambda item: str(item["waiting"]),
            "Why": "pause_reason",
        },
        empty="No connection was in use yet: `bridge serve` makes them from the rules.",
    )
    for item in found:
        if item["paused"]:
            say(f"{item['name']}: {way_out(item)}")


def setup(
    connection: Annotated[
        str | None,
        typer.Argument(
            metavar="CONNECTION", help="Only this one; default: all that rules.yaml uses.", show_default=False
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Make what the accounts need once, such as the property that keeps a call from being logged twice.

    Changes the account, and asks first. Repeating it does no harm. Exit 1 when something could not be made.
    """
    from bridge.cli import connector_catalog

    if not connector_catalog.set_up_accounts(connection, yes, as_json):
        raise typer.Exit(1)


def records(database: Database) -> list[dict[str, Any]]:
    """Every connection as the API tells of it, and how many deliveries wait for their next attempt over it."""
    from bridge.store.connections import all_connections
    from bridge.store.queries import waiting_by_connection
    from bridge.web.admin_service import connection_record

    now, waiting = database.clock.now(), waiting_by_connection(database)
    return [
        connection_record(row, now) | {"waiting": waiting.get(row["name"], 0)}
        for row in all_connections(database)
    ]


def paused_connections(database: Database) -> Paused:
    """Those that let nothing leave now."""
    return {item["name"]: item for item in records(database) if item["paused"]}


def behind(delivery: Mapping[str, Any], paused: Paused) -> Mapping[str, Any] | None:
    """The paused connection that a delivery waits for."""
    return paused.get(delivery["connection"]) if delivery["state"] in ("pending", "retrying") else None


def way_out(item: Mapping[str, Any]) -> str:
    """What a person can do about a pause."""
    if item["pause_cause"] == "auth":
        return f"mend its variable and restart `bridge serve`; if the partner erred, `bridge resume {item['name']}`"
    return f"`bridge resume {item['name']}` lets it go on"


def why_paused(item: Mapping[str, Any]) -> str:
    """Who or what paused a connection, and what was said about it."""
    return f"{_BY[item['pause_cause']]}" + (f": {item['pause_reason']}" if item["pause_reason"] else "")


def _until(item: Mapping[str, Any]) -> str:
    if not item["paused"]:
        return ""
    if item["pause_cause"] == "circuit":
        return "an attempt succeeds"
    return instant(item["paused_until"]) or "it is resumed"
