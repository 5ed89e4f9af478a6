"""Messages that wait for the opt-out flags of a CRM."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "opt_out_queries",
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("run_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("connection", "delivery_id"),
    )
    op.create_index("opt_out_queries_due", "opt_out_queries", ["connection", "run_at"])
