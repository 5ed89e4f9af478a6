"""`bridge opt-outs`: show, change, import and export the opt-out list."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge.cli.output import (
    Json,
    PrintedRecord,
    Record,
    Table,
    as_items,
    masked_address,
    pluralize,
    render,
)
from bridge.clock import format_timestamp

if TYPE_CHECKING:
    from bridge.connector.callbacks import Channel as ChannelName
    from bridge.store.opt_out_import import ImportReport
    from bridge.store.opt_outs import OptOutChange

_PANEL = "Privacy"


class Channel(StrEnum):
    """A channel on which recipients are contacted."""

    SMS = "sms"
    WHATSAPP = "whatsapp"
    CALL = "call"
    EMAIL = "email"


class Kind(StrEnum):
    """A kind of entry on the opt-out list."""

    OPT_OUT = "opt_out"
    UNDELIVERABLE = "undeliverable"


Addresses = Annotated[
    list[str],
    typer.Argument(
        metavar="ADDRESS...", help="Phone numbers (E.164, such as +14155550123) or email addresses."
    ),
]
Channels = Annotated[
    list[Channel] | None,
    typer.Option(
        "--channel",
        help="Channel to change; repeatable. Default: sms, whatsapp and call for a phone number, email for an email "
        "address.",
        show_default=False,
    ),
]
Reason = Annotated[
    str | None,
    typer.Option(
        help="Why, in your words: `our DNC list 2026-11`. Shown wherever the opt-out stops a message."
    ),
]
Events = Annotated[
    bool, typer.Option("--events", help="Publish a `contact.opted_out` event for each address.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(invoke_without_command=True, help=opt_outs.__doc__)
    group.callback()(opt_outs)
    for command in (show, add, remove):
        group.command()(command)
    group.command("import")(import_list)
    app.add_typer(group, name="opt-outs", rich_help_panel=_PANEL)


def opt_outs(
    context: typer.Context,
    channel: Annotated[Channel | None, typer.Option(help="Only this channel.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only opt-outs, or only undeliverable addresses.")] = None,
    source: Annotated[
        str | None,
        typer.Option(help="Only entries whose source contains this text, such as `STOP` or `import`."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=10_000, help="Maximum number of entries.")
    ] = 100,
    cursor: Annotated[
        str | None, typer.Option(help="Cursor from the previous page.", show_default=False)
    ] = None,
    as_csv: Annotated[
        bool,
        typer.Option("--csv", help="Print all entries with full addresses, for a file or a spreadsheet."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show the opt-out list, newest first.

    Entries come from STOP replies, unsubscribe links, `bridge opt-outs add` and `import`. Addresses to which messages
    cannot be delivered are listed as `undeliverable` for 90 days. Times are UTC.
    """
    if context.invoked_subcommand is not None:
        return
    from bridge.cli.arguments import check_cursor
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.opt_out_csv import write_opt_outs
    from bridge.store.opt_out_list import export_opt_outs, list_opt_outs

    check_cursor(cursor, "opt")
    with open_store(Settings.load(environment())) as database:
        if as_csv:
            write_opt_outs(sys.stdout, export_opt_outs(database, channel=channel, kind=kind, source=source))
            return
        page = list_opt_outs(database, limit, cursor=cursor, channel=channel, kind=kind, source=source)
    render(Table(page.items, _COLUMNS, empty="No opt-outs.", next_cursor=page.next_cursor), as_json)


_COLUMNS: Mapping[str, Any] = {
    "Since": lambda item: format_timestamp(item["since"]),
    "Until": lambda item: format_timestamp(item["until"]),
    "Kind": "kind",
    "Channel": "channel",
    "Address": lambda item: (
        "erased" if item["address"].startswith("erased:") else masked_address(item["address"])
    ),
    "Source": lambda item: f"{item['source']} by {item['actor']}" if item["actor"] else item["source"],
    "Reason": lambda item: item["reason"] or "",
}


def show(
    address: Annotated[
        str, typer.Argument(help="Phone number (E.164, such as +14155550123) or email address.")
    ],
    as_json: Json = False,
) -> None:
    """Show the entries of an address, and those of other addresses of the same contact.

    `messaging.opt_out_scope` in rules.yaml decides which channels an opt-out covers.
    """
    from bridge.cli.bootstrap import address_hasher
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.opt_out_list import show_opt_outs

    settings = Settings.load(environment())
    known = parse_address(address, allow_impossible=True)
    with open_store(settings) as database:
        entries = show_opt_outs(database, known, address_hasher(settings))
    columns = {
        **_COLUMNS,
        "Address": lambda item: "another address of the contact" if item["other_address"] else known,
    }
    render(Table(entries, columns, empty=f"{known}: no opt-outs."), as_json)


