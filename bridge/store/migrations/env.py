"""Alembic environment: runs the migrations inside the transaction that `bridge.store.migrate` opened."""

from __future__ import annotations

from alembic import context

from bridge.store.schema import metadata

conn = context.config.attributes["connection"]
context.configure(connection=conn, target_metadata=metadata, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()
