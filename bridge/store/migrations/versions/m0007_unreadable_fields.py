"""Events with fields that could not be read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_IS_UNREADABLE = sa.text("unreadable IS NOT NULL")


def upgrade() -> None:
    """Add the column and its index. It stays empty for events that were received before."""
    op.add_column("events", sa.Column("unreadable", sa.Text(), nullable=True))
    op.create_index(
        "events_unreadable",
        "events",
        ["id"],
        unique=False,
        sqlite_where=_IS_UNREADABLE,
        postgresql_where=_IS_UNREADABLE,
    )
