"""`bridge events`, `deliveries` and `audit`: list stored data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import typer

from bridge.cli.arguments import check_cursor, parse_time_option
from bridge.cli.connection_commands import FindPause, blocking_pauses
from bridge.cli.output import Json, Table, masked_address, render
from bridge.clock import format_timestamp
from bridge.store.timeline import describe_state, format_details

PANEL = "Inspect"

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="Maximum number of entries.")]
Cursor = Annotated[
    str | None, typer.Option(help="Cursor from the previous page (`next_cursor`).", show_default=False)
]

ContactFilter = Annotated[
    str | None,
    typer.Option(
        "--contact",
        metavar="PHONE_OR_EMAIL",
        help="Only those of this person, in any notation.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(rich_help_panel=PANEL)(events)
    app.command(rich_help_panel=PANEL)(deliveries)
    app.command(rich_help_panel=PANEL)(audit)


def events(
    event_type: Annotated[
        str | None,
        typer.Option("--type", help="Only this event type, such as call.busy.", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only events received since: 2h, 7d, yesterday, 2026-03-02, or a timestamp.",
            show_default=False,
        ),
    ] = None,
    contact: ContactFilter = None,
    unreadable: Annotated[
        bool, typer.Option("--unreadable", help="Only events with fields that could not be read.")
    ] = False,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """List received events, newest first, with the states of their deliveries.

    Times are UTC.
    """
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.queries import list_events

    check_cursor(cursor, "evt")
    start = parse_time_option(since, "--since")
    with open_store(Settings.load(environment())) as database:
        page = list_events(
            database,
            event_type=event_type,
            since=start,
            limit=limit,
            cursor=cursor,
            unreadable=unreadable,
            contact=addresses_of(contact, database.default_country),
        )
    render(
        Table(
            page.items,
            {
                "ID": "id",
                "Event": "type",
                "Received": lambda item: format_timestamp(item["received_at"]),
                "Contact": lambda item: _contact(item),
                "Conversation": "conversation_id",
                "Deliveries": lambda item: _count_by_state(item),
            },
            empty="No such events."
            if unreadable or event_type or since or contact
            else "No events yet. Send one with `bridge send call.busy`.",
            next_cursor=page.next_cursor,
        ),
        as_json,
    )


def check_states(states: Sequence[str] | None) -> None:
    """Reject `--state` with something else than a state."""
    from bridge.store.queries import REASONS, STATES

    unknown = [name for name in states or () if name not in STATES]
    if unknown:
        hint = f"; {unknown[0]} is a reason: use `--reason {unknown[0]}`" if unknown[0] in REASONS else ""
        raise typer.BadParameter(
            f"unknown state {', '.join(unknown)}: choose from {', '.join(STATES)}{hint}", param_hint="--state"
        )


def check_reason(reason: str | None) -> None:
    """Reject `--reason` with something else than a reason."""
    from bridge.store.queries import REASONS

    if reason is not None and reason not in REASONS:
        raise typer.BadParameter(
            f"unknown reason {reason}: choose from {', '.join(REASONS)}", param_hint="--reason"
        )


def addresses_of(contact: str | None, country: str | None) -> Collection[str]:
    """Return how the address of `--contact` is stored; empty without the option."""
    if contact is None:
        return ()
    from bridge.contacts.phone import phone_problem
    from bridge.store.contact_rows import stored_addresses

    addresses = stored_addresses(contact, country)
    if not addresses:
        problem = "is not a valid email address" if "@" in contact else phone_problem(contact, country)
        raise typer.BadParameter(
            f"`{contact}` {problem}: write a phone number like +14155550123, or an email address",
            param_hint="--contact",
        )
    return addresses


def _contact(item: Mapping[str, Any]) -> str:
    """Return the masked address of an event's contact, and the names of the fields that could not be read."""
    unreadable = f"unreadable: {', '.join(item['unreadable'])}" if item["unreadable"] else ""
    return "  ".join(filter(None, (masked_address(item["phone"] or item["email"]), unreadable)))


def _count_by_state(item: Mapping[str, Any]) -> str:
    if item["routed_at"] is None:
        return "not routed yet"
    return ", ".join(f"{count} {state}" for state, count in sorted(item["deliveries"].items())) or "none"


