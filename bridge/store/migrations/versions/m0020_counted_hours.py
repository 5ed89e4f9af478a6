"""Index of the hours that were counted, so that charts need not read every count of a month to find them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

_IS_COUNTED = sa.text("kind = 'counted'")


def upgrade() -> None:
    """Create the index."""
    op.create_index(
        "hourly_counts_counted", "hourly_counts", ["started_at"],
        sqlite_where=_IS_COUNTED, postgresql_where=_IS_COUNTED,
    )  # fmt: skip
