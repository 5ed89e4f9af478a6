"""`bridge db upgrade` and `bridge prune`: looking after the database."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli.output import Json, counted, print_json, say, span

_PANEL = "Setup"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    tables = typer.Typer(no_args_is_help=True, help="The database's tables.")
    tables.callback()(_tables)
    tables.command()(upgrade)
    app.add_typer(tables, name="db", rich_help_panel=_PANEL)
    app.command(rich_help_panel="Manage deliveries")(prune)


def _tables() -> None:
    """The database's tables."""


def upgrade(as_json: Json = False) -> None:
    """Bring the database to what this version needs; `bridge serve` does it by itself when it starts.

    Changes only add, so older processes go on working beside it.
    """
    from bridge.cli.db import migrate
    from bridge.settings import Settings, environment
    from bridge.store.database import Database

    database = Database(Settings.load(environment()).bridge_database_url, pool_size=1)
    try:
        version = migrate(database)
    finally:
        database.close()
    if as_json:
        print_json({"version": version})
    else:
        say(f"the database is at version {version}")


def prune(
    older_than: Annotated[
        str | None, typer.Option(help="Default: BRIDGE_RETENTION (30d).", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Empty events and deliveries that are finished and old; `bridge serve` does it every hour.

    What is unfinished or waits for a person is not touched; keys stay, so that nothing is done twice. Whom a
    message reached stays while a cap or a `once` of the rules counts it.
    """
    from bridge.cli.arguments import duration_of
    from bridge.cli.db import open_store
    from bridge.cli.delivery_commands import who
    from bridge.cli.dry_run import load_file
    from bridge.settings import Settings, environment
    from bridge.store.audit_log import record_audit
    from bridge.store.operator_actions import events_between
    from bridge.store.retention import prune as prune_store

    asked_for = None if older_than is None else duration_of(older_than, "--older-than")
    settings = Settings.load(environment())
    retention = settings.bridge_retention if asked_for is None else asked_for
    rules = load_file(settings.bridge_rules_file)
    with open_store(settings) as database:
        if not yes:
            most = len(events_between(database, None, database.clock.now() - retention))
            typer.confirm(
                f"Empty for good what is finished and older than {span(retention)}: at most "
                f"{counted(most, 'event')}, and their deliveries?",
                abort=True,
                err=True,
            )
        pruned = prune_store(database, retention, rules)
        with database.write() as connection:
            record_audit(
                connection, database.now(connection), who(), "prune", ["finished work"], vars(pruned)
            )
    if as_json:
        print_json(vars(pruned))
    else:
        say(
            f"{counted(pruned.events, 'event')} and {counted(pruned.deliveries, 'delivery')} emptied; "
            f"{counted(pruned.rejected_requests, 'refused request')} and "
            f"{counted(pruned.cached_contacts, 'remembered id')} removed"
        )
