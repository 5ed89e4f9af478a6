"""Indexes of what is left to prune and of the events of a type, so that large databases are as fast as small ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

_ERASED = r"""'{"erased"\:true}'"""
_INDEXES = (
    ("deliveries_unpruned", "deliveries", ["finished_at"],
     f"finished_at IS NOT NULL AND params <> {_ERASED}"),
    ("deliveries_kept_recipient", "deliveries", ["possibly_sent_at"], f"params = {_ERASED} AND recipient IS NOT NULL"),
    ("deliveries_kept_contact", "deliveries", ["possibly_sent_at"], f"params = {_ERASED} AND contact IS NOT NULL"),
    ("events_unpruned", "events", ["received_at"], "body IS NOT NULL AND routed_at IS NOT NULL"),
    ("events_type", "events", ["type", "received_at"], "routed_at IS NOT NULL"),
)  # fmt: skip


def upgrade() -> None:
    """Create the indexes."""
    for name, table, columns, condition in _INDEXES:
        where = sa.text(condition)
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
    op.create_index("contact_cache_expires", "contact_cache", ["expires_at"])
    op.create_index("conversation_details_asked", "conversation_details", ["asked_at"])
