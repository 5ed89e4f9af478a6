"""`bridge events`, `deliveries`, `show`, `rejections` and `audit`: looking at what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from bridge.cli.arguments import KINDS, check_cursor, instant_of, kind_of
from bridge.cli.connection_commands import Paused, behind, paused_connections, way_out, why_paused
from bridge.cli.output import (
    Json,
    address,
    console,
    instant,
    print_items,
    print_json,
    print_table,
    say,
)  # fmt: skip
from bridge.store.timeline import describe_audit_entry, format_details, state_of, timeline

_PANEL = "Inspect"

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")]
Cursor = Annotated[
    str | None, typer.Option(help="Cursor from the previous page (`next_cursor`).", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
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
        str | None, typer.Option(help="Only those since: 2h, 7d, or an instant.", show_default=False)
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """The events that were received, the newest first, and what became of their deliveries. Times are UTC."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.queries import list_events

    check_cursor(cursor, "evt")
    begins = instant_of(since, "--since")
    with open_store(Settings.load(environment())) as database:
        page = list_events(database, event_type=event_type, since=begins, limit=limit, cursor=cursor)
    if as_json:
        print_items(page.items, page.next_cursor)
        return
    print_table(
        page.items,
        {
            "ID": "id",
            "Event": "type",
            "Received": lambda item: instant(item["received_at"]),
            "Contact": lambda item: address(item["phone"] or item["email"]),
            "Conversation": "conversation",
            "Deliveries": lambda item: _counted(item),
        },
        empty="No events yet. `bridge send call.busy` sends one.",
    )
    _more(page.next_cursor)


def _counted(item: Mapping[str, Any]) -> str:
    if item["routed_at"] is None:
        return "not routed yet"
    return ", ".join(f"{count} {state}" for state, count in sorted(item["deliveries"].items())) or "none"


def deliveries(
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="Only in this state (several times if need be): pending, retrying, review, dead ...",
            show_default=False,
        ),
    ] = None,
    event: Annotated[str | None, typer.Option(help="Only of this event.", show_default=False)] = None,
    connection: Annotated[
        str | None, typer.Option(help="Only over this connection.", show_default=False)
    ] = None,
    rule: Annotated[str | None, typer.Option(help="Only of this rule.", show_default=False)] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """The deliveries, the newest first. Times are UTC."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.queries import STATES, list_deliveries

    unknown = [word for word in state or () if word not in STATES]
    if unknown:
        raise typer.BadParameter(
            f"no state is called {', '.join(unknown)}; there are {', '.join(STATES)}", param_hint="--state"
        )
    check_cursor(cursor, "dlv")
    with open_store(Settings.load(environment())) as database:
        page = list_deliveries(
            database, states=state or (), event=event, connection_name=connection, rule=rule,
            limit=limit, cursor=cursor,
        )  # fmt: skip
        paused = paused_connections(database)
    if as_json:
        print_items(page.items, page.next_cursor)
        return
    _print_deliveries(page.items, paused, empty="No deliveries.")
    _more(page.next_cursor)


def _print_deliveries(items: Iterable[Mapping[str, Any]], paused: Paused, *, empty: str) -> None:
    print_table(
        list(items),
        {
            "ID": "id",
            "Rule": "rule",
            "Action": lambda item: _action(item),
            "To": lambda item: address(item["recipient"]),
            "State": lambda item: state_of(item),
            "When": lambda item: instant(item["finished_at"] or item["run_at"]),
            "Why": lambda item: _why(item, paused),
        },
        empty=empty,
    )


def _why(item: Mapping[str, Any], paused: Paused) -> str:
    """Why a delivery is as it is; what waits for a paused connection says so."""
    waits = f"waits: {item['connection']} is paused" if behind(item, paused) else None
    return "; ".join(filter(None, (item["detail"], waits)))


def _action(item: Mapping[str, Any]) -> str:
    connector = str(item["action"]).partition(".")[0]
    return f"{item['action']}" + (f" ({item['connection']})" if item["connection"] != connector else "")


def _more(next_cursor: str | None) -> None:
    if next_cursor is not None:
        say(f"There is more: --cursor {next_cursor}")


def show(
    ident: Annotated[str, typer.Argument(metavar="ID", help="evt_..., dlv_... or rej_...")],
    as_json: Json = False,
) -> None:
    """Everything about one event, delivery or rejected request: why each rule fired or not, and every attempt."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.audit_log import entries
    from bridge.store.queries import NotFound, show_delivery, show_event, show_rejected_request

    readers = {
        "evt": (show_event, _print_event),
        "dlv": (show_delivery, _print_delivery),
        "rej": (show_rejected_request, _print_rejected_request),
    }
    read, print_found = readers[kind_of(ident)]
    with open_store(Settings.load(environment())) as database:
        try:
            found = read(database, ident) | {"audit": entries(database, target=ident)}
        except NotFound as error:
            raise NotFound(f"{error}; `bridge {KINDS[kind_of(ident)]}` lists what there is") from None
        paused = paused_connections(database)
    if as_json:
        print_json(found)
    else:
        print_found(found, paused)


