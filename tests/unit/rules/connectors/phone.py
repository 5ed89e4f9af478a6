"""Test connector for text messages."""

from pydantic import Field, SecretStr

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    Params,
    PhoneNumber,
    Success,
    param,
    per_message,
)


class Settings(ConnectorSettings):
    token: SecretStr
    sender: str | None = Field(None, alias="from")


connector = Connector("phone", settings=Settings)


class Text(Params):
    to: PhoneNumber = param("{{ contact.phone }}", "Recipient, in E.164 format.", example="+14155550123")
    body: str = param(..., "Message text.", example="Hi there", max_length=160)
    urgent: bool = param(False, "Send with high priority.", example=True)


@connector.action(channel="sms", text="body", idempotency=per_message)
def send(client: object, text: Text, context: Context) -> Success:
    """Send one text message."""
    return Success()
