"""`bridge heppu webhooks`: the webhooks that Heppu sends events by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.output import Json, counted, note, print_items, print_json, print_table, say

if TYPE_CHECKING:
    from bridge.heppu_api import HeppuApi
    from bridge.settings import Settings

Events = Annotated[
    list[str] | None,
    typer.Option("--event", help="An event to send, repeatable; default: all seven.", show_default=False),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="webhook_..., as `list` shows it.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    heppu = typer.Typer(no_args_is_help=True, help="Heppu's own settings, by its API (HEPPU_API_KEY).")
    webhooks = typer.Typer(no_args_is_help=True, help="The webhooks that Heppu sends events by.")
    webhooks.command("list")(list_webhooks)
    webhooks.command()(create)
    webhooks.command()(update)
    webhooks.command()(delete)
    heppu.add_typer(webhooks, name="webhooks")
    app.add_typer(heppu, name="heppu", rich_help_panel="Setup")


@contextmanager
def _api() -> Iterator[tuple[HeppuApi, Settings]]:
    """Heppu's API; its refusals and network errors end in a message."""
    import httpx

    from bridge.errors import BridgeError, ConfigError
    from bridge.heppu_api import URL, HeppuApi, HeppuError
    from bridge.settings import Settings, environment

    environ = environment()
    key = environ.get("HEPPU_API_KEY")
    if not key:
        raise ConfigError("set HEPPU_API_KEY: make a key in Heppu's dashboard, Organization -> API Keys")
    api = HeppuApi(key, environ.get("HEPPU_API_URL") or URL)
    try:
        yield api, Settings.load(environ)
    except HeppuError as error:
        hint = "; is HEPPU_API_KEY right?" if error.status in (401, 403) else ""
        raise BridgeError(f"{error}{': ' + error.message if error.message else ''}{hint}") from None
    except httpx.HTTPError as error:
        raise BridgeError(f"no answer from Heppu: {type(error).__name__}") from None
    finally:
        api.close()


def list_webhooks(as_json: Json = False) -> None:
    """The webhooks that are set up."""
    with _api() as (api, _):
        found = api.list_webhooks()
    if as_json:
        print_items(found)
        return
    print_table(
        found,
        {
            "ID": "id",
            "URL": "url",
            "Status": "status",
            "Events": lambda item: ", ".join(map(str, item.get("events") or ())),
            "Last delivered": "lastDeliveredAt",
        },
        empty="No webhooks yet: `bridge heppu webhooks create`.",
    )


def create(
    url: Annotated[
        str | None, typer.Option(help="Default: BRIDGE_PUBLIC_URL + /webhooks/heppu.", show_default=False)
    ] = None,
    events: Events = None,
    description: Annotated[str, typer.Option(help="For Heppu's dashboard.")] = "bridge",
    as_json: Json = False,
) -> None:
    """Have Heppu send events here, signed.

    Signs with the first HEPPU_WEBHOOK_SECRET; without one a secret is made and printed before Heppu is asked.
    """
    from bridge.errors import ConfigError
    from bridge.events import EVENT_NAMES
    from bridge.heppu_api import new_secret

    with _api() as (api, settings):
        target = url or (
            f"{settings.bridge_public_url.rstrip('/')}/webhooks/heppu" if settings.bridge_public_url else None
        )
        if target is None:
            raise ConfigError("say --url, or set BRIDGE_PUBLIC_URL to where Heppu reaches this service")
        if not target.startswith("https://"):
            note("Heppu documents that it sends to public https:// addresses only; a tunnel gives you one")
        if settings.heppu_webhook_secret:
            secret = settings.heppu_webhook_secret[0].get_secret_value()
        else:
            secret = new_secret()
            note(f"Put this into .env, then start `bridge serve` again:\nHEPPU_WEBHOOK_SECRET={secret}")
        made = api.create_webhook(target, events or list(EVENT_NAMES), secret, description)
    if as_json:
        print_json(made)
    else:
        kinds = counted(len(events or EVENT_NAMES), "event")
        say(f"{made.get('id', 'made')}: Heppu sends {kinds} to {target}")


def update(
    ident: Id,
    events: Events = None,
    status: Annotated[
        str | None, typer.Option(help="`active` is the only value that Heppu documents.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Change which events a webhook sends, or its status."""
    changes: dict[str, object] = {}
    if events:
        changes["events"] = events
    if status:
        changes["status"] = status
    if not changes:
        raise typer.BadParameter("say what to change: --event, --status")
    with _api() as (api, _):
        changed = api.update_webhook(ident, **changes)
    if as_json:
        print_json(changed)
    else:
        say(f"{ident} is changed")


def delete(
    ident: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Let a webhook send nothing any more."""
    if not yes:
        typer.confirm(f"Delete {ident}? Heppu then sends nothing by it", abort=True, err=True)
    with _api() as (api, _):
        api.delete_webhook(ident)
    if as_json:
        print_json({"id": ident, "deleted": True})
    else:
        say(f"{ident} is deleted")
