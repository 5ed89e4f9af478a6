"""The ledger of effects: what has been brought about, and what somebody is trying to bring about.

A row is reserved before the attempt, in its transaction, and held once the attempt took effect. Only a proven
failure frees it; an unknown outcome keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, update

from bridge.store import schema

_TABLE = schema.effects


def hold_effects(connection: Connection, held: Sequence[Mapping[str, Any]]) -> None:
    """These took effect: rows of key, delivery, partner_id, rank, occurred_at and changed_at."""
    if held:
        connection.execute(_HOLD, [dict(row) for row in held])


_HOLD = (
    update(_TABLE)
    .where(_TABLE.c.key == bindparam("effect"), _TABLE.c.reserved_by == bindparam("delivery"))
    .values(
        reserved_by=None,
        held_by=bindparam("delivery"),
        partner_id=bindparam("partner"),
        rank=bindparam("how_final"),
        occurred_at=bindparam("happened"),
        changed_at=bindparam("now"),
    )
)


def held_row(
    effect: str, delivery: str, partner_id: str | None, rank: int, occurred_at: datetime, now: datetime
) -> dict[str, Any]:
    """The parameters of `hold_effects` for one effect."""
    return {
        "effect": effect,
        "delivery": delivery,
        "partner": partner_id,
        "how_final": rank,
        "happened": occurred_at,
        "now": now,
    }


def free_effects(connection: Connection, deliveries: Collection[str]) -> None:
    """These deliveries have certainly not brought anything about, and will not try again."""
    if not deliveries:
        return
    mine = _TABLE.c.reserved_by.in_(deliveries)
    connection.execute(delete(_TABLE).where(mine, _TABLE.c.held_by.is_(None)))
    connection.execute(update(_TABLE).where(mine).values(reserved_by=None))
