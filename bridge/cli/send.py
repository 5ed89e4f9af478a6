"""`bridge send`: send a signed test event."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from bridge.cli.arguments import EVENT_HELP, SET_HELP
from bridge.cli.output import Json


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(rich_help_panel="Try it out")(send)


def send(
    event: Annotated[
        str,
        typer.Argument(metavar="EVENT", help=EVENT_HELP),
    ],
    url: Annotated[
        str | None,
        typer.Option(
            help="Target URL; /webhooks/heppu is added if it has no path. Default: the local service "
            "(BRIDGE_HOST, BRIDGE_PORT).",
            show_default=False,
        ),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            help="Secret to sign with. Default: the first one in HEPPU_WEBHOOK_SECRET.", show_default=False
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help=SET_HELP,
        ),
    ] = None,
    now: Annotated[
        bool | None,
        typer.Option(
            "--now/--as-is",
            help="Whether to give the event the current time and new IDs. Default: --now for samples, "
            "--as-is otherwise.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send a test event, signed like Heppu's webhooks, and print the response.

    Exits with code 1 unless the service accepts the event.
    """
    from datetime import UTC, datetime

    from bridge.cli.event_input import build_event_body, read_event_input
    from bridge.cli.output import Record, render
    from bridge.errors import ConfigError
    from bridge.settings import Settings, environment, local_url

    environ = environment()
    settings = Settings.load(environ)
    body = build_event_body(read_event_input(event, environ), changes or (), datetime.now(UTC), fresh=now)
    key = secret.encode() if secret else next(iter(settings.secrets), None)
    if key is None:
        raise ConfigError("no signing secret: set HEPPU_WEBHOOK_SECRET or use --secret")
    url = url or local_url(settings.bridge_host, settings.bridge_port)
    response = post(body, _with_default_path(url), key)
    text = (
        f"{response.event or 'body'} -> {response.status} {response.text[:500]}  "
        f"({response.seconds * 1000:.0f} ms)"
    )
    if response.status == 401:
        text += "\nThe service rejected the signature: HEPPU_WEBHOOK_SECRET must be the same here and there."
    render(Record(asdict(response), text), as_json)
    if not 200 <= response.status < 300:
        raise typer.Exit(1)


@dataclass(frozen=True)
class WebhookResponse:
    """The response of a service to an event."""

    url: str
    event: str | None
    webhook_id: str | None
    conversation: str | None
    status: int
    text: str
    seconds: float


def post(body: bytes, url: str, secret: bytes) -> WebhookResponse:
    """Post an event the way Heppu does, signed with `secret`. Raise BridgeError if there is no response."""
    import time

    import httpx

    from bridge.errors import BridgeError, ConfigError
    from bridge.event_fields import read_string
    from bridge.json_values import parse_body
    from bridge.signing import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

    try:
        payload = parse_body(body)
    except ValueError:
        payload = {}
    event, webhook_id = read_string(payload.get("event")), read_string(payload.get("webhookId"))
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "bridge-send",
        "X-Webhook-Event": event or "",
        "X-Webhook-ID": webhook_id or "",
        TIMESTAMP_HEADER: str(int(time.time())),
        SIGNATURE_HEADER: sign(body, secret),
    }
    started = time.perf_counter()
    try:
        response = httpx.post(url, content=body, headers=headers, timeout=30, trust_env=False)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise ConfigError(f"invalid URL `{url}`: write http:// or https:// and a host") from None
    except httpx.HTTPError as error:
        raise BridgeError(f"no response from {url}: {_explain(error)}") from None
    return WebhookResponse(
        url, event, webhook_id, read_string(payload.get("conversationId")),
        response.status_code, response.text, round(time.perf_counter() - started, 4),
    )  # fmt: skip


def _explain(error: Exception) -> str:
    """Return why there was no response, with advice."""
    reason = str(error) or type(error).__name__
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return f"{reason}; use a host name with a valid certificate, or the service's own http:// address"
    return f"{reason}; is `bridge serve` running there?"


def _with_default_path(url: str) -> str:
    """Return the URL with the path for Heppu's events added if it has no path."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
    except ValueError:
        return url  # `post` reports the invalid URL
    is_bare_host = parts.netloc and parts.path in ("", "/") and not parts.query
    return parts._replace(path="/webhooks/heppu").geturl() if is_bare_host else url
