"""Command line: the `bridge` command, and the only package that wires all components together.

Commands import their dependencies when they run. `bridge --help` therefore stays fast, and a broken connector or a
missing SDK affects only the commands that use it. Results go to stdout, everything else to stderr. Exit codes: 0 for
success, 1 for a reported failure, 2 for wrong usage.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from bridge import __version__
from bridge.cli import (
    bulk_commands,
    connection_commands,
    connector_commands,
    contact_commands,
    database_commands,
    delivery_commands,
    demo,
    heppu_webhooks,
    init,
    inspect_commands,
    opt_out_commands,
    pause_commands,
    privacy_commands,
    rule_commands,
    sandbox,
    send,
    serve,
    session_commands,
    show,
    why,
)
from bridge.errors import BridgeError

app = typer.Typer(
    name="bridge",
    help="Receive Heppu's webhooks, route them through rules.yaml and run the actions of the rules that match.",
    epilog="Start with `bridge demo`. To connect your own accounts, run `bridge init` and see README.md.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

for module in (
    serve,
    sandbox,
    demo,
    send,
    rule_commands,
    inspect_commands,
    show,
    why,
    connection_commands,
    contact_commands,
    bulk_commands,
    delivery_commands,
    pause_commands,
    opt_out_commands,
    privacy_commands,
    session_commands,
    init,
    connector_commands,
    heppu_webhooks,
    database_commands,
):
    module.register(app)


def _print_version(requested: bool) -> None:
    if requested:
        print(__version__)  # noqa: T201
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the command line. An error the user can fix prints a message instead of a traceback."""
    if sys.stderr is None:
        # The caller closed it. A file that the service opens would get its descriptor, and the worker's log with it.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        os.set_inheritable(sys.stderr.fileno(), True)
    try:
        app()
    except BridgeError as error:
        from bridge.cli.output import print_error

        print_error(error)
        sys.exit(1)
