"""`bridge connectors`: which there are, what they can do, and how to start a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.output import Json

_PANEL = "Setup"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(invoke_without_command=True, help=connectors.__doc__)
    group.callback()(connectors)
    group.command()(show)
    group.command()(new)
    app.add_typer(group, name="connectors", rich_help_panel=_PANEL)


def connectors(context: typer.Context, as_json: Json = False) -> None:
    """Every connector and its actions: shipped, in `connectors/` beside rules.yaml, and installed."""
    if context.invoked_subcommand is None:
        from bridge.cli import connector_catalog

        connector_catalog.list_connectors(as_json)


def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A connector, or one action: twilio, twilio.send_sms.")
    ],
    as_json: Json = False,
) -> None:
    """What a connector needs in the environment, and every param of its actions with an example."""
    from bridge.cli import connector_catalog

    connector_catalog.show_connector(name, as_json)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Small letters, digits and _: ticket_desk.")],
    folder: Annotated[
        Path | None,
        typer.Option(help="Default: `connectors` beside the rules file.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a connector that works, and its test, to change into your own. docs/connectors.md walks through it."""
    from bridge.cli.output import print_json, say
    from bridge.connector.scaffold import new_connector
    from bridge.settings import Settings, environment

    settings = Settings.load(environment())
    connector, test = new_connector(
        name, folder or settings.bridge_rules_file.resolve().parent / "connectors"
    )
    if as_json:
        print_json({"name": name, "connector": connector, "test": test})
        return
    say(f"written: {connector}\n         {test}")
    say(f"next: `pytest {test}`, then `bridge connectors show {name}`")
