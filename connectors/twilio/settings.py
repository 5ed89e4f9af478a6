"""Settings of a Twilio connection, and the connector that the other modules add actions and callbacks to."""

from __future__ import annotations

from typing import Self

from pydantic import Field, SecretStr, model_validator

from bridge.connector import (
    Connector,
    ConnectorGroup,
    ConnectorSettings,
    Limits,
    ProviderUrl,
)


class Settings(ConnectorSettings):
    """Settings: `TWILIO_ACCOUNT_SID`, an API key, `TWILIO_AUTH_TOKEN` for signatures, and a sender."""

    account_sid: str = Field(pattern=r"^AC[0-9a-f]{32}$")
    """Account SID (`AC...`)."""
    api_key_sid: str | None = Field(None, pattern=r"^SK[0-9a-f]{32}$")
    """SID of a Standard API key (`SK...`), which logs in for requests. Without one, the auth token does."""
    api_key_secret: SecretStr | None = None
    """Secret of the API key."""
    auth_token: SecretStr
    """Auth token. It verifies the signature of callbacks and replies, and logs in for requests without an API key."""
    messaging_service_sid: str | None = Field(None, pattern=r"^MG[0-9a-f]{32}$")
    """Messaging service (`MG...`) that chooses the sender from its sender pool."""
    sender: str | None = Field(
        None, alias="from", pattern=r"^(\+[1-9]\d{1,14}|\d{3,8}|[A-Za-z0-9 &_+-]{1,11})$"
    )
    """Sender of texts: a phone number, short code or alphanumeric sender ID. Required without a messaging service."""
    whatsapp_from: str | None = Field(None, pattern=r"^(whatsapp:)?\+[1-9]\d{1,14}$")
    """Sender of WhatsApp messages: a number that is registered for WhatsApp. Without one, the messaging service
    chooses."""
    shared_key: SecretStr | None = None
    """Secret of the shared key, for accounts whose callbacks Twilio signs with one instead of the auth token."""
    region: str | None = Field(None, pattern=r"^[a-z0-9]+$")
    """Twilio region, such as `ie1`. API keys and auth tokens belong to one region."""
    edge: str | None = Field(None, pattern=r"^[a-z0-9-]+$")
    """Twilio edge location, such as `dublin`."""
    url: ProviderUrl | None = None
    """Base URL that replaces every `https://....twilio.com`."""

    @model_validator(mode="after")
    def _require_sender(self) -> Self:
        if not (self.sender or self.messaging_service_sid or self.whatsapp_from):
            raise ValueError(
                "set TWILIO_MESSAGING_SERVICE_SID or TWILIO_FROM: a text message needs a sender; for WhatsApp alone, "
                "set TWILIO_WHATSAPP_FROM"
            )
        return self

    @model_validator(mode="after")
    def _require_whole_key(self) -> Self:
        if (self.api_key_sid is None) != (self.api_key_secret is None):
            raise ValueError("set both TWILIO_API_KEY_SID and TWILIO_API_KEY_SECRET, or neither")
        return self

    @property
    def login(self) -> tuple[str, str]:
        """User name and password of requests: the API key, or the account with its auth token."""
        if self.api_key_sid is not None and self.api_key_secret is not None:
            return self.api_key_sid, self.api_key_secret.get_secret_value()
        return self.account_sid, self.auth_token.get_secret_value()

    @property
    def whatsapp_sender(self) -> str | None:
        """The number of TWILIO_WHATSAPP_FROM."""
        return self.whatsapp_from.removeprefix("whatsapp:") if self.whatsapp_from else None


connector = Connector(
    "twilio",
    settings=Settings,
    limits=Limits(per_second=10, concurrency=8),
    description="Sends texts and WhatsApp messages; statuses and replies arrive through callbacks.",
    group=ConnectorGroup.CUSTOMER_MESSAGES,
)
