"""`bridge erase`: erases personal data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.output import (
    Json,
    Record,
    Yes,
    as_items,
    masked_address,
    pluralize,
    print_status,
    render,
)

if TYPE_CHECKING:
    from bridge.store.erase import EraseResult

_PANEL = "Privacy"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(rich_help_panel=_PANEL)(erase)


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
    keys = [key.encode() for key in settings.secret_keys]
    if not yes:
        typer.confirm(f"Permanently erase {' and '.join(addresses)}?", abort=True, err=True)
    with open_store(settings) as database:
        results = [
            (address, erase_address(database, current_operator(), address, keys)) for address in addresses
        ]
    render(
        Record(
            as_items([{"address": address, **vars(result)} for address, result in results]),
            "\n".join(_describe(address, result) for address, result in results),
        ),
        as_json,
    )
    in_progress = sum(result.in_progress for _, result in results)
    if in_progress:
        print_status(
            f"{pluralize(in_progress, 'delivery')} in progress: run the same command again in a minute"
        )


def _parse_address(text: str) -> str:
    """Return an address as events have it: any number, and an email address with its own capitals."""
    from bridge.contacts.address import normalize_address
    from bridge.errors import ConfigError
    from bridge.settings import Settings, environment

    address = normalize_address(text, Settings.load(environment()).bridge_default_country)
    if address is None:
        raise ConfigError(
            f"`{text}` is neither a phone number with + and country code (+14155550123) nor an email address"
        )
    return address


def _describe(address: str, result: EraseResult) -> str:
    return (
        f"{masked_address(address)}: erased from {pluralize(result.events, 'event')} and "
        f"{pluralize(result.deliveries, 'delivery')}, {result.cancelled} of them cancelled; deleted "
        f"{pluralize(result.cached_contacts, 'cached contact')} and "
        f"{pluralize(result.rejected_requests, 'rejected request')}; "
        f"kept {pluralize(result.opt_outs, 'opt-out')} as a hash"
    )
