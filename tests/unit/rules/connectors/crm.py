"""Test connector for a CRM."""

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
    summary: str | None = param(
        "{{ event.summary }}", "What the call was about.", example="Asked for an invoice"
    )
    duration: float | None = param("{{ event.duration }}", "Seconds.", example=125)
    name: str = param(
        "Call with {{ contact.name | default('unknown contact') }}", "Title of the call.", example="Call"
    )
    properties: dict[str, Any] = param({}, "Additional fields.", example={"plan": "gold"})


class Task(Params):
    subject: str = param(None, "What to do.", example="Call back")
    priority: Literal["low", "high"] = param("low", "Priority of the task.", example="high")


@connector.action(idempotency=per_conversation)
def log_call(client: object, log: Log, context: Context) -> Success:
    """Log a call."""
    return Success()


@connector.action(idempotency=per_event, serialize_by=SerializeBy.CONVERSATION)
def create_task(client: object, task: Task, context: Context) -> Success:
    """Create a task for a colleague."""
    return Success()


class Message(Params):
    body: str = param("{{ delivery.text }}", "The message.", example="Hi there")
    channel: Literal["sms", "email"] = param("{{ delivery.channel }}", "How it was sent.", example="sms")
    message_id: str | None = param("{{ delivery.external_id }}", "Its ID.", example="SM1")


@connector.action(idempotency=per_event)
def log_message(client: object, message: Message, context: Context) -> Success:
    """Log a message that was sent."""
    return Success()


@connector.opt_out_flags
def opt_out_flags(client: object, emails: list[str], phones: list[str]) -> dict[str, Any]:
    """Return no flags."""
    return {}
