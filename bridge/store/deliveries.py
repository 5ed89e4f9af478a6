"""Deliveries: the rows of the table `deliveries` as typed values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, select

from bridge.connector.callbacks import Channel
from bridge.lifecycle import DeliveryState
from bridge.rules.model import OncePer, PlannedDelivery, Retry
from bridge.store import schema

_STANDARD_RETRY: Final = Retry()


@dataclass(slots=True)
class DeliveryOptions:
    """The options of a rule that matter after routing. Stored as JSON; options with their default are left out.

    They are never changed. They are not frozen, because every delivery creates them, in a third of the time.
    """

    updates: bool = False
    """A later event updates the record of a completed idempotency key."""
    cancel_on: tuple[str, ...] = ()
    once: OncePer | None = None
    retry: Retry = _STANDARD_RETRY
    shadow: bool = False
    force: bool = False
    """An operator requested a replay with `--force`."""
    internal: bool = False
    """A message to the team: the messaging policy does not apply, and it has no unsubscribe link."""
    notes: tuple[str, ...] = ()
    """What it has to do without (`PlannedDelivery.notes`)."""
    on_success: bool = False
    """Its rule follows up on a success."""
    late: Mapping[str, Any] = field(default_factory=dict)
    """Params that wait for the details of the conversation, or for results: the sources of their templates. Empty once
    they are rendered."""
    results: Mapping[str, str | None] = field(default_factory=dict)
    """Action -> external ID that it returned, once the results that the params use were rendered."""
    more_recipients: tuple[str, ...] = ()
    """The other addresses of a message to several colleagues."""
    undelivered_ids: tuple[str, ...] = ()
    """External IDs of messages that the provider accepted and did not deliver, before an operator retried it."""

    @classmethod
    def of(cls, planned: PlannedDelivery, *, force: bool = False) -> DeliveryOptions:
        """Return the options of a planned delivery."""
        return cls(
            planned.updates_existing, planned.cancel_on, planned.once, planned.retry, planned.shadow, force,
            planned.internal, planned.notes, planned.on_success, planned.late,
            more_recipients=planned.more_recipients,
        )  # fmt: skip

    @staticmethod
    @lru_cache(maxsize=4096)  # a rules file produces few different ones
    def from_json(text: str) -> DeliveryOptions:
        """Parse stored options."""
        stored = json.loads(text)
        once, retry = stored.get("once"), stored.get("retry") or {}
        limit = retry.get("limit")
        return DeliveryOptions(
            updates=stored.get("updates", False),
            cancel_on=tuple(stored.get("cancel_on", ())),
            once=OncePer(once["per"], timedelta(seconds=once["within"])) if once else None,
            retry=Retry(None if limit is None else timedelta(seconds=limit), retry.get("attempts")),
            shadow=stored.get("shadow", False),
            force=stored.get("force", False),
            internal=stored.get("internal", False),
            notes=tuple(stored.get("notes", ())),
            on_success=stored.get("on_success", False),
            late=stored.get("late", {}),
            results=stored.get("results", {}),
            more_recipients=tuple(stored.get("more_recipients", ())),
            undelivered_ids=tuple(stored.get("undelivered_ids", ())),
        )

    def to_json(self) -> str:
        """Return the options as they are stored."""
        if self == _DEFAULT_OPTIONS:
            return "{}"
        stored: dict[str, Any] = {name: True for name in _FLAGS if getattr(self, name)}
        stored |= {name: value for name in _COLLECTIONS if (value := getattr(self, name))}
        if self.once is not None:
            stored["once"] = {"per": self.once.per, "within": self.once.within.total_seconds()}
        if self.retry != _STANDARD_RETRY:
            limit = self.retry.limit
            stored["retry"] = {
                "limit": None if limit is None else limit.total_seconds(),
                "attempts": self.retry.attempts,
            }
        return json.dumps(stored)


_DEFAULT_OPTIONS: Final = DeliveryOptions()
_FLAGS: Final = ("updates", "shadow", "force", "internal", "on_success")
_COLLECTIONS: Final = ("cancel_on", "notes", "late", "results", "more_recipients", "undelivered_ids")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery, as it was when its row was read. `schema.deliveries` describes the columns."""

    id: str
    state: DeliveryState
    options: DeliveryOptions
    event_id: str | None
    trigger: str
    rule: str
    action: str
    connection: str
    channel: Channel | None
    recipient: str | None
    contact: str | None
    conversation: str | None
    params: str
    concurrency_key: str | None
    idempotency_key: str
    occurred_at: datetime
    reason: str | None
    detail: str | None
    run_at: datetime
    expires_at: datetime | None
    attempts: int
    fencing_token: int
    first_attempt_at: datetime | None
    outcome_unknown_since: datetime | None
    possibly_sent_at: datetime | None
    external_id: str | None
    message_status: str | None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Delivery:
        """Build a delivery from a row with the `DELIVERY_COLUMNS`."""
        delivery_id, state, options, *rest = row
        return cls(delivery_id, DELIVERY_STATES[state], DeliveryOptions.from_json(options), *rest)

    @classmethod
    def not_stored(cls, values: Mapping[str, Any]) -> Delivery:
        """Build a delivery from the values of a row that is not inserted, made by `delivery_row`."""
        return cls.from_row([values.get(column.name) for column in DELIVERY_COLUMNS])

    @property
    def kind(self) -> Literal["send", "lookup"]:
        """The kind of its next attempt."""
        return "send" if self.outcome_unknown_since is None else "lookup"

    @property
    def capped_channel(self) -> Channel | None:
        """The channel of a message that caps count; None for messages to the team, and for other actions."""
        return None if self.options.internal else self.channel

    @property
    def once_value(self) -> str | None:
        """The contact or conversation that its `once` counts; None if it has no `once`, or the contact is unknown."""
        once = self.options.once
        if once is None:
            return None
        return self.contact if once.per == "contact" else self.conversation


DELIVERY_COLUMNS: Final = tuple(schema.deliveries.c[item.name] for item in fields(Delivery))
"""The columns of a `Delivery`, in the order of its fields."""
DELIVERY_STATES: Final = {state.value: state for state in DeliveryState}


def lock_deliveries(conn: Connection, condition: ColumnElement[bool]) -> dict[str, Delivery]:
    """Return the deliveries that match, by ID, locked in the order of their IDs."""
    query = select(*DELIVERY_COLUMNS).where(condition).order_by(schema.deliveries.c.id).with_for_update()
    return {row.id: Delivery.from_row(row) for row in conn.execute(query)}
