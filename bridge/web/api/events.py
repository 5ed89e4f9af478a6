"""Events: what Heppu sent, what the rules made of it, and replays."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from bridge.contacts.parse import Contact, UnreadableField
from bridge.rules.trace import Truth
from bridge.store import schema
from bridge.store.batches import SelectionChanged
from bridge.store.queries import list_events
from bridge.store.replay import ReplayResult, TooManyEvents
from bridge.web.api.endpoint import ApiError, Call, Resource
from bridge.web.api.records import AuditEntry, DeliverySummary, EventSummary, PageOf, record
from bridge.web.bulk_replay import BulkReplay, ReplaySelection
from bridge.web.query_params import EventQuery, Text, Time, instant
from bridge.web.validation import Parameters

EVENTS = Resource("Events", "What Heppu sent, and what the rules made of it.")


@record()
class ConditionCheck(TypedDict):
    """The result of one condition for one event."""

    condition: str
    """The condition as the rule spells it."""
    actual: str
    """The event's value, shortened: `"inbound"`, `missing`, `null`."""
    result: Truth
    reason: str
    depth: int
    """Nesting depth in groups (`any`, `all`, `not`)."""


@record()
class RuleTrace(TypedDict):
    """The evaluation of one rule for one event: whether it fired, and why."""

    rule: str
    fired: bool
    checks: list[ConditionCheck]
    error: str | None


@record(schema.events)
class EventDetails(TypedDict):
    """An event with everything that is stored about it."""

    id: str
    dedupe_key: str
    fallback_dedupe_key: str | None
    type: str
    conversation_id: str
    phone: str | None
    email: str | None
    duplicates: int
    reconciled: bool
    duplicate_of: str | None
    occurred_at: datetime
    received_at: datetime
    routed_at: datetime | None
    rules_hash: str | None
    dropped_fields: list[str]
    """Paths of the fields that the event had and that are never stored (BRIDGE_DROP_FIELDS)."""
    body: dict[str, Any] | None
    """The body as received. Null once pruned or erased."""
    contact: Contact
    unreadable_fields: list[UnreadableField]
    trace: list[RuleTrace] | dict[str, Any] | None
    """The evaluation of every rule. Null until the event is routed, and once it is pruned or erased."""
    deliveries: list[DeliverySummary]
    audit: list[AuditEntry]


@record()
class Forecast(TypedDict):
    """What the active rules would do with an event, as `bridge explain --json` prints it."""

    event: str
    id: str | None
    occurred_at: datetime
    contact: Contact
    unreadable_fields: list[UnreadableField]
    rules: list[RuleTrace]
    deliveries: list[dict[str, Any]]
    """The deliveries that would be created, each with its outcome and the settings that decide."""
    hint: str
    """Advice if an expected delivery is missing."""


class Replay(Parameters):
    """How to replay an event."""

    rule: Text | None = Field(
        None, description="Name of the only rule to evaluate.", examples=["text-when-not-reached"]
    )
    force: bool = Field(False, description="Repeat actions that succeeded: recipients are contacted again.")
    reason: Text | None = Field(None, description="Why, for the audit log.")
    previewed_at: Time | None = Field(
        None, description="When you looked: if the event was replayed since, nothing is done."
    )


class ReplayOfMany(ReplaySelection):
    """Which events to replay, and how."""

    force: bool = Field(False, description="Repeat actions that succeeded: recipients are contacted again.")
    dry_run: bool = Field(False, description="Only return what would be done.")


@record()
class BulkReplayOutcome(TypedDict):
    """What a replay of many events has done, or would do with `dry_run`."""

    dry_run: bool
    events: int
    """Events that were routed again, or would be."""
    not_possible: int
    obstacles: dict[str, int]
    """Why the others were not routed again, with their number."""
    deliveries: NotRequired[int]
    """Deliveries that were created."""
    is_complete: NotRequired[bool]
    """With `dry_run`: whether the effects were computed. False if too many events match."""
    messages: NotRequired[dict[str, int]]
    """With `dry_run`: messages to recipients, by channel."""
    actions: NotRequired[dict[str, int]]
    """With `dry_run`: other deliveries, by action."""
    later: NotRequired[int]
    held_back: NotRequired[dict[str, int]]
    """With `dry_run`: deliveries that are not carried out, by reason."""
    people: NotRequired[int]
    """With `dry_run`: people who get a message."""
    people_again: NotRequired[int]
    """With `dry_run` and `force`: those of them who have got it before."""
    previewed_at: NotRequired[datetime]


@EVENTS.get(
    "/events",
    response=PageOf[EventSummary],
    errors={404: "The event of `person` is not stored, or is about nobody."},
)
def list_all_events(call: Call, query: EventQuery) -> Any:
    """List events, newest first."""
    return list_events(call.database, **query.arguments(call.database.clock.now()))


# Before the paths with a variable, which match it as well.


@EVENTS.post(
    "/events/replay",
    response=BulkReplayOutcome,
    errors={
        404: "The event of `person` is not stored, or is about nobody.",
        409: "Another number of events matches than `expected`, or too many: 10,000, with `force` 500.",
    },
)
def replay_events(call: Call, body: ReplayOfMany) -> Any:
    """Route all events that match a filter again with the active rules."""
    bulk = BulkReplay(call.service, body, force=body.force)
    try:
        if body.dry_run:
            return bulk.preview().to_json()
        results = bulk.run(call.actor)
    except (SelectionChanged, TooManyEvents) as error:
        raise ApiError(409, str(error)) from None
    obstacles = Counter(result.skipped for result in results if result.skipped)
    return {
        "dry_run": False,
        "events": len(results) - obstacles.total(),
        "deliveries": sum(len(result.deliveries) for result in results),
        "not_possible": obstacles.total(),
        "obstacles": dict(obstacles),
    }


@EVENTS.get("/events/{id}", response=EventDetails)
def get_event(call: Call) -> Any:
    """Get an event with its trace, deliveries and audit entries."""
    return call.service.show("event", call.id)


@EVENTS.get("/events/{id}/forecast", response=Forecast)
def forecast_event(call: Call) -> Any:
    """Say what the active rules would do with a stored event now. Nothing is done."""
    return call.service.forecast(call.id)


@EVENTS.post(
    "/events/{id}/replay",
    response=ReplayResult,
    errors={
        409: "The event is not routed yet, its body is not kept, or another event about the same call was routed."
    },
)
def replay_event(call: Call, body: Replay) -> Any:
    """Route an event again with the active rules."""
    result = call.service.replay(
        call.id,
        call.actor,
        rule=body.rule,
        force=body.force,
        reason=body.reason,
        previewed_at=instant(body.previewed_at, call.database.clock.now()),
    )
    if result.skipped:
        raise ApiError(409, result.skipped, id=call.id)
    return result
