"""History for the overview: pauses and attempts of connections, counts per hour, repeated attempts in one row."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create the tables and the column."""
    op.create_table(
        "connection_pauses",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("actor", sa.Text()),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("waited", sa.Integer()),
        sa.Column("drained_at", sa.BigInteger()),
    )
    op.create_index("connection_pauses_started", "connection_pauses", ["started_at"])
    current = sa.text("drained_at IS NULL")
    op.create_index(
        "connection_pauses_current",
        "connection_pauses",
        ["connection"],
        sqlite_where=current,
        postgresql_where=current,
    )
    op.create_table(
        "connection_stats",
        sa.Column("connection", sa.Text(), primary_key=True),
        sa.Column("started_at", sa.BigInteger(), primary_key=True),
        sa.Column("succeeded", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("rejected", sa.Integer(), nullable=False),
        sa.Column("milliseconds", sa.BigInteger(), nullable=False),
    )
    op.create_index("connection_stats_started", "connection_stats", ["started_at"])
    op.create_table(
        "hourly_counts",
        sa.Column("started_at", sa.BigInteger(), primary_key=True),
        sa.Column("kind", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("state", sa.Text(), primary_key=True),
        sa.Column("reason", sa.Text(), primary_key=True),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.BigInteger()),
    )
    finished = sa.text("finished_at IS NOT NULL")
    op.create_index(
        "deliveries_finished",
        "deliveries",
        ["finished_at"],
        sqlite_where=finished,
        postgresql_where=finished,
    )
    op.add_column("connections", sa.Column("pause_scope", sa.Text()))
    for name, kind in (
        ("quota_used", sa.Integer),
        ("quota_limit", sa.Integer),
        ("quota_seen_at", sa.BigInteger),
    ):
        op.add_column("connections", sa.Column(name, kind()))
    op.add_column("attempts", sa.Column("repeats", sa.Integer(), nullable=False, server_default=sa.text("0")))
