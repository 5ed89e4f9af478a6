"""Deliveries: the actions of rules, with their attempts, and what an operator can do with one."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from bridge.connector import Channel
from bridge.connector.callbacks import MessageStatus
from bridge.lifecycle import AttemptOutcome, DeliveryState, FailureReason, SuppressReason
from bridge.rules.model import Trigger
from bridge.store import schema
from bridge.store.batches import SelectionChanged
from bridge.store.bulk_actions import (
    MAX_DELIVERIES,
    TooManyDeliveries,
    change_all,
    preview_bulk,
)
from bridge.store.delivery_list import DeliveryFilter, count_by_state, list_deliveries
from bridge.store.operator_actions import Action, ActionResult, Resolution, Seen, resolve_all
from bridge.web.api.endpoint import ApiError, Call, Resource, require_done
from bridge.web.api.records import AuditEntry, DeliverySummary, PageOf, record
from bridge.web.query_params import DeliveryCriteria, DeliveryQuery, Text
from bridge.web.validation import InvalidParameter, Parameters

DELIVERIES = Resource(
    "Deliveries", "The actions of rules: their state, their attempts, and what to do about them."
)
_NOT_POSSIBLE = {409: "The delivery's state does not allow it, or it is not as it was `seen`."}
_UNKNOWN_PERSON = {404: "The event of `person` is not stored, or is about nobody."}
_CHANGED = {**_UNKNOWN_PERSON, 409: "Another number of deliveries matches than `expected`, or too many."}
_RESOLUTION = "`delivered`: it took effect; `retry`: it did not; `discard`: do not retry"


@record(schema.attempts)
class Attempt(TypedDict):
    """One try of a delivery, or a question to the provider about an earlier one."""

    delivery_id: str
    fencing_token: int
    kind: Literal["send", "lookup"]
    started_at: datetime
    worker_id: str
    finished_at: datetime | None
    outcome: AttemptOutcome | None
    reason: FailureReason | None
    detail: str | None
    repeats: int


@record(schema.deliveries)
class FollowUp(TypedDict):
    """A delivery that another one has caused."""

    id: str
    trigger: Trigger
    action: str
    created_at: datetime


@record(schema.deliveries)
class DeliveryDetails(TypedDict):
    """A delivery with everything that is stored about it."""

    id: str
    event_id: str | None
    parent_id: str | None
    trigger: Trigger
    rule: str
    step_index: int
    rules_hash: str
    action: str
    connection: str
    channel: Channel | None
    recipient: str | None
    contact: str | None
    conversation: str | None
    params: dict[str, Any]
    options: dict[str, Any]
    concurrency_key: str | None
    idempotency_key: str
    occurred_at: datetime
    state: DeliveryState
    reason: SuppressReason | FailureReason | None
    detail: str | None
    run_at: datetime
    expires_at: datetime | None
    attempts: int
    fencing_token: int
    lease_expires_at: datetime | None
    worker_id: str | None
    first_attempt_at: datetime | None
    outcome_unknown_since: datetime | None
    possibly_sent_at: datetime | None
    external_id: str | None
    message_status: MessageStatus | None
    message_status_at: datetime | None
    needs_follow_up: bool
    created_at: datetime
    finished_at: datetime | None
    dismissed_at: datetime | None
    attempt_history: list[Attempt]
    """Its attempts, oldest first."""
    follow_ups: list[FollowUp]
    audit: list[AuditEntry]


class Operation(Parameters):
    """An operation on a delivery as it was seen."""

    seen: Text | None = Field(
        None,
        description="`state` and `fencing_token` of the delivery as you saw it, joined by a period. If it has changed "
        "since, nothing is done.",
        examples=["failed.3"],
    )

    def seen_of(self, delivery_id: str) -> Seen | None:
        """Return what was seen, by ID; None if the request does not say."""
        return None if self.seen is None else {delivery_id: self.seen}


class Review(Operation):
    """The decision about a delivery that needs review."""

    resolution: Resolution = Field(
        description="`delivered`: it took effect; `retry`: it did not; `discard`: do not retry."
    )
    external_id: Text | None = Field(None, description="ID of the message or record at the provider.")


class Selection(DeliveryCriteria):
    """The deliveries of an action: by their IDs, or all that match the other fields."""

    ids: Annotated[list[Text] | None, Field(max_length=MAX_DELIVERIES)] = Field(
        None, description="IDs of deliveries, instead of a filter."
    )
    dry_run: bool = Field(False, description="Only return what would be done.")
    expected: int | None = Field(
        None, ge=0, description="`deliveries` of the dry run: if another number matches now, nothing is done."
    )

    def matching(self, now: datetime) -> DeliveryFilter:
        """Return the filter. Raise InvalidParameter if no criterion is set, because that would be everything."""
        matching = replace(self.filter(now), ids=self.ids)
        if self.ids is None and not matching.to_json():
            raise InvalidParameter("name `ids`, or at least one criterion, such as `state` or `connection`")
        if self.ids is not None and len(matching.to_json()) > 1:
            raise InvalidParameter("name either `ids` or the criteria of a filter")
        return matching


class Dismissal(Operation):
    """A failed delivery that needs no attention."""

    undo: bool = Field(False, description="Take the dismissal back.")


class ReviewSelection(Parameters):
    """Reviews that have the same answer."""

    ids: Annotated[list[Text], Field(min_length=1, max_length=500)] = Field(description="IDs of deliveries.")
    resolution: Resolution = Field(description=_RESOLUTION)


@record()
class DeliveryList(TypedDict):
    """A page of deliveries."""

    items: list[DeliverySummary]
    next_cursor: str | None
    """`cursor` of the request for the next page; null on the last page. A page may have fewer items than `limit`, or
    none, although more follow: if few deliveries match, they are searched in steps."""
    has_newer: bool
    """Whether there are deliveries above the page, which `newer_than` finds."""


@record()
class CountOfState(TypedDict):
    """How many deliveries are in a state."""

    number: int
    is_exact: bool
    """False: there may be more, because only the newest are counted."""


@record()
class BulkOutcome(TypedDict):
    """What an action on many deliveries has done, or would do with `dry_run`."""

    dry_run: bool
    action: Action
    deliveries: int
    """Deliveries that are changed."""
    not_possible: int
    """Deliveries that are not changed."""
    obstacles: dict[str, int]
    """Why they are not changed, with their number."""
    audit_id: NotRequired[str | None]
    """The audit entry of the whole action. Null if each delivery has an entry."""
    messages: NotRequired[dict[str, int]]
    """With `dry_run`: messages to recipients, by channel."""
    actions: NotRequired[dict[str, int]]
    """With `dry_run`: other deliveries, by action."""
    later: NotRequired[int]
    held_back: NotRequired[dict[str, int]]
    connections: NotRequired[dict[str, int]]
    """With `dry_run`: the deliveries by connection."""
    first: NotRequired[list[str]]
    """With `dry_run`: IDs of the first deliveries."""


@DELIVERIES.get("/deliveries", response=DeliveryList, errors=_UNKNOWN_PERSON)
def list_all_deliveries(call: Call, query: DeliveryQuery) -> Any:
    """List deliveries, newest first."""
    return list_deliveries(call.database, **query.arguments(call.database.clock.now()))


@DELIVERIES.get("/deliveries/counts", response=dict[DeliveryState, CountOfState], errors=_UNKNOWN_PERSON)
def count_deliveries(call: Call, query: DeliveryCriteria) -> Any:
    """Count the deliveries that match a filter by state; `state` itself is ignored."""
    counts = count_by_state(call.database, query.filter(call.database.clock.now()))
    return {state: count._asdict() for state, count in counts.items()}


# Before the paths with a variable, which match these as well.


@DELIVERIES.post("/deliveries/retry", response=BulkOutcome, errors=_CHANGED)
def retry_deliveries(call: Call, body: Selection) -> Any:
    """Retry all failed and retrying deliveries that match a filter, or those with these IDs."""
    return _change_all(call, "retry", body)


@DELIVERIES.post("/deliveries/cancel", response=BulkOutcome, errors=_CHANGED)
def cancel_deliveries(call: Call, body: Selection) -> Any:
    """Cancel all waiting deliveries that match a filter, or those with these IDs."""
    return _change_all(call, "cancel", body)


@DELIVERIES.post("/deliveries/dismiss", response=BulkOutcome, errors=_CHANGED)
def dismiss_deliveries(call: Call, body: Selection) -> Any:
    """Dismiss all failed deliveries that match a filter, or those with these IDs: they need no attention."""
    return _change_all(call, "dismiss", body)


@DELIVERIES.post("/deliveries/resolve", response=PageOf[ActionResult])
def resolve_deliveries(call: Call, body: ReviewSelection) -> Any:
    """Resolve several deliveries that need review in the same way."""
    results = resolve_all(call.database, call.actor, body.ids, body.resolution)
    return {"items": [vars(result) for result in results], "next_cursor": None}


@DELIVERIES.get("/deliveries/{id}", response=DeliveryDetails)
def get_delivery(call: Call) -> Any:
    """Get a delivery with its attempts and audit entries."""
    return call.service.show("delivery", call.id)


@DELIVERIES.post("/deliveries/{id}/retry", response=ActionResult, errors=_NOT_POSSIBLE)
def retry_delivery(call: Call, body: Operation) -> Any:
    """Retry a failed or waiting delivery now."""
    return _change(call, "retry", body)


@DELIVERIES.post("/deliveries/{id}/cancel", response=ActionResult, errors=_NOT_POSSIBLE)
def cancel_delivery(call: Call, body: Operation) -> Any:
    """Cancel a delivery that has not been sent."""
    return _change(call, "cancel", body)


@DELIVERIES.post("/deliveries/{id}/dismiss", response=ActionResult, errors=_NOT_POSSIBLE)
def dismiss_delivery(call: Call, body: Dismissal) -> Any:
    """Dismiss a failed delivery: it stays failed, and needs no attention."""
    return _change(call, "undismiss" if body.undo else "dismiss", body)


@DELIVERIES.post("/deliveries/{id}/resolve", response=ActionResult, errors=_NOT_POSSIBLE)
def resolve_delivery(call: Call, body: Review) -> Any:
    """Resolve a delivery that needs review."""
    seen = body.seen_of(call.id)
    return require_done(call.service.resolve(call.id, call.actor, body.resolution, body.external_id, seen))


def _change(call: Call, action: Action, body: Operation) -> Any:
    return require_done(call.service.change_delivery(action, call.id, call.actor, body.seen_of(call.id)))


def _change_all(call: Call, action: Action, body: Selection) -> Any:
    matching = body.matching(call.database.clock.now())
    try:
        if body.dry_run:
            return preview_bulk(call.database, action, matching).to_json()
        return change_all(call.database, call.actor, action, matching, expected=body.expected).to_json()
    except (SelectionChanged, TooManyDeliveries) as error:
        raise ApiError(409, str(error)) from None
