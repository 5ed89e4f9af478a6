"""Failed deliveries that an operator has dismissed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column."""
    op.add_column("deliveries", sa.Column("dismissed_at", sa.BigInteger()))
