"""Connections: their state, and pausing them alone or all together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import Field
from typing_extensions import TypedDict

from bridge.lifecycle import PauseCause
from bridge.store.pauses import ConnectionStatus
from bridge.web.api.endpoint import Call, Resource
from bridge.web.api.records import PageOf, record
from bridge.web.query_params import Text
from bridge.web.validation import Parameters

CONNECTIONS = Resource("Connections", "The accounts at providers, and whether they are paused.")


class PauseBody(Parameters):
    """Why an operator pauses connections."""

    reason: Text | None = Field(
        None, description="Why, for other operators.", examples=["wrong text in a rule"]
    )


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


@CONNECTIONS.get("/connections", response=PageOf[Connection])
def list_connections(call: Call) -> Any:
    """List connections with their pauses."""
    return _page(call.service.connections())


@CONNECTIONS.post("/connections/{name}/pause", response=Connection)
def pause_connection(call: Call, body: PauseBody) -> Any:
    """Pause a connection."""
    return call.service.pause(call.name, call.actor, body.reason or "")


@CONNECTIONS.post("/connections/{name}/resume", response=Connection)
def resume_connection(call: Call) -> Any:
    """Resume a connection."""
    return call.service.resume(call.name, call.actor)


@CONNECTIONS.post("/pause", response=PageOf[Connection])
def pause_all_connections(call: Call, body: PauseBody) -> Any:
    """Pause all connections, also later ones; alerts are sent."""
    return _page(call.service.pause_all(call.actor, body.reason or ""))


@CONNECTIONS.post("/resume", response=PageOf[Connection])
def resume_all_connections(call: Call) -> Any:
    """End the pause of all connections."""
    return _page(call.service.resume_all(call.actor))


def _page(statuses: Sequence[ConnectionStatus]) -> dict[str, Any]:
    return {"items": [status.to_json() for status in statuses], "next_cursor": None}
