"""`bridge check`, `explain`, `test`, `plan` and `schema`: rules tried before they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.output import Json

_PANEL = "Rules"

RulesFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE", help="The rules file; BRIDGE_RULES_FILE, else rules.yaml.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(rich_help_panel=_PANEL)(check)
    app.command(rich_help_panel=_PANEL)(explain)
    app.command("test", rich_help_panel=_PANEL)(run_rule_tests)
    app.command(rich_help_panel=_PANEL)(plan)
    app.command(rich_help_panel=_PANEL)(schema)


def check(
    file: RulesFile = None,
    online: Annotated[
        bool,
        typer.Option("--online", help="Log in to every account too, and verify what the rules need of it."),
    ] = False,
    deployed: Annotated[
        bool,
        typer.Option("--deployed", help="Ask the running service whether it took the file over."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Is the rules file right, and is every account that it uses set up?

    Shows every mistake with its place and a hint. Sends nothing and changes nothing, with --online neither. Exit 1
    when something has to be mended.
    """
    from bridge.cli import check

    if not check.check(file, online=online, deployed=deployed, as_json=as_json):
        raise typer.Exit(1)


def explain(
    event: Annotated[
        str,
        typer.Argument(help="A sample's name (call.busy), a stored id (evt_...), a file, or - for stdin."),
    ],
    rules: Annotated[
        Path | None,
        typer.Option(help="The rules file; BRIDGE_RULES_FILE, else rules.yaml.", show_default=False),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PATH=VALUE", help="Change a field first: --set event.outcome=resolved"
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="As if it were then: 2026-03-02T21:30:00-05:00.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Why each rule fires for an event or does not, what would be done, and when. Does nothing.

    Opt-outs, caps and what was done before count where there is a database to ask.
    """
    from bridge.cli import dry_run

    dry_run.explain(event, rules, changes or [], at, as_json=as_json)


def run_rule_tests(file: RulesFile = None, as_json: Json = False) -> None:
    """Run the tests of the rules file, with a clock of their own. Sends nothing and needs no accounts.

    Shows what no test tries, too. Exit 1 when a test fails.
    """
    from bridge.cli import dry_run

    if not dry_run.test(file, as_json=as_json):
        raise typer.Exit(1)


def plan(
    new: Annotated[Path, typer.Argument(metavar="NEWFILE", help="The rules file that is to run.")],
    since: Annotated[str, typer.Option(help="Over the events since then: 24h, 7d, or an instant.")] = "7d",
    baseline: Annotated[
        Path | None,
        typer.Option(help="Compare with this file; default: the rules that ran last.", show_default=False),
    ] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(
            "--event",
            help="Over this event instead: a sample, a stored id, a file. Repeatable.",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Examples of each kind of difference.")] = 3,
    as_json: Json = False,
) -> None:
    """What a change of the rules would have done with the events that came: what it adds, removes and changes.

    Does nothing. Exit 1 when the new rules have mistakes, or could not render what they would send.
    """
    from bridge.cli import dry_run

    if not dry_run.plan(new, since, baseline, events or [], samples, as_json=as_json):
        raise typer.Exit(1)


def schema(
    tests: Annotated[
        bool,
        typer.Option(
            "--tests", help="Of a file of tests instead: rules.tests.yaml, or one in the folder tests."
        ),
    ] = False,
) -> None:
    """Print the JSON Schema of rules.yaml for the installed connectors, so that editors complete and check it."""
    from bridge.cli import check

    check.print_schema(tests=tests)
