"""Deliveries of a dry run, with the state that each ended in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from bridge.events import Event
from bridge.policy import DueDelivery, event_precedence
from bridge.rules.model import PlannedDelivery, Rules
from bridge.rules.route import consent

EXTERNAL_ID: Final = "sample"
"""The provider's ID of every message and record."""
State = Literal["pending", "succeeded", "needs_review", "failed", "cancelled", "suppressed"]
"""A delivery's state at the end. `pending` includes deliveries that wait for their next attempt."""


@dataclass(eq=False)
class DryRunDelivery:
    """One delivery of a dry run, and its state."""

    id: str
    event: Event
    planned: PlannedDelivery
    at: datetime
    """When it was first attempted, suppressed or cancelled. While it is pending: when it is decided next."""
    state: State = "pending"
    reason: str | None = None
    detail: str = ""
    """The setting of the rules file that decided. For a pending delivery: what it waits for."""
    attempted: bool = False

    @property
    def held_back(self) -> bool:
        """True if the delivery is suppressed or cancelled."""
        return self.state in ("suppressed", "cancelled")

    def to_json(self) -> dict[str, Any]:
        """Return the delivery as plain data."""
        return {
            "rule": self.planned.rule,
            "trigger": self.planned.trigger,
            "action": self.planned.action,
            "connection": self.planned.connection,
            "event": self.event.type,
            "at": self.at.isoformat(),
            "state": self.state,
            "reason": self.reason,
            "detail": self.detail,
            "params": dict(self.planned.params),
        }


_TEXT_PARAMS: Final = ("body", "text")


def text_in(params: Mapping[str, Any]) -> str:
    """Return the text of a message: its param `body`, or else `text`."""
    return next((str(params[name]) for name in _TEXT_PARAMS if params.get(name)), "")


def build_due_delivery(
    delivery_id: str, planned: PlannedDelivery, event: Event, rules: Rules, now: datetime
) -> DueDelivery:
    """Build the input of the decision about a planned delivery."""
    check = consent(event, rules.messaging, now) if planned.channel else None
    return DueDelivery(
        id=delivery_id,
        occurred_at=event.occurred_at,
        precedence=event_precedence(event.type),
        contact=event.contact,
        channel=planned.channel,
        recipient=planned.recipient,
        expires_at=planned.expires_at,
        once=planned.once,
        consent=check.result if check else None,
        updates=planned.updates_existing,
        shadow=planned.shadow,
        internal=planned.internal,
        more_recipients=planned.more_recipients,
    )
