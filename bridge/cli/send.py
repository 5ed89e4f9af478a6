"""`bridge send`: a signed test event."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli.output import Json


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel="Try")(send)


def send(
    event: Annotated[
        str,
        typer.Argument(help="A sample's name (call.busy), a stored id (evt_...), a file, or - for stdin."),
    ],
    url: Annotated[
        str | None,
        typer.Option(help="Where to; default: the service on this machine (BRIDGE_HOST, BRIDGE_PORT)."),
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
    import time
    from datetime import UTC, datetime

    import httpx

    from bridge.cli.output import print_json, say
    from bridge.cli.source import prepared, read_source
    from bridge.errors import BridgeError, ConfigError
    from bridge.events import parse_body
    from bridge.settings import Settings, environment
    from bridge.signing import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

    environ = environment()
    settings = Settings.load(environ)
    key = secret.encode() if secret else next(iter(settings.secrets), None)
    if key is None:
        raise ConfigError("nothing to sign with: set HEPPU_WEBHOOK_SECRET, or say --secret")
    body = prepared(read_source(event, environ), changes or (), datetime.now(UTC), fresh=now)
    target = url or f"http://{_reachable(settings.bridge_host)}:{settings.bridge_port}/webhooks/heppu"
    try:
        payload = parse_body(body)
    except ValueError:
        payload = {}
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "bridge-send",
        "X-Webhook-Event": str(payload.get("event", "")),
        "X-Webhook-ID": str(payload.get("webhookId", "")),
        TIMESTAMP_HEADER: str(int(time.time())),
        SIGNATURE_HEADER: sign(body, key),
    }
    begun = time.perf_counter()
    try:
        response = httpx.post(target, content=body, headers=headers, timeout=30, trust_env=False)
    except httpx.InvalidURL as error:
        raise ConfigError(f"`{target}` is no URL: {error}") from None
    except httpx.HTTPError as error:
        raise BridgeError(
            f"no answer from {target}: {type(error).__name__}; is `bridge serve` running there?"
        ) from None
    took = time.perf_counter() - begun
    if as_json:
        print_json(
            {
                "url": target,
                "event": payload.get("event"),
                "webhookId": payload.get("webhookId"),
                "conversationId": payload.get("conversationId"),
                "status": response.status_code,
                "answer": response.text,
                "seconds": round(took, 4),
            }
        )
    else:
        say(
            f"{payload.get('event', 'body')} -> {response.status_code} {response.text[:500]}  ({took * 1000:.0f} ms)"
        )
        if response.status_code == 401:
            say(
                "The service does not know this signature: HEPPU_WEBHOOK_SECRET here and there must be the same."
            )
    if not response.is_success:
        raise typer.Exit(1)


def _reachable(host: str) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if ":" in host else host
