"""Shapes of responses that several modules of the API use.

They describe what the store returns, which `--json` prints as well. They are used for the OpenAPI document and by the
tests, which compare each response with its shape; nothing is built or checked while a request is handled.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, NotRequired, TypeVar

from pydantic import ConfigDict
from sqlalchemy import Table
from typing_extensions import TypedDict

from bridge.connector import Channel
from bridge.connector.callbacks import MessageStatus
from bridge.lifecycle import DeliveryState, FailureReason, SuppressReason
from bridge.rules.model import Trigger
from bridge.store import schema

T = TypeVar("T")
C = TypeVar("C", bound=type)


def record(table: Table | None = None) -> Callable[[C], C]:
    """Mark a TypedDict as the shape of a response; docstrings or the table's columns describe its fields."""

    def describe(document: dict[str, Any]) -> None:
        for name, field in document.get("properties", {}).items():
            field.pop("title", None)
            if table is not None and name in table.c and "description" not in field:
                field["description"] = table.c[name].info["doc"]

    def mark(shape: C) -> C:
        config = ConfigDict(use_attribute_docstrings=True, json_schema_extra=describe)
        shape.__pydantic_config__ = config  # type: ignore[attr-defined]
        return shape

    return mark


@record()
class PageOf(TypedDict, Generic[T]):
    """A page of a list, and the cursor of the next page."""

    items: list[T]
    next_cursor: str | None
    """`cursor` of the request for the next page; null on the last page."""


@record()
class ItemError(TypedDict):
    """Why one of several items is invalid."""

    index: int
    """Position of the item, from 0."""
    error: str


@record()
class Error(TypedDict):
    """An error. Its message says what to do."""

    error: str
    id: NotRequired[str]
    """What the request is about, if it was not possible in its state."""
    errors: NotRequired[list[ItemError]]
    """Why each item is invalid, if several were sent."""


@record(schema.deliveries)
class DeliverySummary(TypedDict):
    """A delivery in a list."""

    id: str
    event_id: str | None
    parent_id: str | None
    trigger: Trigger
    rule: str
    action: str
    connection: str
    channel: Channel | None
    recipient: str | None
    state: DeliveryState
    reason: SuppressReason | FailureReason | None
    detail: str | None
    run_at: datetime
    attempts: int
    external_id: str | None
    message_status: MessageStatus | None
    created_at: datetime
    finished_at: datetime | None
    expires_at: datetime | None
    dismissed_at: datetime | None
    fencing_token: int


@record(schema.audit_log)
class AuditEntry(TypedDict):
    """An operator action."""

    id: str
    created_at: datetime
    actor: str
    action: str
    target: str
    detail: dict[str, Any] | None
    part_of: str | None


@record(schema.events)
class EventSummary(TypedDict):
    """An event in a list."""

    id: str
    type: str
    conversation_id: str
    phone: str | None
    email: str | None
    unreadable: list[str]
    """Names of the documented fields that had a value, but none that could be read."""
    duplicates: int
    name: str | None
    """Name of the contact. Null if unknown, pruned or erased."""
    occurred_at: datetime
    received_at: datetime
    routed_at: datetime | None
    deliveries: dict[str, int]
    """Number of its deliveries by state."""
