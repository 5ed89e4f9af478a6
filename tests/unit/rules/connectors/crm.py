"""A stand-in for a partner that keeps records of people."""

from typing import Any, Literal

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    Params,
    SerializeBy,
    Success,
    param,
    per_conversation,
    per_event,
)

connector = Connector("crm", settings=ConnectorSettings)


class Log(Params):
    summary: str | None = param("{{ event.summary }}", "What it was about.", example="Asked for a receipt")
    duration: float | None = param("{{ event.duration }}", "Seconds.", example=125)
    name: str = param("Call with {{ contact.name | default('somebody') }}", "The headline.", example="Call")
    properties: dict[str, Any] = param({}, "Further fields.", example={"plan": "gold"})


class Task(Params):
    subject: str = param(None, "What to do.", example="Call back")
    priority: Literal["low", "high"] = param("low", "How urgent.", example="high")


@connector.action(idempotency=per_conversation)
def log_call(client: object, log: Log, context: Context) -> Success:
    """Log a call."""
    return Success()


@connector.action(idempotency=per_event, serialize_by=SerializeBy.CONVERSATION)
def create_task(client: object, task: Task, context: Context) -> Success:
    """Give a colleague a task."""
    return Success()
