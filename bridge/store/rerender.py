"""Rerendering: applies the current version of a rule to its deliveries that wait and were never attempted.

A delivery keeps its ID, its idempotency key and its time. Its params and options are rendered again from the stored
event. One that the rule would not create today, or would send to another recipient, is cancelled; one that cannot be
rendered stays as it is.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, select

from bridge.contacts.address import address_key
from bridge.lifecycle import DeliveryState, Transition
from bridge.rules.model import PlannedDelivery, Rules
from bridge.store import schema
from bridge.store.audit_log import record_audit
from bridge.store.contact_history import history_in
from bridge.store.database import Database
from bridge.store.deliveries import DELIVERY_COLUMNS, Delivery, DeliveryOptions, lock_deliveries
from bridge.store.routing import Route, read_events, store_rules_version
from bridge.store.rule_deliveries import waiting_ids
from bridge.store.schema import ERASED
from bridge.store.transitions import Change, apply_transitions

RERENDER_BATCH: Final = 100
"""Deliveries per transaction."""
MAX_IDS: Final = 20
"""Delivery IDs per reason in a report."""

_TABLE = schema.deliveries


@dataclass
class ReasonGroup:
    """Deliveries that were not rendered again for one reason."""

    reason: str
    total: int = 0
    ids: list[str] = field(default_factory=list)
    """The first `MAX_IDS` of them."""


@dataclass
class RerenderReport:
    """The result of `rerender_rule`."""

    rule: str
    rendered: int = 0
    cancelled: list[ReasonGroup] = field(default_factory=list)
    kept: list[ReasonGroup] = field(default_factory=list)
    """Deliveries that will be sent as they are."""

    @property
    def lines(self) -> list[str]:
        """The result in words."""
        lines = [f"{self.rule}: {self.rendered:,} rendered again"]
        for word, groups in (("cancelled", self.cancelled), ("not changed", self.kept)):
            for group in groups:
                more = ", ..." if group.total > len(group.ids) else ""
                lines.append(f"{group.total:,} {word}: {group.reason} ({', '.join(group.ids)}{more})")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the record of the API and of `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class _Outcome:
    """What becomes of one delivery: either it takes what was planned, or it is cancelled or kept for a reason."""

    planned: PlannedDelivery | None = None
    cancel: str = ""
    keep: str = ""


def rerender_rule(
    database: Database,
    actor: str,
    rule: str,
    rules: Rules,
    route: Route,
    on_progress: Callable[[int], None] = lambda _: None,
) -> RerenderReport:
    """Apply the rule of `rules` with this name to its waiting deliveries, in transactions of bounded size."""
    report = RerenderReport(rule)
    for ids in waiting_ids(database, rule, RERENDER_BATCH):
        # Rendering takes long: it is done before the transaction that writes.
        _apply(database, actor, _plan(database, ids, rule, route), rules, report)
        on_progress(len(ids))
    return report


def _plan(
    database: Database, ids: Sequence[str], rule: str, route: Route
) -> dict[str, tuple[Delivery, _Outcome]]:
    """Return what becomes of each of these deliveries, by ID."""
    query = select(*DELIVERY_COLUMNS, _TABLE.c.step_index).where(_TABLE.c.id.in_(ids))
    with database.read() as conn:
        now, history = database.now(conn), history_in(conn)
        rows = [(Delivery.from_row(row[:-1]), row.step_index) for row in conn.execute(query)]
        event_ids = {item.event_id for item, _ in rows if item.event_id}
        events = read_events(database, conn, event_ids)
        siblings = _siblings(conn, event_ids, rule)
        outcomes = {}
        for delivery, step_index in rows:
            obstacle = _obstacle(delivery)
            event = events.get(delivery.event_id or "")
            if obstacle is not None or event is None:
                outcome = _Outcome(keep=obstacle or "its event is no longer stored")
            else:
                planned = [item for item in route(event, now, history).planned if item.rule == rule]
                keys = siblings[delivery.event_id, delivery.action]
                outcome = _outcome(delivery, step_index, planned, keys)
            outcomes[delivery.id] = (delivery, outcome)
    return outcomes


def _obstacle(delivery: Delivery) -> str | None:
    """Return why a delivery has to stay as it is; None if it can be rendered again."""
    if delivery.trigger != "rule":
        return "it follows up on another delivery"
    if delivery.state is not DeliveryState.PENDING or delivery.fencing_token:
        return "it was attempted before"
    if delivery.params == ERASED:
        return "its event is no longer kept (BRIDGE_RETENTION)"
    return None


def _siblings(
    conn: Connection, event_ids: Collection[str], rule: str
) -> Mapping[tuple[str | None, str], Sequence[str]]:
    """Return the idempotency keys of the rule's deliveries of these events, by event and action."""
    columns = _TABLE.c["event_id", "action", "idempotency_key"]
    query = select(*columns).where(
        _TABLE.c.event_id.in_(event_ids), _TABLE.c.rule == rule, _TABLE.c.trigger == "rule"
    )
    keys: defaultdict[tuple[str | None, str], list[str]] = defaultdict(list)
    for event_id, action, key in conn.execute(query):
        keys[event_id, action].append(key)
    return keys


