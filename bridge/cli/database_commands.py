"""`bridge db` and `bridge prune`: maintain the database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.output import Json, Record, Yes, pluralize, render
from bridge.clock import format_duration

_PANEL = "Setup"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(no_args_is_help=True, help=_db.__doc__)
    group.callback()(_db)
    for command in (upgrade, current, backup, restore, reencrypt):
        group.command()(command)
    app.add_typer(group, name="db", rich_help_panel=_PANEL)
    app.command(rich_help_panel="Manage deliveries")(prune)


def _db() -> None:
    """Migrate the database, back it up and restore it."""


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


def reencrypt(
    decrypt: Annotated[
        bool, typer.Option("--decrypt", help="Store everything in clear again, before the keys are removed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Encrypt what is stored with the current key of BRIDGE_ENCRYPTION_KEYS.

    Run it after the keys were set or changed; then the earlier key can be removed. It works in small steps
    while the service runs, can be interrupted, and does nothing a second time.
    """
    from bridge.cli.db import open_store
    from bridge.errors import ConfigError
    from bridge.settings import Settings, environment
    from bridge.store.reencryption import reencrypt as rewrite

    with open_store(Settings.load(environment())) as database:
        if database.sealer is None:
            raise ConfigError("set BRIDGE_ENCRYPTION_KEYS first: the current key, then the earlier ones")
        database.sealer.writes = not decrypt
        changed = rewrite(database)
    done = "decrypted" if decrypt else "encrypted with the current key"
    render(Record({"changed": changed}, f"{pluralize(changed, 'value')} {done}."), as_json)


def current(as_json: Json = False) -> None:
    """Print the version of the database's schema, and that of this version of the bridge. Changes nothing."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.migrate import current_revision, is_known, newest_revision

    with open_store(Settings.load(environment())) as database:
        version = current_revision(database) or ""
    newest = newest_revision()
    text = f"The database is at version {version}, as this version of the bridge needs it."
    if version != newest:
        text = f"The database is at version {version}; `bridge db upgrade` migrates it to {newest}."
    if not is_known(version):
        text = (
            f"The database is at version {version}, of a newer version of the bridge than this one, which needs "
            f"{newest}. This version works on it, because migrations only add to the schema."
        )
    render(Record({"version": version, "newest": newest, "is_known": is_known(version)}, text), as_json)


def backup(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The new file. It must not exist.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Write a checked copy of the SQLite database to a file, while the service runs.

    It contains personal data, and only its owner can read it. For PostgreSQL, use pg_dump.
    """
    from bridge.cli.db import open_store
    from bridge.cli.delivery_commands import current_operator
    from bridge.cli.output import print_status
    from bridge.cli.restore import require_sqlite
    from bridge.errors import StoreUnavailable
    from bridge.settings import Settings, environment
    from bridge.store.audit_log import record_audit
    from bridge.store.sqlite_backup import back_up

    settings = Settings.load(environment())
    require_sqlite(settings, "pg_dump --format=custom --file=FILE")
    with open_store(settings) as database:
        content = back_up(database, file)
        try:
            with database.write() as conn:
                record_audit(
                    conn, database.now(conn), current_operator(), "backup", ["database"], {"file": file.name}
                )
        except StoreUnavailable as error:  # the backup of a full disk is worth more than its entry
            print_status(f"the audit log has no entry of this backup: {error}")
    text = (
        f"Wrote {file}: {content.size / 1e6:,.1f} MB, {pluralize(content.events, 'event')}, version {content.revision} "
        "of the schema. The copy passed SQLite's integrity check."
    )
    render(Record(vars(content) | {"file": str(file)}, text), as_json)


