"""`bridge retry`, `replay`, `cancel`, `resolve`, `rejections`, `pause` and `resume`: acting on stored work."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.arguments import check_cursor
from bridge.cli.output import Json, instant, print_items, print_json, print_table, say

if TYPE_CHECKING:
    from bridge.store.database import Database
    from bridge.store.operator_actions import Act

_PANEL = "Manage deliveries"

Deliveries = Annotated[list[str], typer.Argument(metavar="ID...", help="Deliveries: dlv_...")]


class Resolution(StrEnum):
    """The operator's decision about a delivery that needs review."""

    DELIVERED = "delivered"
    RETRY = "retry"
    DISCARD = "discard"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (retry, replay, cancel, resolve, pause, resume):
        app.command(rich_help_panel=_PANEL)(command)
    rejected_requests = typer.Typer(invoke_without_command=True, help=rejected.__doc__)
    rejected_requests.callback()(rejected)
    rejected_requests.command()(accept)
    app.add_typer(rejected_requests, name="rejected", rich_help_panel=_PANEL)


def who() -> str:
    """Who acts, for the audit: the user of this machine."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        import os

        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def retry(ids: Deliveries, as_json: Json = False) -> None:
    """Attempt dead deliveries again, and those that wait for their next attempt at once.

    One in review is not retried: first look at the partner, then `bridge resolve`.
    """
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store import operator_actions

    with open_store(Settings.load(environment())) as database:
        _report(operator_actions.retry(database, who(), ids), as_json)


def cancel(ids: Deliveries, as_json: Json = False) -> None:
    """Do not send what waits."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store import operator_actions

    with open_store(Settings.load(environment())) as database:
        _report(operator_actions.cancel(database, who(), ids), as_json)


def resolve(
    ident: Annotated[str, typer.Argument(metavar="ID", help="A delivery in review: dlv_...")],
    resolution: Annotated[
        Resolution,
        typer.Argument(
            help="delivered: the provider has it; retry: the provider does not have it, send it again; discard: give up."
        ),
    ],
    external_id: Annotated[
        str | None,
        typer.Option(
            help="The provider's ID of the record or message; only with `delivered`.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Decide about a delivery in review, after looking at the partner."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store import operator_actions

    if external_id is not None and resolution is not Resolution.DELIVERED:
        raise typer.BadParameter(
            "`--external-id` can only be used with `delivered`",
            param_hint="--external-id",
        )
    with open_store(Settings.load(environment())) as database:
        _report([operator_actions.resolve(database, who(), ident, resolution.value, external_id)], as_json)


def _report(done: Sequence[Act], as_json: bool) -> None:
    """What became of each id; exit 1 when any of it was refused."""
    if as_json:
        print_items([vars(act) for act in done])
    else:
        for act in done:
            say(f"{'✓' if act.done else '✗'} {act.id}: {act.text}{_where_to_look(act)}")
    if not all(act.done for act in done):
        raise typer.Exit(1)


def _where_to_look(act: Act) -> str:
    from bridge.store.operator_actions import NO_SUCH_DELIVERY

    return "; `bridge deliveries` lists them" if act.text == NO_SUCH_DELIVERY else ""


def replay(
    events: Annotated[
        list[str] | None,
        typer.Argument(metavar="EVENT...", help="Stored events: evt_...", show_default=False),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="All events since then: 24h, 7d, or an instant.", show_default=False)
    ] = None,
    until: Annotated[str | None, typer.Option(help="... and before then.", show_default=False)] = None,
    rule: Annotated[
        str | None, typer.Option(help="Only what this rule makes of them.", show_default=False)
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also what was brought about before: people ARE written to twice.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Route stored events once more, with the rules file of today.

    What was brought about before is not done twice (a record in a CRM is updated), unless --force says so.
    """
    from bridge.cli.replay import replay_events

    chosen = replay_events(events or [], since, until, rule, force, yes, as_json)
    if not chosen:
        raise typer.Exit(1)


def rejected(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 20,
    cursor: Annotated[
        str | None, typer.Option(help="Cursor from the previous page (`next_cursor`).", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """The requests that were refused, the newest first; `accept` takes one that Heppu had signed after all."""
    if context.invoked_subcommand is not None:
        return
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.queries import list_rejected_requests

    check_cursor(cursor, "rej")
    with open_store(Settings.load(environment())) as database:
        page = list_rejected_requests(database, limit=limit, cursor=cursor)
    if as_json:
        print_items(page.items, page.next_cursor)
        return

    def signed(item: Any) -> str:
        return (
            f"accepted as {item['accepted_event_id']}"
            if item["accepted_event_id"]
            else "yes"
            if item["signature_valid"]
            else "no"
        )

    print_table(
        page.items,
        {
            "ID": "id",
            "Received": lambda item: instant(item["received_at"]),
            "Answer": "status",
            "Reason": "reason",
            "Signed": signed,
            "Why": "detail",
        },
        empty="No request was refused.",
    )
    if page.next_cursor is not None:
        say(f"There is more: --cursor {page.next_cursor}")


def accept(
    ident: Annotated[str, typer.Argument(metavar="ID", help="rej_...")], as_json: Json = False
) -> None:
    """Take a refused request as an event after all; only what Heppu had signed can be."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store import operator_actions

    with open_store(Settings.load(environment())) as database:
        _report([operator_actions.accept_rejected_request(database, who(), ident)], as_json)


Connection = Annotated[
    str, typer.Argument(metavar="CONNECTION", help="Its name in rules.yaml: twilio, hubspot ...")
]


def pause(
    connection: Connection,
    reason: Annotated[str, typer.Option(help="For the log page and whoever comes after you.")] = "",
    as_json: Json = False,
) -> None:
    """Let nothing leave over a connection until `bridge resume`; deliveries wait, and nothing is lost."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store import connections

    with open_store(Settings.load(environment())) as database:
        _connection(database, connection)
        connections.pause(database, connection, reason or f"by {who()}", who())
        record = _connection(database, connection)
    if as_json:
        print_json(record)
    else:
        say(f"{connection} is paused; `bridge resume {connection}` lets it go on")


def resume(connection: Connection, as_json: Json = False) -> None:
    """End any pause of a connection: a person's, for credentials, for quota, or an open circuit."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store import connections

    with open_store(Settings.load(environment())) as database:
        _connection(database, connection)
        connections.resume(database, connection, who())
        record = _connection(database, connection)
    if as_json:
        print_json(record)
    else:
        say(f"{connection} goes on")


def _connection(database: Database, name: str) -> dict[str, Any]:
    """The connection's record, the same as the API's; raises ConfigError when there is none."""
    from bridge.errors import ConfigError
    from bridge.store.connections import all_connections
    from bridge.web.admin_service import connection_record

    rows = {row["name"]: row for row in all_connections(database)}
    if name not in rows:
        raise ConfigError(f"no connection is called `{name}`; there are {', '.join(rows) or 'none yet'}")
    return connection_record(rows[name], database.clock.now())
