"""Test connector for team messages and email."""

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    Email,
    Params,
    SerializeBy,
    Success,
    param,
    per_event,
    per_message,
)

connector = Connector("team", settings=ConnectorSettings)


class Post(Params):
    text: str = param(..., "Message text.", example="Look at this")


class EmailParams(Params):
    to: Email = param("{{ contact.email }}", "Recipient address.", example="ines@okafor.example")
    subject: str = param(..., "Subject line.", example="Hello")
    text: str = param(..., "Message text.", example="Hi there")
    html: str | None = param(None, "Message as HTML.", example="<p>Hi there</p>", markup="html")


@connector.action(idempotency=per_event, dedupe_by="text", serialize_by=SerializeBy.NONE)
def post(client: object, post: Post, context: Context) -> Success:
    """Post a message to the team."""
    return Success()


@connector.action(channel="email", text="text", idempotency=per_message)
def email(client: object, params: EmailParams, context: Context) -> Success:
    """Send one email."""
    return Success()
