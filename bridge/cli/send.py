"""`bridge send`: a signed test event."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from bridge.cli.output import Json


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel="Try it out")(send)


def send(
    event: Annotated[
        str,
        typer.Argument(help="A sample's name (call.busy), a stored id (evt_...), a file, or - for stdin."),
    ],
    url: Annotated[
        str | None,
        typer.Option(
            help="Where to, /webhooks/heppu unless it has a path; default: the service on this machine "
            "(BRIDGE_HOST, BRIDGE_PORT)."
        ),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(help="What signs it; default: the first of HEPPU_WEBHOOK_SECRET.", show_default=False),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Change a field first: --set metadata.contactPhone=+14155550123",
        ),
    ] = None,
    now: Annotated[
        bool | None,
        typer.Option(
            "--now/--as-is",
            help="As if it happened now, with new ids. Default: --now for samples.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send a test event, signed as Heppu signs, and show the answer. Exit 1 unless it is accepted."""
    from datetime import UTC, datetime

    from bridge.cli.event_input import prepared, read_source
    from bridge.cli.output import print_json, say
    from bridge.errors import ConfigError
    from bridge.settings import Settings, environment

    environ = environment()
    settings = Settings.load(environ)
    body = prepared(read_source(event, environ), changes or (), datetime.now(UTC), fresh=now)
    key = secret.encode() if secret else next(iter(settings.secrets), None)
    if key is None:
        raise ConfigError("nothing to sign with: set HEPPU_WEBHOOK_SECRET, or say --secret")
    here = f"http://{_reachable(settings.bridge_host)}:{settings.bridge_port}"
    answer = post(body, _with_path(url or here), key)
    if as_json:
        print_json(asdict(answer))
    else:
        say(
            f"{answer.event or 'body'} -> {answer.status} {answer.text[:500]}  ({answer.seconds * 1000:.0f} ms)"
        )
        if answer.status == 401:
            say(
                "The service does not know this signature: HEPPU_WEBHOOK_SECRET must be the same here and there."
            )
    if not 200 <= answer.status < 300:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Answer:
    """What a service answered to an event."""

    url: str
    event: str | None
    webhook_id: str | None
    conversation: str | None
    status: int
    text: str
    seconds: float


def post(body: bytes, url: str, secret: bytes) -> Answer:
    """Post an event as Heppu does, signed with `secret`; raises BridgeError when nobody answers."""
    import time

    import httpx

    from bridge.errors import BridgeError, ConfigError
    from bridge.events import parse_body, text
    from bridge.signing import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

    try:
        payload = parse_body(body)
    except ValueError:
        payload = {}
    event, ident = text(payload, "event"), text(payload, "webhookId")
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "bridge-send",
        "X-Webhook-Event": event or "",
        "X-Webhook-ID": ident or "",
        TIMESTAMP_HEADER: str(int(time.time())),
        SIGNATURE_HEADER: sign(body, secret),
    }
    begun = time.perf_counter()
    try:
        response = httpx.post(url, content=body, headers=headers, timeout=30, trust_env=False)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise ConfigError(f"`{url}` is no address to send to: write http:// or https:// and a host") from None
    except httpx.HTTPError as error:
        raise BridgeError(
            f"no answer from {url}: {type(error).__name__}; is `bridge serve` running there?"
        ) from None
    return Answer(
        url, event, ident, text(payload, "conversationId"),
        response.status_code, response.text, round(time.perf_counter() - begun, 4),
    )  # fmt: skip


def _with_path(url: str) -> str:
    """The address of a service that was given without a path, with the one for Heppu's events."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
    except ValueError:
        return url  # who posts there says what is wrong with it
    whole = parts.netloc and parts.path in ("", "/") and not parts.query
    return parts._replace(path="/webhooks/heppu").geturl() if whole else url


def _reachable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if ":" in host else host
