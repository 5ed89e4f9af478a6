"""Placeholder."""

import typer


def register(app: typer.Typer) -> None:
    """None yet."""
