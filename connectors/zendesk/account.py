"""The client of one Zendesk account: its API, and the names of what its administrators have set up."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from bridge.connector import JsonApi, Token, TokenSource, request_token
from bridge.errors import PermanentError

from .errors import MISSING, refusal
from .settings import CLIENTS_PAGE, Settings, connector

SETUP_SECONDS = 600.0
"""How long names of groups, brands, forms, fields and statuses are kept."""
REFERENCE = "heppu_bridge"
"""Key of our reference in the metadata of an audit, which no agent and no customer sees on the ticket."""
AGENT_ROLES = ("agent", "admin")
_BY_CURSOR = {"page[size]": 100}
_NEXT_CURSOR = ("meta.after_cursor", "page[after]")
_NAME_KEYS = {"ticket_fields": "title", "custom_statuses": "agent_label"}
"""Kind of record -> the key of its name, if that is not `name`."""
NOUNS = {
    "groups": "group", "brands": "brand", "ticket_forms": "ticket form",
    "ticket_fields": "custom ticket field", "custom_statuses": "ticket status",
}  # fmt: skip


@connector.token
def obtain_token(settings: Settings, previous: Token | None) -> Token:
    """Log in with the OAuth client. An access token is valid for the client's own lifetime, by default 30 minutes."""
    del previous
    form = {
        "grant_type": "client_credentials",
        "client_id": settings.client_id or "",
        "client_secret": settings.client_secret or "",
        "scope": settings.scope,
    }
    fix = f"check the identifier and the secret of the OAuth client, and its allowed scopes ({CLIENTS_PAGE})"
    return request_token(f"{settings.url}/oauth/tokens", form, as_json=True, fix=fix)


@connector.client
class Account:
    """The account's API. Threads share it."""

    def __init__(self, settings: Settings, tokens: TokenSource) -> None:
        if settings.api_token is not None:
            basic = (f"{settings.email}/token", settings.api_token)
            self.api = JsonApi("Zendesk", settings.url, basic=basic, refusal=refusal)
        else:
            self.api = JsonApi("Zendesk", settings.url, token=tokens, refusal=refusal)
        self.host = urlsplit(settings.url).hostname or ""
        self.uses_api_token = settings.api_token is not None
        self._lock = threading.Lock()
        self._setup: dict[str, tuple[float, Sequence[Mapping[str, Any]]]] = {}

    def close(self) -> None:
        """Close the HTTP connections."""
        self.api.close()

    # ------------------------------------------------------------ setup

    def setup(self, kind: str) -> Sequence[Mapping[str, Any]]:
        """Return what administrators have set up of one kind (a key of NOUNS), as read in the last ten minutes."""
        with self._lock:
            read_at, records = self._setup.get(kind, (0.0, ()))
            if records and time.monotonic() - read_at < SETUP_SECONDS:
                return records
        found = list(
            self.api.pages(
                f"/api/v2/{kind}", items=kind, query=_BY_CURSOR, cursor=_NEXT_CURSOR, more="meta.has_more"
            )
        )
        with self._lock:
            self._setup[kind] = (time.monotonic(), found)
        return found

    def named(self, kind: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the name and the record of everything of one kind that is in use."""
        key = _NAME_KEYS.get(kind, "name")
        return [
            (str(record[key]), record)
            for record in self.setup(kind)
            if isinstance(record.get("id"), int) and record.get(key) and _is_in_use(record)
        ]

    def find(self, kind: str, name_or_id: str) -> Mapping[str, Any]:
        """Return the record with this ID, or the only one with this name, in any case. Raise PermanentError."""
        records = self.named(kind)
        by_id = [record for _, record in records if str(record["id"]) == name_or_id]
        by_name = [record for name, record in records if name.casefold() == name_or_id.casefold()]
        found = by_id or by_name
        if len(found) == 1:
            return found[0]
        if found:
            problem = (
                f"{len(found)} {NOUNS[kind]}s of Zendesk have the name `{name_or_id}`; write the ID of one"
            )
        else:
            problem = f"Zendesk has no {NOUNS[kind]} `{name_or_id}`"
        raise PermanentError(problem, code=f"no_{kind}")

    # ------------------------------------------------------------ tickets and users

    def search_users(self, query: str) -> list[Mapping[str, Any]]:
        """Return the users that Zendesk's search finds."""
        return list(
            self.api.pages(
                "/api/v2/users/search",
                items="users",
                query={"query": query, "per_page": 100},
                link="next_page",
                max_pages=5,
            )
        )

    def identities(self, user_id: int) -> list[Mapping[str, Any]]:
        """Return all email addresses and phone numbers of a user."""
        return list(
            self.api.pages(
                "/api/v2/users/{}/identities",
                user_id,
                items="identities",
                query=_BY_CURSOR,
                cursor=_NEXT_CURSOR,
                more="meta.has_more",
            )
        )

    def find_agent(self, email_or_id: str) -> int:
        """Return the ID of an agent. Raise PermanentError if no agent has this email address or ID."""
        if email_or_id.isdecimal():
            return int(email_or_id)
        for user in self.search_users(f'email:"{email_or_id}"'):
            if (
                user.get("role") in AGENT_ROLES
                and str(user.get("email")).casefold() == email_or_id.casefold()
            ):
                return int(user["id"])
        raise PermanentError("no agent of Zendesk has the email address in `assignee`", code="no_agent")

    def find_ticket(self, external_id: str) -> str | None:
        """Return the ID of the oldest ticket with this external ID."""
        tickets = self.api.pages(
            "/api/v2/tickets",
            items="tickets",
            query={"external_id": external_id, **_BY_CURSOR},
            cursor=_NEXT_CURSOR,
            more="meta.has_more",
        )
        ids = [int(ticket["id"]) for ticket in tickets if ticket.get("external_id") == external_id]
        return str(min(ids)) if ids else None

    def has_update(self, ticket_id: str, reference: str) -> bool:
        """Return whether one of the ticket's audits has this reference; False if there is no such ticket."""
        audits = self.api.pages(
            "/api/v2/tickets/{}/audits",
            ticket_id,
            items="audits",
            query=_BY_CURSOR,
            cursor=_NEXT_CURSOR,
            more="meta.has_more",
        )
        try:
            return any(_reference_of(audit) == reference for audit in audits)
        except PermanentError as error:
            if error.code != MISSING:
                raise
            return False


def _is_in_use(record: Mapping[str, Any]) -> bool:
    """Return whether rules can name a record: it is active, and no field that every ticket has (`removable: false`)."""
    return (
        record.get("active") is not False
        and not record.get("deleted")
        and record.get("removable") is not False
    )


def _reference_of(audit: Mapping[str, Any]) -> Any:
    metadata = audit.get("metadata")
    custom = metadata.get("custom") if isinstance(metadata, Mapping) else None
    return custom.get(REFERENCE) if isinstance(custom, Mapping) else None
