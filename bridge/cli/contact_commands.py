"""`bridge contacts`: possible duplicates in the CRMs."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli.arguments import check_cursor
from bridge.cli.output import Json, Record, Table, render
from bridge.clock import format_timestamp


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(no_args_is_help=True, help="List possible duplicates among the contacts of the CRMs.")
    group.command()(duplicates)
    group.command()(dismiss)
    app.add_typer(group, name="contacts", rich_help_panel="Inspect")


def duplicates(
    connection: Annotated[
        str | None, typer.Option(help="Only this connection, such as hubspot.", show_default=False)
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=1000, help="Maximum number of entries.")
    ] = 50,
    cursor: Annotated[
        str | None, typer.Option(help="Cursor from the previous page (`next_cursor`).", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List pairs of CRM records that may be the same person, newest first.

    The email of an event led to one record and its phone number to the other. Merge them in the CRM, or dismiss the
    pair. Times are UTC.
    """
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.possible_duplicates import list_possible_duplicates

    check_cursor(cursor, "dup")
    with open_store(Settings.load(environment())) as database:
        page = list_possible_duplicates(database, connection=connection, limit=limit, cursor=cursor)
    render(
        Table(
            page.items,
            {
                "ID": "id",
                "Connection": "connection",
                "Records": lambda item: f"{item['first_record']} {item['second_record']}",
                "Found": lambda item: format_timestamp(item["found_at"]),
                "Last seen": lambda item: format_timestamp(item["last_seen_at"]),
                "Delivery": "delivery_id",
            },
            empty="No possible duplicates.",
            next_cursor=page.next_cursor,
        ),
        as_json,
    )


def dismiss(
    pair: Annotated[str, typer.Argument(metavar="ID", help="ID of the pair (`dup_...`).")],
    as_json: Json = False,
) -> None:
    """Remove a pair from the list: the records are two people, or they were merged.

    The pair is not listed again.
    """
    from bridge.cli.db import open_store
    from bridge.cli.delivery_commands import current_operator
    from bridge.settings import Settings, environment
    from bridge.store.possible_duplicates import dismiss_possible_duplicate

    with open_store(Settings.load(environment())) as database:
        dismiss_possible_duplicate(database, current_operator(), pair)
    render(Record({"id": pair, "dismissed": True}, f"{pair}: dismissed"), as_json)
