"""`bridge check`, `explain`, `test`, `plan`, `apply` and `schema`: check and try rules before they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.arguments import EVENT_HELP, SET_HELP
from bridge.cli.output import Json, echo, render

_PANEL = "Rules"

RulesFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="FILE",
        help="Rules file, or folder of rules files. Default: BRIDGE_RULES_FILE, otherwise rules.yaml.",
        show_default=False,
    ),
]
ReplacedFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="Rules file that NEWFILE replaces, such as rules.d/sms.yaml; it may be new. Default: the main file.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(rich_help_panel=_PANEL)(check)
    app.command(rich_help_panel=_PANEL)(explain)
    app.command("test", rich_help_panel=_PANEL)(run_rule_tests)
    app.command(rich_help_panel=_PANEL)(plan)
    app.command(rich_help_panel=_PANEL)(apply)
    app.command(rich_help_panel=_PANEL)(schema)


def check(
    file: RulesFile = None,
    online: Annotated[
        bool,
        typer.Option("--online", help="Also log in to every account and verify what the rules need from it."),
    ] = False,
    deployed: Annotated[
        bool,
        typer.Option("--deployed", help="Also ask the running service whether it has loaded this file."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the rules file and the settings of every account it uses.

    Prints every problem with its position and a hint. Sends and changes nothing, even with --online. Exits with code 1
    if anything has to be fixed.
    """
    from bridge.cli import check

    report = check.check(file, online=online, deployed=deployed)
    render(report, as_json)
    if not report.ok:
        raise typer.Exit(1)


def explain(
    event: Annotated[
        str,
        typer.Argument(metavar="EVENT", help=EVENT_HELP),
    ],
    rules: Annotated[
        Path | None,
        typer.Option(
            help="Rules file or folder. Default: BRIDGE_RULES_FILE, otherwise rules.yaml.", show_default=False
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help=SET_HELP),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(help="Time of the evaluation, such as 2026-03-02T21:30:00-05:00.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Explain why each rule does or does not fire for an event, which actions would run, and when.

    Runs no actions. If there is a database, opt-outs, caps and completed actions are taken into account.
    """
    from bridge.cli import dry_run

    dry_run.explain(event, rules, changes or [], at, as_json=as_json)


def run_rule_tests(file: RulesFile = None, as_json: Json = False) -> None:
    """Run the tests in the rules file with a simulated clock.

    Sends nothing and needs no accounts. Also lists the rules, conditions and actions that no test covers. Exits with
    code 1 if a test fails.
    """
    from bridge.cli import dry_run

    if not dry_run.test(file, as_json=as_json):
        raise typer.Exit(1)


def plan(
    new: Annotated[Path, typer.Argument(metavar="NEWFILE", help="New rules file.")],
    since: Annotated[
        str, typer.Option(help="Start of the period to compare: 24h, yesterday, 2026-03-02, or a timestamp.")
    ] = "7d",
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Rules file to compare with. Default: the rules that ran last.", show_default=False
        ),
    ] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(
            "--event",
            help="Single event to compare instead: a sample, a stored ID, or a file. Repeatable.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Number of examples of each kind of difference.")] = 3,
    file: ReplacedFile = None,
    as_json: Json = False,
) -> None:
    """Compare new rules with the current ones over past events: deliveries added, removed and changed.

    Runs no actions. Exits with code 1 if the new rules have errors or cannot render a message.
    """
    from bridge.cli import dry_run

    if not dry_run.plan(new, since, baseline, events or [], samples, as_json=as_json, file=file):
        raise typer.Exit(1)


def apply(
    new: Annotated[Path, typer.Argument(metavar="NEWFILE", help="New rules file.")],
    since: Annotated[
        str, typer.Option(help="Start of the period to compare: 24h, yesterday, 2026-03-02, or a timestamp.")
    ] = "7d",
    file: ReplacedFile = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not print the plan, and do not ask for confirmation.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check, test and compare a new rules file, ask, and replace the active one with it.

    Changes nothing if there are errors or a test fails. With several rules files, `--file rules.d/sms.yaml` names the
    one to replace. Its previous version is kept next to it as NAME.previous.yaml. A running service loads the new file
    within seconds.
    """
    from bridge.cli import apply

    if as_json and not yes:
        raise typer.BadParameter("--json does not ask for confirmation: add --yes")
    result = apply.apply(new, since, yes=yes, file=file)
    render(result, as_json)
    if not result.applied:
        raise typer.Exit(1)


def schema(
    tests: Annotated[
        bool,
        typer.Option(
            "--tests", help="Print the schema of test files instead: rules.tests.yaml and tests/*.yaml."
        ),
    ] = False,
    api: Annotated[
        bool,
        typer.Option(
            "--api", help="Print the description of the HTTP API instead, in the format of OpenAPI 3.1."
        ),
    ] = False,
) -> None:
    """Print a JSON Schema for rules.yaml that covers the installed connectors, for completion in editors."""
    if api:
        from bridge.serialization import to_json
        from bridge.web.api.openapi import openapi_document

        echo(to_json(openapi_document()))
        return
    from bridge.cli import check

    check.print_schema(tests=tests)
