"""Settings of a Zendesk connection, and the connector that the other modules add actions to."""

from __future__ import annotations

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from bridge.connector import Connector, ConnectorGroup, ConnectorSettings, Limits, ProviderUrl

CLIENTS_PAGE = "Admin Center > Apps and integrations > APIs > OAuth clients"
"""Where an administrator creates an OAuth client."""


def _without_page(url: str) -> str:
    parts = urlsplit(url)
    if parts.path and (parts.hostname or "").endswith(".zendesk.com"):
        raise ValueError(f"must be the address without a page: https://{parts.hostname}")
    return url


class Settings(ConnectorSettings):
    """Settings: `ZENDESK_URL`, and `ZENDESK_CLIENT_ID` with `ZENDESK_CLIENT_SECRET`.

    An API token works until April 30, 2027: `ZENDESK_EMAIL` with `ZENDESK_API_TOKEN`.
    """

    url: Annotated[ProviderUrl, AfterValidator(_without_page)]
    """Address of the account, like https://acme.zendesk.com."""
    client_id: str | None = Field(None, min_length=1)
    """Identifier of an OAuth client of the kind *Confidential*."""
    client_secret: SecretStr | None = None
    """Secret of the OAuth client, which Zendesk shows once."""
    scope: str = "read write"
    """Scopes that the bridge asks for. Looking up the outcome of an update needs the full scope `read`."""
    email: str | None = Field(None, pattern=r"^[^@\s/]+@[^@\s]+$")
    """Email address of an agent, for an API token."""
    api_token: SecretStr | None = None
    """API token. Zendesk creates no new ones, and accepts the existing ones until April 30, 2027."""

    @model_validator(mode="after")
    def _require_credentials(self) -> Self:
        oauth, token = (self.client_id, self.client_secret), (self.email, self.api_token)
        if any(oauth) and any(token):
            raise ValueError(
                "set either ZENDESK_CLIENT_ID and ZENDESK_CLIENT_SECRET, or ZENDESK_EMAIL and ZENDESK_API_TOKEN, not "
                "both"
            )
        if not (all(oauth) or all(token)):
            raise ValueError(
                "set ZENDESK_CLIENT_ID and ZENDESK_CLIENT_SECRET (with an existing API token: ZENDESK_EMAIL and "
                "ZENDESK_API_TOKEN)"
            )
        return self


connector = Connector(
    "zendesk",
    settings=Settings,
    limits=Limits(per_second=3, concurrency=4, timeout=25),
    description="Creates and updates tickets in Zendesk, with the recordings of calls.",
    group=ConnectorGroup.HELP_DESK,
)
