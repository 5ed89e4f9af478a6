"""`bridge retry`, `cancel` and `dismiss`: actions on deliveries, by their IDs or by a filter."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli.inspect_commands import ContactFilter
from bridge.cli.output import Json, Yes, render

PANEL = "Manage deliveries"

Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID...", help="IDs of deliveries (dlv_...).", show_default=False),
]
State = Annotated[
    list[str] | None,
    typer.Option(help="All deliveries in this state. Repeatable.", show_default=False),
]
Reason = Annotated[
    str | None, typer.Option(help="Only deliveries with this reason, such as timeout.", show_default=False)
]
ConnectionName = Annotated[
    str | None,
    typer.Option("--connection", help="Only deliveries that use this connection.", show_default=False),
]
RuleName = Annotated[
    str | None, typer.Option("--rule", help="Only deliveries of this rule.", show_default=False)
]
EventType = Annotated[
    str | None, typer.Option("--type", help="Only deliveries for this event type.", show_default=False)
]
Since = Annotated[
    str | None,
    typer.Option(
        help="Only deliveries created since: 2h, 7d, yesterday, or a timestamp.", show_default=False
    ),
]
Until = Annotated[
    str | None, typer.Option(help="Only deliveries created before; includes a day.", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print what would be done, and change nothing.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (retry, cancel, dismiss):
        app.command(rich_help_panel=PANEL)(command)


def retry(
    ids: Ids = None,
    state: State = None,
    reason: Reason = None,
    connection: ConnectionName = None,
    rule: RuleName = None,
    event_type: EventType = None,
    contact: ContactFilter = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Retry failed deliveries, and start the next attempt of waiting deliveries now.

    Name deliveries by their IDs, or all that match a filter: `bridge retry --state failed --connection hubspot`. A
    delivery that needs review is not retried: check with the provider first, then use `bridge resolve`. For several
    deliveries, it says what would be sent, and asks.
    """
    from bridge.cli.bulk import Criteria, change_deliveries

    criteria = Criteria(state, reason, connection, rule, event_type, contact, since, until)
    change_deliveries("retry", ids, criteria, yes=yes, dry_run=dry_run, as_json=as_json)


def cancel(
    ids: Ids = None,
    state: State = None,
    reason: Reason = None,
    connection: ConnectionName = None,
    rule: RuleName = None,
    event_type: EventType = None,
    contact: ContactFilter = None,
    since: Since = None,
    until: Until = None,
    rerender: Annotated[
        bool,
        typer.Option(
            "--rerender",
            help="With `--rule` alone: instead of cancelling, apply the current version of the rule to its waiting "
            "deliveries. Those that it would not create today are cancelled.",
        ),
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Cancel pending deliveries, by their IDs or all that match a filter.

    Deliveries that are waiting for a retry can be cancelled too, and those that need review if you name them or their
    state, but not one that is running. `bridge cancel --rule NAME --rerender` applies the current version of the rule
    instead, so that corrected words are sent. It changes only deliveries that were never attempted.
    """
    from bridge.cli.bulk import Criteria, change_deliveries

    criteria = Criteria(state, reason, connection, rule, event_type, contact, since, until)
    is_of_rule = not ids and criteria.is_rule_alone
    if rerender and not is_of_rule:
        raise typer.BadParameter("`--rerender` can only be used with `--rule` alone", param_hint="--rerender")
    if is_of_rule and rule is not None and not dry_run:
        from bridge.cli.rule_deliveries import cancel_deliveries, rerender_deliveries

        render((rerender_deliveries if rerender else cancel_deliveries)(rule, yes), as_json)
        return
    change_deliveries("cancel", ids, criteria, yes=yes, dry_run=dry_run, as_json=as_json)


def dismiss(
    ids: Ids = None,
    reason: Reason = None,
    connection: ConnectionName = None,
    rule: RuleName = None,
    event_type: EventType = None,
    contact: ContactFilter = None,
    since: Since = None,
    until: Until = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take the dismissal of these IDs back.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Dismiss failed deliveries that no longer need attention, by their IDs or all that match a filter.

    They stay failed, and can still be retried. The dashboard and `bridge deliveries --not-dismissed` leave them out.
    """
    from bridge.cli.bulk import Criteria, change_deliveries

    if undo and not ids:
        raise typer.BadParameter("`--undo` takes the IDs of deliveries", param_hint="--undo")
    criteria = Criteria(None, reason, connection, rule, event_type, contact, since, until)
    change_deliveries(
        "undismiss" if undo else "dismiss", ids, criteria, yes=yes, dry_run=dry_run, as_json=as_json
    )
