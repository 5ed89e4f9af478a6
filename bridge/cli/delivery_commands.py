"""`bridge replay`, `resolve` and `rejected`: operator actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bridge.cli.arguments import check_cursor
from bridge.cli.output import Json, Record, Table, Yes, as_items, render, result_line
from bridge.clock import format_timestamp

if TYPE_CHECKING:
    from bridge.store.operator_actions import ActionResult

_PANEL = "Manage deliveries"

DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Only print what would be sent, and change nothing.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (replay, resolve):
        app.command(rich_help_panel=_PANEL)(command)
    rejected_requests = typer.Typer(invoke_without_command=True, help=rejected.__doc__)
    rejected_requests.callback()(rejected)
    rejected_requests.command()(accept)
    app.add_typer(rejected_requests, name="rejected", rich_help_panel=_PANEL)


def current_operator() -> str:
    """Return the actor for the audit log: the user of this machine."""
    import getpass
    import socket

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in many containers
        import os

        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def resolve(
    delivery_id: Annotated[
        str, typer.Argument(metavar="ID", help="ID of a delivery that needs review (dlv_...).")
    ],
    resolution: Annotated[
        Literal["delivered", "retry", "discard"],
        typer.Argument(
            metavar="RESOLUTION",
            help="`delivered`: the provider has it; `retry`: the provider does not have it, send it again; "
            "`discard`: give up.",
        ),
    ],
    external_id: Annotated[
        str | None,
        typer.Option(
            help="ID of the record or message at the provider; only with `delivered`.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Resolve a delivery that needs review.

    Check with the provider first whether the action took effect.
    """
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store import operator_actions

    if external_id is not None and resolution != "delivered":
        raise typer.BadParameter(
            "`--external-id` can only be used with `delivered`",
            param_hint="--external-id",
        )
    with open_store(Settings.load(environment())) as database:
        result = operator_actions.resolve(database, current_operator(), delivery_id, resolution, external_id)
    print_results([result], as_json)


def print_results(results: Sequence[ActionResult], as_json: bool) -> None:
    """Print the result for each ID. Exit with 1 if any action failed."""
    lines = [result_line(result.done, result.id, f"{result.text}{_hint(result)}") for result in results]
    render(Record(as_items([vars(result) for result in results]), "\n".join(lines)), as_json)
    if not all(result.done for result in results):
        raise typer.Exit(1)


def _hint(result: ActionResult) -> str:
    from bridge.store.operator_actions import UNKNOWN_DELIVERY

    return "; list the IDs with `bridge deliveries`" if result.text == UNKNOWN_DELIVERY else ""


def replay(
    events: Annotated[
        list[str] | None,
        typer.Argument(metavar="EVENT...", help="IDs of stored events (evt_...).", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Start of a time range: 24h, yesterday, 2026-03-02, or a timestamp.", show_default=False
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="End of the time range; includes a day.", show_default=False)
    ] = None,
    event_type: Annotated[
        str | None,
        typer.Option("--type", help="Only events of this type, such as call.busy.", show_default=False),
    ] = None,
    nothing_done: Annotated[
        bool, typer.Option("--nothing-done", help="Only events for which no rule fired.")
    ] = False,
    rule: Annotated[
        str | None, typer.Option(help="Only deliveries of this rule.", show_default=False)
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Repeat actions that already succeeded. Recipients WILL be contacted again."
        ),
    ] = False,
    reason: Annotated[
        str | None,
        typer.Option(
            help="Why, for the audit log. Required to --force all that match a filter.", show_default=False
        ),
    ] = None,
    yes: Yes = False,
    dry_run: DryRunOption = False,
    as_json: Json = False,
) -> None:
    """Route stored events again with the current rules.

    Side effects that already happened are not repeated (a CRM record is updated), unless you use --force. Before it
    asks, it says what would be sent. Days are in UTC.
    """
    from bridge.cli.replay import EventOptions, ReplayReport, replay_events

    options = EventOptions(event_type, since, until, nothing_done)
    report = replay_events(events or [], options, rule, force, reason, yes, dry_run)
    render(report, as_json)
    if isinstance(report, ReplayReport) and not report.ok:
        raise typer.Exit(1)


def rejected(
    context: typer.Context,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=1000, help="Maximum number of entries.")
    ] = 20,
    cursor: Annotated[
        str | None, typer.Option(help="Cursor from the previous page (`next_cursor`).", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """List rejected webhook requests, newest first.

    `bridge rejected accept ID` accepts one as an event. Times are UTC.
    """
    if context.invoked_subcommand is not None:
        return
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.queries import list_rejected_requests

    check_cursor(cursor, "rej")
    with open_store(Settings.load(environment())) as database:
        page = list_rejected_requests(database, limit=limit, cursor=cursor)

    def signature(item: Any) -> str:
        return (
            f"accepted as {item['accepted_event_id']}"
            if item["accepted_event_id"]
            else "valid"
            if item["signature_valid"]
            else "invalid"
        )

    render(
        Table(
            page.items,
            {
                "ID": "id",
                "Received": lambda item: format_timestamp(item["received_at"]),
                "Status": "status",
                "Reason": "reason",
                "Signature": signature,
                "Detail": "detail",
            },
            empty="No rejected requests.",
            next_cursor=page.next_cursor,
        ),
        as_json,
    )


def accept(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="ID of a rejected request (rej_...).")],
    as_json: Json = False,
) -> None:
    """Accept a rejected request as an event. Its signature must be valid."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.accept_rejected import accept_rejected_request

    with open_store(Settings.load(environment())) as database:
        result = accept_rejected_request(database, current_operator(), request_id)
    print_results([result], as_json)