def add(addresses: Addresses, channel: Channels = None, reason: Reason = None, as_json: Json = False) -> None:
    """Opt addresses out.

    Messages already being sent are not recalled.
    """
    _save(addresses, channel, reason, opted_out=True, as_json=as_json)


def remove(
    addresses: Addresses, channel: Channels = None, reason: Reason = None, as_json: Json = False
) -> None:
    """Remove opt-outs, and let messages be sent again to undeliverable addresses.

    Remove an opt-out only at the recipient's request; you may have to prove it.
    """
    _save(addresses, channel, reason, opted_out=False, as_json=as_json)


def _save(
    texts: Sequence[str],
    channels: list[Channel] | None,
    reason: str | None,
    *,
    opted_out: bool,
    as_json: bool,
) -> None:
    from bridge.cli.db import open_store
    from bridge.cli.delivery_commands import current_operator
    from bridge.policy import channels_of
    from bridge.settings import Settings, environment
    from bridge.store.opt_outs import OptOutChange, save_opt_out

    names: list[ChannelName] = [item.value for item in channels or ()]
    changes = []
    for address in [parse_address(text, allow_impossible=not opted_out) for text in texts]:
        allowed = channels_of(address)
        if invalid := [name for name in names if name not in allowed]:
            raise typer.BadParameter(f"channel `{invalid[0]}` does not apply to {masked_address(address)}")
        changes += [
            OptOutChange(name, address, opted_out, "command line", current_operator(), reason)
            for name in names or allowed
        ]
    with open_store(Settings.load(environment())) as database:
        changed = save_opt_out(database, *changes)
    items = [vars(change) | {"changed": change.key in changed} for change in changes]
    text = "\n".join(_describe_change(change, changed=change.key in changed) for change in changes)
    render(Record(as_items(items), text), as_json)


def _describe_change(change: OptOutChange, *, changed: bool) -> str:
    if change.opted_out:
        state = "opted out" if changed else "already opted out"
    else:
        state = "opt-out removed" if changed else "was not opted out"
    return f"{change.channel} to {masked_address(change.address)}: {state}"


def parse_address(text: str, *, allow_impossible: bool = False) -> str:
    """Return the canonical address that an operator typed. Raise ConfigError."""
    from bridge.contacts.typed_address import InvalidAddress, read_typed_address
    from bridge.errors import ConfigError
    from bridge.settings import Settings, environment

    try:
        country = Settings.load(environment()).bridge_default_country
        return read_typed_address(text, country, allow_impossible=allow_impossible)
    except InvalidAddress as error:
        raise ConfigError(f"`{text}` {error}") from None


def import_list(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV file with the addresses to opt out; - reads stdin.")
    ],
    reason: Reason = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the file and report, but store nothing.")
    ] = False,
    events: Events = False,
    as_json: Json = False,
) -> None:
    """Import a list of addresses that want no messages.

    The columns are `address` and, optionally, `channel` and `reason`, separated by commas, semicolons or tabs. Lines
    that cannot be read are reported with their numbers (exit status 1); all others are stored, 1,000 lines per
    transaction. A repeated import changes nothing.
    """
    from bridge.cli.db import open_store
    from bridge.cli.delivery_commands import current_operator
    from bridge.settings import Settings, environment
    from bridge.store.opt_out_import import import_csv

    with open_store(Settings.load(environment())) as database, _open(file) as stream:
        report = import_csv(
            database,
            stream,
            current_operator(),
            name=Path(file).name,
            reason=reason,
            publish_events=events,
            dry_run=dry_run,
        )
    render(PrintedRecord(report.to_json(), partial(_print_report, report)), as_json)
    if report.unreadable:
        raise typer.Exit(1)


@contextmanager
def _open(file: str) -> Iterator[BufferedReader]:
    from bridge.errors import ConfigError

    if file == "-":
        stdin = sys.stdin.buffer
        yield stdin if isinstance(stdin, BufferedReader) else BufferedReader(stdin)  # type: ignore[arg-type]
        return
    try:
        with Path(file).open("rb") as stream:
            yield stream
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None


def _print_report(report: ImportReport) -> None:
    """Print the numbers and the lines that could not be read."""
    from bridge.cli.output import echo

    verb = "would be added" if report.dry_run else "added"
    parts = [f"{pluralize(report.added, 'address')} {verb}", f"{report.already:,} already opted out"]
    if report.skipped:
        parts.append(f"{report.skipped:,} skipped (erased or undeliverable entries of an export)")
    parts.append(f"{pluralize(report.unreadable, 'line')} not read")
    echo(", ".join(parts))
    for line in report.problems:
        echo(f"  line {line.number}: {line.problem}")
    if report.unreadable > len(report.problems):
        echo(f"  and {report.unreadable - len(report.problems):,} more")
