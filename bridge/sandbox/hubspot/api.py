"""HubSpot's HTTP API: records and their associations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.hubspot import batches
from bridge.sandbox.hubspot.associations import Association, named_types, parse_associations
from bridge.sandbox.hubspot.crm import Crm, CrmObject
from bridge.sandbox.hubspot.errors import batch_error, invalid
from bridge.sandbox.hubspot.lists_api import ListsApi
from bridge.sandbox.hubspot.schema import ObjectType, format_timestamp
from bridge.sandbox.hubspot.scopes import (
    LINKED_TYPES_WITH_SCOPE,
    missing_scopes_response,
    scope_of,
)
from bridge.sandbox.hubspot.search import MAX_SEARCH_LENGTH, search
from bridge.sandbox.hubspot.settings_api import API_VERSION, parse_object
from bridge.sandbox.provider import Handler, ProviderError, ProviderRequest, parse_whole_number

_OBJECTS = f"/crm/objects/{API_VERSION}/{{type}}"


class HubSpotApi(ListsApi):
    """The endpoints of records and their associations, besides those of lists and settings."""

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the routes of objects, batches, search, associations, lists and the account's settings."""
        links = _OBJECTS + "/{id}/associations"
        many_links = f"/crm/associations/{API_VERSION}/{{type}}/{{to}}"
        return [
            ("POST", _OBJECTS, self._create),
            ("GET", _OBJECTS, self._list),
            ("POST", _OBJECTS + "/search", self._search),
            ("POST", _OBJECTS + "/merge", self._merge),
            *(
                (("POST", f"{_OBJECTS}/batch/{verb}", self._batch(operation)))
                for verb, operation in batches.OPERATIONS.items()
            ),
            ("GET", _OBJECTS + "/{id}", self._get),
            ("PATCH", _OBJECTS + "/{id}", self._update),
            ("DELETE", _OBJECTS + "/{id}", self._delete),
            ("PUT", links + "/default/{to}/{to_id}", self._link_default),
            ("PUT", links + "/{to}/{to_id}", self._link_labeled),
            ("GET", links + "/{to}", self._links),
            ("DELETE", links + "/{to}/{to_id}", self._unlink),
            ("POST", many_links + "/batch/associate/default", self._link_batch),
            ("POST", many_links + "/batch/read", self._links_batch),
            *self.list_routes(),
            *self.settings_routes(),
        ]

    def _create(self, request: ProviderRequest) -> Response:
        kind, body = (
            self._type(request),
            parse_object(request, {"properties", "associations", "objectWriteTraceId"}),
        )
        values = self.crm.validate_properties(kind, body.get("properties"), create=True)
        links = parse_associations(kind, body.get("associations") or [], self.crm.find_id)
        self._require_scopes_of({link.to_type for link in links})
        if not self.crm.has_room():
            raise self.storage_full_error()
        created = self.crm.create(kind, values, links, self.now())
        return JSONResponse(self.show(created, list(created.properties)), 201)

    def _list(self, request: ProviderRequest) -> Response:
        kind = self._type(request)
        limit = parse_whole_number(request.query.get("limit", "10"), 1, 100)
        after = parse_whole_number(request.query.get("after", "0"), 0, 10**12)
        if limit is None or after is None:
            raise invalid("limit must be from 1 to 100")
        items = [item for item in self.crm.active_objects(kind) if int(item.id) > after]
        page = items[:limit]
        body: dict[str, Any] = {
            "results": [self.show(item, self._properties_to_show(kind, request)) for item in page]
        }
        if len(items) > len(page):
            body["paging"] = {"next": {"after": page[-1].id, "link": ""}}
        return JSONResponse(body)

    def _get(self, request: ProviderRequest) -> Response:
        kind = self._type(request)
        item = self.crm.get(kind, request.path_params["id"], request.query.get("idProperty"))
        body = self.show(item, self._properties_to_show(kind, request))
        requested = [
            name for part in request.query.getlist("associations") for name in part.split(",") if name
        ]
        associations = {}
        for name in requested:
            to = self.crm.type(name)
            links = self.crm.links_of(kind, item, to)
            if links:
                label = f"{kind.singular}_to_{to.singular}"
                associations[to.name] = {"results": [{"id": link.to_id, "type": label} for link in links]}
        if associations:
            body["associations"] = associations
        return JSONResponse(body)

    def _update(self, request: ProviderRequest) -> Response:
        kind, body = self._type(request), parse_object(request, {"properties", "objectWriteTraceId"})
        item = self.crm.get(kind, request.path_params["id"], request.query.get("idProperty"))
        values = self.crm.validate_properties(kind, body.get("properties"), create=False)
        self.crm.update(kind, item, values, self.now())
        return JSONResponse(self.show(item, list(item.properties)))

    def _delete(self, request: ProviderRequest) -> Response:
        kind = self._type(request)
        item = self.crm.find(kind, request.path_params["id"])
        if item is not None:
            self.crm.archive(kind, item, self.now())
        return Response(status_code=204)

    def _merge(self, request: ProviderRequest) -> Response:
        kind, body = self._type(request), parse_object(request, {"primaryObjectId", "objectIdToMerge"})
        winner = self.crm.get(kind, str(body.get("primaryObjectId")))
        other = self.crm.get(kind, str(body.get("objectIdToMerge")))
        if winner is other:
            raise invalid("a record cannot be merged with itself")
        return JSONResponse(
            self.show(self.crm.merge(kind, winner, other, self.now()), kind.default_properties)
        )

    def _search(self, request: ProviderRequest) -> Response:
        kind, body = self._type(request), parse_object(request, None)
        if len(request.body.decode()) > MAX_SEARCH_LENGTH:
            raise invalid(f"The request body has more than {MAX_SEARCH_LENGTH} characters")
        page = search(self.crm, kind, body, self.now(), self.faults.lag(self.name))
        names = [*kind.default_properties, *_requested_properties(body)]
        results = [self.show(item, names, values) for item, values in page.results]
        response_body: dict[str, Any] = {"total": page.total, "results": results}
        if page.after is not None:
            response_body["paging"] = {"next": {"after": page.after, "link": ""}}
        return JSONResponse(response_body)

    def _batch(self, operation: Callable[[Crm, ObjectType, Any, Any], batches.BatchResult]) -> Handler:
        def handle(request: ProviderRequest) -> Response:
            kind, body = self._type(request), parse_object(request, None)
            if operation is not batches.read and not self.crm.has_room():
                raise self.storage_full_error()
            if operation is batches.create:
                for item in batches.inputs(body):
                    self._require_scopes_of(named_types(kind, item.get("associations")))
            result = operation(self.crm, kind, body, self.now())
            if operation is batches.archive:
                return Response(status_code=204)
            names = _requested_properties(body) if operation is batches.read else None
            results = [
                self.show(
                    item, [*kind.default_properties, *names] if names is not None else list(item.properties)
                )
                | ({} if created is None else {"new": created})
                | ({"objectWriteTraceId": result.trace_ids[item.id]} if item.id in result.trace_ids else {})
                for item, created in result.results
            ]
            response_body = self._batch_json(results)
            if result.errors:
                response_body |= {"numErrors": len(result.errors), "errors": result.errors}
            return JSONResponse(
                response_body, 207 if result.errors else 201 if operation is batches.create else 200
            )

        return handle

    def _require_scopes_of(self, types: Iterable[str]) -> None:
        """Raise ProviderError if the token lacks the scope for a type that a new record is associated with."""
        required = tuple(
            dict.fromkeys(scope_of(name, "read") for name in sorted(types) if name in LINKED_TYPES_WITH_SCOPE)
        )
        if self.missing_scopes.intersection(required):
            raise ProviderError(missing_scopes_response(required))

    def _batch_json(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        now = format_timestamp(self.now())
        return {"status": "COMPLETE", "results": results, "startedAt": now, "completedAt": now}

    def _link_default(self, request: ProviderRequest) -> Response:
        link = self.crm.associate_default(
            self._type(request),
            request.path_params["id"],
            self._type(request, "to"),
            request.path_params["to_id"],
        )
        return JSONResponse(self._batch_json([link.as_result()]))

    def _link_labeled(self, request: ProviderRequest) -> Response:
        kind, to = self._type(request), self._type(request, "to")
        start, end = (
            self.crm.get(kind, request.path_params["id"]),
            self.crm.get(to, request.path_params["to_id"]),
        )
        try:
            types = request.json()
        except ValueError:
            types = None
        if not isinstance(types, list) or not types:
            raise invalid("Invalid input JSON: a list of association types is needed")
        for link in parse_associations(kind, [{"to": {"id": end.id}, "types": types}], self.crm.find_id):
            if link.to_type != to.name:
                raise invalid(
                    f"association type id {link.type_id} doesn't exist from {kind.name} to {to.name}"
                )
            self.crm.associate(Association(kind.name, start.id, to.name, end.id, link.type_id))
        body = {
            "fromObjectTypeId": kind.type_id,
            "fromObjectId": start.id,
            "toObjectTypeId": to.type_id,
            "toObjectId": end.id,
            "labels": [],
        }
        return JSONResponse(body, 201)

    def _links(self, request: ProviderRequest) -> Response:
        kind = self._type(request)
        links = self.crm.links_of(
            kind, self.crm.get(kind, request.path_params["id"]), self._type(request, "to")
        )
        return JSONResponse({"results": [link.as_json() for link in links]})

    def _unlink(self, request: ProviderRequest) -> Response:
        kind = self._type(request)
        item = self.crm.get(kind, request.path_params["id"])
        for link in self.crm.links_of(kind, item, self._type(request, "to")):
            if link.to_id == request.path_params["to_id"]:
                self.crm.dissociate(link)
        return Response(status_code=204)

    def _link_batch(self, request: ProviderRequest) -> Response:
        results: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for item in batches.inputs(parse_object(request, {"inputs"}), 2000):
            references = [item.get(end) for end in ("from", "to")]
            ids = [
                str(reference.get("id")) if isinstance(reference, dict) else "" for reference in references
            ]
            try:
                link = self.crm.associate_default(
                    self._type(request), ids[0], self._type(request, "to"), ids[1]
                )
            except ProviderError as error:
                error_json = json.loads(bytes(error.response.body))
                errors.append(batch_error(error_json["category"], error_json["message"], ids))
                continue
            results.append(link.as_result())
        response_body = self._batch_json(results)
        if errors:
            response_body |= {"numErrors": len(errors), "errors": errors}
        return JSONResponse(response_body)  # 200 despite errors: the client does not support 207 here

    def _links_batch(self, request: ProviderRequest) -> Response:
        kind, to = self._type(request), self._type(request, "to")
        results = []
        for item in batches.inputs(parse_object(request, {"inputs"}), 1000):
            record = self.crm.find(kind, str(item.get("id")))
            links = self.crm.links_of(kind, record, to) if record else []
            if links:
                results.append({"from": {"id": item["id"]}, "to": [link.as_json() for link in links]})
        return JSONResponse(self._batch_json(results))

    def _properties_to_show(self, kind: ObjectType, request: ProviderRequest) -> Iterable[str]:
        """Return the properties that a read shows: the requested ones and the IDs, or the default ones of the type."""
        names = [name for part in request.query.getlist("properties") for name in part.split(",") if name]
        return (
            [kind.created_property, "hs_object_id", kind.modified_property, *names]
            if names
            else kind.default_properties
        )

    def show(
        self, item: CrmObject, names: Iterable[str], values: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Return an object as the API shows it, with some of its current or its indexed properties."""
        definitions = self.crm.types[item.type].properties
        values = item.properties if values is None else values
        return {
            "id": item.id,
            "properties": {name: values.get(name) for name in names if name in definitions},
            "createdAt": format_timestamp(item.created_at),
            "updatedAt": format_timestamp(item.updated_at),
            "archived": item.archived,
        }


def _requested_properties(body: dict[str, Any]) -> list[str]:
    """Return the properties that a search or a batch requests. Raise ProviderError if they are invalid."""
    names = body.get("properties") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise invalid("Invalid input JSON: properties must be a list of names")
    return names
