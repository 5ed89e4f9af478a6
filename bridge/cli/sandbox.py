"""`bridge sandbox`: run local mock providers."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli.output import Json


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(rich_help_panel="Try it out")(sandbox)


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port; 0 picks a free port.")] = 9100,
    smtp_port: Annotated[int, typer.Option(min=0, max=65535, help="SMTP port; 0 picks a free port.")] = 9125,
    as_json: Json = False,
) -> None:
    """Run local mock versions of every provider, of Heppu and of an SMTP server until Ctrl-C.

    Prints the environment variables that point a bridge at the sandbox. `GET /_sandbox/requests` and
    `GET /_sandbox/state` show the data received; `POST /_sandbox/faults` injects failures.
    """
    import secrets
    import signal
    import sys
    import threading

    from bridge.cli.extras import require_sandbox
    from bridge.cli.output import echo, print_json, print_status
    from bridge.errors import ConfigError
    from bridge.heppu_api import new_secret
    from bridge.settings import Settings, environment

    require_sandbox("bridge sandbox")
    from bridge.sandbox import start_sandbox

    bridge_variables = {
        "HEPPU_WEBHOOK_SECRET": new_secret(),
        "BRIDGE_PUBLIC_URL": f"http://127.0.0.1:{Settings.load(environment()).bridge_port}",
        "BRIDGE_SECRET_KEY": secrets.token_urlsafe(24),
    }
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        running = start_sandbox(port, smtp_port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on port {port} or {smtp_port}: {error.strerror or error}; "
            "choose other ports with --port and --smtp-port"
        ) from None
    with running:
        variables = bridge_variables | running.environment
        if as_json:
            print_json({"url": running.url, "smtp_port": running.smtp_port, "environment": variables})
        else:
            print_status(
                f"The sandbox listens on {running.url} (SMTP on port {running.smtp_port}). Ctrl-C stops it."
            )
            print_status(
                "Save these lines as .env next to rules.yaml, then run `bridge serve` and `bridge send call.busy`:"
            )
            for name, value in variables.items():
                echo(f"{name}={_quoted(value)}")
            print_status(f"Received data: {running.url}/_sandbox/state and {running.url}/_sandbox/requests")
        sys.stdout.flush()
        stop.wait()


def _quoted(value: str) -> str:
    """Return the value quoted for both a .env file and a shell."""
    import shlex

    return shlex.quote(value)
