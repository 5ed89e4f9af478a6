"""`bridge init`: create the files of a new installation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.output import Json

GENERATED_SECRETS = ("BRIDGE_SECRET_KEY", "BRIDGE_ADMIN_TOKEN")
"""Variables in .env that `bridge init` sets to a random value."""


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command(rich_help_panel="Setup")(init)


def init(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder to create the files in. Default: the current folder.",
            show_default=False,
        ),
    ] = Path(),
    as_json: Json = False,
) -> None:
    """Create a starter rules.yaml and a .env file.

    Existing files are never overwritten. The .env file is readable only by you, and contains new random values for
    BRIDGE_SECRET_KEY and BRIDGE_ADMIN_TOKEN.
    """
    from bridge.cli.output import Record, render

    rules, env = create_files(folder)
    change_folder = "" if folder.resolve() == Path.cwd() else f"\n  cd {folder}"
    text = (
        f"Created {rules}\n        {env}\n"
        f"\nNext steps{change_folder}\n"
        "  edit .env      set HEPPU_WEBHOOK_SECRET, and the settings of the accounts that rules.yaml uses\n"
        "  bridge check   check the rules, and list the settings that are missing\n"
        "  bridge test    run the tests in rules.yaml; sends nothing\n"
        "  bridge serve   start the service"
    )
    render(Record({"rules": rules, "env": env}, text), as_json)


def create_files(folder: Path) -> tuple[Path, Path]:
    """Create rules.yaml and .env in the folder, and return their paths.

    Raise ConfigError, without creating a file, if one of them exists or the folder cannot be written.
    """
    from bridge.cli.data import read_data_file
    from bridge.errors import ConfigError

    rules, env = folder / "rules.yaml", folder / ".env"
    existing = [str(path) for path in (rules, env) if path.exists() or path.is_symlink()]
    if existing:
        advice = "exists: move it away" if len(existing) == 1 else "exist: move them away"
        raise ConfigError(f"{' and '.join(existing)} already {advice}, or name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _create(env, _with_secrets(read_data_file("env.example").decode()), mode=0o600)
        _create(rules, read_data_file("starter_rules.yaml").decode(), mode=0o666)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror or error}") from None
    return rules, env


def _with_secrets(env: str) -> str:
    """Return the content of .env.example with random values for the secrets that the bridge itself defines."""
    import secrets

    env = env.replace("Copy this file to .env and fill in", "Fill in", 1)
    for name in GENERATED_SECRETS:
        env = env.replace(f"\n{name}=\n", f"\n{name}={secrets.token_urlsafe(32)}\n", 1)
    return env


def _create(path: Path, text: str, mode: int) -> None:
    """Write a new file. Raise FileExistsError if it exists; `mode` is reduced by the umask."""
    import os

    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
