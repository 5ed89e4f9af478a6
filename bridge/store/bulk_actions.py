"""Actions on many deliveries: a preview of what would happen, and the action itself in small transactions.

The command line, the API and the dashboard use the same preview. The audit log gets one entry for an action on a
filter, with the criteria and the numbers; the entries of the single deliveries refer to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Connection

from bridge.errors import BridgeError
from bridge.lifecycle import DeliveryState, is_unresolved
from bridge.policy.effects import Effects
from bridge.store.batches import BulkEntry, check_number, in_batches
from bridge.store.database import Database
from bridge.store.deliveries import Delivery
from bridge.store.delivery_list import DeliveryFilter, matching_ids
from bridge.store.operator_actions import (
    STATES,
    UNKNOWN_DELIVERY,
    Action,
    ActionResult,
    Seen,
    change_deliveries,
    preview_action,
    seen_version,
)

MAX_DELIVERIES: Final = 10_000
"""Deliveries of one action, at most."""
TARGET: Final = "deliveries"
"""The target of the audit entry of the whole action."""
_SHOWN: Final = 5
_DEFAULT_STATES: Final[Mapping[Action, Sequence[DeliveryState]]] = {
    **STATES,
    # A review is decided one by one, unless its state is named.
    "cancel": (DeliveryState.PENDING, DeliveryState.RETRYING),
}
"""The states that an action takes from a filter that names none."""


class TooManyDeliveries(BridgeError):
    """More deliveries match than one action may change."""


@dataclass(frozen=True)
class BulkPreview:
    """What an action on many deliveries would do."""

    action: Action
    possible: int
    """Deliveries that it would change."""
    effects: Effects
    """For a retry, what would be sent; for the others, what the deliveries are."""
    connections: Mapping[str, int]
    """Those deliveries by connection, the most frequent first."""
    first: Sequence[Delivery]
    """The first of them."""
    obstacles: Mapping[str, int]
    """Why others are not changed -> how many."""
    not_possible: Sequence[tuple[str, str]]
    """The first of the others: ID and why, with what to do instead."""
    uncertain: int
    """Those of them that may have been sent: to cancel them closes their reviews."""
    seen: Seen
    """What the preview has seen of them, for chosen IDs; empty for a filter."""
    rejected: int
    """Those of them that the provider rejected: a retry without a change fails again."""

    @property
    def total(self) -> int:
        """All deliveries that match."""
        return self.possible + sum(self.obstacles.values())

    def to_json(self) -> dict[str, Any]:
        """Return the preview as plain data, without addresses."""
        return {
            "dry_run": True,
            "action": self.action,
            "deliveries": self.possible,
            **self.effects.to_json(),
            "connections": dict(self.connections),
            "first": [item.id for item in self.first],
            "not_possible": sum(self.obstacles.values()),
            "obstacles": dict(self.obstacles),
        }


@dataclass(frozen=True)
class BulkResult:
    """What an action on many deliveries has done."""

    action: Action
    audit_id: str | None
    """The audit entry of the whole action; None if nothing matched, or if each delivery has an entry."""
    results: Sequence[ActionResult] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Deliveries that were changed."""
        return sum(result.done for result in self.results)

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        obstacles = Counter(obstacle_kind(result.text) for result in self.results if not result.done)
        return {
            "dry_run": False,
            "action": self.action,
            "deliveries": self.done,
            "not_possible": len(self.results) - self.done,
            "obstacles": dict(obstacles),
            "audit_id": self.audit_id,
        }


def obstacle_kind(text: str) -> str:
    """Return the part of an obstacle that is the same for many deliveries."""
    return text.split(" at ")[0].split(":")[0].split(";")[0].split(" (")[0]


