"""The program `bridge`: its commands, and the module that each of them is loaded from when it is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from bridge import __version__

MODULES: Final[Mapping[str, str]] = {
    "serve": "serve",
    "worker": "serve",
    "sandbox": "sandbox",
    "demo": "demo",
    "send": "send",
    "check": "rule_commands",
    "explain": "rule_commands",
    "test": "rule_commands",
    "plan": "rule_commands",
    "apply": "rule_commands",
    "schema": "rule_commands",
    "events": "inspect_commands",
    "deliveries": "inspect_commands",
    "audit": "inspect_commands",
    "show": "show",
    "why": "why",
    "retry": "bulk_commands",
    "cancel": "bulk_commands",
    "dismiss": "bulk_commands",
    "replay": "delivery_commands",
    "resolve": "delivery_commands",
    "pause": "pause_commands",
    "resume": "pause_commands",
    "erase": "privacy_commands",
    "init": "init",
    "prune": "database_commands",
    "connections": "connection_commands",
    "contacts": "contact_commands",
    "rejected": "delivery_commands",
    "opt-outs": "opt_out_commands",
    "sessions": "session_commands",
    "connectors": "connector_commands",
    "heppu": "heppu_webhooks",
    "db": "database_commands",
}
"""Command -> its module in `bridge.cli`, in the order of `bridge --help`."""
_MARKUP: Final = "markdown"


class _Commands(Mapping[str, Any]):
    """The commands by name. Each is loaded with its options when it is looked up: all of them take 0.1 s."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            app = typer.Typer(rich_markup_mode=_MARKUP)
            import_module(f"bridge.cli.{MODULES[name]}").register(app)
            self._loaded |= typer.main.get_group(app).commands
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(MODULES)

    def __len__(self) -> int:
        return len(MODULES)


class _Program(TyperGroup):
    """A group whose commands are `_Commands`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"commands": _Commands()})


app = typer.Typer(
    name="bridge",
    cls=_Program,
    help="Receive Heppu's webhooks, route them through rules.yaml and run the actions of the rules that match.",
    epilog="Start with `bridge demo`. To connect your own accounts, run `bridge init` and see README.md.",
    no_args_is_help=True,
    rich_markup_mode=_MARKUP,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


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
