"""Messages of a connection over all recipients, for `messaging.caps.total`, and the index of alerts that are due."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_IS_PENDING_ALERT = sa.text("trigger = 'alert' AND state IN ('pending', 'retrying')")


def upgrade() -> None:
    """Add the column and the index."""
    op.add_column("connections", sa.Column("message_counts", sa.Text(), nullable=True))
    op.create_index(
        "deliveries_due_alerts",
        "deliveries",
        ["connection", "run_at"],
        unique=False,
        sqlite_where=_IS_PENDING_ALERT,
        postgresql_where=_IS_PENDING_ALERT,
    )
