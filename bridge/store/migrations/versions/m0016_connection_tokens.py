"""Tokens of connections."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "connection_tokens",
        sa.Column("connection", sa.Text(), primary_key=True),
        sa.Column("value", sa.Text()),
        sa.Column("settings_fingerprint", sa.Text()),
        sa.Column("claimed_by", sa.Text()),
        sa.Column("claimed_until", sa.BigInteger()),
    )
