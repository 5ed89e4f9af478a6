"""`bridge heppu`: manage the webhooks at Heppu, and find calls for which no webhook came."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.cli.output import Json, Record, Table, Yes, pluralize, print_status, render

if TYPE_CHECKING:
    from bridge.heppu_api import HeppuApi
    from bridge.settings import Settings

Events = Annotated[
    list[str] | None,
    typer.Option("--event", help="Event type to send; repeatable. Default: all seven.", show_default=False),
]
WebhookId = Annotated[
    str, typer.Argument(metavar="ID", help="ID of a webhook (webhook_...), as shown by `list`.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    heppu = typer.Typer(
        no_args_is_help=True,
        help="Manage webhooks and find missed calls through Heppu's API (HEPPU_API_KEY).",
    )
    webhooks = typer.Typer(no_args_is_help=True, help="Manage the webhooks through which Heppu sends events.")
    webhooks.command("list")(list_webhooks)
    webhooks.command()(create)
    webhooks.command()(update)
    webhooks.command()(delete)
    heppu.add_typer(webhooks, name="webhooks")
    heppu.command()(reconcile)
    app.add_typer(heppu, name="heppu", rich_help_panel="Setup")


@contextmanager
def heppu_api() -> Iterator[tuple[HeppuApi, Settings]]:
    """Yield a client for Heppu's API and the settings. API and network errors are raised as BridgeError."""
    import httpx

    from bridge.connector import http_client
    from bridge.connector.egress import configure_egress
    from bridge.errors import BridgeError, ConfigError
    from bridge.heppu_api import URL, HeppuApi, HeppuError
    from bridge.secret_settings import read_secret_files
    from bridge.settings import Settings, environment

    environ = environment()
    settings = Settings.load(environ)
    configure_egress(settings)
    files, errors = read_secret_files({"key": "HEPPU_API_KEY"}, environ)
    if errors:
        raise ConfigError(errors["key"])
    key = files.get("key") or environ.get("HEPPU_API_KEY")
    if not key:
        raise ConfigError(
            "set HEPPU_API_KEY: create a key in Heppu's dashboard under Organization -> API Keys"
        )
    api = HeppuApi(key, environ.get("HEPPU_API_URL") or URL, http_client())
    try:
        yield api, settings
    except HeppuError as error:
        hint = "; is HEPPU_API_KEY correct?" if error.status in (401, 403) else ""
        raise BridgeError(f"{error}{': ' + error.message if error.message else ''}{hint}") from None
    except httpx.HTTPError as error:
        raise BridgeError(f"no response from Heppu: {type(error).__name__}") from None
    finally:
        api.close()


def list_webhooks(as_json: Json = False) -> None:
    """List the webhooks."""
    with heppu_api() as (api, _):
        webhooks = api.list_webhooks()
    render(
        Table(
            webhooks,
            {
                "ID": "id",
                "URL": "url",
                "Status": "status",
                "Events": lambda item: ", ".join(map(str, item.get("events") or ())),
                "Last delivered": "lastDeliveredAt",
            },
            empty="No webhooks yet. Create one with `bridge heppu webhooks create`.",
        ),
        as_json,
    )


def create(
    url: Annotated[
        str | None,
        typer.Option(
            help="URL to send events to. Default: BRIDGE_PUBLIC_URL + /webhooks/heppu.", show_default=False
        ),
    ] = None,
    events: Events = None,
    description: Annotated[str, typer.Option(help="Description in Heppu's dashboard.")] = "bridge",
    as_json: Json = False,
) -> None:
    """Create a webhook, so that Heppu sends signed events to this service.

    Events are signed with the first secret in HEPPU_WEBHOOK_SECRET. If it is not set, a new secret is generated and
    printed before the webhook is created.
    """
    from bridge.errors import ConfigError
    from bridge.events import HEPPU_EVENTS
    from bridge.heppu_api import new_secret

    with heppu_api() as (api, settings):
        target = url or (
            f"{settings.bridge_public_url.rstrip('/')}/webhooks/heppu" if settings.bridge_public_url else None
        )
        if target is None:
            raise ConfigError(
                "no target URL: use --url, or set BRIDGE_PUBLIC_URL to the public URL of this service"
            )
        if not target.startswith("https://"):
            print_status(
                "According to its documentation, Heppu sends to public https:// URLs only; a tunnel provides one."
            )
        if settings.heppu_webhook_secret:
            secret = settings.heppu_webhook_secret[0].get_secret_value()
        else:
            secret = new_secret()
            print_status(
                f"Add this line to .env, then restart `bridge serve`:\nHEPPU_WEBHOOK_SECRET={secret}"
            )
        webhook = api.create_webhook(target, events or list(HEPPU_EVENTS), secret, description)
    count = pluralize(len(events or HEPPU_EVENTS), "event type")
    render(Record(webhook, f"{webhook.get('id', 'created')}: Heppu sends {count} to {target}"), as_json)


def update(
    webhook_id: WebhookId,
    events: Events = None,
    status: Annotated[
        str | None,
        typer.Option(help="New status; `active` is the only documented value.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Change the event types or the status of a webhook."""
    changes: dict[str, object] = {}
    if events:
        changes["events"] = events
    if status:
        changes["status"] = status
    if not changes:
        raise typer.BadParameter("nothing to change: use --event or --status")
    with heppu_api() as (api, _):
        webhook = api.update_webhook(webhook_id, **changes)
    render(Record(webhook, f"{webhook_id} is updated"), as_json)


def delete(
    webhook_id: WebhookId,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete a webhook."""
    if not yes:
        typer.confirm(f"Delete {webhook_id}? Heppu then stops sending its events", abort=True, err=True)
    with heppu_api() as (api, _):
        api.delete_webhook(webhook_id)
    render(Record({"id": webhook_id, "deleted": True}, f"{webhook_id} is deleted"), as_json)


def reconcile(
    since: Annotated[
        str, typer.Option(help="Calls since then: 3h, yesterday, 2026-03-02, or a timestamp.")
    ] = "3h",
    until: Annotated[
        str | None,
        typer.Option(
            help="Calls before then. Default: those that ended two minutes ago.", show_default=False
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Store the missed calls as events, which the rules then handle.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find calls at Heppu for which no event is stored, as after an outage that lasted longer than Heppu's retries.

    Changes nothing without --apply. Chats cannot be found, because Heppu's API does not list them. Exits with code 1
    if calls are missing and not stored.
    """
    from bridge.cli.heppu_reconcile import reconcile as run

    report = run(since, until, apply=apply)
    render(report, as_json)
    if not report.ok:
        raise typer.Exit(1)
