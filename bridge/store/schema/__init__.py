"""Schema: the tables of the database, as SQLAlchemy definitions; the migrations create exactly these.

Instants are microseconds since 1970 (UTC) in 64-bit integers: exact, indexable and the same on SQLite and
PostgreSQL. Structured values are JSON text. Event and idempotency keys are kept permanently; bodies and personal data
are deleted when their work is finished and `BRIDGE_RETENTION` has passed.

Each table and column carries its description in `info["doc"]`, which the reference page of the database shows.
"""

from __future__ import annotations

from bridge.store.schema.columns import Instant, metadata, microseconds
from bridge.store.schema.connection_tables import (
    alert_groups,
    connection_pauses,
    connection_stats,
    connection_tokens,
    connections,
)
from bridge.store.schema.contact_tables import (
    contact_cache,
    opt_out_queries,
    opt_outs,
    possible_duplicates,
    undeliverable_addresses,
)
from bridge.store.schema.delivery_tables import ERASED, action_steps, attempts, deliveries, idempotency_keys
from bridge.store.schema.event_tables import (
    PHONE_ENDING,
    conversation_details,
    deleted_event_keys,
    events,
    rejected_requests,
    rules,
)
from bridge.store.schema.service_tables import audit_log, hourly_counts, sessions, workers

__all__ = [
    "ERASED",
    "PHONE_ENDING",
    "Instant",
    "action_steps",
    "alert_groups",
    "attempts",
    "audit_log",
    "connection_pauses",
    "connection_stats",
    "connection_tokens",
    "connections",
    "contact_cache",
    "conversation_details",
    "deleted_event_keys",
    "deliveries",
    "events",
    "hourly_counts",
    "idempotency_keys",
    "metadata",
    "microseconds",
    "opt_out_queries",
    "opt_outs",
    "possible_duplicates",
    "rejected_requests",
    "rules",
    "sessions",
    "undeliverable_addresses",
    "workers",
]