def restore(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A file that `bridge db backup` has written.", show_default=False
        ),
    ],
    pause: Annotated[
        bool,
        typer.Option(
            "--pause/--no-pause",
            help="Pause all connections, because the backup does not know what was sent since.",
        ),
    ] = True,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Replace the SQLite database with a backup. The service must be stopped.

    The replaced database is kept next to it. The backup does not know what was sent after it was written, so all
    connections are paused: look at what waits, cancel what was sent, then run `bridge resume --all`. For PostgreSQL,
    use pg_restore.
    """
    from bridge.cli.delivery_commands import current_operator
    from bridge.cli.restore import require_sqlite
    from bridge.cli.restore import restore as restore_database
    from bridge.clock import format_timestamp
    from bridge.errors import ConfigError
    from bridge.settings import Settings, environment

    settings = Settings.load(environment())
    path = require_sqlite(settings, "pg_restore")
    if not file.is_file():
        raise ConfigError(f"{file} is not a file: name a file that `bridge db backup` has written")
    if not yes:
        typer.confirm(f"Replace {path} with {file}?", abort=True, err=True)
    restored = restore_database(settings, file, pause=pause, actor=current_operator())
    content = restored.backup
    newest = (
        f", the last one of {format_timestamp(content.newest_event_at)} UTC"
        if content.newest_event_at
        else ""
    )
    lines = [f"Restored {file}: {pluralize(content.events, 'event')}{newest}."]
    if restored.replaced is not None:
        lines += [
            f"The replaced database is {restored.replaced}. Delete it when you no longer need it.",
            "Opt-outs and erasures since the backup are only there: docs/deployment.md says how to bring them over.",
        ]
    if pause:
        lines += [
            "All connections are paused: what was sent after the backup would be sent again.",
            "See what waits: bridge deliveries --state pending --state retrying --state running",
            "Cancel what was already sent (bridge cancel ID...), then run: bridge resume --all",
        ]
    record = {
        "file": str(file), "database": str(path), "events": content.events, "newest_event_at": content.newest_event_at,
        "version": restored.revision, "replaced": restored.replaced and str(restored.replaced), "paused": pause,
    }  # fmt: skip
    render(Record(record, "\n".join(lines)), as_json)


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
    Rows that are older than BRIDGE_DELETE_AFTER are deleted, if it is set.
    """
    from bridge.cli.arguments import parse_duration_option
    from bridge.cli.db import open_store
    from bridge.cli.delivery_commands import current_operator
    from bridge.cli.dry_run import load_file
    from bridge.settings import Settings, environment
    from bridge.store.audit_log import record_audit
    from bridge.store.deletion import delete_rows
    from bridge.store.replay import select_events
    from bridge.store.retention import prune as prune_store

    minimum_age = None if older_than is None else parse_duration_option(older_than, "--older-than")
    settings = Settings.load(environment())
    retention = settings.bridge_retention if minimum_age is None else minimum_age
    rules = load_file(settings.bridge_rules_file, settings)
    with open_store(settings) as database:
        if not yes:
            upper_bound = len(select_events(database, until=database.clock.now() - retention).ids)
            typer.confirm(
                f"Permanently delete the content of finished events older than {format_duration(retention)}, "
                f"at most {pluralize(upper_bound, 'event')} and their deliveries?",
                abort=True,
                err=True,
            )
        pruned = prune_store(database, retention, rules)
        deleted = delete_rows(database, settings.bridge_delete_after, rules)
        rows = f", and {pluralize(deleted, 'row')} of finished work" if deleted else ""
        with database.write() as connection:
            record_audit(
                connection,
                database.now(connection),
                current_operator(),
                "prune",
                ["finished work"],
                vars(pruned) | {"deleted_rows": deleted},
            )
    render(
        Record(
            vars(pruned) | {"deleted_rows": deleted},
            f"Pruned {pluralize(pruned.events, 'event')} and {pluralize(pruned.deliveries, 'delivery')}; deleted "
            f"{pluralize(pruned.rejected_requests, 'rejected request')} and "
            f"{pluralize(pruned.cached_contacts, 'cached contact')}{rows}.",
        ),
        as_json,
    )
