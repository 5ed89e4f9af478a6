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
    Column("identity", Text, nullable=False, unique=True),
    Column("occurrence", Text, unique=True),
    Column("name", Text, nullable=False),
    Column("conversation", Text, nullable=False),
    Column("phone", Text),
    Column("email", Text),
    Column("occurred_at", Instant, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("body", LargeBinary),
    Column("digest", LargeBinary, nullable=False),
    Column("routed_at", Instant),
    Column("rules", Text),
    Column("trace", Text),
    Index("events_unrouted", "received_at", sqlite_where=text("routed_at IS NULL"),
          postgresql_where=text("routed_at IS NULL")),
    Index("events_conversation", "conversation"),
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
    Column("cause_id", Text),  # the delivery that an on_failure or alert speaks of
    Column("origin", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("position", Integer, nullable=False),
    Column("rules", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("connection", Text, nullable=False),
    Column("channel", Text),
    Column("recipient", Text),
    Column("contact", Text),
    Column("conversation", Text),
    Column("params", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("lane", Text),
    Column("effect", Text, nullable=False),
    Column("occurred_at", Instant, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("detail", Text),
    Column("run_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("attempts", Integer, nullable=False, default=0),
    Column("fence", Integer, nullable=False, default=0),
    Column("lease_until", Instant),
    Column("replica", Text),
    Column("first_attempt_at", Instant),
    Column("unknown_since", Instant),
    Column("reached_at", Instant),
    Column("partner_id", Text),
    Column("receipt", Text),
    Column("receipt_at", Instant),
    Column("follow_up", Boolean, nullable=False, default=False),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Index("deliveries_due", "connection", "run_at", sqlite_where=text(_WAITING), postgresql_where=text(_WAITING)),
    Index("deliveries_lane", "lane", unique=True, sqlite_where=text("state = 'sending' AND lane IS NOT NULL"),
          postgresql_where=text("state = 'sending' AND lane IS NOT NULL")),
    Index("deliveries_lease", "lease_until", sqlite_where=text("state = 'sending'"),
          postgresql_where=text("state = 'sending'")),
    Index("deliveries_reached", "recipient", "channel", "reached_at",
          sqlite_where=text("reached_at IS NOT NULL"), postgresql_where=text("reached_at IS NOT NULL")),
    Index("deliveries_contact", "contact", "rule"),
    Index("deliveries_conversation", "conversation", "rule"),
    Index("deliveries_follow_up", "id", sqlite_where=text("follow_up"), postgresql_where=text("follow_up")),
    Index("deliveries_event", "event_id"),
    Index("deliveries_partner", "partner_id", sqlite_where=text("partner_id IS NOT NULL"),
          postgresql_where=text("partner_id IS NOT NULL")),
    Index("deliveries_state", "state", "created_at"),
)  # fmt: skip

attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", Text, ForeignKey("deliveries.id"), primary_key=True),
    Column("fence", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("replica", Text, nullable=False),
    Column("finished_at", Instant),
    Column("outcome", Text),
    Column("reason", Text),
    Column("detail", Text),
)

effects = Table(
    "effects",
    metadata,
    Column("key", Text, primary_key=True),
    Column("reserved_by", Text),
    Column("held_by", Text),
    Column("partner_id", Text),
    Column("rank", Integer, nullable=False, default=0),
    Column("occurred_at", Instant, nullable=False),
    Column("changed_at", Instant, nullable=False),
)

identities = Table(
    "identities",
    metadata,
    Column("connection", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("partner_id", Text, nullable=False),
    Column("expires_at", Instant, nullable=False),
)

recipients = Table(
    "recipients",
    metadata,
    Column("channel", Text, primary_key=True),
    Column("address", Text, primary_key=True),
    Column("opted_out_at", Instant),
    Column("source", Text),
    Column("changed_at", Instant, nullable=False),
)

rejections = Table(
    "rejections",
    metadata,
    Column("id", Text, primary_key=True),
    Column("received_at", Instant, nullable=False),
    Column("kind", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("signed", Boolean, nullable=False),
    Column("body", LargeBinary),
    Column("accepted_as", Text),
    Index("rejections_received", "received_at"),
)

connections = Table(
    "connections",
    metadata,
    Column("name", Text, primary_key=True),
    Column("paused_until", Instant),
    Column("paused_why", Text),
    Column("paused_by", Text),  # person, credentials, rate, quota, circuit
    Column("pause_id", Text),  # tells one pause from the next, so that each is alerted once
    Column("alert_due", Boolean, nullable=False, default=False),
    Column("settings", Text),  # a fingerprint: a changed secret ends a pause for credentials
    Column("failures", Integer, nullable=False, default=0),
    Column("successes", Integer, nullable=False, default=0),
    Column("counted_since", Instant),
    Column("rate_pauses", Integer, nullable=False, default=0),  # in a row, and none of an asked-for length
    Column("tokens", Float),  # requests that may leave now
    Column("refilled_at", Instant),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("who", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", Text),
    Index("audit_at", "at"),
)
