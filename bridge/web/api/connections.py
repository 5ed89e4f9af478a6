"""Connections: their state, and pausing them alone or all together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from typing_extensions import TypedDict

from bridge.lifecycle import PauseCause, StopScope
from bridge.setting_types import parse_duration
from bridge.store import schema
from bridge.store.bulk_actions import TooManyDeliveries
from bridge.store.held_deliveries import cancel_held
from bridge.store.pauses import ConnectionStatus
from bridge.web.api.endpoint import ApiError, Call, Resource
from bridge.web.api.records import PageOf, record
from bridge.web.connection_page import ConnectionPage, read_connection_page
from bridge.web.query_params import RequiredText
from bridge.web.validation import Parameters

CONNECTIONS = Resource("Connections", "The accounts at providers, and whether they are paused.")
Reason = Annotated[
    RequiredText,
    Field(
        pattern=r"\S",
        json_schema_extra=lambda schema: schema.update(pattern=r"\S"),
        description="A few words that tell other operators why.",
        examples=["wrong text in a rule"],
    ),
]


class PauseAllBody(Parameters):
    """What an operator stops, and why."""

    scope: Literal["messages", "deliveries", "everything"] = Field(
        "deliveries",
        description="`messages` to people only, all `deliveries` except alerts, or `everything`.",
    )
    reason: Reason


class ResumeAllBody(Parameters):
    """What happens to the deliveries that waited."""

    cancel_older: str | None = Field(
        None,
        pattern="^[1-9][0-9]{0,3}[mhd]$",
        description="First cancel what is due and was created longer ago.",
        examples=["6h"],
    )


class PauseBody(Parameters):
    """Why an operator pauses connections."""

    reason: Reason


@record()
class Connection(TypedDict):
    """A connection as operators see it."""

    name: str
    paused: bool
    pause_cause: PauseCause | None
    paused_until: datetime | None
    """When the pause ends by itself."""
    pause_reason: str | None
    paused_with_all: bool
    """Whether it is paused because all connections are."""
    recent_failures: int
    """Failed attempts in the current window of the circuit breaker."""
    recent_successes: int


class HistoryQuery(Parameters):
    """The time that the history of a connection covers."""

    span: Literal["1h", "24h", "7d", "30d"] = Field("24h", description="How far back.")


@record(schema.connection_pauses)
class PauseRecord(TypedDict):
    """A pause, present or past."""

    id: str
    connection: str
    cause: str
    reason: str | None
    actor: str | None
    started_at: datetime
    ended_at: datetime | None
    waited: int | None
    drained_at: datetime | None


@record()
class AttemptNumbers(TypedDict):
    """Attempts in a period."""

    started_at: datetime
    succeeded: int
    failed: int
    """Failed because of the provider, the network or the account."""
    rejected: int
    """The provider rejected the content."""
    mean_seconds: float | None


@record()
class ConnectionDetails(Connection):
    """A connection with its history."""

    due: int
    """Deliveries that wait and are due, at most 10,001."""
    later: int
    """Deliveries that wait for their time, at most 10,001."""
    oldest_due: datetime | None
    last_used_at: datetime | None
    """Start of the last period of five minutes with an attempt."""
    quota_used: int | None
    """Requests of the account's quota that are used up, as the provider last said."""
    quota_limit: int | None
    attempts: list[AttemptNumbers]
    """By period, oldest first."""
    pauses: list[PauseRecord]
    """Pauses of the connection and of all connections, newest first."""


@record()
class AccountCheck(TypedDict):
    """The result of the check of an account."""

    ok: bool
    text: str


@record()
class StopRecord(TypedDict):
    """What an operator has stopped, by pausing all connections."""

    stopped: bool
    scope: StopScope | None
    reason: str | None
    since: datetime | None
    actor: str | None
    """Who stopped it."""


@CONNECTIONS.get("/pause", response=StopRecord)
def show_pause_of_all(call: Call) -> Any:
    """Return whether all connections are paused, and why."""
    stop = call.service.stop()
    return {
        "stopped": stop is not None,
        "scope": stop and stop.scope,
        "reason": stop and stop.reason,
        "since": stop and stop.since,
        "actor": stop and stop.actor,
    }


@CONNECTIONS.get("/connections", response=PageOf[Connection])
def list_connections(call: Call) -> Any:
    """List connections with their pauses."""
    return _page(call.service.connections())


@CONNECTIONS.get("/connections/{name}", response=ConnectionDetails)
def show_connection(call: Call, query: HistoryQuery) -> Any:
    """Show a connection with what waits, its attempts and its pauses."""
    return _details(read_connection_page(call.service, call.name, query.span))


@CONNECTIONS.post("/connections/{name}/probe", response=Connection, errors={409: "The circuit is not open."})
def probe_connection(call: Call) -> Any:
    """Try a connection that does not respond at once."""
    if not call.service.probe(call.name, call.actor):
        raise ApiError(409, "the connection responds, or is paused for another reason", id=call.name)
    return call.service.connection(call.name)


@CONNECTIONS.post(
    "/connections/{name}/check",
    response=AccountCheck,
    errors={409: "This process does not have the account."},
)
def check_connection(call: Call) -> Any:
    """Log in to the account of a connection, without writing to it."""
    result = call.service.check_account(call.name, call.actor)
    if result is None:
        raise ApiError(
            409, "this process does not have the account; run `bridge check --online`", id=call.name
        )
    return result._asdict()


@CONNECTIONS.post("/connections/{name}/pause", response=Connection)
def pause_connection(call: Call, body: PauseBody) -> Any:
    """Pause a connection."""
    return call.service.pause(call.name, call.actor, body.reason)


@CONNECTIONS.post("/connections/{name}/resume", response=Connection)
def resume_connection(call: Call) -> Any:
    """Resume a connection."""
    return call.service.resume(call.name, call.actor)


@CONNECTIONS.post("/pause", response=PageOf[Connection])
def pause_all_connections(call: Call, body: PauseAllBody) -> Any:
    """Pause all connections, also later ones, for the deliveries of a scope."""
    return _page(call.service.pause_all(call.actor, body.reason, StopScope(body.scope)))


@CONNECTIONS.post("/resume", response=PageOf[Connection], errors={409: "too many deliveries to cancel"})
def resume_all_connections(call: Call, body: ResumeAllBody) -> Any:
    """End the pause of all connections."""
    stop = call.service.stop()
    if body.cancel_older is not None and stop is not None:
        try:
            cancel_held(call.database, call.actor, parse_duration(body.cancel_older), stop.scope)
        except TooManyDeliveries as error:
            raise ApiError(409, str(error)) from None
    return _page(call.service.resume_all(call.actor))


def _details(found: ConnectionPage) -> dict[str, Any]:
    item = found.overview
    return {
        **item.status.to_json(),
        "due": item.waiting.due,
        "later": item.waiting.later,
        "oldest_due": item.waiting.oldest,
        "last_used_at": item.last_used_at,
        "quota_used": item.quota and item.quota.used,
        "quota_limit": item.quota and item.quota.limit,
        "attempts": [
            {
                "started_at": start,
                "succeeded": done.succeeded,
                "failed": done.failed,
                "rejected": done.rejected,
                "mean_seconds": done.mean_seconds,
            }
            for start, done in zip(found.starts, item.attempts, strict=True)
        ],
        "pauses": [vars(pause) for pause in found.pauses],
    }


def _page(statuses: Sequence[ConnectionStatus]) -> dict[str, Any]:
    return {"items": [status.to_json() for status in statuses], "next_cursor": None}
