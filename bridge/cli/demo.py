"""`bridge demo`: show the complete path of an event on this machine.

The demo starts a real `bridge serve` process on SQLite with the shipped rules, and the sandbox as its providers. It
prints the data read from the mock providers and from the bridge's own database, and compares the two.
"""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(rich_help_panel="Try it out")(demo)


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the service and the sandbox running until Ctrl-C.")
    ] = False,
) -> None:
    """Send an event of each of Heppu's types through the bridge to mock providers, and show the results.

    Covers HubSpot, Salesforce, Twilio, email and Slack. Needs no accounts, no configuration and no network, and
    leaves no files behind. Exits with code 1 if any result is unexpected.
    """
    import signal
    import sys

    from bridge.cli.extras import require_sandbox

    require_sandbox("bridge demo")
    from bridge.cli.demo_runner import DemoRun

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process is left running
    with DemoRun() as demo_run:
        failures = demo_run.run()
        if keep:
            demo_run.wait()
    if failures:
        raise typer.Exit(1)
