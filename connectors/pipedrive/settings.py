"""Settings of a Pipedrive connection, and the connector that the other modules add actions to."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from bridge.connector import Connector, ConnectorGroup, ConnectorSettings, Limits, ProviderUrl


def _leave_out_path(url: str) -> str:
    if "/api" in urlsplit(url).path or urlsplit(url).path.startswith("/v1"):
        raise ValueError("contains a path: write only the address, like https://acme.pipedrive.com")
    return url


def _require_one_word(token: SecretStr) -> SecretStr:
    if len(token.get_secret_value().split()) != 1:
        raise ValueError("is empty or contains a space: copy the token alone")
    return token


class Settings(ConnectorSettings):
    """Settings: `PIPEDRIVE_API_TOKEN`, with all rights of its user, and `PIPEDRIVE_URL`."""

    api_token: Annotated[SecretStr, AfterValidator(_require_one_word)]
    """API token of a user (in Pipedrive: Personal preferences > API). It has all rights of this user."""
    url: Annotated[ProviderUrl, AfterValidator(_leave_out_path)] = "https://api.pipedrive.com"
    """Address of your company in Pipedrive, like https://acme.pipedrive.com. With it, requests are faster, and the
    dashboard links to records."""
    searches_per_second: float = Field(4.0, gt=0)
    """Searches per second and worker. Pipedrive allows ten in two seconds on every plan."""
    do_not_email_filter: int | None = Field(None, ge=1)
    """ID of a filter of persons who want no email: the number at the end of the address when it is open."""
    do_not_call_filter: int | None = Field(None, ge=1)
    """ID of a filter of persons who want no calls and text messages."""


connector = Connector(
    "pipedrive",
    settings=Settings,
    # The smallest plan allows 20 requests in two seconds.
    limits=Limits(per_second=8, concurrency=3, timeout=25),
    description="Logs calls and chats as activities; writes persons and creates deals.",
    group=ConnectorGroup.CRM,
)
