"""Static lists of contacts, found by name or ID. HubSpot's pages call lists segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import quote

from bridge.connector import did_you_mean

from .errors import not_from_hubspot, status_of

_TTL_SECONDS = 600.0
_PROBLEM_TTL_SECONDS = 60.0
"""How long a list that takes nobody is remembered: it may be about to be created or corrected."""
_MAX_CACHED = 1_000
_CONTACTS = "0-1"
_MANUAL_TYPES = ("MANUAL", "SNAPSHOT")
"""Types of lists that take members: static ones, and those that were active once."""
_MAX_SUGGESTED = 500


@dataclass(frozen=True)
class ListLookup:
    """The ID of a list that takes contacts, or why there is none."""

    id: str = ""
    problem: str = ""


class Lists:
    """The lists of one account, each read once in ten minutes; after a problem, in one minute."""

    def __init__(self, call_api: Any) -> None:
        self._call_api = call_api
        self._cached: dict[str, tuple[float, ListLookup]] = {}

    def resolve(self, name: str) -> ListLookup:
        """Return the static list of contacts with a name or an ID."""
        until, lookup = self._cached.get(name, (0.0, ListLookup()))
        if until <= monotonic():
            lookup = self._read(name)
            if len(self._cached) >= _MAX_CACHED:
                self._cached.clear()
            self._cached[name] = (monotonic() + (_TTL_SECONDS if lookup.id else _PROBLEM_TTL_SECONDS), lookup)
        return lookup

    def add(self, list_id: str, contact_ids: Sequence[str]) -> Mapping[str, Any]:
        """Add contacts to a list. Those that are members already remain it. Return HubSpot's lists of IDs.

        If HubSpot refuses, the lists are read again: this one may have been deleted, or become active.
        """
        try:
            response = self._call_api(f"/crm/v3/lists/{list_id}/memberships/add", "PUT", list(contact_ids))
        except Exception as error:
            if status_of(error) in (400, 404):
                self._cached.clear()
            raise
        if not isinstance(response, Mapping) or not isinstance(response.get("recordsIdsAdded"), list):
            raise not_from_hubspot()
        return response

    def suggestion(self, name: str) -> str:
        """Return a hint with the static list of a similar name, empty if there is none."""
        body = {"count": _MAX_SUGGESTED, "objectTypeId": _CONTACTS, "processingTypes": list(_MANUAL_TYPES)}
        found = self._call_api("/crm/v3/lists/search", "POST", body).get("lists") or ()
        return did_you_mean(name, [str(item["name"]) for item in found])

    def _read(self, name: str) -> ListLookup:
        found = self._get(f"/crm/v3/lists/{name}") if name.isascii() and name.isdecimal() else None
        if found is None:
            found = self._get(f"/crm/v3/lists/object-type-id/{_CONTACTS}/name/{quote(name, safe='')}")
        if found is None:
            return ListLookup(problem=f"HubSpot has no list `{name[:80]}` of contacts")
        if found.get("objectTypeId") != _CONTACTS:
            return ListLookup(problem=f"the list `{name[:80]}` does not contain contacts")
        if found.get("processingType") not in _MANUAL_TYPES:
            return ListLookup(
                problem=f"the list `{name[:80]}` is active: HubSpot fills it by its filters, and nobody can add a "
                "contact; use a static list, or set a property that the filters look at"
            )
        return ListLookup(str(found["listId"]))

    def _get(self, path: str) -> Mapping[str, Any] | None:
        try:
            answer = self._call_api(path, "GET")
        except Exception as error:
            if status_of(error) != 404:
                raise
            return None
        found = answer.get("list") if isinstance(answer, Mapping) else None
        if not isinstance(found, Mapping) or "listId" not in found:
            raise not_from_hubspot()
        return found
