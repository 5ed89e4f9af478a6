"""Replay: routes stored events once more with the current rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from bridge.events import Event
from bridge.rules.counting import History
from bridge.rules.model import Rules
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.contact_history import history_in
from bridge.store.database import Database
from bridge.store.event_rows import event_from_row
from bridge.store.routing import Route, delivery_row, store_rules_version

REPLAY_BATCH = 200
"""Events per transaction of a replay."""


@dataclass(frozen=True)
class ReplayResult:
    """The result of a replay of one event."""

    id: str
    deliveries: Sequence[str]
    """The IDs of the new deliveries."""
    skipped: str = ""
    """Why the event was skipped; empty if it was replayed."""


def events_between(database: Database, since: datetime | None, until: datetime | None) -> list[str]:
    """Return the IDs of routed events received in a period whose bodies are kept, oldest first."""
    table = schema.events
    query = select(table.c.id).where(table.c.body.is_not(None), table.c.routed_at.is_not(None))
    if since is not None:
        query = query.where(table.c.received_at >= since)
    if until is not None:
        query = query.where(table.c.received_at < until)
    with database.read() as conn:
        return list(conn.execute(query.order_by(table.c.received_at, table.c.id)).scalars())


def replay(
    database: Database,
    actor: str,
    event_ids: Sequence[str],
    rules: Rules,
    route: Route,
    *,
    rule: str | None = None,
    force: bool = False,
    reason: str | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[ReplayResult]:
    """Route stored events once more with `rules`, or with one `rule` of them.

    A delivery whose idempotency key is completed is suppressed as `duplicate`, or updates its CRM record. With
    `force`, its action is repeated. `reason` is the operator's, for the audit log.
    """
    replayed: list[ReplayResult] = []
    for start in range(0, len(event_ids), REPLAY_BATCH):
        batch = event_ids[start : start + REPLAY_BATCH]
        replayed += _replay_batch(database, actor, batch, rules, route, rule, force, reason)
        on_progress(len(batch))
    return replayed


def _replay_batch(
    database: Database,
    actor: str,
    event_ids: Sequence[str],
    rules: Rules,
    route: Route,
    rule: str | None,
    force: bool,
    reason: str | None,
) -> list[ReplayResult]:
    table = schema.events
    with database.write() as conn:
        now = database.now(conn)
        store_rules_version(database, conn, rules, now)
        # Locked, so that none is pruned or erased in the meantime.
        locked = select(table).where(table.c.id.in_(event_ids)).order_by(table.c.id).with_for_update()
        rows = {row.id: row for row in conn.execute(locked)}
        replayed, created = [], []
        history = history_in(conn)
        for event_id in event_ids:
            row, skipped, deliveries = rows.get(event_id), "", list[dict[str, Any]]()
            if row is None:
                skipped = "there is no such event"
            elif row.body is None:
                skipped = "its body is no longer kept (BRIDGE_RETENTION)"
            elif row.routed_at is None:
                skipped = "it is not routed yet; it will be routed automatically"
            else:
                event = event_from_row(row, database.default_country)
                deliveries = list(_route_again(event, rules, route, history, now, rule, force))
            created += deliveries
            replayed.append(ReplayResult(event_id, [row["id"] for row in deliveries], skipped))
        if created:
            conn.execute(schema.deliveries.insert(), created)
        for item in replayed:
            if not item.skipped:
                detail = {
                    "deliveries": len(item.deliveries),
                    "rules": rules.hash[:12],
                    "rule": rule,
                    "force": force,
                    "reason": reason,
                }
                record_audit(conn, now, actor, "replay", [item.id], {k: v for k, v in detail.items() if v})
        database.publish(conn, {row["connection"] for row in created})
        return replayed


def _route_again(
    event: Event,
    rules: Rules,
    route: Route,
    history: History,
    now: datetime,
    rule: str | None,
    force: bool,
) -> Iterator[dict[str, Any]]:
    for planned in route(event, now, history).planned:
        if rule is None or planned.rule == rule:
            yield delivery_row(planned, event, rules.hash, now, force=force)
