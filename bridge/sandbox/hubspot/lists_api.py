"""HubSpot's HTTP API of lists: finding one, and adding members to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.hubspot.errors import error_response, invalid, not_found
from bridge.sandbox.hubspot.lists import MAX_NEW_MEMBERS, RecordList
from bridge.sandbox.hubspot.settings_api import API_VERSION, SettingsApi, parse_object
from bridge.sandbox.provider import Handler, ProviderError, ProviderRequest

_LISTS = f"/crm/lists/{API_VERSION}"
_SEARCH_FIELDS = {
    "query", "count", "offset", "objectTypeId", "processingTypes", "listIds", "additionalProperties", "sort"
}  # fmt: skip


class ListsApi(SettingsApi):
    """The endpoints of lists."""

    def list_routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the routes of lists."""
        return [
            ("GET", _LISTS + "/object-type-id/{type_id}/name/{name}", self._list_by_name),
            ("POST", _LISTS + "/search", self._search_lists),
            ("GET", _LISTS + "/{list_id}", self._list_by_id),
            ("PUT", _LISTS + "/{list_id}/memberships/add", self._add_members),
        ]

    def _list_by_name(self, request: ProviderRequest) -> Response:
        type_id, name = request.path_params["type_id"], request.path_params["name"]
        for item in self.crm.lists.values():
            if (item.type_id, item.name.lower()) == (type_id, name.lower()):
                return JSONResponse({"list": item.as_json()})
        raise not_found(name)

    def _list_by_id(self, request: ProviderRequest) -> Response:
        return JSONResponse({"list": self._require_list(request).as_json()})

    def _search_lists(self, request: ProviderRequest) -> Response:
        body = parse_object(request, _SEARCH_FIELDS)
        count, offset = body.get("count", 20), body.get("offset", 0)
        if not isinstance(count, int) or not 1 <= count <= 500 or not isinstance(offset, int) or offset < 0:
            raise invalid("count must be from 1 to 500 and offset must not be negative")
        found = [
            item
            for item in self.crm.lists.values()
            if str(body.get("query") or "").lower() in item.name.lower()
            and body.get("objectTypeId") in (None, item.type_id)
            and (not body.get("processingTypes") or item.processing_type in body["processingTypes"])
        ]
        page = found[offset : offset + count]
        return JSONResponse(
            {
                "lists": [item.as_json() for item in page],
                "offset": offset + len(page),
                "hasMore": offset + len(page) < len(found),
                "total": len(found),
            }
        )

    def _add_members(self, request: ProviderRequest) -> Response:
        """Add existing records. Members and records that do not exist are ignored."""
        target = self._require_list(request)
        ids = self._record_ids(request)
        if not target.accepts_members:
            raise ProviderError(
                error_response(
                    400,
                    f"Records can only be added to MANUAL or SNAPSHOT lists, but list {target.id} is "
                    f"{target.processing_type}",
                    category="VALIDATION_ERROR",
                )
            )
        kind = self.crm.type(target.type_id)
        found = {item: self.crm.find(kind, item) for item in ids}
        added = [
            record.id for record in found.values() if record is not None and record.id not in target.members
        ]
        target.members += list(dict.fromkeys(added))
        return JSONResponse(
            {
                "recordsIdsAdded": list(dict.fromkeys(added)),
                "recordIdsRemoved": [],
                "recordIdsMissing": [item for item, record in found.items() if record is None],
            }
        )

    def _record_ids(self, request: ProviderRequest) -> list[str]:
        try:
            ids: Any = request.json()
        except ValueError:
            ids = None
        if not isinstance(ids, list) or not all(isinstance(item, str) and item.isdecimal() for item in ids):
            raise invalid("Invalid input JSON: a list of record IDs is needed")
        if len(ids) > MAX_NEW_MEMBERS:
            raise invalid(f"at most {MAX_NEW_MEMBERS} records can be added in one request")
        return ids

    def _require_list(self, request: ProviderRequest) -> RecordList:
        found = self.crm.lists.get(request.path_params["list_id"])
        if found is None:
            raise not_found(request.path_params["list_id"])
        return found
