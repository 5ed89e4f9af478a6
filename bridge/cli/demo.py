"""`bridge demo`: the whole way of an event, on this machine alone.

A real `bridge serve` in a process of its own, on SQLite and the shipped rules, with the sandbox as its partners. What
is shown is read from the partners and from the bridge's own database, and compared.
"""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel="Try it out")(demo)


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave service and sandbox running, to look around, until Ctrl-C.")
    ] = False,
) -> None:
    """Show what the bridge does: Heppu's seven events on their way to HubSpot, Salesforce, Twilio, e-mail and Slack.

    Needs no account, no configuration and no network, and leaves nothing behind. Exit 1 when anything is not as it
    should be.
    """
    import signal
    import sys

    from bridge.cli.demo_runner import Demonstration

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
    with Demonstration() as demonstration:
        problems = demonstration.run()
        if keep:
            demonstration.wait()
    if problems:
        raise typer.Exit(1)
