"""Steps of actions that make several writes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "action_steps",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger()),
        sa.Column("value", sa.Text()),
    )
    op.create_index("action_steps_delivery", "action_steps", ["delivery_id"])
    op.create_index("action_steps_key", "action_steps", ["idempotency_key"])
