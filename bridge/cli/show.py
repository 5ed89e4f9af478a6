"""`bridge show`: one event, delivery or rejected request in full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any

import typer

from bridge.cli.arguments import LISTING_COMMANDS, id_prefix
from bridge.cli.connection_commands import FindPause, blocking_pauses
from bridge.cli.inspect_commands import PANEL, deliveries_table
from bridge.cli.output import Json, PrintedRecord, console, echo, render
from bridge.clock import format_timestamp
from bridge.store.timeline import describe_audit_entry, describe_state, timeline


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel=PANEL)(show)


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
    render(PrintedRecord(record, partial(print_record, record, find_pause)), as_json)


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
        | ({"Source": "reconciled: made from a call at Heppu"} if event["reconciled"] else {})
    )
    if event["duplicate_of"]:
        echo(f"\n{event['duplicate_of']} is about the same call, so no rule was evaluated for this event.")
    if event["dropped_fields"]:
        echo(f"\nNever stored (BRIDGE_DROP_FIELDS): {', '.join(event['dropped_fields'])}")
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
    deliveries_table(event["deliveries"], find_pause, empty="none").print_text()
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
    from bridge.rules.trace import Trace
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
            "Filled in later": ", ".join(delivery["options"].get("late", ())),
        }
    )
    _heading("Parameters")
    console().print_json(data=delivery["params"] | delivery["options"].get("late", {}))
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
