"""Settings of a Twilio connection, and the connector that the other modules add actions and callbacks to."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Limits,
    ProviderUrl,
)


class Settings(ConnectorSettings):
    """Settings: `TWILIO_ACCOUNT_SID`, `TWILIO_AUTH_TOKEN`, and a sender: a number or a messaging service."""

    account_sid: str = Field(pattern=r"^AC[0-9a-f]{32}$")
    """Account SID (`AC...`)."""
    auth_token: SecretStr
    """Auth token. It also verifies the signature of callbacks."""
    sender: str | None = Field(
        None, alias="from", pattern=r"^(\+[1-9]\d{1,14}|\d{3,8}|[A-Za-z0-9 &_+-]{1,11})$"
    )
    """Sender: a phone number, short code or alphanumeric sender ID. Required without a messaging service."""
    messaging_service_sid: str | None = Field(None, pattern=r"^MG[0-9a-f]{32}$")
    """Messaging service (`MG...`) that chooses the sender from its sender pool."""
    shared_key: SecretStr | None = None
    """Secret of the shared key, for accounts whose callbacks Twilio signs with one."""
    region: str | None = Field(None, pattern=r"^[a-z0-9]+$")
    """Twilio region, such as `ie1`."""
    edge: str | None = Field(None, pattern=r"^[a-z0-9-]+$")
    """Twilio edge location, such as `dublin`."""
    url: ProviderUrl | None = None
    """Base URL that replaces every `https://....twilio.com`."""

    @model_validator(mode="after")
    def _require_sender(self) -> Self:
        if self.sender is None and self.messaging_service_sid is None:
            raise ValueError("set TWILIO_FROM or TWILIO_MESSAGING_SERVICE_SID: a text message needs a sender")
        return self


connector = Connector(
    "twilio",
    settings=Settings,
    limits=Limits(per_second=10, concurrency=8),
    description="Sends text messages; status and STOP replies arrive through callbacks.",
)
