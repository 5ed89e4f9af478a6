"""`bridge why`: why a person got a message or did not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.arguments import check_cursor, parse_time_option
from bridge.cli.connection_commands import FindPause, blocking_pauses
from bridge.cli.inspect_commands import Cursor
from bridge.cli.output import Json, PrintedRecord, console, echo, pluralize, render
from bridge.clock import format_timestamp

if TYPE_CHECKING:
    from bridge.settings import Settings
    from bridge.store.contact_report import ContactReport


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(rich_help_panel="Inspect")(why)


def why(
    contact: Annotated[
        str,
        typer.Argument(
            metavar="PHONE_OR_EMAIL",
            help="Phone number or email address in any notation, or the ID of a conversation.",
        ),
    ],
    since: Annotated[
        str,
        typer.Option(
            help="Only events received since this time: 2h, 7d, yesterday, 2026-03-02, or a timestamp."
        ),
    ] = "7d",
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=200, help="Maximum number of events.")
    ] = 20,
    cursor: Cursor = None,
    as_json: Json = False,
) -> None:
    """Show why a person got a message or did not: every event about them, newest last, and what decided.

    For each event: its deliveries with the policy that decided, the rules that did not fire with the condition that
    was not met, and the rules that were disabled. Then the opt-outs of the person. Times are on the person's clock,
    and UTC in brackets.
    """
    from bridge.cli.bootstrap import address_hasher
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.contact_report import report_contact

    check_cursor(cursor, "evt")
    start = parse_time_option(since, "--since")
    settings = Settings.load(environment())
    with open_store(settings) as database:
        report = report_contact(
            database,
            contact,
            since=start,
            time_zone=_time_zone(settings),
            hash_address=address_hasher(settings),
            limit=limit,
            cursor=cursor,
        )
        find_pause = blocking_pauses(database)
    printer = _Printer(contact, since, find_pause)
    render(PrintedRecord(report.to_json(), partial(printer.print, report)), as_json)


def _time_zone(settings: Settings) -> str:
    """Return `messaging.time_zone` of the rules, or its default while the file has errors."""
    from bridge.cli.bootstrap import registry_for
    from bridge.errors import ConfigError
    from bridge.rules.files import read_rules_files
    from bridge.rules.load import load_or_raise
    from bridge.rules.model import MessagingPolicy

    path = settings.bridge_rules_file
    try:
        rules = load_or_raise(read_rules_files(path), path=str(path), registry=registry_for(path, settings))
    except ConfigError:
        return MessagingPolicy().time_zone
    return rules.messaging.time_zone


@dataclass(frozen=True)
class _Printer:
    """Prints a report for people."""

    contact: str
    since: str
    find_pause: FindPause

    def print(self, report: ContactReport) -> None:
        if not report.items:
            echo(
                f"No events of `{self.contact}` with --since {self.since}. For a longer time, use --since 30d."
            )
        for item in report.items:
            self._print_event(item)
        if report.next_cursor is not None:
            echo(f"Earlier events: --cursor {report.next_cursor}")
        for entry in report.opt_outs:
            echo(_describe_entry(entry))
        if report.rejected_requests:
            echo(
                f"{pluralize(report.rejected_requests, 'request')} rejected since {self.since}: they may have been "
                "about anyone. List them with `bridge rejected`."
            )

    def _print_event(self, item: Mapping[str, Any]) -> None:
        from rich.text import Text

        line = Text(f"{item['local_time']} ", "bold").append(f"({_utc(item['occurred_at'])})  ", "none")
        line.append(item["type"], "bold cyan").append(f"  {item['id']}", "dim")
        if item["other_address"]:
            line.append("  another address of the contact, or a message to this one", "dim")
        console().print(line, soft_wrap=True)
        for delivery in item["deliveries"]:
            echo(f"  {self._describe_delivery(delivery)}")
        for rule in item["rules"]:
            if rule["enabled"]:
                echo(f"  {rule['rule']} {rule['answer']}")
        for rule in item["rules"]:
            if not rule["enabled"]:
                echo(f"  {rule['rule']} {rule['answer']}")
        if item["routed_at"] is None:
            echo("  not routed yet")
        elif not item["trace_kept"]:
            echo("  why rules did not fire is no longer stored (retention or erasure)")
        elif not item["deliveries"] and not item["rules"]:
            echo(f"  no rule handles {item['type']}")
        echo("")

    def _describe_delivery(self, delivery: Mapping[str, Any]) -> str:
        from bridge.connector.action_name import ActionName

        action = ActionName.parse(delivery["action"]).with_connection(delivery["connection"])
        pause = f"; waiting: {delivery['connection']} is paused" if self.find_pause(delivery) else ""
        at = _utc(delivery["finished_at"] or delivery["run_at"])
        return (
            f"{action} of {delivery['rule']}: {delivery['answer']}{pause}  "
            f"{delivery['local_time']} ({at})  {delivery['id']}"
        )


def _describe_entry(entry: Mapping[str, Any]) -> str:
    """Return an entry of the opt-out list on one line."""
    kind = "Opted out of" if entry["kind"] == "opt_out" else "Undeliverable on"
    by = f", by {entry['actor']}" if entry["actor"] else ""
    reason = f": {entry['reason']}" if entry["reason"] else ""
    until = f", until {format_timestamp(entry['until'])} UTC" if entry["until"] else ""
    other = " (another address of the contact)" if entry["other_address"] else ""
    since = format_timestamp(entry["since"])
    return f"{kind} {entry['channel']} since {since} UTC{until} ({entry['source']}{by}){reason}{other}"


def _utc(instant: Any) -> str:
    return f"{instant:%H:%M} UTC"
