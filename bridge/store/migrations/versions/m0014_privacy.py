"""Fields of events that are never stored, and the keys of deleted events, so that duplicates are recognized."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the column and the table, which are empty at first."""
    op.add_column("events", sa.Column("dropped_fields", sa.Text()))
    op.create_table(
        "deleted_event_keys",
        sa.Column("key_hash", sa.LargeBinary(), primary_key=True),
        sqlite_with_rowid=False,
    )
