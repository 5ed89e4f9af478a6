"""`bridge events`, `deliveries`, `show` and `audit`: inspect stored data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from bridge.cli.arguments import LISTING_COMMANDS, check_cursor, id_prefix, parse_time_option
from bridge.cli.connection_commands import FindPause, blocking_pauses
from bridge.cli.output import (
    Json,
    Table,
    console,
    echo,
    masked_address,
    print_json,
    render,
)  # fmt: skip
from bridge.clock import format_timestamp
from bridge.store.timeline import (
    describe_audit_entry,
    describe_state,
    format_details,
    timeline,
)

_PANEL = "Inspect"

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
    app.command(rich_help_panel=_PANEL)(events)
    app.command(rich_help_panel=_PANEL)(deliveries)
    app.command(rich_help_panel=_PANEL)(show)
    app.command(rich_help_panel=_PANEL)(audit)


def events(
    event_type: Annotated[
        str | None,
        typer.Option("--type", help="Only this event type, such as call.busy.", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only events received since this time: 2h, 7d, or a timestamp.", show_default=False
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
            contact=_addresses(contact, database.default_country),
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


def _addresses(contact: str | None, country: str | None) -> Collection[str]:
    """Return how the address of `--contact` is stored; empty without the option."""
    from bridge.contacts.phone import phone_problem
    from bridge.store.contact_rows import stored_addresses

    if contact is None:
        return ()
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
    contact: ContactFilter = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """List deliveries, newest first.

    Times are UTC.
    """
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.queries import REASONS, STATES, list_deliveries

    unknown = [name for name in state or () if name not in STATES]
    if unknown:
        hint = f"; {unknown[0]} is a reason: use `--reason {unknown[0]}`" if unknown[0] in REASONS else ""
        raise typer.BadParameter(
            f"unknown state {', '.join(unknown)}: choose from {', '.join(STATES)}{hint}", param_hint="--state"
        )
    if reason is not None and reason not in REASONS:
        raise typer.BadParameter(
            f"unknown reason {reason}: choose from {', '.join(REASONS)}", param_hint="--reason"
        )
    check_cursor(cursor, "dlv")
    with open_store(Settings.load(environment())) as database:
        page = list_deliveries(
            database, states=state or (), reason=reason, event=event, connection=connection, rule=rule,
            limit=limit, cursor=cursor, contact=_addresses(contact, database.default_country),
        )  # fmt: skip
        find_pause = blocking_pauses(database)
    render(_deliveries(page.items, find_pause, empty="No deliveries.", next_cursor=page.next_cursor), as_json)


def _deliveries(
    items: Sequence[Mapping[str, Any]], find_pause: FindPause, *, empty: str, next_cursor: str | None = None
) -> Table:
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


def show(
    record_id: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="ID of an event (evt_...), a delivery (dlv_...) or a rejected request (rej_...).",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Show one event, delivery or rejected request in full.

    For an event, this includes why each rule fired or not; for a delivery, every attempt. Times are UTC.
    """
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.audit_log import list_audit_entries
    from bridge.store.queries import NotFound, show_delivery, show_event, show_rejected_request

    readers = {
        "evt": (show_event, _print_event),
        "dlv": (show_delivery, _print_delivery),
        "rej": (show_rejected_request, _print_rejected_request),
    }
    read, print_record = readers[id_prefix(record_id)]
    with open_store(Settings.load(environment())) as database:
        try:
            record = read(database, record_id) | {"audit": list_audit_entries(database, target=record_id)}
        except NotFound as error:
            command = LISTING_COMMANDS[id_prefix(record_id)]
            raise NotFound(f"{error}; list the IDs with `bridge {command}`") from None
        find_pause = blocking_pauses(database)
    if as_json:
        print_json(record)
    else:
        print_record(record, find_pause)


def _print_event(event: Mapping[str, Any], find_pause: FindPause) -> None:
    _print_fields(
        {
            "Event": f"{event['type']}  {event['id']}",
            "Occurred": format_timestamp(event["occurred_at"]),
            "Received": format_timestamp(event["received_at"]),
            "Routed": format_timestamp(event["routed_at"]) or "not yet",
            "Contact": "  ".join(filter(None, (event["phone"], event["email"]))) or "unknown",
            "Conversation": event["conversation_id"],
            "Dedupe key": event["dedupe_key"],
        }
    )
    print_unreadable_fields(event["unreadable_fields"])
    if event["body"] is None:
        echo("\nThe body has been deleted (retention or erasure).")
    else:
        _heading("Body")
        console().print_json(data=event["body"])
    _heading("Rules")
    if event["trace"] is None:
        echo(
            "not routed yet"
            if event["routed_at"] is None
            else "The trace has been deleted (retention or erasure)."
        )
    print_traces(event["trace"] or ())
    _heading("Deliveries")
    _deliveries(event["deliveries"], find_pause, empty="none").print_text()
    _print_operator_actions(event["audit"])


def print_unreadable_fields(fields: Iterable[Mapping[str, Any]]) -> None:
    """Print the fields of an event that have a value that could not be read, and why."""
    from rich.text import Text

    fields = list(fields)
    if fields:
        console().print(Text("\nCould not be read", "bold yellow"))
        for item in fields:
            hint = f"; {item['hint']}" if item["hint"] else ""
            echo(f"{item['path']} {item['problem']}{hint}")


