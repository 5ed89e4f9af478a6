"""Contacts: possible duplicates, and a contact cache that knows which fields of a record are empty."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table. Empty the cache: its entries do not say what the records lack, and are soon found again."""
    op.create_table(
        "possible_duplicates",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("first_record", sa.Text(), nullable=False),
        sa.Column("second_record", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("found_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("dismissed_at", sa.BigInteger(), nullable=True),
    )
    op.create_index(
        "possible_duplicates_pair",
        "possible_duplicates",
        ["connection", "first_record", "second_record"],
        unique=True,
    )
    op.create_index("possible_duplicates_last_seen", "possible_duplicates", ["last_seen_at"])
    op.execute("DELETE FROM contact_cache WHERE connection <> ''")
