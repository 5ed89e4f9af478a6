"""Groups of alerts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "alert_groups",
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("last_alert_at", sa.BigInteger(), nullable=True),
        sa.Column("waiting", sa.Text(), nullable=True),
        sa.Column("latest", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("connection", "cause"),
    )
