"""Compressed traces, without the rules for other events, whose outlines are stored with each version of the rules."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the columns. Traces of events that were routed before stay where they are."""
    op.add_column("rules", sa.Column("outlines", sa.LargeBinary()))
    op.add_column("events", sa.Column("packed_trace", sa.LargeBinary()))
