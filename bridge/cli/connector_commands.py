"""`bridge connectors`: list, show and scaffold connectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.output import Json

_PANEL = "Setup"


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(invoke_without_command=True, help=connectors.__doc__)
    group.callback()(connectors)
    group.command()(show)
    group.command()(new)
    app.add_typer(group, name="connectors", rich_help_panel=_PANEL)


def connectors(context: typer.Context, as_json: Json = False) -> None:
    """List connectors and their actions.

    Includes the shipped connectors, those in `connectors/` next to rules.yaml, and those installed as packages.
    """
    if context.invoked_subcommand is None:
        from bridge.cli import connector_catalog

        connector_catalog.list_connectors(as_json)


def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a connector or an action: twilio, twilio.send_sms.")
    ],
    as_json: Json = False,
) -> None:
    """Show the environment variables of a connector, and every param of its actions with an example."""
    from bridge.cli import connector_catalog

    connector_catalog.show_connector(name, as_json)


def new(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name in lowercase letters, digits and underscores: ticket_desk."
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write to. Default: BRIDGE_CONNECTORS_DIR, or `connectors` next to the rules file.",
            show_default=False,
        ),
    ] = None,
    crm: Annotated[
        bool,
        typer.Option("--crm", help="A connector for a CRM: it logs calls and finds or creates contacts."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Create a working connector and its test, as a starting point for your own.

    docs/connectors.md explains the files, and docs/connectors-crm.md those of --crm.
    """
    from bridge.cli.bootstrap import connectors_folder
    from bridge.cli.output import Record, render
    from bridge.connector.scaffold import new_connector
    from bridge.settings import Settings, environment

    settings = Settings.load(environment())
    target = folder or connectors_folder(settings.bridge_rules_file, settings)
    connector, test = new_connector(name, target, crm=crm)
    text = (
        f"Created {connector}\n        {test}\n"
        f"Next: run `pytest {test}`, then `bridge connectors show {name}`."
    )
    render(Record({"name": name, "connector": connector, "test": test}, text), as_json)