def print_traces(traces: Iterable[Mapping[str, Any]]) -> None:
    """Print why each rule fired or not. Disabled rules share one line, and rules for other event types another."""
    from bridge.rules.model import Trace
    from bridge.rules.unmet import is_disabled, is_for_other_events

    others, disabled = [], []
    for record in traces:
        trace = Trace.from_json(record)
        if is_for_other_events(trace):
            others.append(trace.rule)
        elif is_disabled(trace):
            disabled.append(trace.rule)
        else:
            _print_trace(record)
    if disabled:
        echo(f"disabled (`enabled: false`): {', '.join(disabled)}")
    if others:
        echo(f"for other event types: {', '.join(others)}")


def _print_trace(trace: Mapping[str, Any]) -> None:
    from rich.text import Text

    fired = trace["fired"]
    mark = Text("✓ ", "green") if fired else Text("· ", "dim")
    line = mark + Text(trace["rule"] or "(routing)", "bold" if fired else "")
    line.append("  fires" if fired else "  does not fire", "dim")
    if trace["error"]:
        line.append(f"  {trace['error']}", "red")
    console().print(line)
    for check in trace["checks"]:
        result = check["result"]
        color = {"true": "green", "false": "red"}.get(result, "yellow")
        line = Text(f"    {result:9}", color).append("  " * check["depth"] + check["condition"], "none")
        if check["actual"]:
            line.append(f"   actual: {check['actual']}", "dim")
        if check["reason"]:
            line.append(f"   {check['reason']}", "dim")
        console().print(line)


def _print_delivery(delivery: Mapping[str, Any], find_pause: FindPause) -> None:
    _print_fields(
        {
            "Delivery": f"{delivery['action']}  {delivery['id']}",
            "State": describe_state(delivery),
            "Reason": delivery["detail"],
            "Rule": delivery["rule"] + ("" if delivery["trigger"] == "rule" else f" ({delivery['trigger']})"),
            "Connection": delivery["connection"],
            "Event": delivery["event_id"],
            "Triggered by": delivery["parent_id"],
            "To": delivery["recipient"],
            "External ID": delivery["external_id"],
            "Next attempt": _next_attempt(delivery, find_pause),
            "Expires at": format_timestamp(delivery["expires_at"]),
            "Left out": "; ".join(delivery["options"].get("notes", ())),
        }
    )
    _heading("Parameters")
    console().print_json(data=delivery["params"])
    _heading("Timeline (UTC)")
    for at, text in timeline(delivery):
        echo(f"{format_timestamp(at)}  {text}")
    if delivery["state"] == "needs_review":
        echo(
            "\nThis delivery needs review: check with the provider, then run "
            f"`bridge resolve {delivery['id']} delivered`, `retry` or `discard`."
        )
    elif delivery["state"] == "failed":
        echo(f"\nAfter fixing the cause, run `bridge retry {delivery['id']}`.")


def _next_attempt(delivery: Mapping[str, Any], find_pause: FindPause) -> str | None:
    if delivery["state"] not in ("pending", "retrying"):
        return None
    at = format_timestamp(delivery["run_at"])
    pause = find_pause(delivery)
    if pause is None:
        return at
    name = delivery["connection"]
    return f"when {name} is resumed, not before {at}: {pause}; {pause.hint}"


def _print_rejected_request(rejected_request: Mapping[str, Any], _: FindPause) -> None:
    _print_fields(
        {
            "Rejected": f"{rejected_request['reason']}  {rejected_request['id']}",
            "Detail": rejected_request["detail"],
            "Status": str(rejected_request["status"]),
            "Received": format_timestamp(rejected_request["received_at"]),
            "Signature valid": "yes" if rejected_request["signature_valid"] else "no",
            "Accepted as": rejected_request["accepted_event_id"],
        }
    )
    if rejected_request["body"] is not None:
        _heading("Body")
        echo(rejected_request["body"].decode("utf-8", "replace")[:4000])
        if rejected_request["accepted_event_id"] is None:
            echo(f"\nTo accept it as an event, run `bridge rejected accept {rejected_request['id']}`.")
    _print_operator_actions(rejected_request["audit"])


def audit(limit: Limit = 20, cursor: Cursor = None, as_json: Json = False) -> None:
    """List operator actions, newest first: retries, replays, resolutions, pauses, opt-outs, erasures.

    Times are UTC.
    """
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.audit_log import list_audit_entries

    check_cursor(cursor, "aud")
    with open_store(Settings.load(environment())) as database:
        entries = list_audit_entries(database, limit=limit + 1, cursor=cursor)
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
            empty="No operator actions yet.",
            next_cursor=next_cursor,
        ),
        as_json,
    )


def _print_operator_actions(entries: Iterable[Mapping[str, Any]]) -> None:
    entries = list(entries)
    if entries:
        _heading("Operator actions")
        for entry in reversed(entries):
            echo(f"{format_timestamp(entry['created_at'])}  {describe_audit_entry(entry)}")


def _print_fields(fields: Mapping[str, str | None]) -> None:
    from rich.text import Text

    width = max(len(name) for name, value in fields.items() if value)
    for name, value in fields.items():
        if value:
            console().print(Text(f"{name:<{width}}  ", "bold").append(str(value), "none"), soft_wrap=True)


def _heading(text: str) -> None:
    from rich.text import Text

    console().print(Text(f"\n{text}", "bold cyan"))