def deliveries(
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="Only deliveries in this state: pending, retrying, needs_review, failed ... Repeatable.",
            show_default=False,
        ),
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(
            help="Only deliveries with this reason: shadow, opted_out, no_consent, timeout ...",
            show_default=False,
        ),
    ] = None,
    event: Annotated[
        str | None, typer.Option(help="Only deliveries of this event.", show_default=False)
    ] = None,
    connection: Annotated[
        str | None, typer.Option(help="Only deliveries that use this connection.", show_default=False)
    ] = None,
    rule: Annotated[
        str | None, typer.Option(help="Only deliveries of this rule.", show_default=False)
    ] = None,
    event_type: Annotated[
        str | None, typer.Option("--type", help="Only deliveries for this event type.", show_default=False)
    ] = None,
    contact: ContactFilter = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only deliveries created since: 2h, 7d, yesterday, or a timestamp.", show_default=False
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only deliveries created before; includes a day.", show_default=False)
    ] = None,
    not_dismissed: Annotated[
        bool, typer.Option("--not-dismissed", help="Without failed deliveries that were dismissed.")
    ] = False,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """List deliveries, newest first.

    If few deliveries match, a page may have fewer than `--limit` although more follow. Times are UTC.
    """
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.delivery_list import DeliveryFilter, list_deliveries

    check_states(state)
    check_reason(reason)
    check_cursor(cursor, "dlv")
    with open_store(Settings.load(environment())) as database:
        matching = DeliveryFilter(
            states=state or (), reason=reason, event=event, connection=connection, rule=rule,
            event_type=event_type, since=parse_time_option(since, "--since"),
            until=parse_time_option(until, "--until"), not_dismissed=not_dismissed,
            contact=addresses_of(contact, database.default_country),
        )  # fmt: skip
        page = list_deliveries(database, matching, limit=limit, cursor=cursor)
        find_pause = blocking_pauses(database)
    render(
        deliveries_table(page.items, find_pause, empty="No deliveries.", next_cursor=page.next_cursor),
        as_json,
    )


def deliveries_table(
    items: Sequence[Mapping[str, Any]], find_pause: FindPause, *, empty: str, next_cursor: str | None = None
) -> Table:
    """Return a table of deliveries, with the paused connection that blocks one as its reason."""
    from bridge.connector.action_name import ActionName

    return Table(
        items,
        {
            "ID": "id",
            "Rule": "rule",
            "Action": lambda item: ActionName.parse(item["action"]).with_connection(item["connection"]),
            "To": lambda item: masked_address(item["recipient"]),
            "State": lambda item: describe_state(item),
            "When": lambda item: format_timestamp(item["finished_at"] or item["run_at"]),
            "Reason": lambda item: _reason(item, find_pause),
        },
        empty,
        next_cursor,
    )


def _reason(item: Mapping[str, Any], find_pause: FindPause) -> str:
    """Return the reason for a delivery's state, including a paused connection that blocks it."""
    waiting = f"waiting: {item['connection']} is paused" if find_pause(item) else None
    return "; ".join(filter(None, (item["detail"], waiting)))


def audit(
    target: Annotated[
        str | None, typer.Option(help="Only about this ID or connection.", show_default=False)
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only what this actor did.", show_default=False)] = None,
    action: Annotated[
        str | None, typer.Option(help="Only this action, such as pause or opt_out.", show_default=False)
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """List what operators, recipients and the bridge itself did, newest first: retries, pauses, opt-outs, logins.

    Times are UTC.
    """
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.audit_log import list_audit_entries

    check_cursor(cursor, "aud")
    with open_store(Settings.load(environment())) as database:
        entries = list_audit_entries(
            database, target=target, actor=actor, action=action, limit=limit + 1, cursor=cursor
        )
    next_cursor = entries[limit - 1]["id"] if len(entries) > limit else None
    render(
        Table(
            entries[:limit],
            {
                "When": lambda item: format_timestamp(item["created_at"]),
                "Actor": "actor",
                "Action": "action",
                "Target": "target",
                "Details": lambda item: format_details(item),
            },
            empty="No entries.",
            next_cursor=next_cursor,
        ),
        as_json,
    )
