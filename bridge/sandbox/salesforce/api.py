"""Salesforce's HTTP API: the endpoints and their handlers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import Handler, MockProvider, ProviderError, ProviderRequest
from bridge.sandbox.salesforce import composite, soql, sosl
from bridge.sandbox.salesforce.errors import RecordError, api_error, error_response
from bridge.sandbox.salesforce.records import ORG_ID, USER_ID, Records, SObject
from bridge.sandbox.salesforce.schema import Field, SObjectType, long_id
from bridge.sandbox.salesforce.sessions import INSTANCE_URL, USERNAME, Sessions

PAGE_SIZE = 2000
API_VERSIONS = tuple(f"{number}.0" for number in range(59, 69))
_MAX_PAGED_QUERIES = 10
_DATA = "/services/data/v{version}"


class SalesforceApi(MockProvider):
    """The endpoints that a connector uses, and related ones."""

    crm: Records
    sessions: Sessions
    daily_limit: int
    requests_today: int
    _pages: dict[str, tuple[list[dict[str, Any]], int]]

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the routes of the login, records, queries, composite requests and limits."""
        sobject = _DATA + "/sobjects/{type}"
        return [
            ("POST", "/services/oauth2/token", lambda request: self.sessions.log_in(request)),
            ("GET", "/services/oauth2/userinfo", self._user_info),
            ("GET", "/services/data", self._versions),
            ("GET", "/services/data/", self._versions),
            ("GET", _DATA + "/limits", self._limits),
            ("GET", _DATA + "/limits/", self._limits),
            ("GET", _DATA + "/query", self._query),
            ("GET", _DATA + "/query/", self._query),
            ("GET", _DATA + "/query/{locator}", self._more),
            ("GET", _DATA + "/search", self._search),
            ("GET", _DATA + "/search/", self._search),
            ("POST", _DATA + "/composite", self._composite),
            ("POST", _DATA + "/composite/", self._composite),
            ("POST", _DATA + "/composite/sobjects", self._create_many),
            ("PATCH", _DATA + "/composite/sobjects", self._update_many),
            ("PATCH", _DATA + "/composite/sobjects/{type}/{field}", self._upsert_many),
            ("POST", _DATA + "/tooling/sobjects/CustomField", self._create_field),
            ("GET", _DATA + "/sobjects", self._describe_all),
            ("GET", sobject + "/describe", self._describe),
            ("POST", sobject, self._create),
            ("POST", sobject + "/", self._create),
            ("GET", sobject + "/{id}", self._get),
            ("PATCH", sobject + "/{id}", self._update),
            ("DELETE", sobject + "/{id}", self._delete),
            ("GET", sobject + "/{field}/{value}", self._get_external),
            ("PATCH", sobject + "/{field}/{value}", self._upsert),
        ]

    def handle_subrequest(self, request: ProviderRequest) -> Response:
        """Return the response to a request inside a composite request. It does not count toward the limits."""
        try:
            return super().handle(request)
        except RecordError as error:
            return error.response()

    def _type(self, request: ProviderRequest) -> SObjectType:
        object_type = self.crm.visible_type(request.path_params["type"])
        if object_type is None:
            raise ProviderError(error_response(404))
        return object_type

    def _find(self, request: ProviderRequest) -> SObject:
        kind = self._type(request)
        identifier = request.path_params["id"]
        if not re.fullmatch(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?", identifier):
            raise ProviderError(
                error_response(
                    404,
                    message=f"Provided external ID field does not exist or is not accessible: {identifier}",
                )
            )
        record = self.crm.tables[kind.name].get(long_id(identifier))
        if record is None:
            raise ProviderError(error_response(404))
        return record

    def _create(self, request: ProviderRequest) -> Response:
        kind = self._type(request)
        if not any(definition.createable for definition in kind.fields.values()):
            raise api_error(
                "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", f"entity type cannot be inserted: {kind.name}"
            )
        created = self.crm.create(
            kind,
            composite.parse_object(request),
            self.now(),
            allow_duplicates=_allows_duplicates(request),
            assign=composite.assigns(request),
        )
        return JSONResponse({"id": created.id, "success": True, "errors": []}, 201)

    def _get(self, request: ProviderRequest) -> Response:
        return self._show(request, self._find(request))

    def _get_external(self, request: ProviderRequest) -> Response:
        kind = self._type(request)
        matches = self.crm.find_indexed(
            kind, self._external_field(request).name, [request.path_params["value"]]
        )
        if not matches:
            raise ProviderError(error_response(404))
        if len(matches) > 1:
            return JSONResponse([self._url(match, request) for match in matches], 300)
        return self._show(request, matches[0])

    def _show(self, request: ProviderRequest, record: SObject) -> Response:
        if record.deleted:
            raise ProviderError(error_response(404))
        kind = self._type(request)
        requested = [name for name in request.query.get("fields", "").split(",") if name] or list(kind.fields)
        body: dict[str, Any] = {"attributes": {"type": kind.name, "url": self._url(record, request)}}
        for name in requested:
            definition = kind.field(name)
            if definition is None:
                raise api_error("INVALID_FIELD", f"No such column '{name}' on sobject of type {kind.name}")
            body[definition.name] = record[definition.name]
        return JSONResponse(body)

    def _update(self, request: ProviderRequest) -> Response:
        self.crm.update(
            self._type(request),
            self._find(request),
            composite.parse_object(request),
            self.now(),
            assign=composite.assigns(request),
        )
        return Response(status_code=204)

    def _delete(self, request: ProviderRequest) -> Response:
        record = self._find(request)
        if record.deleted:
            raise RecordError("ENTITY_IS_DELETED", "entity is deleted", status=404)
        self.crm.delete(self._type(request), record, self.now())
        return Response(status_code=204)

    def _external_field(self, request: ProviderRequest) -> Field:
        definition = self._type(request).field(request.path_params["field"])
        if definition is None or not definition.external_id:
            raise ProviderError(
                error_response(
                    404,
                    message="Provided external ID field does not exist or is not accessible: "
                    + request.path_params["field"],
                )
            )
        return definition

    def _upsert(self, request: ProviderRequest) -> Response:
        kind, key_field = self._type(request), self._external_field(request)
        matches = self.crm.find_indexed(kind, key_field.name, [request.path_params["value"]])
        if len(matches) > 1:
            return JSONResponse([self._url(match, request) for match in matches], 300)
        body = composite.parse_object(request)
        if key_field.name in body:
            raise api_error(
                "INVALID_FIELD", f"The {key_field.name} field should not be specified in the sobject data."
            )
        assign = composite.assigns(request)
        if matches:
            self.crm.update(kind, matches[0], body, self.now(), assign=assign)
            return JSONResponse({"id": matches[0].id, "success": True, "errors": [], "created": False})
        if request.query.get("updateOnly") == "true":
            raise ProviderError(error_response(404))
        created = self.crm.create(
            kind,
            {key_field.name: request.path_params["value"]} | body,
            self.now(),
            allow_duplicates=_allows_duplicates(request),
            assign=assign,
        )
        return JSONResponse({"id": created.id, "success": True, "errors": [], "created": True}, 201)

    def _create_many(self, request: ProviderRequest) -> Response:
        return composite.collection(self, request, composite.create_one)

    def _update_many(self, request: ProviderRequest) -> Response:
        return composite.collection(self, request, composite.update_one)

    def _upsert_many(self, request: ProviderRequest) -> Response:
        kind, key_field = self._type(request), self._external_field(request)
        return composite.collection(self, request, composite.upsert_by(kind, key_field))

    def _composite(self, request: ProviderRequest) -> Response:
        return composite.composite(self, request)

    def _query(self, request: ProviderRequest) -> Response:
        query = soql.parse(request.query.get("q", ""), self.crm)
        rows = query.rows(self.crm)
        if query.count:
            return JSONResponse({"totalSize": len(rows), "done": True, "records": []})
        records = [
            soql.project(row, query.paths, self.crm, lambda record: self._url(record, request))
            for row in rows
        ]
        return self._page(records, len(records), 0, request)

    def _more(self, request: ProviderRequest) -> Response:
        locator, _, start = request.path_params["locator"].rpartition("-")
        if locator not in self._pages or not start.isdecimal():
            raise api_error("INVALID_QUERY_LOCATOR", "invalid query locator")
        rows, total = self._pages[locator]
        return self._page(rows, total, int(start), request, locator)

    def _page(
        self,
        rows: list[dict[str, Any]],
        total: int,
        start: int,
        request: ProviderRequest,
        locator: str | None = None,
    ) -> Response:
        body: dict[str, Any] = {
            "totalSize": total,
            "done": True,
            "records": rows[start : start + PAGE_SIZE],
        }
        if start + PAGE_SIZE < total:
            if locator is None:
                locator = f"01g{secrets.token_hex(6)}"
                self._pages[locator] = (rows, total)
                while len(self._pages) > _MAX_PAGED_QUERIES:
                    del self._pages[next(iter(self._pages))]
            version = request.path_params["version"]
            body["done"] = False
            body["nextRecordsUrl"] = f"/services/data/v{version}/query/{locator}-{start + PAGE_SIZE}"
        return JSONResponse(body)

    def _search(self, request: ProviderRequest) -> Response:
        search = sosl.parse(request.query.get("q", ""), self.crm)
        rows = search.rows(self.crm, self.now(), self.faults.lag(self.name))
        records = [
            soql.project(row, query.paths, self.crm, lambda record: self._url(record, request))
            for row, query in rows
        ]
        return JSONResponse({"searchRecords": records})

    def _describe_all(self, _request: ProviderRequest) -> Response:
        return JSONResponse(
            {
                "encoding": "UTF-8",
                "maxBatchSize": 200,
                "sobjects": [
                    {"name": kind.name, "keyPrefix": kind.prefix} for kind in self.crm.types.values()
                ],
            }
        )

    def _describe(self, request: ProviderRequest) -> Response:
        kind = self._type(request)
        access = self.crm.access
        return JSONResponse(
            {
                "name": kind.name,
                "label": kind.name,
                "keyPrefix": kind.prefix,
                "createable": access.allows(kind.name, "create")
                and any(definition.createable for definition in kind.fields.values()),
                "updateable": access.allows(kind.name, "edit")
                and any(definition.updateable for definition in kind.fields.values()),
                "fields": [definition.as_json() for definition in kind.fields.values()],
                "recordTypeInfos": kind.record_type_infos(),
            }
        )

    def _create_field(self, request: ProviderRequest) -> Response:
        """Create a custom field, which field-level security hides from everybody until an administrator grants it."""
        body = composite.parse_object(request)
        if not self.crm.access.may_customize:
            raise api_error("INSUFFICIENT_ACCESS", "insufficient access rights on object id", 403)
        object_name, _, name = str(body.get("FullName")).rpartition(".")
        # Fields of tasks and events belong to Activity.
        kind = self.crm.types.get({"Activity": "Task", "Task": "", "Event": ""}.get(object_name, object_name))
        metadata = body.get("Metadata")
        if kind is None or not name.endswith("__c") or not isinstance(metadata, dict):
            raise api_error("INVALID_INPUT", "FullName and Metadata of a custom field are required")
        if name in kind.fields or name in kind.hidden_fields:
            raise api_error(
                "DUPLICATE_DEVELOPER_NAME", f"There is already a field named {name} on {object_name}."
            )
        field = Field(
            name,
            length=int(metadata.get("length", 255)),
            unique=bool(metadata.get("unique")),
            external_id=bool(metadata.get("externalId")),
        )
        kind.hidden_fields[name] = field
        if object_name == "Activity":
            self.crm.types["Event"].hidden_fields[name] = field
        return JSONResponse({"id": "00N5g000000AbCdEAF", "success": True, "errors": []}, 201)

    def _user_info(self, _request: ProviderRequest) -> Response:
        return JSONResponse(
            {
                "user_id": USER_ID,
                "organization_id": ORG_ID,
                "preferred_username": USERNAME,
                "email": USERNAME,
                "zoneinfo": "America/New_York",
                "urls": {"rest": f"{INSTANCE_URL}/services/data/v{{version}}/"},
            }
        )

    def _versions(self, _request: ProviderRequest) -> Response:
        return JSONResponse(
            [
                {"label": f"v{version}", "url": f"/services/data/v{version}", "version": version}
                for version in API_VERSIONS
            ]
        )

    def _limits(self, _request: ProviderRequest) -> Response:
        remaining = max(self.daily_limit - self.requests_today, 0)
        return JSONResponse({"DailyApiRequests": {"Max": self.daily_limit, "Remaining": remaining}})

    def _url(self, record: SObject, request: ProviderRequest) -> str:
        return f"/services/data/v{request.path_params['version']}/sobjects/{record.type}/{record.id}"


def _allows_duplicates(request: ProviderRequest) -> bool:
    header = request.headers.get("sforce-duplicate-rule-header", "")
    return re.search(r"allowsave\s*=\s*true", header, re.IGNORECASE) is not None
