"""The facts that decide about due deliveries, read in a few queries for a whole group.

The decision itself is `bridge.policy.decide`, the same that rehearsals use.
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
    PolicyInputs,
    IdempotencyRecord,
    decide,
    event_precedence,
    find_cancelling_event,
)
from bridge.rules.model import MessagingPolicy, OncePer, PlannedDelivery, Truth
from bridge.store import schema
from bridge.store.contact_cache import cached_time_zones
from bridge.store.database import Database
from bridge.store.routing import delivery_row, read_events

CLOCKS_APART = timedelta(hours=1)
"""How far ahead of ours Heppu's clock may be for `cancel_on` to compare its timestamps rightly."""


@dataclass(frozen=True)
class PolicyConfig:
    """What the decision needs of the present configuration."""

    messaging: MessagingPolicy
    consent: Callable[[Event], Truth | None] = lambda _: None
    """What `messaging.consent` says of an event; None where nothing is required."""
    allowlist: Collection[str] = ()
    erased_as: Callable[[str], str] | None = None
    """What stands for an address in opt-outs of people who were erased; None without BRIDGE_SECRET_KEY."""


def parse_options(row: Row[Any]) -> Mapping[str, Any]:
    """What the worker needs to know of a delivery's rule; few rules make few different texts, so they are kept."""
    return _options(row.options)


@lru_cache(maxsize=4096)
def _options(text: str) -> Mapping[str, Any]:
    return MappingProxyType(json.loads(text))


@dataclass
class PolicyData:
    """The facts about a group of due deliveries."""

    idempotency_keys: dict[str, Row[Any]] = field(default_factory=dict)
    opted_out: dict[tuple[str, str], datetime] = field(default_factory=dict)
    reached: dict[tuple[str, str], list[tuple[str, datetime]]] = field(default_factory=dict)
    """Per channel and address: the deliveries that went out or may have, and when."""
    zones: Mapping[str, str] = field(default_factory=dict)
    """Per address, in small letters: the time zone that a CRM knows of the person."""
    once: dict[str, datetime] = field(default_factory=dict)
    later: list[EventRef] = field(default_factory=list)
    """Accepted events that may cancel one of the group."""

    def existing_id(self, row: Row[Any]) -> str | None:
        """The partner's id of the record that this delivery's effect already made and is to update."""
        held = self.idempotency_keys.get(row.idempotency_key)
        updates = held is not None and parse_options(row).get("updates")
        return held.external_id if held is not None and updates else None


def load_policy_data(
    conn: Connection,
    rows: Sequence[Row[Any]],
    messaging: MessagingPolicy,
    now: datetime,
    erased_as: Callable[[str], str] | None = None,
) -> PolicyData:
    """Read what bears on these deliveries."""
    facts = PolicyData()
    idempotency_keys = schema.idempotency_keys
    keys = [row.idempotency_key for row in rows]
    facts.idempotency_keys = {
        row.key: row for row in conn.execute(select(idempotency_keys).where(idempotency_keys.c.key.in_(keys)))
    }
    addressed = {(row.channel, row.recipient) for row in rows if row.channel and row.recipient}
    if addressed:
        facts.opted_out = _opt_outs(conn, addressed, erased_as)
        span = max((cap.per for cap in messaging.caps.values()), default=timedelta(0))
        facts.reached = _reached(conn, addressed, now - span)
        facts.zones = cached_time_zones(conn, {address for _, address in addressed}, now)
    facts.once = _once(conn, rows)
    facts.later = _later(conn, rows)
    return facts


def inputs_for_planned(
    database: Database, planned: PlannedDelivery, event: Event, messaging: MessagingPolicy
) -> PolicyInputs:
    """What would bear on a delivery that is only planned, for people who ask what would happen."""
    with database.read() as conn:
        now = database.now(conn)
        row: Any = SimpleNamespace(**delivery_row(planned, event, "", now))
        return _facts(row, event, load_policy_data(conn, [row], messaging, now))


def _opt_outs(
    conn: Connection,
    addressed: Collection[tuple[str, str]],
    erased_as: Callable[[str], str] | None,
) -> dict[tuple[str, str], datetime]:
    """Since when they wish for no messages, by the newest word of each; a wish outlives the erasure of its person."""
    table = schema.opt_outs
    whose = {(channel, address): (channel, address) for channel, address in addressed}
    if erased_as is not None:
        whose |= {(channel, erased_as(address)): (channel, address) for channel, address in addressed}
    rows = conn.execute(
        select(table.c.channel, table.c.address, table.c.opted_out_at)
        .where(tuple_(table.c.channel, table.c.address).in_(list(whose)))
        .order_by(table.c.changed_at)
    )
    newest = {whose[row.channel, row.address]: row.opted_out_at for row in rows}
    return {key: opted_out_at for key, opted_out_at in newest.items() if opted_out_at is not None}


