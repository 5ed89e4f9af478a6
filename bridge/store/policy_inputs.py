"""Policy inputs: loads the data that decides about due deliveries, a few queries for a whole batch.

The decision itself is `bridge.policy.decide`, which dry runs use as well.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from types import MappingProxyType, SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Row, func, select, tuple_, union

from bridge.events import Contact, Event
from bridge.policy import (
    Decision,
    DueDelivery,
    EventRef,
    IdempotencyRecord,
    PolicyInputs,
    decide,
    event_precedence,
    find_cancelling_event,
)
from bridge.rules.model import MessagingPolicy, OncePer, PlannedDelivery, Truth
from bridge.store import schema
from bridge.store.contact_cache import cached_time_zones
from bridge.store.database import Database
from bridge.store.routing import delivery_row, read_events

MAX_CLOCK_DIFFERENCE = timedelta(hours=1)
"""How far Heppu's clock may be ahead of the bridge's for `cancel_on` to compare timestamps correctly."""


@dataclass(frozen=True)
class PolicyConfig:
    """The parts of the current configuration that the decision needs."""

    messaging: MessagingPolicy
    consent: Callable[[Event], Truth | None] = lambda _: None
    """Evaluates `messaging.consent` for an event; None if there is no such condition."""
    allowlist: Collection[str] = ()
    hash_address: Callable[[str], str] | None = None
    """Returns the hash that replaces an erased address in the opt-out list; None without BRIDGE_SECRET_KEY."""


def parse_options(row: Row[Any]) -> Mapping[str, Any]:
    """Return the options of a delivery. A rules file produces few different ones, so they are cached."""
    return _options(row.options)


@lru_cache(maxsize=4096)
def _options(text: str) -> Mapping[str, Any]:
    return MappingProxyType(json.loads(text))


@dataclass
class PolicyData:
    """The data about a batch of due deliveries."""

    idempotency_keys: dict[str, Row[Any]] = field(default_factory=dict)
    opted_out: dict[tuple[str, str], datetime] = field(default_factory=dict)
    messages: dict[tuple[str, str], list[tuple[str, datetime]]] = field(default_factory=dict)
    """Messages that were sent, or may have been, by channel and address: delivery ID and time."""
    time_zones: Mapping[str, str] = field(default_factory=dict)
    """Time zones that a CRM reported, by address in lowercase."""
    last_done: dict[str, datetime] = field(default_factory=dict)
    """For deliveries with `once`, by ID: when it was last done for the same contact or conversation."""
    later_events: list[EventRef] = field(default_factory=list)
    """Accepted events that may cancel a delivery of the batch."""

    def existing_id(self, row: Row[Any]) -> str | None:
        """Return the external ID of the record that this delivery is to update; None if it creates one."""
        record = self.idempotency_keys.get(row.idempotency_key)
        updates = record is not None and parse_options(row).get("updates")
        return record.external_id if record is not None and updates else None


def load_policy_data(
    conn: Connection,
    rows: Sequence[Row[Any]],
    messaging: MessagingPolicy,
    now: datetime,
    hash_address: Callable[[str], str] | None = None,
) -> PolicyData:
    """Load the data that decides about these deliveries."""
    data = PolicyData()
    idempotency_keys = schema.idempotency_keys
    keys = [row.idempotency_key for row in rows]
    data.idempotency_keys = {
        row.key: row for row in conn.execute(select(idempotency_keys).where(idempotency_keys.c.key.in_(keys)))
    }
    recipients = {(row.channel, row.recipient) for row in rows if row.channel and row.recipient}
    if recipients:
        data.opted_out = _opt_outs(conn, recipients, hash_address)
        longest_cap = max((cap.per for cap in messaging.caps.values()), default=timedelta(0))
        data.messages = _messages(conn, recipients, now - longest_cap)
        data.time_zones = cached_time_zones(conn, {address for _, address in recipients}, now)
    data.last_done = _last_done(conn, rows)
    data.later_events = _later_events(conn, rows)
    return data


def inputs_for_planned(
    database: Database, planned: PlannedDelivery, event: Event, messaging: MessagingPolicy
) -> PolicyInputs:
    """Load the policy inputs of a delivery that is only planned, for `bridge explain`."""
    with database.read() as conn:
        now = database.now(conn)
        row: Any = SimpleNamespace(**delivery_row(planned, event, "", now))
        return _inputs(row, event, load_policy_data(conn, [row], messaging, now))


def _opt_outs(
    conn: Connection,
    recipients: Collection[tuple[str, str]],
    hash_address: Callable[[str], str] | None,
) -> dict[tuple[str, str], datetime]:
    """Return since when recipients have opted out, by their latest change; an opt-out survives an erasure."""
    table = schema.opt_outs
    recipient_of = {(channel, address): (channel, address) for channel, address in recipients}
    if hash_address is not None:
        recipient_of |= {
            (channel, hash_address(address)): (channel, address) for channel, address in recipients
        }
    rows = conn.execute(
        select(table.c.channel, table.c.address, table.c.opted_out_at)
        .where(tuple_(table.c.channel, table.c.address).in_(list(recipient_of)))
        .order_by(table.c.changed_at)
    )
    latest = {recipient_of[row.channel, row.address]: row.opted_out_at for row in rows}
    return {key: opted_out_at for key, opted_out_at in latest.items() if opted_out_at is not None}


def _messages(
    conn: Connection, recipients: Collection[tuple[str, str]], since: datetime
) -> dict[tuple[str, str], list[tuple[str, datetime]]]:
    """Return the messages to these recipients since an instant: delivery ID and time."""
    table = schema.deliveries
    rows = conn.execute(
        select(table.c.id, table.c.channel, table.c.recipient, table.c.possibly_sent_at).where(
            table.c.recipient.in_({address for _, address in recipients}), table.c.possibly_sent_at > since
        )
    )
    messages: dict[tuple[str, str], list[tuple[str, datetime]]] = defaultdict(list)
    for row in rows:
        messages[row.channel, row.recipient].append((row.id, row.possibly_sent_at))
    return messages


def _last_done(conn: Connection, rows: Sequence[Row[Any]]) -> dict[str, datetime]:
    """Return when rule and action last took effect for the contact or conversation of deliveries with `once`."""
    table = schema.deliveries
    last_done = {}
    for row in rows:
        once = parse_options(row).get("once")
        if not once:
            continue
        column, value = table.c[once["per"]], getattr(row, once["per"])
        if value is None:
            continue  # unidentified contacts are not the same contact
        last = conn.execute(
            select(func.max(table.c.possibly_sent_at)).where(
                column == value,
                table.c.rule == row.rule,
                table.c.action == row.action,
                table.c.id != row.id,
            )
        ).scalar_one_or_none()
        if last is not None:
            last_done[row.id] = last
    return last_done


def _later_events(conn: Connection, rows: Sequence[Row[Any]]) -> list[EventRef]:
    """Return accepted events, routed or not, that share a conversation or contact with a delivery with `cancel_on`."""
    cancellable = [row for row in rows if "cancel_on" in row.options]
    if not cancellable:
        return []
    events = schema.events
    event_types = {event_type for row in cancellable for event_type in parse_options(row)["cancel_on"]}
    triggers = select(events.c.conversation_id, events.c.phone, events.c.email).where(
        events.c.id.in_([row.event_id for row in cancellable])
    )
    trigger = triggers.cte("trigger_event")
    columns = events.c["id", "dedupe_key", "type", "conversation_id", "phone", "email", "occurred_at"]
    queries = [
        select(*columns).join(trigger, events.c[shared] == trigger.c[shared])
        for shared in ("conversation_id", "phone", "email")
    ]
    since = min(row.occurred_at for row in cancellable) - MAX_CLOCK_DIFFERENCE
    later = union(
        *(query.where(events.c.type.in_(event_types), events.c.occurred_at >= since) for query in queries)
    )
    rows = conn.execute(later).all()
    # Compare Heppu's own timestamps: `occurred_at` is at most `received_at`, by the bridge's clock.
    bodies = read_events(conn, {row.id for row in rows})
    return [
        EventRef(
            row.dedupe_key, row.type, bodies[row.id].timestamp or row.occurred_at, row.conversation_id,
            row.phone, row.email,
        )
        for row in rows
    ]  # fmt: skip


def decide_all(
    rows: Sequence[Row[Any]],
    events: Mapping[str, Event],
    data: PolicyData,
    policy_config: PolicyConfig,
    now: datetime,
) -> dict[str, Decision]:
    """Return the decision about each delivery, by ID; a lookup needs none."""
    return {
        row.id: decide(
            _due_delivery(row, events[row.id], policy_config),
            _inputs(row, events[row.id], data),
            policy_config.messaging,
            now,
            policy_config.allowlist,
        )
        for row in rows
        if row.outcome_unknown_since is None
    }


_NO_CONTACT = Contact()
"""The contact of deliveries without a channel: the messaging policy does not apply to them."""


def _due_delivery(row: Row[Any], event: Event, policy_config: PolicyConfig) -> DueDelivery:
    options = parse_options(row)
    once = options.get("once")
    return DueDelivery(
        id=row.id,
        occurred_at=row.occurred_at,
        precedence=event_precedence(event.type),
        contact=event.contact if row.channel else _NO_CONTACT,
        channel=row.channel,
        recipient=row.recipient,
        expires_at=row.expires_at,
        once=OncePer(once["per"], timedelta(seconds=once["within"])) if once else None,
        consent=policy_config.consent(event) if row.channel else None,
        updates=bool(options.get("updates")),
        shadow=bool(options.get("shadow")),
        alert=row.trigger == "alert",
        force=bool(options.get("force")),
    )


def _inputs(row: Row[Any], event: Event, data: PolicyData) -> PolicyInputs:
    cancel_on = parse_options(row).get("cancel_on", ())
    address = (row.channel, row.recipient)
    return PolicyInputs(
        cancelled_by=find_cancelling_event(cancel_on, EventRef.of(event), data.later_events)
        if cancel_on
        else None,
        last_done_at=data.last_done.get(row.id),
        opted_out_at=data.opted_out.get(address),
        crm_time_zone=data.time_zones.get((row.recipient or "").lower()),
        messages_sent_at=[at for delivery_id, at in data.messages.get(address, ()) if delivery_id != row.id],
        idempotency_record=_idempotency_record(row, data.idempotency_keys.get(row.idempotency_key)),
    )


def _idempotency_record(row: Row[Any], key: Row[Any] | None) -> IdempotencyRecord | None:
    if key is None:
        return None
    if key.reserved_by is not None and key.reserved_by != row.id:
        return IdempotencyRecord(key.reserved_by, False, key.precedence, key.occurred_at)
    if key.completed_by is None:
        return IdempotencyRecord(row.id, False, key.precedence, key.occurred_at)
    return IdempotencyRecord(key.completed_by, True, key.precedence, key.occurred_at)
