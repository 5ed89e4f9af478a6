"""The program `bridge`: its commands and options, from the modules of this package."""

from __future__ import annotations

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
