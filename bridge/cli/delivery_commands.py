"""`bridge retry`, `replay`, `cancel`, `resolve`, `rejections`, `pause` and `resume`: acting on stored work."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.arguments import check_before
from bridge.cli.output import Json, instant, print_items, print_json, print_table, say

if TYPE_CHECKING:
    from bridge.store.database import Database
    from bridge.store.operator_actions import Act

_PANEL = "Act"

Deliveries = Annotated[list[str], typer.Argument(metavar="ID...", help="Deliveries: dlv_...")]


class Verdict(StrEnum):
    """What a person found out about a delivery in review."""

    SENT = "sent"
    RESEND = "resend"
    DROP = "drop"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (retry, replay, cancel, resolve, pause, resume):
        app.command(rich_help_panel=_PANEL)(command)
    rejections = typer.Typer(invoke_without_command=True, help=rejected.__doc__)
    rejections.callback()(rejected)
    rejections.command()(accept)
    app.add_typer(rejections, name="rejections", rich_help_panel=_PANEL)


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
    verdict: Annotated[
        Verdict,
        typer.Argument(
            help="sent: the partner has it; resend: it has not, send it again; drop: leave it as it is."
        ),
    ],
    partner_id: Annotated[
        str | None, typer.Option(help="With `sent`: the partner's id of what you found.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Decide about a delivery in review, after looking at the partner."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store import operator_actions

    if partner_id is not None and verdict is not Verdict.SENT:
        raise typer.BadParameter(
            f"nothing was found, says `{verdict.value}`; an id of it goes with `sent`",
            param_hint="--partner-id",
        )
    with open_store(Settings.load(environment())) as database:
        _report([operator_actions.resolve(database, who(), ident, verdict.value, partner_id)], as_json)


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
    again: Annotated[
        bool, typer.Option("--again", help="Also what was brought about before: people ARE written to twice.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Route stored events once more, with the rules file of today.

    What was brought about before is not done twice (a record in a CRM is updated), unless --again says so.
    """
    from bridge.cli.replay import replay_events

    chosen = replay_events(events or [], since, until, rule, again, yes, as_json)
    if not chosen:
        raise typer.Exit(1)


def rejected(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 20,
    before: Annotated[
        str | None, typer.Option(help="The `next` of the page before.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """The requests that were refused, the newest first; `accept` takes one that Heppu had signed after all."""
    if context.invoked_subcommand is not None:
        return
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.queries import list_rejections

    check_before(before, "rej")
    with open_store(Settings.load(environment())) as database:
        page = list_rejections(database, limit=limit, before=before)
    if as_json:
        print_items(page.items, page.next)
        return

    def signed(item: Any) -> str:
        return (
            f"accepted as {item['accepted_as']}" if item["accepted_as"] else "yes" if item["signed"] else "no"
        )

    print_table(
        page.items,
        {
            "ID": "id",
            "Received": lambda item: instant(item["received_at"]),
            "Answer": "status",
            "Kind": "kind",
            "Signed": signed,
            "Why": "detail",
        },
        empty="No request was refused.",
    )
    if page.next is not None:
        say(f"There is more: --before {page.next}")


def accept(
    ident: Annotated[str, typer.Argument(metavar="ID", help="rej_...")], as_json: Json = False
) -> None:
    """Take a refused request as an event after all; only what Heppu had signed can be."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store import operator_actions

    with open_store(Settings.load(environment())) as database:
        _report([operator_actions.accept_rejection(database, who(), ident)], as_json)


Connection = Annotated[
    str, typer.Argument(metavar="CONNECTION", help="Its name in rules.yaml: twilio, hubspot ...")
]


def pause(
    connection: Connection,
    why: Annotated[str, typer.Option(help="For the log page and whoever comes after you.")] = "",
    as_json: Json = False,
) -> None:
    """Let nothing leave over a connection until `bridge resume`; deliveries wait, and nothing is lost."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store import connections

    with open_store(Settings.load(environment())) as database:
        _connection(database, connection)
        connections.pause(database, connection, why or f"by {who()}", who())
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