def _reached(
    conn: Connection, addressed: Collection[tuple[str, str]], since: datetime
) -> dict[tuple[str, str], list[tuple[str, datetime]]]:
    table = schema.deliveries
    found = conn.execute(
        select(table.c.id, table.c.channel, table.c.recipient, table.c.possibly_sent_at).where(
            table.c.recipient.in_({address for _, address in addressed}), table.c.possibly_sent_at > since
        )
    )
    reached: dict[tuple[str, str], list[tuple[str, datetime]]] = defaultdict(list)
    for row in found:
        reached[row.channel, row.recipient].append((row.id, row.possibly_sent_at))
    return reached


def _once(conn: Connection, rows: Sequence[Row[Any]]) -> dict[str, datetime]:
    """Per delivery with `once`: when its rule and action last reached the same contact or conversation."""
    table = schema.deliveries
    found = {}
    for row in rows:
        once = parse_options(row).get("once")
        if not once:
            continue
        column, whose = table.c[once["per"]], getattr(row, once["per"])
        if whose is None:
            continue  # people whom nobody can tell apart are not one person
        last = conn.execute(
            select(func.max(table.c.possibly_sent_at)).where(
                column == whose,
                table.c.rule == row.rule,
                table.c.action == row.action,
                table.c.id != row.id,
            )
        ).scalar_one_or_none()
        if last is not None:
            found[row.id] = last
    return found


def _later(conn: Connection, rows: Sequence[Row[Any]]) -> list[EventRef]:
    """Accepted events, routed or not, that share a conversation, phone or e-mail with a cancellable delivery."""
    waiting = [row for row in rows if "cancel_on" in row.options]
    if not waiting:
        return []
    events = schema.events
    names = {name for row in waiting for name in parse_options(row)["cancel_on"]}
    causes = select(events.c.conversation_id, events.c.phone, events.c.email).where(
        events.c.id.in_([row.event_id for row in waiting])
    )
    cause = causes.cte("cause")
    columns = events.c["id", "dedupe_key", "type", "conversation_id", "phone", "email", "occurred_at"]
    same = [
        select(*columns).join(cause, events.c[shared] == cause.c[shared])
        for shared in ("conversation_id", "phone", "email")
    ]
    since = min(row.occurred_at for row in waiting) - CLOCKS_APART
    later = union(*(query.where(events.c.type.in_(names), events.c.occurred_at >= since) for query in same))
    rows = conn.execute(later).all()
    # Heppu's own timestamps, of which `occurred_at` is cut at our clock: the two may be apart.
    bodies = read_events(conn, {row.id for row in rows})
    return [
        EventRef(
            row.dedupe_key, row.type, bodies[row.id].timestamp or row.occurred_at, row.conversation_id, row.phone, row.email
        )
        for row in rows
    ]  # fmt: skip


def decide_all(
    rows: Sequence[Row[Any]],
    events: Mapping[str, Event],
    facts: PolicyData,
    policy_config: PolicyConfig,
    now: datetime,
) -> dict[str, Decision]:
    """The decision about each delivery that is to be sent; a lookup needs none."""
    return {
        row.id: decide(
            _due(row, events[row.id], policy_config),
            _facts(row, events[row.id], facts),
            policy_config.messaging,
            now,
            policy_config.allowlist,
        )
        for row in rows
        if row.outcome_unknown_since is None
    }


_NOBODY = Contact()
"""Where nobody is written to or called, the policy asks nothing about the person."""


def _due(row: Row[Any], event: Event, policy_config: PolicyConfig) -> DueDelivery:
    options = parse_options(row)
    once = options.get("once")
    return DueDelivery(
        id=row.id,
        occurred_at=row.occurred_at,
        precedence=event_precedence(event.type),
        contact=event.contact if row.channel else _NOBODY,
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


def _facts(row: Row[Any], event: Event, facts: PolicyData) -> PolicyInputs:
    cancel_on = parse_options(row).get("cancel_on", ())
    address = (row.channel, row.recipient)
    return PolicyInputs(
        cancelled_by=find_cancelling_event(cancel_on, EventRef.of(event), facts.later) if cancel_on else None,
        last_done_at=facts.once.get(row.id),
        opted_out_at=facts.opted_out.get(address),
        crm_time_zone=facts.zones.get((row.recipient or "").lower()),
        messages_sent_at=[at for ident, at in facts.reached.get(address, ()) if ident != row.id],
        idempotency_record=_held(row, facts.idempotency_keys.get(row.idempotency_key)),
    )


def _held(row: Row[Any], idempotency_key: Row[Any] | None) -> IdempotencyRecord | None:
    if idempotency_key is None:
        return None
    if idempotency_key.reserved_by is not None and idempotency_key.reserved_by != row.id:
        return IdempotencyRecord(
            idempotency_key.reserved_by, False, idempotency_key.precedence, idempotency_key.occurred_at
        )
    if idempotency_key.completed_by is None:
        return IdempotencyRecord(row.id, False, idempotency_key.precedence, idempotency_key.occurred_at)
    return IdempotencyRecord(
        idempotency_key.completed_by, True, idempotency_key.precedence, idempotency_key.occurred_at
    )
