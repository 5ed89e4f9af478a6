"""A stand-in for a partner that tells the team, and one that mails."""

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
    text: str = param(..., "What to post.", example="Look at this")


class Mail(Params):
    to: Email = param("{{ contact.email }}", "Who gets it.", example="ines@okafor.example")
    subject: str = param(..., "The subject.", example="Hello")
    text: str = param(..., "The mail.", example="Hi there")
    html: str | None = param(None, "The mail as HTML.", example="<p>Hi there</p>", html=True)


@connector.action(idempotency=per_event, dedupe_by="text", serialize_by=SerializeBy.NONE)
def post(client: object, post: Post, context: Context) -> Success:
    """Tell the team."""
    return Success()


@connector.action(channel="email", idempotency=per_message)
def mail(client: object, mail: Mail, context: Context) -> Success:
    """Mail a person."""
    return Success()
