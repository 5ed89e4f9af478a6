"""`bridge opt-outs` and `bridge erase`: what people wish."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.output import Json, address, counted, instant, note, print_items, print_table, say

if TYPE_CHECKING:
    from bridge.store.erase import Erased

_PANEL = "Privacy"


class Channel(StrEnum):
    """How people are reached."""

    SMS = "sms"
    EMAIL = "email"
    CALL = "call"


Address = Annotated[
    str,
    typer.Argument(metavar="ADDRESS", help="A phone number (E.164, like +14155550123) or an e-mail address."),
]
OnChannel = Annotated[
    list[Channel] | None,
    typer.Option(
        "--channel",
        help="Only this one; default: texts and calls of a number, mails of an address.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    wishes = typer.Typer(invoke_without_command=True, help=opt_outs.__doc__)
    wishes.callback()(opt_outs)
    wishes.command()(add)
    wishes.command()(remove)
    app.add_typer(wishes, name="opt-outs", rich_help_panel=_PANEL)
    app.command(rich_help_panel=_PANEL)(erase)


def opt_outs(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many.")] = 100,
    as_json: Json = False,
) -> None:
    """Who wants no texts, mails or calls, the newest first. They come from STOP, unsubscribe links and `add`."""
    if context.invoked_subcommand is not None:
        return
    from bridge.cli.db import open_store
    from bridge.settings import Settings, environment
    from bridge.store.opt_outs import opt_outs as wishes

    with open_store(Settings.load(environment())) as database:
        found = wishes(database, limit)
    if as_json:
        print_items(found)
        return
    print_table(
        found,
        {
            "Since": lambda item: instant(item["opted_out_at"]),
            "Channel": "channel",
            "Address": lambda item: (
                "erased" if item["address"].startswith("erased:") else address(item["address"])
            ),
            "From": "source",
        },
        empty="Nobody opted out.",
    )


def add(whose: Address, channel: OnChannel = None, as_json: Json = False) -> None:
    """Write to nobody at this address any more; what goes out while you type is the last."""
    _set(whose, channel, opted_out=True, as_json=as_json)


def remove(whose: Address, channel: OnChannel = None, as_json: Json = False) -> None:
    """Take an opt-out back. Only when the person asked for it: the law wants to see that."""
    _set(whose, channel, opted_out=False, as_json=as_json)


def _set(whose: str, channels: list[Channel] | None, *, opted_out: bool, as_json: bool) -> None:
    from bridge.cli.db import open_store
    from bridge.cli.delivery_commands import who
    from bridge.settings import Settings, environment
    from bridge.store.opt_outs import Preference, set_preference

    found = _address(whose)
    default = [Channel.EMAIL] if "@" in found else [Channel.SMS, Channel.CALL]
    if unfit := [channel.value for channel in channels or () if channel not in default]:
        raise typer.BadParameter(f"nobody is reached by {unfit[0]} at {address(found)}")
    wishes = [Preference(name.value, found, opted_out, "command line") for name in channels or default]
    with open_store(Settings.load(environment())) as database:
        for wish in wishes:
            set_preference(database, wish, who())
    if as_json:
        print_items([vars(wish) for wish in wishes])
        return
    for wish in wishes:
        say(f"{wish.channel} to {address(found)}: {'opted out' if opted_out else 'allowed again'}")


def _address(text: str) -> str:
    from bridge.errors import ConfigError
    from bridge.events import normalize_email, normalize_phone

    found = normalize_email(text) if "@" in text else normalize_phone(text)
    if found is None:
        raise ConfigError(
            f"`{text}` is neither a phone number with + and country code (+14155550123) nor an e-mail address"
        )
    return found


def erase(
    phone: Annotated[str | None, typer.Option(help="E.164, like +14155550123.", show_default=False)] = None,
    email: Annotated[str | None, typer.Option(help="An e-mail address.", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Erase a person: every event, delivery and note of this database that holds their number or address.

    What still waits for them is cancelled. An opt-out is kept, as a hash. What partners hold is not touched.
    """
    from bridge.cli.db import open_store
    from bridge.cli.delivery_commands import who
    from bridge.settings import Settings, environment
    from bridge.store.erase import erase as erase_address

    given = [text for text in (phone, email) if text]
    if not given:
        raise typer.BadParameter("say whom: --phone +14155550123, --email, or both")
    addresses = [_address(text) for text in given]
    settings = Settings.load(environment())
    secret = settings.bridge_secret_key.get_secret_value().encode() if settings.bridge_secret_key else None
    if not yes:
        typer.confirm(f"Erase {' and '.join(addresses)} for good?", abort=True, err=True)
    with open_store(settings) as database:
        erased = [(found, erase_address(database, who(), found, secret)) for found in addresses]
    if as_json:
        print_items([{"address": found, **vars(counts)} for found, counts in erased])
        return
    for found, counts in erased:
        _print_proof(found, counts)


def _print_proof(found: str, erased: Erased) -> None:
    say(
        f"{address(found)}: {counted(erased.events, 'event')} and {counted(erased.deliveries, 'delivery')} emptied, "
        f"{erased.cancelled} of them cancelled; {counted(erased.cached_contacts, 'remembered id')} and "
        f"{counted(erased.rejected_requests, 'refused request')} removed; {counted(erased.opt_outs, 'opt-out')} kept as a hash"
    )
    if erased.under_way:
        note(f"{counted(erased.under_way, 'delivery')} just under way: erase once more in a minute")
