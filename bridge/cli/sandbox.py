"""`bridge sandbox`: the local stand-ins for the partners."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli.output import Json


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel="Try it out")(sandbox)


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port; 0 takes a free one.")] = 9100,
    smtp_port: Annotated[int, typer.Option(min=0, max=65535, help="SMTP port; 0 takes a free one.")] = 9125,
    as_json: Json = False,
) -> None:
    """Stand in for HubSpot, Salesforce, Twilio, Slack, Heppu and a mail server, until Ctrl-C.

    Prints all the environment of a bridge that works with it. `GET /_sandbox/requests` and `/_sandbox/state` show what
    arrived; `POST /_sandbox/faults` lets things go wrong.
    """
    import secrets
    import signal
    import sys
    import threading

    from bridge.cli.output import note, print_json, say
    from bridge.errors import ConfigError
    from bridge.heppu_api import new_secret
    from bridge.sandbox import start_sandbox
    from bridge.settings import Settings, environment

    own = {
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
            "choose others with --port and --smtp-port"
        ) from None
    with running:
        variables = own | running.environment
        if as_json:
            print_json({"url": running.url, "smtp_port": running.smtp_port, "environment": variables})
        else:
            note(f"The sandbox listens on {running.url} (mail on port {running.smtp_port}); Ctrl-C ends it.")
            note("Put this into .env beside rules.yaml, then `bridge serve`, and `bridge send call.busy`:")
            for name, value in variables.items():
                say(f"{name}={_quoted(value)}")
            note(f"What arrived: {running.url}/_sandbox/state and {running.url}/_sandbox/requests")
        sys.stdout.flush()
        stop.wait()


def _quoted(value: str) -> str:
    """As a .env file and a shell both read it."""
    import shlex

    return shlex.quote(value)
