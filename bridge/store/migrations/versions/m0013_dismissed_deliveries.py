"""Failed deliveries that an operator has dismissed, lists of deliveries, and audit entries of actions on many."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the columns and the indexes."""
    op.add_column("deliveries", sa.Column("dismissed_at", sa.BigInteger()))
    op.create_index("deliveries_rule", "deliveries", ["rule", "created_at"])
    op.create_index("deliveries_connection", "deliveries", ["connection", "created_at"])
    op.add_column("audit_log", sa.Column("part_of", sa.Text()))
    for column in ("target", "action", "actor"):
        op.create_index(f"audit_log_{column}", "audit_log", [column, "id"])
