"""Check and setup of a HubSpot account."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.errors import ConfigError

from .account import Account
from .errors import status_of
from .settings import connector
from .unique_properties import UNIQUE_PROPERTIES

TICKETS_SCOPE = "tickets"
SCOPES = (
    "crm.objects.contacts.read",
    "crm.objects.contacts.write",
    "crm.schemas.contacts.read",
    "crm.schemas.contacts.write",
    TICKETS_SCOPE,
)
"""Scopes that a token needs for all actions. Calls, notes and tasks are covered by the scopes of contacts."""


@connector.check
def check(account: Account) -> str:
    """Read the token's scopes, one contact and the unique properties. Writes nothing."""
    missing_scopes = [scope for scope in SCOPES if scope not in _granted_scopes(account)]
    if required := [scope for scope in missing_scopes if scope != TICKETS_SCOPE]:
        raise ConfigError(f"the token lacks the scopes {', '.join(required)}: add them to the app in HubSpot")
    account.objects.get_page("contacts", limit=1)
    missing_properties = [
        f"{kind}.{name}"
        for kind, (name, _, _) in UNIQUE_PROPERTIES.items()
        if not account.unique_properties.exists(kind)
    ]
    notes = ["token accepted", "unique properties exist"]
    if missing_properties:
        notes[1] = f"missing {', '.join(missing_properties)}: run `bridge connections setup hubspot`"
    if missing_scopes:
        notes.append(f"without the scope {TICKETS_SCOPE}, tickets cannot be closed")
    return "; ".join(notes)


@connector.setup
def setup(account: Account) -> str:
    """Create the unique properties that prevent duplicate records."""
    return "; ".join(account.unique_properties.ensure(kind) for kind in UNIQUE_PROPERTIES)


def _granted_scopes(account: Account) -> Sequence[str]:
    """Return the token's scopes, or all required ones if HubSpot does not report them, as with a service key."""
    try:
        token_info = account.objects.api_client.call_api(
            "/oauth/v2/private-apps/get/access-token-info",
            "POST",
            header_params={"Content-Type": "application/json"},
            body={"tokenKey": account.token},
            response_types_map={200: "object"},
            auth_settings=["oauth2"],
            _return_http_data_only=True,
        )
    except Exception as error:
        if status_of(error) not in (400, 403, 404):
            raise
        return SCOPES
    return [str(scope) for scope in token_info.get("scopes") or SCOPES]
