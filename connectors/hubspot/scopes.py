"""Scopes of a HubSpot key: their names, and a cheap request for each that shows whether the key has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.connector import ActionUse
from bridge.errors import OutcomeUnknown

from .account import Account
from .errors import required_scopes, status_of

CONTACTS_READ = "crm.objects.contacts.read"
CONTACTS_WRITE = "crm.objects.contacts.write"
PROPERTIES_READ = "crm.schemas.contacts.read"
PROPERTIES_WRITE = "crm.schemas.contacts.write"
DEAL_PROPERTIES_READ = "crm.schemas.deals.read"
DEAL_PROPERTIES_WRITE = "crm.schemas.deals.write"
COMPANIES_READ = "crm.objects.companies.read"
DEALS_READ = "crm.objects.deals.read"
DEALS_WRITE = "crm.objects.deals.write"
LISTS_READ = "crm.lists.read"
LISTS_WRITE = "crm.lists.write"
OWNERS_READ = "crm.objects.owners.read"
TICKETS = "tickets"
EMAILS_READ = "sales-email-read"
UNSUBSCRIBE = "subscriptions-status-write"

CONTACTS = (CONTACTS_READ, CONTACTS_WRITE)
"""What an action needs that writes a contact, or a call, note, task or message of one."""

_ON_TIMELINE = ("log_call", "log_chat", "log_message", "create_task", "create_meeting")
_OWN_PAGE = ("create_ticket", "create_deal")


@dataclass(frozen=True)
class Feature:
    """Something that actions do only if the key has a scope."""

    scope: str
    actions: Sequence[str]
    without: str
    """What happens without the scope."""


FEATURES = (
    Feature(COMPANIES_READ, (*_ON_TIMELINE, *_OWN_PAGE), "records are not shown on the contact's company"),
    Feature(DEALS_READ, _ON_TIMELINE, "records are not shown on the contact's open deal"),
    Feature(TICKETS, _ON_TIMELINE, "records are not shown on the contact's open ticket"),
    Feature(OWNERS_READ, (*_ON_TIMELINE, *_OWN_PAGE), "an `owner` given by email address is not found"),
    Feature(
        DEAL_PROPERTIES_READ, ("create_deal",), "values for deals are not checked before they are written"
    ),
    Feature(
        EMAILS_READ,
        ("log_message",),
        "an email that was logged before a lost response may not be found again",
    ),
)
"""Optional scopes, named by what the rules do without them."""

_PROBES: Mapping[str, tuple[str, str, Any]] = {
    CONTACTS_READ: ("GET", "/crm/v3/objects/contacts?limit=1", None),
    CONTACTS_WRITE: ("POST", "/crm/v3/objects/contacts/batch/update", {"inputs": []}),
    PROPERTIES_READ: ("GET", "/crm/v3/properties/contacts/email", None),
    PROPERTIES_WRITE: ("POST", "/crm/v3/properties/contacts", {}),
    DEAL_PROPERTIES_READ: ("GET", "/crm/v3/properties/deals/dealname", None),
    DEAL_PROPERTIES_WRITE: ("POST", "/crm/v3/properties/deals", {}),
    COMPANIES_READ: ("GET", "/crm/v3/objects/companies?limit=1", None),
    DEALS_READ: ("GET", "/crm/v3/objects/deals?limit=1", None),
    DEALS_WRITE: ("POST", "/crm/v3/objects/deals/batch/update", {"inputs": []}),
    LISTS_READ: ("POST", "/crm/v3/lists/search", {"count": 1}),
    LISTS_WRITE: ("PUT", "/crm/v3/lists/0/memberships/add", []),
    OWNERS_READ: ("GET", "/crm/v3/owners?limit=1", None),
    TICKETS: ("GET", "/crm/v3/pipelines/tickets", None),
    EMAILS_READ: ("GET", "/crm/v3/objects/emails?limit=1", None),
}
"""Scope -> a request that HubSpot answers with 403 without it, and that changes nothing with it.

For the scopes that allow writing, it is a request that cannot be valid: an update of no contacts, a property without a
name, no members for a list that does not exist. HubSpot checks the scopes before the body."""


class Scopes:
    """The scopes of one key, found out one by one."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._missing: dict[str, str | None] = {}
        self._listed: Sequence[str] | None = None
        self._is_listed = False

    def missing(self, scope: str) -> str | None:
        """Return HubSpot's name for a scope that the key lacks. None: the key has it, or HubSpot does not tell."""
        if scope not in self._missing:
            self._missing[scope] = self._find_missing(scope)
        return self._missing[scope]

    def is_known(self, scope: str) -> bool:
        """Return whether it can be found out if the key has this scope."""
        return scope in _PROBES or self._list() is not None

    def _find_missing(self, scope: str) -> str | None:
        if scope not in _PROBES:
            listed = self._list()
            return scope if listed is not None and scope not in listed else None
        method, path, body = _PROBES[scope]
        try:
            self._account.call_api(path, method, body)
        except OutcomeUnknown:
            return None  # an empty response to a request that changes nothing: HubSpot has accepted it
        except Exception as error:
            status = status_of(error)
            if status == 403:
                required = required_scopes(error)
                return scope if scope in required else " or ".join(required) or scope
            if status is None or status in (401, 429) or status >= 500:
                raise
        return None

    def _list(self) -> Sequence[str] | None:
        """Return the scopes that HubSpot lists for the token of a private app. None: it does not for this key."""
        if not self._is_listed:
            self._listed = self._account.listed_scopes()
            self._is_listed = True
        return self._listed


def actions_by_scope(uses: Iterable[ActionUse]) -> dict[str, list[str]]:
    """Return the scopes that actions of the rules cannot do without -> these actions."""
    found: dict[str, list[str]] = {}
    for action in dict.fromkeys(use.action for use in uses):
        for scope in action.needs:
            found.setdefault(scope, []).append(action.name)
    return found


def features_of(uses: Iterable[ActionUse]) -> list[Feature]:
    """Return what the actions of the rules do only with a scope."""
    names = {use.action.name for use in uses}
    return [feature for feature in FEATURES if names & set(feature.actions)]