def find_step(
    key: str, step_index: int, planned: Sequence[PlannedDelivery], sibling_keys: Sequence[str]
) -> PlannedDelivery | None:
    """Return what the step of a delivery plans today: the one with its idempotency key.

    The key of some actions depends on the content. Then it is the step at the same place, or the only one, unless that
    may belong to another delivery. `planned` has the steps with the delivery's action, `sibling_keys` the keys of all
    its deliveries for the event.
    """
    same_key = [item for item in planned if item.idempotency_key == key]
    candidates = same_key or [item for item in planned if item.idempotency_key not in sibling_keys]
    same_place = [item for item in candidates if item.step_index == step_index]
    if same_place or same_key:
        return (same_place or same_key)[0]
    return candidates[0] if len(candidates) == len(sibling_keys) == 1 else None


def _outcome(
    delivery: Delivery, step_index: int, planned: Sequence[PlannedDelivery], sibling_keys: Sequence[str]
) -> _Outcome:
    if not planned:
        return _Outcome(cancel="the rule no longer fires for its event")
    same_action = [item for item in planned if item.action == delivery.action]
    new = find_step(delivery.idempotency_key, step_index, same_action, sibling_keys)
    if new is None:
        return _Outcome(cancel="the rule no longer has this step")
    if new.render_error is not None:
        return _Outcome(keep=f"render error: {new.render_error}")
    if new.connection != delivery.connection:
        return _Outcome(cancel=f"the rule now uses the connection {new.connection}")
    recipient = address_key(new.recipient) if new.recipient else None
    if recipient != delivery.recipient:
        return _Outcome(cancel="the rule now sends it to another recipient")
    return _Outcome(new)


def _apply(
    database: Database,
    actor: str,
    outcomes: dict[str, tuple[Delivery, _Outcome]],
    rules: Rules,
    report: RerenderReport,
) -> None:
    """Write the outcomes in one transaction, except for deliveries that have changed in the meantime."""
    rendered, cancelled = [], []
    with database.write() as conn:
        now = database.now(conn)
        locked = lock_deliveries(conn, _TABLE.c.id.in_(outcomes))
        for delivery_id, (planned_for, outcome) in outcomes.items():
            delivery = locked.get(delivery_id)
            if outcome.keep:
                _add(report.kept, outcome.keep, delivery_id)
            elif delivery is None or _obstacle(delivery) or delivery.params != planned_for.params:
                _add(report.kept, "it was attempted or changed in the meantime", delivery_id)
            elif outcome.planned is not None:
                rendered.append(_change(delivery, outcome.planned, rules))
            else:
                detail = f"cancelled by {actor}: {outcome.cancel}"
                cancelled.append(Change(delivery, Transition.cancelled(delivery, detail)))
                _add(report.cancelled, outcome.cancel, delivery_id)
        if rendered:
            store_rules_version(database, conn, rules, now)
        for action, changes in (("rerender", rendered), ("cancel", cancelled)):
            apply_transitions(database, conn, changes, now)
            targets = [change.delivery.id for change in changes]
            record_audit(conn, now, actor, action, targets, {"rules": rules.hash[:12]})
        database.publish(conn, {change.delivery.connection for change in (*rendered, *cancelled)})
    report.rendered += len(rendered)


def _change(delivery: Delivery, planned: PlannedDelivery, rules: Rules) -> Change:
    options = DeliveryOptions.of(planned, force=delivery.options.force)
    columns = {
        "params": json.dumps(dict(planned.params)),
        "options": options.to_json(),
        "rules_hash": rules.hash,
        "step_index": planned.step_index,
    }
    return Change(delivery, Transition.rescheduled(delivery, delivery.run_at, delivery.detail), columns)


def _add(groups: list[ReasonGroup], reason: str, delivery_id: str) -> None:
    group = next((group for group in groups if group.reason == reason), None)
    if group is None:
        group = ReasonGroup(reason)
        groups.append(group)
    group.total += 1
    if len(group.ids) < MAX_IDS:
        group.ids.append(delivery_id)