def select_deliveries(database: Database, action: Action, matching: DeliveryFilter) -> list[str]:
    """Return the IDs of the deliveries that an action on a filter is about. Raise TooManyDeliveries.

    Of a filter, these are the ones in a state that the action can change; chosen IDs are all of them, so that the
    result says why one is not changed.
    """
    if matching.ids is not None:
        ids = list(dict.fromkeys(matching.ids))
    else:
        states = _states_of(action, matching)
        not_dismissed = matching.not_dismissed or action == "dismiss"
        wanted = replace(matching, states=states, not_dismissed=not_dismissed)
        ids = matching_ids(database, wanted, MAX_DELIVERIES + 1) if states else []
    if len(ids) > MAX_DELIVERIES:
        raise TooManyDeliveries(
            f"more than {MAX_DELIVERIES:,} deliveries match; narrow the filter, for example with `since` and `until`"
        )
    return ids


def _states_of(action: Action, matching: DeliveryFilter) -> list[DeliveryState]:
    """Return the states in which an action on a filter changes a delivery."""
    wanted = matching.states or _DEFAULT_STATES[action]
    return [state for state in STATES[action] if state in wanted]


def preview_bulk(database: Database, action: Action, matching: DeliveryFilter) -> BulkPreview:
    """Return what an action would do with the deliveries that match. Raise TooManyDeliveries."""
    ids = select_deliveries(database, action, matching)
    sent, connections, obstacles = Counter[str](), Counter[str](), Counter[str]()
    first: list[Delivery] = []
    not_possible: list[tuple[str, str]] = []
    seen: dict[str, str] = {}
    rejected = uncertain = 0
    for start in range(0, len(ids), 1000):
        part = ids[start : start + 1000]
        for delivery_id, (delivery, problem) in zip(
            part, preview_action(database, action, part), strict=True
        ):
            if matching.ids is not None and delivery is not None:
                seen[delivery_id] = seen_version(delivery)
            if delivery is None or problem is not None:
                problem = problem or UNKNOWN_DELIVERY
                obstacles[obstacle_kind(problem)] += 1
                not_possible.append((delivery_id, problem))
                continue
            to_person = delivery.channel if not delivery.options.internal else None
            sent[to_person or delivery.action] += 1
            connections[delivery.connection] += 1
            rejected += delivery.reason == "rejected"
            uncertain += is_unresolved(delivery)
            if len(first) < _SHOWN:
                first.append(delivery)
    return BulkPreview(
        action, sum(sent.values()), Effects(sent), dict(connections.most_common()), first,
        dict(obstacles.most_common()), not_possible[:_SHOWN], uncertain, seen, rejected,
    )  # fmt: skip


def change_all(
    database: Database,
    actor: str,
    action: Action,
    matching: DeliveryFilter,
    *,
    expected: int | None = None,
    seen: Seen | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> BulkResult:
    """Carry out an action on the deliveries that match, newest first, in small transactions.

    `expected` is the number that the operator has confirmed, and `seen` what the preview showed of chosen IDs. Those
    that have changed since are left alone, as are those of a filter that are no longer in one of its states. Raise
    SelectionChanged if another number matches now, or TooManyDeliveries. If the process dies, the audit entry says
    how many were changed.
    """
    ids = select_deliveries(database, action, matching)
    check_number(len(ids), expected, "deliveries")
    # Deliveries that were named one by one have an entry each.
    is_named = matching.ids is not None or not ids
    states = _states_of(action, matching)
    entry = BulkEntry(actor, action, TARGET, matching.to_json() | {"matched": len(ids)})
    results: list[ActionResult] = []

    def add_to_entry(conn: Connection, changed: Sequence[ActionResult]) -> None:
        entry.add(conn, database.now(conn), done=sum(result.done for result in changed))

    def change(part: Sequence[str]) -> None:
        results.extend(
            change_deliveries(database, actor, action, part, seen=seen)
            if is_named
            else change_deliveries(
                database, actor, action, part, states=states, part_of=entry.id, before_commit=add_to_entry
            )
        )
        on_progress(len(part))

    in_batches(ids, change)
    return BulkResult(action, None if is_named else entry.id, results)
