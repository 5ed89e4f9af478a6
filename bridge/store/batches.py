"""Changes of many rows in small transactions, so that events and attempts wait for each unnoticed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, update

from bridge.clock import uptime
from bridge.errors import BridgeError
from bridge.ids import new_id
from bridge.store import schema

LARGEST: Final = 100
"""IDs per transaction, at most."""
_SMALLEST: Final = 10
_SECONDS: Final = 0.01
"""How long a transaction should last: the sizes of the next ones follow from it. With 0.04, an event that comes during
long work waited twice as long."""
Key = TypeVar("Key")


class SelectionChanged(BridgeError):
    """Not as many rows match as the operator has confirmed."""


def check_number(number: int, expected: int | None, noun: str) -> None:
    """Raise SelectionChanged if another number matches than the operator has confirmed. None: nothing was."""
    if expected is not None and number != expected:
        raise SelectionChanged(
            f"{number:,} {noun} match now, and not {expected:,} as before: check the preview again"
        )


def in_batches(
    ids: Sequence[Key], change: Callable[[Sequence[Key]], None], *, largest: int = LARGEST
) -> None:
    """Call `change`, which is one transaction, for all IDs in parts that last about as long as they should."""
    position, size = 0, min(largest, max(_SMALLEST, largest // 10))
    while position < len(ids):
        part = ids[position : position + size]
        started = uptime()
        change(part)
        position += len(part)
        fitting = round(len(part) * _SECONDS / max(uptime() - started, 1e-6))
        size = max(1, min(largest, max(_SMALLEST, min(fitting, 2 * size))))


@dataclass
class BulkEntry:
    """The audit entry of an action on many rows, whose numbers grow with each transaction."""

    actor: str
    action: str
    target: str
    """What the rows are: `deliveries`, `events`."""
    detail: Mapping[str, Any]
    """The criteria and what else is known before."""
    id: str = field(default_factory=lambda: new_id("aud"))
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, conn: Connection, now: datetime, **numbers: int) -> None:
        """Add to the numbers, in the transaction that makes the change."""
        self.set(conn, now, **{name: self.numbers.get(name, 0) + number for name, number in numbers.items()})

    def set(self, conn: Connection, now: datetime, **numbers: int) -> None:
        """Store the entry, or its new numbers, in the transaction that makes the change."""
        is_new = not self.numbers
        self.numbers.update(numbers)
        detail, table = json.dumps({**self.detail, **self.numbers}, sort_keys=True), schema.audit_log
        if not is_new:
            conn.execute(update(table).where(table.c.id == self.id).values(detail=detail))
            return
        conn.execute(
            table.insert().values(
                id=self.id, created_at=now, actor=self.actor[:200], action=self.action,
                target=self.target, detail=detail,
            )
        )  # fmt: skip
