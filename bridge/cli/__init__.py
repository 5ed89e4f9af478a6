"""The command line: `bridge`. The only place that wires the parts together.

Commands import what they need when they run, so that `bridge --help` is quick and a broken connector or a missing
SDK stops only the commands that use it. What a command prints goes to stdout, everything else to stderr; it exits
with 0 when all is well, 1 when it found problems, 2 when it was called wrongly.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bridge import __version__
from bridge.cli import (
    connection_commands,
    connector_commands,
    database_commands,
    delivery_commands,
    demo,
    heppu_webhooks,
    inspect_commands,
    privacy_commands,
    rule_commands,
    sandbox,
    send,
    serve,
)
from bridge.errors import BridgeError

app = typer.Typer(
    name="bridge",
    help="Receives Heppu's webhooks, routes them through rule_commands.yaml and carries out what the rules say.",
    epilog="Start with `bridge demo`, then point it at your own accounts: see README.md.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

for part in (
    serve,
    sandbox,
    demo,
    send,
    rule_commands,
    inspect_commands,
    connection_commands,
    delivery_commands,
    privacy_commands,
    connector_commands,
    heppu_webhooks,
    database_commands,
):
    part.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)  # noqa: T201
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the command line; errors that people can mend end in a message, not in a traceback."""
    try:
        app()
    except BridgeError as error:
        from bridge.cli.output import complain

        complain(error)
        sys.exit(1)
