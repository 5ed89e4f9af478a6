"""HubSpot's API: which path does what to the objects of the account."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.hubspot import batches, properties
from bridge.sandbox.hubspot.crm import Association, Crm, CrmObject
from bridge.sandbox.hubspot.errors import batch_error, invalid, not_found
from bridge.sandbox.hubspot.pipelines import Pipeline
from bridge.sandbox.hubspot.schema import DISPOSITIONS, ObjectType, iso
from bridge.sandbox.hubspot.scopes import ALL_SCOPES
from bridge.sandbox.hubspot.search import search
from bridge.sandbox.provider import Call, Handler, Partner, Refusal, whole_number

OWNER_ID = "70011"
PORTAL_ID = 24_601
DAILY_LIMIT = 250_000
_OBJECTS = "/crm/v3/objects/{type}"


class HubSpotApi(Partner):
    """The endpoints that a connector uses, and their neighbours."""

    crm: Crm
    token: str
    missing_scopes: set[str]
    requests_today: int

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Objects, batches, search, associations, properties, pipelines, account."""
        v4 = "/crm/v4/objects/{type}/{id}/associations"
        return [
            ("POST", _OBJECTS, self._create),
            ("GET", _OBJECTS, self._list),
            ("POST", _OBJECTS + "/search", self._search),
            ("POST", _OBJECTS + "/merge", self._merge),
            *((("POST", f"{_OBJECTS}/batch/{verb}", self._batch(act))) for verb, act in batches.ACTS.items()),
            ("GET", _OBJECTS + "/{id}", self._get),
            ("PATCH", _OBJECTS + "/{id}", self._update),
            ("DELETE", _OBJECTS + "/{id}", self._delete),
            ("PUT", v4 + "/default/{to}/{to_id}", self._link_default),
            ("PUT", v4 + "/{to}/{to_id}", self._link_labelled),
            ("GET", v4 + "/{to}", self._links),
            ("DELETE", v4 + "/{to}/{to_id}", self._unlink),
            ("POST", "/crm/v4/associations/{type}/{to}/batch/associate/default", self._link_batch),
            ("POST", "/crm/v4/associations/{type}/{to}/batch/read", self._links_batch),
            ("GET", "/crm/v3/properties/{type}", self._properties),
            ("POST", "/crm/v3/properties/{type}", self._create_property),
            ("GET", "/crm/v3/properties/{type}/groups", self._groups),
            ("GET", "/crm/v3/properties/{type}/{name}", self._property),
            ("DELETE", "/crm/v3/properties/{type}/{name}", self._delete_property),
            ("GET", "/crm/v3/pipelines/{type}", self._pipelines),
            ("GET", "/crm/v3/pipelines/{type}/{pipeline}", self._pipeline),
            ("GET", "/crm/v3/pipelines/{type}/{pipeline}/stages", self._stages),
            ("GET", "/crm/v3/owners", self._owners),
            ("GET", "/crm/v3/owners/", self._owners),
            ("GET", "/calling/v1/dispositions", self._dispositions),
            ("GET", "/account-info/v3/details", self._details),
            ("GET", "/account-info/v3/api-usage/daily/private-apps", self._usage),
            ("POST", "/oauth/v2/private-apps/get/access-token-info", self._token_info),
        ]

    def _type(self, call: Call, name: str = "type") -> ObjectType:
        return self.crm.type(call.args[name])

    def _create(self, call: Call) -> Response:
        kind, body = self._type(call), object_of(call, {"properties", "associations", "objectWriteTraceId"})
        values = self.crm.checked(kind, body.get("properties"), create=True)
        links = self.crm.spec(kind, body.get("associations") or [])
        if not self.crm.room():
            raise self.full()
        new = self.crm.create(kind, values, links, self.now())
        return JSONResponse(self.show(new, list(new.properties)), 201)

    def _list(self, call: Call) -> Response:
        kind = self._type(call)
        limit = whole_number(call.query.get("limit", "10"), 1, 100)
        after = whole_number(call.query.get("after", "0"), 0, 10**12)
        if limit is None or after is None:
            raise invalid("limit must be from 1 to 100")
        found = [item for item in self.crm.live(kind) if int(item.id) > after]
        page = found[:limit]
        body: dict[str, Any] = {"results": [self.show(item, self._asked(kind, call)) for item in page]}
        if len(found) > len(page):
            body["paging"] = {"next": {"after": page[-1].id, "link": ""}}
        return JSONResponse(body)

    def _get(self, call: Call) -> Response:
        kind = self._type(call)
        found = self.crm.get(kind, call.args["id"], call.query.get("idProperty"))
        body = self.show(found, self._asked(kind, call))
        wanted = [name for part in call.query.getlist("associations") for name in part.split(",") if name]
        linked = {}
        for name in wanted:
            to = self.crm.type(name)
            links = self.crm.linked(kind, found, to)
            if links:
                label = f"{kind.singular}_to_{to.singular}"
                linked[to.name] = {"results": [{"id": link.to_id, "type": label} for link in links]}
        if linked:
            body["associations"] = linked
        return JSONResponse(body)

    def _update(self, call: Call) -> Response:
        kind, body = self._type(call), object_of(call, {"properties", "objectWriteTraceId"})
        found = self.crm.get(kind, call.args["id"], call.query.get("idProperty"))
        values = self.crm.checked(kind, body.get("properties"), create=False)
        self.crm.update(kind, found, values, self.now())
        return JSONResponse(self.show(found, list(found.properties)))

    def _delete(self, call: Call) -> Response:
        kind = self._type(call)
        found = self.crm.find(kind, call.args["id"])
        if found is not None:
            self.crm.archive(kind, found, self.now())
        return Response(status_code=204)

    def _merge(self, call: Call) -> Response:
        kind, body = self._type(call), object_of(call, {"primaryObjectId", "objectIdToMerge"})
        winner = self.crm.get(kind, str(body.get("primaryObjectId")))
        other = self.crm.get(kind, str(body.get("objectIdToMerge")))
        if winner is other:
            raise invalid("a record cannot be merged with itself")
        return JSONResponse(self.show(self.crm.merge(kind, winner, other, self.now()), kind.shown))

    def _search(self, call: Call) -> Response:
        kind, body = self._type(call), object_of(call, None)
        page = search(self.crm, kind, body, self.now(), self.faults.lag(self.name))
        asked = [*kind.shown, *_names(body)]
        results = [self.show(item, asked, values) for item, values in page.results]
        answer: dict[str, Any] = {"total": page.total, "results": results}
        if page.after is not None:
            answer["paging"] = {"next": {"after": page.after, "link": ""}}
        return JSONResponse(answer)

    def _batch(self, act: Callable[[Crm, ObjectType, Any, Any], batches.Outcome]) -> Handler:
        def handle(call: Call) -> Response:
            kind, body = self._type(call), object_of(call, None)
            if act is not batches.read and not self.crm.room():
                raise self.full()
            outcome = act(self.crm, kind, body, self.now())
            if act is batches.archive:
                return Response(status_code=204)
            asked = _names(body) if act is batches.read else None
            results = [
                self.show(item, [*kind.shown, *asked] if asked is not None else list(item.properties))
                | ({} if new is None else {"new": new})
                for item, new in outcome.results
            ]
            answer = self._batch_json(results)
            if outcome.errors:
                answer |= {"numErrors": len(outcome.errors), "errors": outcome.errors}
            return JSONResponse(answer, 207 if outcome.errors else 201 if act is batches.create else 200)

        return handle

    def _batch_json(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        now = iso(self.now())
        return {"status": "COMPLETE", "results": results, "startedAt": now, "completedAt": now}

    def _link_default(self, call: Call) -> Response:
        link = self.crm.default_link(
            self._type(call), call.args["id"], self._type(call, "to"), call.args["to_id"]
        )
        return JSONResponse(self._batch_json(_both_ways(link)))

    def _link_labelled(self, call: Call) -> Response:
        kind, to = self._type(call), self._type(call, "to")
        start, end = self.crm.get(kind, call.args["id"]), self.crm.get(to, call.args["to_id"])
        try:
            types = call.json()
        except ValueError:
            types = None
        if not isinstance(types, list) or not types:
            raise invalid("Invalid input JSON: a list of association types is needed")
        for link in self.crm.spec(kind, [{"to": {"id": end.id}, "types": types}]):
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

    def _links(self, call: Call) -> Response:
        kind = self._type(call)
        links = self.crm.linked(kind, self.crm.get(kind, call.args["id"]), self._type(call, "to"))
        return JSONResponse({"results": [_link_json(link) for link in links]})

    def _unlink(self, call: Call) -> Response:
        kind = self._type(call)
        found = self.crm.get(kind, call.args["id"])
        for link in self.crm.linked(kind, found, self._type(call, "to")):
            if link.to_id == call.args["to_id"]:
                self.crm.dissociate(link)
        return Response(status_code=204)

    def _link_batch(self, call: Call) -> Response:
        results: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for item in batches.inputs(object_of(call, {"inputs"}), 2000):
            ends = [item.get(end) for end in ("from", "to")]
            ids = [str(end.get("id")) if isinstance(end, dict) else "" for end in ends]
            try:
                link = self.crm.default_link(self._type(call), ids[0], self._type(call, "to"), ids[1])
            except Refusal as refusal:
                told = json.loads(bytes(refusal.response.body))
                errors.append(batch_error(told["category"], told["message"], ids))
                continue
            results += _both_ways(link)
        answer = self._batch_json(results)
        if errors:
            answer |= {"numErrors": len(errors), "errors": errors}
        return JSONResponse(answer)  # errors too: the client knows no 207 here

    def _links_batch(self, call: Call) -> Response:
        kind, to = self._type(call), self._type(call, "to")
        results = []
        for item in batches.inputs(object_of(call, {"inputs"}), 1000):
            found = self.crm.find(kind, str(item.get("id")))
            links = self.crm.linked(kind, found, to) if found else []
            if links:
                results.append({"from": {"id": item["id"]}, "to": [_link_json(link) for link in links]})
        return JSONResponse(self._batch_json(results))

    def _properties(self, call: Call) -> Response:
        kind = self._type(call)
        return JSONResponse({"results": [one.as_json() for one in kind.properties.values()]})

    def _create_property(self, call: Call) -> Response:
        kind = self._type(call)
        new = properties.created(kind, object_of(call, None))
        kind.properties[new.name] = new
        return JSONResponse(new.as_json(), 201)

    def _property(self, call: Call) -> Response:
        known = self._type(call).properties.get(call.args["name"])
        if known is None:
            raise not_found(call.args["name"])
        return JSONResponse(known.as_json())

    def _delete_property(self, call: Call) -> Response:
        kind = self._type(call)
        known = kind.properties.get(call.args["name"])
        if known is None or not known.custom:
            raise not_found(call.args["name"])
        del kind.properties[known.name]
        return Response(status_code=204)

    def _groups(self, call: Call) -> Response:
        group = self._type(call).group
        return JSONResponse(
            {"results": [{"name": group, "label": group, "displayOrder": 0, "archived": False}]}
        )

    def _pipelines(self, call: Call) -> Response:
        found = self.crm.pipelines.values() if self._type(call).name == "tickets" else ()
        return JSONResponse({"results": [pipeline.as_json() for pipeline in found]})

    def _pipeline(self, call: Call) -> Response:
        return JSONResponse(self._found_pipeline(call).as_json())

    def _stages(self, call: Call) -> Response:
        return JSONResponse({"results": self._found_pipeline(call).as_json()["stages"]})

    def _found_pipeline(self, call: Call) -> Pipeline:
        found = self.crm.pipelines.get(call.args["pipeline"]) if self._type(call).name == "tickets" else None
        if found is None:
            raise not_found(call.args["pipeline"])
        return found

    def _owners(self, call: Call) -> Response:
        owner = {
            "id": OWNER_ID,
            "email": "owner@harbourlight.example",
            "firstName": "Sales",
            "lastName": "Desk",
            "type": "PERSON",
            "archived": False,
            "createdAt": iso(self.now()),
            "updatedAt": iso(self.now()),
        }
        wanted = call.query.get("email")
        return JSONResponse({"results": [owner] if wanted in (None, owner["email"]) else []})

    def _dispositions(self, _call: Call) -> Response:
        return JSONResponse(
            [{"id": key, "label": label, "deleted": False} for key, label in DISPOSITIONS.items()]
        )

    def _details(self, _call: Call) -> Response:
        return JSONResponse(
            {
                "portalId": PORTAL_ID,
                "accountType": "STANDARD",
                "timeZone": "US/Eastern",
                "companyCurrency": "USD",
                "additionalCurrencies": [],
                "utcOffset": "-05:00",
                "utcOffsetMilliseconds": -18_000_000,
                "uiDomain": "app.hubspot.com",
                "dataHostingLocation": "na1",
            }
        )

    def _usage(self, _call: Call) -> Response:
        return JSONResponse(
            {
                "results": [
                    {
                        "name": "private-apps-api-calls-daily",
                        "usageLimit": DAILY_LIMIT,
                        "currentUsage": self.requests_today,
                        "collectedAt": iso(self.now()),
                        "fetchStatus": "SUCCESS",
                        "resetsAt": iso(self.now()),
                    }
                ]
            }
        )

    def _token_info(self, call: Call) -> Response:
        if object_of(call, {"tokenKey"}).get("tokenKey") != self.token:
            raise not_found("tokenKey")
        scopes = [scope for scope in ALL_SCOPES if scope not in self.missing_scopes]
        return JSONResponse({"userId": 1, "hubId": PORTAL_ID, "appId": 1, "scopes": scopes})

    def _asked(self, kind: ObjectType, call: Call) -> Iterable[str]:
        """The properties that a read shows: what it asks for and the ids, or else the type's own choice."""
        asked = [name for part in call.query.getlist("properties") for name in part.split(",") if name]
        return [kind.created, "hs_object_id", kind.modified, *asked] if asked else kind.shown

    def show(
        self, found: CrmObject, names: Iterable[str], values: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """An object as the API shows it: some of its properties, as they are or as an index knows them."""
        known = self.crm.types[found.type].properties
        values = found.properties if values is None else values
        return {
            "id": found.id,
            "properties": {name: values.get(name) for name in names if name in known},
            "createdAt": iso(found.created_at),
            "updatedAt": iso(found.updated_at),
            "archived": found.archived,
        }


def object_of(call: Call, fields: set[str] | None) -> dict[str, Any]:
    """The body as a JSON object with no other than `fields`; raises Refusal."""
    try:
        body = call.json()
    except ValueError:
        raise invalid("Invalid input JSON on line 1, column 1") from None
    if not isinstance(body, dict):
        raise invalid("Invalid input JSON: an object is needed")
    for name in body:
        if fields is not None and name not in fields:
            raise invalid(f'Invalid input JSON: Unrecognized field "{name}"')
    return body


def _names(body: dict[str, Any]) -> list[str]:
    """The properties that a search or a batch asks to be shown; raises Refusal."""
    found = body.get("properties") or []
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise invalid("Invalid input JSON: properties must be a list of names")
    return found


def _both_ways(link: Association) -> list[dict[str, Any]]:
    spec = {"associationCategory": link.category, "associationTypeId": link.type_id}
    return [{"from": {"id": link.from_id}, "to": {"id": link.to_id}, "associationSpec": spec}]


def _link_json(link: Association) -> dict[str, Any]:
    return {
        "toObjectId": link.to_id,
        "associationTypes": [{"category": link.category, "typeId": link.type_id, "label": None}],
    }