def _print_event(event: Mapping[str, Any], paused: Paused) -> None:
    _facts(
        {
            "Event": f"{event['type']}  {event['id']}",
            "Happened": instant(event["occurred_at"]),
            "Received": instant(event["received_at"]),
            "Routed": instant(event["routed_at"]) or "not yet",
            "Contact": "  ".join(filter(None, (event["phone"], event["email"]))) or "nobody known",
            "Conversation": event["conversation_id"],
            "Webhook ID": event["dedupe_key"],
        }
    )
    if event["body"] is None:
        say("\nIts body is no longer kept.")
    else:
        _heading("Body")
        console().print_json(data=event["body"])
    _heading("Rules")
    if event["trace"] is None:
        say("not routed yet" if event["routed_at"] is None else "no longer kept")
    print_traces(event["trace"] or ())
    _heading("Deliveries")
    _print_deliveries(event["deliveries"], paused, empty="none")
    _print_acts(event["audit"])


def print_traces(traces: Iterable[Mapping[str, Any]]) -> None:
    """Why each rule fired or not; those for other events on one line."""
    others = []
    for trace in traces:
        if not trace["fired"] and not trace["error"] and _is_for_other_events(trace):
            others.append(trace["rule"])
        else:
            _print_trace(trace)
    if others:
        say(f"for other events, or switched off: {', '.join(others)}")


def _is_for_other_events(trace: Mapping[str, Any]) -> bool:
    first = next(iter(trace["checks"]), None)
    return (
        first is not None
        and first["result"] == "false"
        and str(first["condition"]).startswith(("when ", "enabled"))
    )


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
        verdict = check["result"]
        colour = {"true": "green", "false": "red"}.get(verdict, "yellow")
        text = Text(f"    {verdict:9}", colour).append("  " * check["depth"] + check["condition"], "none")
        if check["actual"]:
            text.append(f"   found {check['found']}", "dim")
        if check["reason"]:
            text.append(f"   {check['reason']}", "dim")
        console().print(text)


def _print_delivery(delivery: Mapping[str, Any], paused: Paused) -> None:
    _facts(
        {
            "Delivery": f"{delivery['action']}  {delivery['id']}",
            "State": state_of(delivery),
            "Why": delivery["detail"],
            "Rule": delivery["rule"] + ("" if delivery["trigger"] == "rule" else f" ({delivery['origin']})"),
            "Connection": delivery["connection"],
            "Event": delivery["event_id"],
            "Because of": delivery["parent_id"],
            "To": delivery["recipient"],
            "Partner's ID": delivery["external_id"],
            "Next attempt": _next_attempt(delivery, paused),
            "Worth it until": instant(delivery["expires_at"]),
        }
    )
    _heading("Params")
    console().print_json(data=delivery["params"])
    _heading("What happened (UTC)")
    for at, text in timeline(delivery):
        say(f"{instant(at)}  {text}")
    if delivery["state"] == "needs_review":
        say(
            f"\nIt waits for you: look at the partner, then `bridge resolve {delivery['id']} sent`, `resend` or `drop`."
        )
    elif delivery["state"] == "failed":
        say(f"\nOnce the cause is mended: `bridge retry {delivery['id']}`.")


def _next_attempt(delivery: Mapping[str, Any], paused: Paused) -> str | None:
    if delivery["state"] not in ("pending", "retrying"):
        return None
    at = instant(delivery["run_at"])
    pause = behind(delivery, paused)
    if pause is None:
        return at
    name = delivery["connection"]
    return f"when {name} goes on, not before {at}: it is paused by {why_paused(pause)}; {way_out(pause)}"


def _print_rejected_request(rejected_request: Mapping[str, Any], _: Paused) -> None:
    _facts(
        {
            "Refused": f"{rejected_request['reason']}  {rejected_request['id']}",
            "Why": rejected_request["detail"],
            "Answered": str(rejected_request["status"]),
            "Received": instant(rejected_request["received_at"]),
            "Signed": "yes" if rejected_request["signature_valid"] else "no",
            "Accepted as": rejected_request["accepted_event_id"],
        }
    )
    if rejected_request["body"] is not None:
        _heading("Body")
        say(rejected_request["body"].decode("utf-8", "replace")[:4000])
        if rejected_request["accepted_event_id"] is None:
            say(f"\nTo take it after all: `bridge rejected accept {rejected_request['id']}`.")
    _print_acts(rejected_request["audit"])


def audit(limit: Limit = 20, cursor: Cursor = None, as_json: Json = False) -> None:
    """What people did: retries, replays, resolutions, pauses, opt-outs, erasures. The newest first."""
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.audit_log import entries

    check_cursor(cursor, "aud")
    with open_store(Settings.load(environment())) as database:
        found = entries(database, limit=limit + 1, cursor=cursor)
    next_cursor = found[limit - 1]["id"] if len(found) > limit else None
    if as_json:
        print_items(found[:limit], next_cursor)
        return
    print_table(
        found[:limit],
        {
            "When": lambda item: instant(item["created_at"]),
            "Actor": "actor",
            "Action": "action",
            "Target": "target",
            "Details": lambda item: format_details(item),
        },
        empty="Nobody did anything yet.",
    )
    _more(next_cursor)


def _print_acts(found: Iterable[Mapping[str, Any]]) -> None:
    found = list(found)
    if found:
        _heading("What people did")
        for entry in reversed(found):
            say(f"{instant(entry['at'])}  {describe_audit_entry(entry)}")


def _facts(facts: Mapping[str, str | None]) -> None:
    from rich.text import Text

    width = max(len(name) for name, value in facts.items() if value)
    for name, value in facts.items():
        if value:
            console().print(Text(f"{name:<{width}}  ", "bold").append(str(value), "none"), soft_wrap=True)


def _heading(text: str) -> None:
    from rich.text import Text

    console().print(Text(f"\n{text}", "bold cyan"))
