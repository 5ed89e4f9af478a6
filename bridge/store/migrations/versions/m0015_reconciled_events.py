"""Events that were made from calls at Heppu, and events about a call that another event is about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_IS_RECONCILED = sa.text("reconciled")
_IS_DUPLICATE = sa.text("duplicate_of IS NOT NULL")


def upgrade() -> None:
    """Add the columns and their indexes, which are empty at first."""
    op.add_column(
        "events", sa.Column("reconciled", sa.Boolean(), nullable=False, server_default=sa.text("false"))
    )
    op.add_column("events", sa.Column("duplicate_of", sa.Text()))
    op.create_index(
        "events_reconciled",
        "events",
        ["received_at"],
        sqlite_where=_IS_RECONCILED,
        postgresql_where=_IS_RECONCILED,
    )
    op.create_index(
        "events_duplicate_of",
        "events",
        ["duplicate_of"],
        sqlite_where=_IS_DUPLICATE,
        postgresql_where=_IS_DUPLICATE,
    )
