"""Opt-outs: who entered them and why, undeliverable addresses, and the addresses that occur together in events."""

from __future__ import annotations

import os

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns, the table and the indexes."""
    for name in ("id", "actor", "reason"):
        op.add_column("opt_outs", sa.Column(name, sa.Text(), nullable=True))
    _fill_ids()
    # Until now, the operator was not stored.
    op.execute("UPDATE opt_outs SET actor = 'unknown' WHERE source = 'command line'")
    op.create_index(
        "opt_outs_id",
        "opt_outs",
        ["id"],
        sqlite_where=sa.text("opted_out_at IS NOT NULL"),
        postgresql_where=sa.text("opted_out_at IS NOT NULL"),
    )
    op.create_table(
        "undeliverable_addresses",
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("channel", "address"),
    )
    op.create_index("undeliverable_addresses_until", "undeliverable_addresses", ["until"])
    for column, other in (("phone", "email"), ("email", "phone")):
        op.drop_index(f"events_{column}", "events")
        op.create_index(
            f"events_{column}",
            "events",
            [column, other],
            sqlite_where=sa.text(f"{column} IS NOT NULL"),
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )


def _fill_ids() -> None:
    """Give each stored opt-out an ID with the time of its last change, in the form of `bridge.ids.new_id`."""
    connection = op.get_bind()
    rows = connection.execute(sa.text("SELECT channel, address, changed_at FROM opt_outs")).all()
    if rows:
        connection.execute(
            sa.text("UPDATE opt_outs SET id = :id WHERE channel = :channel AND address = :address"),
            [
                {
                    "channel": row.channel,
                    "address": row.address,
                    "id": f"opt_{row.changed_at:013x}{os.urandom(6).hex()}",
                }
                for row in rows
            ],
        )
