"""Records at the provider, for people: where one can be opened, and where to look for one that may not exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

MAX_URL_LENGTH = 500
_PROVIDERS: Final = {"hubspot": "HubSpot", "email": "Email", "smtp": "SMTP", "http": "HTTP"}


def provider_label(connector: str) -> str:
    """Return the name of a provider by the name of its connector."""
    return _PROVIDERS.get(connector, connector[:1].upper() + connector[1:])


class RecordLink(NamedTuple):
    """A link to a page that a message to the team offers."""

    label: str
    """Such as `Open in HubSpot`."""
    url: str
    """The page of the record."""


@dataclass(frozen=True)
class ProviderRecord:
    """A record or a message at the provider."""

    action: str
    """Name of the action whose result it is, such as `log_call`; `contact` for a contact of a CRM."""
    external_id: str
    """As the provider returned it: put it into a URL only if it has the form of an ID."""


@dataclass(frozen=True)
class UncertainDelivery:
    """A delivery of which it is unknown whether it took effect."""

    action: str
    """Name of the action, such as `send_sms`."""
    params: Mapping[str, Any]
    """The rendered params by name; empty once they are no longer kept."""
    idempotency_token: str
    """As the action had it: `Context.idempotency_token`."""
    conversation: str | None
    """ID of the phone call or chat."""


class WhereToLook(NamedTuple):
    """How an operator finds out whether a delivery took effect."""

    text: str
    """A sentence."""
    url: str | None = None
    """The page of the provider where it can be seen."""


def safe_url(url: str | None) -> str | None:
    """Return the URL if a page may link to it: https, a host, no credentials, no control characters."""
    if url is None or len(url) > MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme != "https" or not parts.hostname or parts.username is not None:
        return None
    return url
