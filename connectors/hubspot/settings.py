"""Settings of a HubSpot connection, and the connector that the other modules add actions to."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from bridge.connector import Connector, ConnectorGroup, ConnectorSettings, Limits, ProviderUrl

KEYS_PAGE = "Development > Keys > Service keys"
"""Where an administrator creates a service key and adds scopes to it. Private apps can no longer be created."""


def _require_one_word(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value().split()) != 1:
        raise ValueError("contains a space: copy the key alone, without `Bearer`")
    return key


class Settings(ConnectorSettings):
    """Settings: `HUBSPOT_ACCESS_TOKEN`, a service key, or the token of a private app from before October 2026."""

    access_token: Annotated[SecretStr, AfterValidator(_require_one_word)]
    """Service key (in HubSpot: Development > Keys > Service keys), or the token of an existing private app."""
    url: ProviderUrl = "https://api.hubapi.com"
    """Base URL of HubSpot's API."""
    api_version: str = Field("2026-03", pattern=r"^20\d\d-(03|09)$")
    """Version of HubSpot's API. From `2026-09` on, the account's own validation rules apply to what is written."""
    searches_per_second: float = Field(4.0, gt=0)
    """Searches for contacts per second and worker. HubSpot allows five per second to all integrations together."""
    portal_id: str | None = Field(None, pattern=r"^\d{1,12}$")
    """Hub ID of the account, at the top right of every page in HubSpot. With it, the dashboard links to records."""
    do_not_call_property: str | None = Field(None, pattern=r"^[a-z][a-z0-9_]*$")
    """Internal name of a contact property (single checkbox) that means "do not call or text"."""

    @property
    def app_host(self) -> str:
        """Host of the pages of accounts in this region, which the token names: `pat-eu1-...`."""
        region = re.match(r"pat-(eu1|ap1|na2|na3)-", self.access_token.get_secret_value())
        return f"app-{region[1]}.hubspot.com" if region else "app.hubspot.com"


connector = Connector(
    "hubspot",
    settings=Settings,
    limits=Limits(per_second=9, concurrency=4, timeout=25),
    description="Logs calls, chats and messages on contacts; writes contacts, deals, tickets, tasks and meetings.",
    group=ConnectorGroup.CRM,
)
