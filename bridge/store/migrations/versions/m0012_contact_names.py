"""Names of contacts, for the search."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column and its index. Events received before have no name."""
    op.add_column("events", sa.Column("contact_name", sa.Text()))
    is_known = sa.text("contact_name IS NOT NULL")
    op.create_index(
        "events_contact_name", "events", ["contact_name"], sqlite_where=is_known, postgresql_where=is_known
    )
