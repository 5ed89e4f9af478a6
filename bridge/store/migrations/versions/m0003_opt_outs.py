"""Opt-outs: undeliverable addresses and the origin of an opt-out."""

from __future__ import annotations

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Change nothing yet."""
