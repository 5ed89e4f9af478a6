"""The ledger of effects: what has been brought about, and what somebody is trying to bring about.

A row is reserved before the attempt, in its transaction, and held once the attempt took effect. Only a proven
failure frees it; an unknown outcome keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, update

from bridge.store import schema
from bridge.store.groups import update_group

_TABLE = schema.effects


def hold_effects(connection: Connection, held: Sequence[Mapping[str, Any]]) -> None:
    """These took effect, each for the delivery that reserved it: rows made by `held_row`."""
    if held:
        update_group(connection, _TABLE, ["key"], held, only_if="effects.reserved_by = given.held_by")


def held_row(
    effect: str, delivery: str, partner_id: str | None, rank: int, occurred_at: datetime, now: datetime
) -> dict[str, Any]:
    """A row of `hold_effects`."""
    return {
        "key": effect,
        "reserved_by": None,
        "held_by": delivery,
        "partner_id": partner_id,
        "rank": rank,
        "occurred_at": occurred_at,
        "changed_at": now,
    }


def free_effects(connection: Connection, reserved: Mapping[str, str]) -> None:
    """These deliveries (id -> effect key) have certainly not brought anything about, and will not try again."""
    if not reserved:
        return
    mine = _TABLE.c.key.in_(set(reserved.values())) & _TABLE.c.reserved_by.in_(reserved)
    connection.execute(delete(_TABLE).where(mine, _TABLE.c.held_by.is_(None)))
    connection.execute(update(_TABLE).where(mine).values(reserved_by=None))
