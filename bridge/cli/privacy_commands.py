"""`bridge opt-outs` and `bridge erase`: manage opt-outs and erase personal data."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.output import (
    Json,
    Record,
    Table,
    Yes,
    as_items,
    masked_address,
    pluralize,
    print_status,
    render,
)
from bridge.clock import format_timestamp

if TYPE_CHECKING:
    from bridge.store.erase import EraseResult

_PANEL = "Privacy"


class Channel(StrEnum):
    """A channel on which recipients are contacted."""

    SMS = "sms"
    EMAIL = "email"
    CALL = "call"


Address = Annotated[
    str,
    typer.Argument(metavar="ADDRESS", help="Phone number (E.164, such as +14155550123) or email address."),
]
OnChannel = Annotated[
    list[Channel] | None,
    typer.Option(
        "--channel",
        help="Channel to change; repeatable. Default: sms and call for a phone number, email for an email address.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(invoke_without_command=True, help=opt_outs.__doc__)
    group.callback()(opt_outs)
    group.command()(add)
    group.command()(remove)
    app.add_typer(group, name="opt-outs", rich_help_panel=_PANEL)
    app.command(rich_help_panel=_PANEL)(erase)


def opt_outs(
    context: typer.Context,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=10_000, help="Maximum number of entries.")
    ] = 100,
    as_json: Json = False,
) -> None:
    """Show the opt-out list, newest first.

    Entries come from STOP replies, unsubscribe links and `bridge opt-outs add`. Times are UTC.
    """
    if context.invoked_subcommand is not None:
        return
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.opt_outs import list_opt_outs

    with open_store(Settings.load(environment())) as database:
        entries = list_opt_outs(database, limit)
    render(
        Table(
            entries,
            {
                "Since": lambda item: format_timestamp(item["opted_out_at"]),
                "Channel": "channel",
                "Address": lambda item: (
                    "erased" if item["address"].startswith("erased:") else masked_address(item["address"])
                ),
                "Source": "source",
            },
            empty="No opt-outs.",
        ),
        as_json,
    )


def add(address: Address, channel: OnChannel = None, as_json: Json = False) -> None:
    """Opt an address out.

    Messages already being sent are not recalled.
    """
    _save(address, channel, opted_out=True, as_json=as_json)


def remove(address: Address, channel: OnChannel = None, as_json: Json = False) -> None:
    """Remove an opt-out.

    Only do this at the recipient's request; you may have to prove it.
    """
    _save(address, channel, opted_out=False, as_json=as_json)


def _save(text: str, channels: list[Channel] | None, *, opted_out: bool, as_json: bool) -> None:
    from bridge.cli.db import open_store
    from bridge.cli.delivery_commands import current_operator
    from bridge.settings import Settings, environment
    from bridge.store.opt_outs import OptOutChange, save_opt_out

    address = _parse_address(text)
    default = [Channel.EMAIL] if "@" in address else [Channel.SMS, Channel.CALL]
    if invalid := [channel.value for channel in channels or () if channel not in default]:
        raise typer.BadParameter(f"channel `{invalid[0]}` does not apply to {masked_address(address)}")
    changes = [OptOutChange(item.value, address, opted_out, "command line") for item in channels or default]
    with open_store(Settings.load(environment())) as database:
        for change in changes:
            save_opt_out(database, change, current_operator())
    state = "opted out" if opted_out else "opt-out removed"
    lines = [f"{change.channel} to {masked_address(address)}: {state}" for change in changes]
    render(Record(as_items([vars(change) for change in changes]), "\n".join(lines)), as_json)


def _parse_address(text: str) -> str:
    from bridge.contacts.email import normalize_email
    from bridge.contacts.phone import normalize_phone
    from bridge.errors import ConfigError

    address = normalize_email(text) if "@" in text else normalize_phone(text)
    if address is None:
        raise ConfigError(
            f"`{text}` is neither a phone number with + and country code (+14155550123) nor an email address"
        )
    return address


def erase(
    phone: Annotated[
        str | None,
        typer.Option(help="Phone number to erase (E.164, such as +14155550123).", show_default=False),
    ] = None,
    email: Annotated[str | None, typer.Option(help="Email address to erase.", show_default=False)] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Erase a person's data from every event, delivery and cached record of this database.

    Pending deliveries to the person are cancelled. An opt-out is kept as a hash. Data held by providers is not
    changed.
    """
    from bridge.cli.db import open_store
    from bridge.cli.delivery_commands import current_operator
    from bridge.settings import Settings, environment
    from bridge.store.erase import erase as erase_address

    values = [value for value in (phone, email) if value]
    if not values:
        raise typer.BadParameter("missing address: use --phone +14155550123, --email, or both")
    addresses = [_parse_address(value) for value in values]
    settings = Settings.load(environment())
    secret = settings.bridge_secret_key.get_secret_value().encode() if settings.bridge_secret_key else None
    if not yes:
        typer.confirm(f"Permanently erase {' and '.join(addresses)}?", abort=True, err=True)
    with open_store(settings) as database:
        results = [
            (address, erase_address(database, current_operator(), address, secret)) for address in addresses
        ]
    render(
        Record(
            as_items([{"address": address, **vars(result)} for address, result in results]),
            "\n".join(_describe(address, result) for address, result in results),
        ),
        as_json,
    )


def _describe(address: str, result: EraseResult) -> str:
    return (
        f"{masked_address(address)}: erased from {pluralize(result.events, 'event')} and "
        f"{pluralize(result.deliveries, 'delivery')}, {result.cancelled} of them cancelled; deleted "
        f"{pluralize(result.cached_contacts, 'cached contact')} and "
        f"{pluralize(result.rejected_requests, 'rejected request')}; "
        f"kept {pluralize(result.opt_outs, 'opt-out')} as a hash"
    )
    if result.in_progress:
        print_status(
            f"{pluralize(result.in_progress, 'delivery')} in progress: run the same command again in a minute"
        )
