"""Preview of a replay: how many events it would route, what it would send, and to how many people."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select

from bridge.dryrun.effects import effects_of_replay
from bridge.events import Event
from bridge.policy.effects import Effects
from bridge.store import schema
from bridge.store.contact_history import contact_history
from bridge.store.database import Database
from bridge.store.event_rows import event_from_row
from bridge.store.opt_outs import AddressHasher
from bridge.store.policy_inputs import inputs_for_all
from bridge.store.replay import ReplayOrder, SelectedEvents

PREVIEW_LIMIT: Final = 500
"""Events whose effects are computed before a replay is confirmed; those of more take too long."""
_READ_AT_A_TIME: Final = 50


@dataclass(frozen=True)
class ReplayPreview:
    """What a replay would do."""

    events: int
    """Events that would be routed again."""
    effects: Effects | None
    """None if there are too many events to compute them."""
    obstacles: Mapping[str, int]
    """Why others cannot be routed again -> how many."""
    first: Sequence[str]
    """IDs of the newest of the events."""
    previewed_at: datetime
    """The time of the preview, for `ReplayOrder.previewed_at`."""

    @property
    def total(self) -> int:
        """All events that match."""
        return self.events + sum(self.obstacles.values())

    def to_json(self) -> dict[str, Any]:
        """Return the preview as plain data, without addresses."""
        effects = self.effects or Effects()
        return {
            "dry_run": True,
            "events": self.events,
            "is_complete": self.effects is not None,
            **effects.to_json(),
            "people": effects.people,
            "people_again": effects.again,
            "not_possible": sum(self.obstacles.values()),
            "obstacles": dict(self.obstacles),
            "previewed_at": self.previewed_at,
        }


def preview_replay(
    database: Database,
    selected: SelectedEvents,
    order: ReplayOrder,
    *,
    hash_address: AddressHasher | None,
    allowlist: Collection[str] = (),
    limit: int | None = PREVIEW_LIMIT,
    shown: int = 5,
) -> ReplayPreview:
    """Return what a replay of these events would do, by the policy that the service applies.

    Above `limit` events, only their number is known.
    """
    with database.read() as conn:
        previewed_at = database.now(conn)
    effects = None
    if limit is None or len(selected.ids) <= limit:
        effects = _effects(database, selected.ids, order, hash_address, allowlist)
    first = selected.ids[: -shown - 1 : -1]
    return ReplayPreview(len(selected.ids), effects, selected.obstacles, first, previewed_at)


def _effects(
    database: Database,
    event_ids: Sequence[str],
    order: ReplayOrder,
    hash_address: AddressHasher | None,
    allowlist: Collection[str],
) -> Effects:
    rules = order.rules
    if order.rule is not None:
        rules = replace(rules, rules=tuple(item for item in rules.rules if item.name == order.rule))
    with contact_history(database) as history:
        return effects_of_replay(
            _stored(database, event_ids),
            rules,
            database.clock.now(),
            load_inputs=lambda planned: inputs_for_all(database, planned, rules.messaging, hash_address),
            history=history,
            allowlist=allowlist,
            force=order.force,
        )


def _stored(database: Database, event_ids: Sequence[str]) -> Iterator[Event]:
    """Return the events whose bodies are stored, in this order; `replay` reports the others."""
    table = schema.events
    for start in range(0, len(event_ids), _READ_AT_A_TIME):
        part = event_ids[start : start + _READ_AT_A_TIME]
        stored = select(table).where(table.c.id.in_(part), table.c.body.is_not(None))
        with database.read() as conn:
            rows = {row.id: row for row in conn.execute(stored)}
        for event_id in part:
            if event_id in rows:
                yield event_from_row(rows[event_id], database.default_country)
