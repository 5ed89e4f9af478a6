"""Search for contacts by name, by the beginning of an address or ID, and by the end of a number; duplicates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_PHONE_ENDING = " || ".join(f"substr(phone, length(phone) - {place}, 1)" for place in range(4))
_REPLACED = {
    "events_conversation": ["conversation_id"],
    "events_phone": ["phone", "email"],
    "events_email": ["email", "phone"],
}


def upgrade() -> None:
    """Add the columns and indexes. Events routed before have no name, and their duplicates were not counted."""
    op.add_column(
        "events", sa.Column("duplicates", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    for column in ("contact_name", "contact_sort_name"):
        op.add_column("events", sa.Column(column, sa.Text()))
        _create_index(f"events_{column}", [column], f"{column} IS NOT NULL")
    op.create_index(
        "events_phone_ending",
        "events",
        [sa.text(f"({_PHONE_ENDING})"), "phone"],
        sqlite_where=sa.text("phone IS NOT NULL AND routed_at IS NOT NULL"),
        postgresql_where=sa.text("phone IS NOT NULL AND routed_at IS NOT NULL"),
    )
    if op.get_bind().dialect.name == "postgresql":
        for name, columns in _REPLACED.items():
            op.drop_index(name, "events")
            _create_index(
                name, columns, None if name == "events_conversation" else f"{columns[0]} IS NOT NULL"
            )


def _create_index(name: str, columns: list[str], condition: str | None) -> None:
    where = None if condition is None else sa.text(condition)
    op.create_index(
        name,
        "events",
        columns,
        sqlite_where=where,
        postgresql_where=where,
        postgresql_ops={columns[0]: "text_pattern_ops"},
    )
