"""Settings of a Salesforce connection, and the connector that the other modules add actions to."""

from __future__ import annotations

from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr, model_validator

from bridge.connector import Connector, ConnectorGroup, ConnectorSettings, Limits, SecretFile

from .my_domain import MyDomainUrl

ID_PATTERN = r"^[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?$"


def _validate_time_zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (KeyError, ValueError, OSError):
        raise ValueError("is not a valid time zone: write an IANA name such as America/New_York") from None


class Settings(ConnectorSettings):
    """Settings: `SALESFORCE_URL`, the org's My Domain, and a secret or private key of an external client app."""

    url: MyDomainUrl
    """My Domain URL of the org: `https://acme.my.salesforce.com`."""
    consumer_key: SecretStr
    """Consumer key of the external client app."""
    consumer_secret: SecretStr | None = None
    """Consumer secret, for the OAuth client credentials flow."""
    username: str | None = None
    """Username of the integration user, for the OAuth JWT bearer flow."""
    private_key_file: SecretFile | None = None
    """Path of the RSA private key (PEM), for the OAuth JWT bearer flow."""
    api_version: str = Field("66.0", pattern=r"^\d\d\.0$")
    """Version of the REST API."""
    max_quota_fraction: float = Field(0.8, gt=0, le=1)
    """The bridge stops when the org has used this fraction of its daily API requests."""
    task_field: str = Field("Conversation_Id__c", pattern=r"^[A-Za-z]\w*__c$")
    """External ID field of the Task that contains the conversation ID."""
    case_field: str = Field("Conversation_Id__c", pattern=r"^[A-Za-z]\w*__c$")
    """External ID field of the case that contains the conversation ID."""
    owner: str | None = Field(None, pattern=rf"{ID_PATTERN}|^[^@\s]+@[^@\s]+$")
    """Email address, username or ID of the owner of Tasks and new leads that nobody else owns. Default: the
    integration user."""
    time_zone: Annotated[str, AfterValidator(_validate_time_zone)] | None = None
    """Time zone for date and time of a Task if the event does not contain the contact's. Default: the org's."""

    @model_validator(mode="after")
    def _require_one_flow(self) -> Self:
        if self.consumer_secret is None and (self.username is None or self.private_key_file is None):
            raise ValueError(
                "set SALESFORCE_CONSUMER_SECRET of the external client app (client credentials), or "
                "SALESFORCE_USERNAME and SALESFORCE_PRIVATE_KEY_FILE (JWT bearer)"
            )
        return self


connector = Connector(
    "salesforce",
    settings=Settings,
    limits=Limits(concurrency=4, timeout=25),
    description="Logs calls and chats as Tasks; writes contacts, leads, cases, Events and campaign members.",
    group=ConnectorGroup.CRM,
)
