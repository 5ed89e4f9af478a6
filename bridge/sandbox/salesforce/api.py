"""Salesforce's API: which path does what to the records of the org."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import Call, Handler, Partner, Refusal
from bridge.sandbox.salesforce import composite, soql, sosl
from bridge.sandbox.salesforce.errors import RecordRefusal, error_body, refuse
from bridge.sandbox.salesforce.records import ORG_ID, USER_ID, Records, SObject
from bridge.sandbox.salesforce.schema import Field, SObjectType, long_id
from bridge.sandbox.salesforce.sessions import INSTANCE_URL, USERNAME, Sessions

ROWS_PER_PAGE = 2000
OLDEST_VERSION = 59
NEWEST_VERSION = 68
_PAGED_QUERIES_KEPT = 10
_DATA = "/services/data/v{version}"


class SalesforceApi(Partner):
    """The endpoints that a connector uses, and their neighbours."""

    crm: Records
    sessions: Sessions
    daily_limit: int
    requests_today: int
    _pages: dict[str, tuple[list[dict[str, Any]], int]]

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Login, records, queries, composite requests, limits."""
        sobject = _DATA + "/sobjects/{type}"
        return [
            ("POST", "/services/oauth2/token", lambda call: self.sessions.log_in(call)),
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

    def sub_answer(self, call: Call) -> Response:
        """What a request inside a composite request is answered; it counts nothing."""
        try:
            return super().answer(call)
        except RecordRefusal as refusal:
            return refusal.response()

    def _type(self, call: Call) -> SObjectType:
        found = self.crm.types.get(call.args["type"])
        if found is None:
            raise Refusal(error_body(404))
        return found

    def _find(self, call: Call) -> SObject:
        kind = self._type(call)
        identifier = call.args["id"]
        if not re.fullmatch(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?", identifier):
            raise Refusal(
                error_body(
                    404,
                    message=f"Provided external ID field does not exist or is not accessible: {identifier}",
                )
            )
        found = self.crm.tables[kind.name].get(long_id(identifier))
        if found is None:
            raise Refusal(error_body(404))
        return found

    def _create(self, call: Call) -> Response:
        kind = self._type(call)
        if not any(known.createable for known in kind.fields.values()):
            raise refuse(
                "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", f"entity type cannot be inserted: {kind.name}"
            )
        new = self.crm.create(kind, composite.object_of(call), self.now(), allow_duplicates=_allow_save(call))
        return JSONResponse({"id": new.id, "success": True, "errors": []}, 201)

    def _get(self, call: Call) -> Response:
        return self._show(call, self._find(call))

    def _get_external(self, call: Call) -> Response:
        kind = self._type(call)
        found = self.crm.holding(kind, self._external_field(call).name, [call.args["value"]])
        if not found:
            raise Refusal(error_body(404))
        if len(found) > 1:
            return JSONResponse([self._url(one, call) for one in found], 300)
        return self._show(call, found[0])

    def _show(self, call: Call, found: SObject) -> Response:
        if found.deleted:
            raise Refusal(error_body(404))
        kind = self._type(call)
        asked = [name for name in call.query.get("fields", "").split(",") if name] or list(kind.fields)
        shown: dict[str, Any] = {"attributes": {"type": kind.name, "url": self._url(found, call)}}
        for name in asked:
            known = kind.field(name)
            if known is None:
                raise refuse("INVALID_FIELD", f"No such column '{name}' on sobject of type {kind.name}")
            shown[known.name] = found[known.name]
        return JSONResponse(shown)

    def _update(self, call: Call) -> Response:
        self.crm.update(self._type(call), self._find(call), composite.object_of(call), self.now())
        return Response(status_code=204)

    def _delete(self, call: Call) -> Response:
        found = self._find(call)
        if found.deleted:
            raise RecordRefusal("ENTITY_IS_DELETED", "entity is deleted", status=404)
        self.crm.delete(self._type(call), found, self.now())
        return Response(status_code=204)

    def _external_field(self, call: Call) -> Field:
        found = self._type(call).field(call.args["field"])
        if found is None or not found.external_id:
            raise Refusal(
                error_body(
                    404,
                    message="Provided external ID field does not exist or is not accessible: "
                    + call.args["field"],
                )
            )
        return found

    def _upsert(self, call: Call) -> Response:
        kind, known = self._type(call), self._external_field(call)
        found = self.crm.holding(kind, known.name, [call.args["value"]])
        if len(found) > 1:
            return JSONResponse([self._url(one, call) for one in found], 300)
        body = composite.object_of(call)
        if known.name in body:
            raise refuse(
                "INVALID_FIELD", f"The {known.name} field should not be specified in the sobject data."
            )
        if found:
            self.crm.update(kind, found[0], body, self.now())
            return JSONResponse({"id": found[0].id, "success": True, "errors": [], "created": False})
        if call.query.get("updateOnly") == "true":
            raise Refusal(error_body(404))
        new = self.crm.create(
            kind, {known.name: call.args["value"]} | body, self.now(), allow_duplicates=_allow_save(call)
        )
        return JSONResponse({"id": new.id, "success": True, "errors": [], "created": True}, 201)

    def _create_many(self, call: Call) -> Response:
        return composite.collection(self, call, composite.create_one)

    def _update_many(self, call: Call) -> Response:
        return composite.collection(self, call, composite.update_one)

    def _upsert_many(self, call: Call) -> Response:
        kind, known = self._type(call), self._external_field(call)
        return composite.collection(self, call, composite.upsert_one(kind, known))

    def _composite(self, call: Call) -> Response:
        return composite.composite(self, call)

    def _query(self, call: Call) -> Response:
        query = soql.parse(call.query.get("q", ""), self.crm)
        rows = query.rows(self.crm)
        if query.count:
            return JSONResponse({"totalSize": len(rows), "done": True, "records": []})
        shown = [soql.project(row, query.paths, self.crm, lambda one: self._url(one, call)) for row in rows]
        return self._page(shown, len(shown), 0, call)

    def _more(self, call: Call) -> Response:
        locator, _, start = call.args["locator"].rpartition("-")
        if locator not in self._pages or not start.isdecimal():
            raise refuse("INVALID_QUERY_LOCATOR", "invalid query locator")
        rows, total = self._pages[locator]
        return self._page(rows, total, int(start), call, locator)

    def _page(
        self, rows: list[dict[str, Any]], total: int, start: int, call: Call, locator: str | None = None
    ) -> Response:
        body: dict[str, Any] = {
            "totalSize": total,
            "done": True,
            "records": rows[start : start + ROWS_PER_PAGE],
        }
        if start + ROWS_PER_PAGE < total:
            if locator is None:
                locator = f"01g{secrets.token_hex(6)}"
                self._pages[locator] = (rows, total)
                while len(self._pages) > _PAGED_QUERIES_KEPT:
                    del self._pages[next(iter(self._pages))]
            version = call.args["version"]
            body["done"] = False
            body["nextRecordsUrl"] = f"/services/data/v{version}/query/{locator}-{start + ROWS_PER_PAGE}"
        return JSONResponse(body)

    def _search(self, call: Call) -> Response:
        search = sosl.parse(call.query.get("q", ""), self.crm)
        rows = search.rows(self.crm, self.now(), self.faults.lag(self.name))
        shown = [
            soql.project(row, query.paths, self.crm, lambda one: self._url(one, call)) for row, query in rows
        ]
        return JSONResponse({"searchRecords": shown})

    def _describe_all(self, _call: Call) -> Response:
        return JSONResponse(
            {
                "encoding": "UTF-8",
                "maxBatchSize": 200,
                "sobjects": [
                    {"name": kind.name, "keyPrefix": kind.prefix} for kind in self.crm.types.values()
                ],
            }
        )

    def _describe(self, call: Call) -> Response:
        kind = self._type(call)
        return JSONResponse(
            {
                "name": kind.name,
                "label": kind.name,
                "keyPrefix": kind.prefix,
                "createable": any(known.createable for known in kind.fields.values()),
                "fields": [known.as_json() for known in kind.fields.values()],
            }
        )

    def _user_info(self, _call: Call) -> Response:
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

    def _versions(self, _call: Call) -> Response:
        return JSONResponse(
            [
                {"label": f"v{number}", "url": f"/services/data/v{number}.0", "version": f"{number}.0"}
                for number in range(OLDEST_VERSION, NEWEST_VERSION + 1)
            ]
        )

    def _limits(self, _call: Call) -> Response:
        remaining = max(self.daily_limit - self.requests_today, 0)
        return JSONResponse({"DailyApiRequests": {"Max": self.daily_limit, "Remaining": remaining}})

    def _url(self, found: SObject, call: Call) -> str:
        return f"/services/data/v{call.args['version']}/sobjects/{found.type}/{found.id}"


def _allow_save(call: Call) -> bool:
    header = call.headers.get("sforce-duplicate-rule-header", "")
    return re.search(r"allowsave\s*=\s*true", header, re.IGNORECASE) is not None
