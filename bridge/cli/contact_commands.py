"""`bridge contacts`: exports what is stored about a person, and lists possible duplicates in the CRMs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.arguments import check_cursor
from bridge.cli.output import Json, Record, Table, print_status, render
from bridge.clock import format_timestamp


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(
        no_args_is_help=True, help="Export what is stored about a person; list possible duplicates."
    )
    group.command()(export)
    group.command()(duplicates)
    group.command()(dismiss)
    app.add_typer(group, name="contacts", rich_help_panel="Inspect")


def export(
    person: Annotated[
        str,
        typer.Argument(
            metavar="PERSON",
            help="Phone number or email address in any notation, or the ID of an event about the person.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write, readable for you alone. Default: print.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Export everything that is stored about a person, as JSON.

    Events, deliveries with their texts, attempts, opt-outs, cached CRM records, rejected requests and operator actions.
    Other people's conversations that mention the address are left out. An event ID covers both the phone number and
    the email address in it.
    """
    import os
    import sys

    from bridge.cli.bootstrap import address_hasher
    from bridge.cli.db import open_store
    from bridge.errors import ConfigError
    from bridge.settings import Settings, environment
    from bridge.store.contact_export import addresses_of_person, export_json

    settings = Settings.load(environment())
    with open_store(settings) as database:
        parts = export_json(database, addresses_of_person(database, person), address_hasher(settings))
        if output is None:
            sys.stdout.writelines(parts)
            return
        try:
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot write {output}: {error.strerror}") from None
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(parts)
    print_status(f"Exported to {output}.")


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
