"""The tables. `bridge.store` holds the only SQL of the product; migrations bring a database to this shape.

Instants are kept as microseconds since 1970 (UTC) in 64-bit integers: exact, indexable and the same on SQLite
and PostgreSQL. Structured values are JSON text. Keys of events and effects are kept for ever; bodies and personal
data go when their work is finished and `BRIDGE_RETENTION` has passed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    text,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(instant: datetime) -> int:
    """How the tables keep an instant; a naive datetime is a bug and raises TypeError."""
    return (instant - _EPOCH) // _MICROSECOND


class Instant(TypeDecorator[datetime]):
    """An aware datetime, kept as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """To the database."""
        return None if value is None else microseconds(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:  # noqa: ARG002
        """From the database: the function itself, for a delivery has many instants."""
        return _instant


def _instant(value: int | None) -> datetime | None:
    """An instant from a table, in UTC."""
    return None if value is None else _EPOCH + timedelta(microseconds=value)


metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("dedupe_key", Text, nullable=False, unique=True),
    Column("fallback_dedupe_key", Text, unique=True),
    Column("type", Text, nullable=False),
    Column("conversation_id", Text, nullable=False),
    Column("phone", Text),
    Column("email", Text),
    Column("occurred_at", Instant, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("body", LargeBinary),
    Column("body_sha256", LargeBinary, nullable=False),
    Column("routed_at", Instant),
    Column("rules_hash", Text),
    Column("trace", Text),
    Index("events_unrouted", "received_at", sqlite_where=text("routed_at IS NULL"),
          postgresql_where=text("routed_at IS NULL")),
    Index("events_conversation", "conversation_id"),
    Index("events_phone", "phone", sqlite_where=text("phone IS NOT NULL"),
          postgresql_where=text("phone IS NOT NULL")),
    Index("events_email", "email", sqlite_where=text("email IS NOT NULL"),
          postgresql_where=text("email IS NOT NULL")),
    Index("events_received", "received_at"),
)  # fmt: skip

rules = Table(
    "rules",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("first_used_at", Instant, nullable=False),
)

_WAITING = "state IN ('pending', 'retrying')"

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("event_id", Text, ForeignKey("events.id")),
    Column("parent_id", Text),  # the delivery that an on_failure or alert speaks of
    Column("trigger", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("step_index", Integer, nullable=False),
    Column("rules_hash", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("connection", Text, nullable=False),
    Column("channel", Text),
    Column("recipient", Text),
    Column("contact", Text),
    Column("conversation", Text),
    Column("params", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("concurrency_key", Text),
    Column("idempotency_key", Text, nullable=False),
    Column("occurred_at", Instant, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("detail", Text),
    Column("run_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("attempts", Integer, nullable=False, default=0),
    Column("fencing_token", Integer, nullable=False, default=0),
    Column("lease_expires_at", Instant),
    Column("worker_id", Text),
    Column("first_attempt_at", Instant),
    Column("outcome_unknown_since", Instant),
    Column("possibly_sent_at", Instant),
    Column("external_id", Text),
    Column("message_status", Text),
    Column("message_status_at", Instant),
    Column("needs_follow_up", Boolean, nullable=False, default=False),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Index("deliveries_due", "connection", "run_at", sqlite_where=text(_WAITING), postgresql_where=text(_WAITING)),
    Index("deliveries_concurrency_key", "concurrency_key", unique=True, sqlite_where=text("state = 'running' AND concurrency_key IS NOT NULL"),
          postgresql_where=text("state = 'running' AND concurrency_key IS NOT NULL")),
    Index("deliveries_lease", "lease_expires_at", sqlite_where=text("state = 'running'"),
          postgresql_where=text("state = 'running'")),
    Index("deliveries_possibly_sent", "recipient", "channel", "possibly_sent_at",
          sqlite_where=text("possibly_sent_at IS NOT NULL"), postgresql_where=text("possibly_sent_at IS NOT NULL")),
    Index("deliveries_contact", "contact", "rule"),
    Index("deliveries_conversation", "conversation", "rule"),
    Index("deliveries_follow_up", "id", sqlite_where=text("needs_follow_up"), postgresql_where=text("needs_follow_up")),
    Index("deliveries_event", "event_id"),
    Index("deliveries_external_id", "external_id", sqlite_where=text("external_id IS NOT NULL"),
          postgresql_where=text("external_id IS NOT NULL")),
    Index("deliveries_state", "state", "created_at"),
)  # fmt: skip

attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", Text, ForeignKey("deliveries.id"), primary_key=True),
    Column("fencing_token", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("worker_id", Text, nullable=False),
    Column("finished_at", Instant),
    Column("outcome", Text),
    Column("reason", Text),
    Column("detail", Text),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("reserved_by", Text),
    Column("completed_by", Text),
    Column("external_id", Text),
    Column("precedence", Integer, nullable=False, default=0),
    Column("occurred_at", Instant, nullable=False),
    Column("changed_at", Instant, nullable=False),
)

contact_cache = Table(
    "contact_cache",
    metadata,
    Column("connection", Text, primary_key=True),
    Column("lookup_key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("expires_at", Instant, nullable=False),
)

opt_outs = Table(
    "opt_outs",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("opted_out_at", Instant),
    Column("source", Text),
    Column("changed_at", Instant, nullable=False),
)

rejected_requests = Table(
    "rejected_requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("received_at", Instant, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("signature_valid", Boolean, nullable=False),
    Column("body", LargeBinary),
    Column("accepted_event_id", Text),
    Index("rejected_requests_received", "received_at"),
)

connections = Table(
    "connections",
    metadata,
    Column("name", Text, primary_key=True),
    Column("paused_until", Instant),
    Column("pause_reason", Text),
    Column("pause_cause", Text),  # operator, rate_limit, quota, auth, circuit_open
    Column("pause_id", Text),  # tells one pause from the next, so that each is alerted once
    Column("alert_due", Boolean, nullable=False, default=False),
    Column("settings_fingerprint", Text),  # a fingerprint: a changed secret ends a pause for credentials
    Column("failures", Integer, nullable=False, default=0),
    Column("successes", Integer, nullable=False, default=0),
    Column("window_started_at", Instant),
    Column(
        "consecutive_rate_limits", Integer, nullable=False, default=0
    ),  # in a row, and none of an asked-for length
    Column("tokens", Float),  # requests that may leave now
    Column("tokens_refilled_at", Instant),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("last_heartbeat_at", Instant, nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", Instant, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", Text),
    Index("audit_log_created", "created_at"),
)
