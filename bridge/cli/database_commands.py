"""`bridge db upgrade` and `bridge prune`: maintain the database."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli.output import Json, Record, Yes, pluralize, render
from bridge.clock import format_duration

_PANEL = "Setup"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(no_args_is_help=True, help=_db.__doc__)
    group.callback()(_db)
    group.command()(upgrade)
    app.add_typer(group, name="db", rich_help_panel=_PANEL)
    app.command(rich_help_panel="Manage deliveries")(prune)


def _db() -> None:
    """Manage the database schema."""


def upgrade(as_json: Json = False) -> None:
    """Migrate the database to the schema of this version.

    `bridge serve` does this automatically when it starts. Migrations only add to the schema, so processes of an older
    version keep working on the same database.
    """
    from bridge.cli.db import migrate
    from bridge.settings import Settings, environment
    from bridge.store.database import Database

    settings = Settings.load(environment())
    database = Database(
        settings.bridge_database_url, pool_size=1, default_country=settings.bridge_default_country
    )
    try:
        version = migrate(database)
    finally:
        database.close()
    render(Record({"version": version}, f"The database is at version {version}."), as_json)


def prune(
    older_than: Annotated[
        str | None,
        typer.Option(help="Minimum age, such as 30d. Default: BRIDGE_RETENTION (30d).", show_default=False),
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete the content of old events and finished deliveries.

    `bridge serve` does this every hour. Unfinished deliveries and deliveries that need review are kept. Idempotency
    keys are kept, so that no action runs twice. The recipient of a message is kept while a cap or a `once` counts it.
    """
    from bridge.cli.arguments import parse_duration_option
    from bridge.cli.db import open_store
    from bridge.cli.delivery_commands import current_operator
    from bridge.cli.dry_run import load_file
    from bridge.settings import Settings, environment
    from bridge.store.audit_log import record_audit
    from bridge.store.operator_actions import events_between
    from bridge.store.retention import prune as prune_store

    minimum_age = None if older_than is None else parse_duration_option(older_than, "--older-than")
    settings = Settings.load(environment())
    retention = settings.bridge_retention if minimum_age is None else minimum_age
    rules = load_file(settings.bridge_rules_file, settings)
    with open_store(settings) as database:
        if not yes:
            upper_bound = len(events_between(database, None, database.clock.now() - retention))
            typer.confirm(
                f"Permanently delete the content of finished events older than {format_duration(retention)}, "
                f"at most {pluralize(upper_bound, 'event')} and their deliveries?",
                abort=True,
                err=True,
            )
        pruned = prune_store(database, retention, rules)
        with database.write() as connection:
            record_audit(
                connection,
                database.now(connection),
                current_operator(),
                "prune",
                ["finished work"],
                vars(pruned),
            )
    render(
        Record(
            vars(pruned),
            f"Pruned {pluralize(pruned.events, 'event')} and {pluralize(pruned.deliveries, 'delivery')}; deleted "
            f"{pluralize(pruned.rejected_requests, 'rejected request')} and "
            f"{pluralize(pruned.cached_contacts, 'cached contact')}.",
        ),
        as_json,
    )
