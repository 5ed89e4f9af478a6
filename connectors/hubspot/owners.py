"""Owners of records: users of the HubSpot account. A wrong owner never loses a record; it is written without."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any

from .errors import required_scopes, status_of

OWNER_TTL = timedelta(minutes=10)
_MAX_CACHED = 1_000


@dataclass(frozen=True)
class OwnerLookup:
    """The ID that HubSpot accepts as `hubspot_owner_id`, or why there is none."""

    id: str | None
    problem: str = ""


class Owners:
    """The owners of one account, each looked up once in ten minutes."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._cached: dict[str, tuple[float, OwnerLookup]] = {}
        self._lock = threading.Lock()

    def resolve(self, owner: str) -> OwnerLookup:
        """Return the owner with an email address or ID. An ID costs no request: HubSpot refuses a wrong one."""
        cached = self._cached.get(owner.lower())
        if cached is not None and cached[0] > monotonic():
            return cached[1]
        if "@" not in owner:
            return OwnerLookup(owner)
        return self._remember(owner, self._by_email(owner))

    def verify(self, owner: str) -> OwnerLookup:
        """Return the owner as `resolve` does, but look up an ID as well."""
        return self.resolve(owner) if "@" in owner else self._remember(owner, self._by_id(owner))

    def emails(self) -> list[str]:
        """Return the email addresses of the first hundred active owners, to suggest the nearest one."""
        return [str(owner.email) for owner in self._api.get_page(limit=100).results or () if owner.email]

    def report_refused(self, owner_id: str) -> None:
        """Remember that HubSpot refused an ID, so that the next records are written without it at once."""
        problem = f"HubSpot has no active owner with the ID {owner_id}"
        if "@" not in owner_id:  # an address that HubSpot does not know is remembered already
            self._remember(owner_id, OwnerLookup(None, problem))

    def _remember(self, owner: str, lookup: OwnerLookup) -> OwnerLookup:
        with self._lock:
            if len(self._cached) >= _MAX_CACHED:
                self._cached.clear()
            self._cached[owner.lower()] = (monotonic() + OWNER_TTL.total_seconds(), lookup)
        return lookup

    def _by_email(self, email: str) -> OwnerLookup:
        try:
            active = self._api.get_page(email=email, limit=2).results or []
            if len(active) == 1:
                return OwnerLookup(str(active[0].id))
            if self._api.get_page(email=email, limit=1, archived=True).results:
                return OwnerLookup(None, "the owner is a deactivated user of HubSpot")
        except Exception as error:
            return _without_scope(error)
        return OwnerLookup(None, "no user of HubSpot has the owner's email address")

    def _by_id(self, owner_id: str) -> OwnerLookup:
        try:
            if self._get(owner_id) is not None:
                return OwnerLookup(owner_id)
            if (by_user := self._get(owner_id, id_property="userId")) is not None:
                return OwnerLookup(
                    None, f"{owner_id} is the ID of a user; as an owner, the user has the ID {by_user.id}"
                )
            if self._get(owner_id, archived=True) is not None:
                return OwnerLookup(None, f"the owner {owner_id} is a deactivated user of HubSpot")
        except Exception as error:
            return _without_scope(error)
        return OwnerLookup(None, f"HubSpot has no owner with the ID {owner_id}")

    def _get(self, owner_id: str, **options: Any) -> Any | None:
        try:
            return self._api.get_by_id(int(owner_id), **options)
        except Exception as error:
            if status_of(error) not in (400, 404):
                raise
            return None


def _without_scope(error: Exception) -> OwnerLookup:
    """Return the answer to a lookup that the key may not make. Raise any other error."""
    if status_of(error) != 403:
        raise error
    scopes = " or ".join(required_scopes(error)) or "crm.objects.owners.read"
    return OwnerLookup(None, f"the HubSpot key lacks the scope {scopes}")
