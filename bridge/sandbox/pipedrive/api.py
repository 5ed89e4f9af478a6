"""Pipedrive's API v2, and the parts of v1 that have no successor: users and activity types."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.pipedrive.errors import invalid, not_found
from bridge.sandbox.pipedrive.records import KINDS, Record, page_of, search, select
from bridge.sandbox.pipedrive.schema import FIELD_TYPES, FieldDefinition, custom_field, validate
from bridge.sandbox.provider import MAX_RECORDS, Handler, MockProvider, ProviderRequest, parse_whole_number

PLURALS = {"person": "persons", "organization": "organizations", "deal": "deals", "activity": "activities"}
_FILTERS: dict[str, dict[str, type]] = {
    "person": {"owner_id": int, "org_id": int, "deal_id": int},
    "organization": {"owner_id": int},
    "deal": {"owner_id": int, "person_id": int, "org_id": int, "stage_id": int, "status": str},
    "activity": {"owner_id": int, "deal_id": int, "person_id": int, "org_id": int, "done": bool},
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "person": {"org_id": None, "emails": [], "phones": [], "visible_to": 3, "label_ids": []},
    "organization": {"visible_to": 3, "label_ids": []},
    "deal": {
        "person_id": None,
        "org_id": None,
        "value": 0,
        "status": "open",
        "visible_to": 3,
        "is_archived": False,
    },
    "activity": {"deal_id": None, "org_id": None, "person_id": None, "done": False, "participants": []},
}
_COSTS = {"search": 20, "list": 10, "one": 1, "write": 5, "old_list": 20, "old_one": 2, "old_write": 10}


class PipedriveApi(MockProvider):
    """The endpoints, on the state of one account."""

    all_records: dict[str, dict[int, Record]]
    fields: dict[str, dict[str, FieldDefinition]]
    users: list[dict[str, Any]]
    pipelines: list[dict[str, Any]]
    stages: list[dict[str, Any]]
    activity_types: list[dict[str, Any]]
    has_campaigns: bool
    filters: dict[str, set[int]]
    """ID -> the persons that a filter selects."""

    @abstractmethod
    def charge(self, tokens: int, *, is_search: bool) -> None:
        """Count a request. Raise ProviderError if it is over a limit."""

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the routes."""
        routes: list[tuple[str, str, Handler]] = []

        def add(method: str, path: str, cost: str, handler: Handler) -> None:
            routes.append((method, f"/api/{path}", self._charged(cost, handler)))

        for kind in KINDS:
            path = f"v2/{PLURALS[kind]}"
            if kind in ("person", "organization"):
                add("GET", f"{path}/search", "search", self._for(kind, self._search))
            add("GET", path, "list", self._for(kind, self._list))
            add("POST", path, "write", self._for(kind, self._create))
            add("GET", f"{path}/{{id}}", "one", self._for(kind, self._read))
            add("PATCH", f"{path}/{{id}}", "write", self._for(kind, self._update))
            add("GET", f"v2/{kind}Fields", "list", self._for(kind, self._list_fields))
        add("POST", "v2/dealFields", "write", self._create_deal_field)
        add("GET", "v2/pipelines", "write", lambda request: self._page(self.pipelines, request))
        add("GET", "v2/stages", "write", lambda request: self._page(self.stages, request))
        add("GET", "v1/users", "old_list", lambda _: _data(self.users))
        add("GET", "v1/users/me", "old_one", lambda _: _data(self.own_user()))
        add("GET", "v1/activityTypes", "old_list", lambda _: _data(self.activity_types))
        add("POST", "v1/activityTypes", "old_write", self._create_activity_type)
        return routes

    def own_user(self) -> dict[str, Any]:
        """Return the user of the token."""
        company = {"company_name": "Harbor Light", "company_domain": "harborlight", "company_id": 1}
        return {**self.users[0], **company}

    def _charged(self, cost: str, handler: Handler) -> Handler:
        def handle(request: ProviderRequest) -> Response:
            self.charge(_COSTS[cost], is_search=cost == "search")
            return handler(request)

        return handle

    def _for(self, kind: str, handler: Callable[[str, ProviderRequest], Response]) -> Handler:
        return lambda request: handler(kind, request)

    def _search(self, kind: str, request: ProviderRequest) -> Response:
        query = dict(request.query)
        lag = self.faults.lag(self.name)
        items, cursor = page_of(search(self.all_records[kind].values(), kind, query, self.now(), lag), query)
        return JSONResponse(
            {"success": True, "data": {"items": items}, "additional_data": {"next_cursor": cursor}}
        )

    def _list(self, kind: str, request: ProviderRequest) -> Response:
        query = dict(request.query)
        records: Iterable[Record] = self.all_records[kind].values()
        if filter_id := query.pop("filter_id", None):
            selected = self.filters.get(filter_id)
            if selected is None:
                raise not_found("filter")
            records = [record for record in records if record.id in selected]
        records = select(records, query, _FILTERS[kind])
        return self._page([self._json(record) for record in records], request)

    def _read(self, kind: str, request: ProviderRequest) -> Response:
        return _data(self._json(self._find(kind, request.path_params["id"])))

    def _create(self, kind: str, request: ProviderRequest) -> Response:
        return _data(self._json(self.create(kind, _body(request))), 201)

    def _update(self, kind: str, request: ProviderRequest) -> Response:
        record = self._find(kind, request.path_params["id"])
        self.change(record, validate(kind, _body(request), self.fields[kind], create=False))
        return _data(self._json(record))

    def _list_fields(self, kind: str, request: ProviderRequest) -> Response:
        return self._page([item.as_json() for item in self.fields[kind].values()], request)

    def _create_deal_field(self, request: ProviderRequest) -> Response:
        body = _body(request)
        if (
            not isinstance(body, dict)
            or not isinstance(body.get("field_name"), str)
            or body.get("field_type") not in FIELD_TYPES
        ):
            raise invalid("'field_name' and 'field_type' are required")
        return _data(self.add_field("deal", body["field_name"], body["field_type"]).as_json(), 201)

    def _create_activity_type(self, request: ProviderRequest) -> Response:
        body = _body(request)
        if not isinstance(body, dict) or not body.get("name") or not body.get("icon_key"):
            raise invalid("'name' and 'icon_key' are required")
        key = re.sub(r"\W+", "_", str(body["name"]).lower())
        new = {
            "id": len(self.activity_types) + 1,
            "name": body["name"],
            "key_string": key,
            "active_flag": True,
        }
        self.activity_types.append(new)
        return _data(new, 201)

    def _page(self, items: list[Any], request: ProviderRequest) -> Response:
        page, cursor = page_of(items, dict(request.query))
        return JSONResponse({"success": True, "data": page, "additional_data": {"next_cursor": cursor}})

    def _find(self, kind: str, text: str) -> Record:
        number = parse_whole_number(text, 1, 10**12)
        record = self.all_records[kind].get(number or 0)
        if record is None or record.is_deleted:
            raise not_found(kind)
        return record

    def _json(self, record: Record) -> dict[str, Any]:
        values = record.as_json()
        if record.kind == "person" and not self.has_campaigns:
            values.pop("marketing_status", None)
        return values

    def add_field(self, kind: str, name: str, field_type: str, *options: str) -> FieldDefinition:
        """Create a custom field, as an administrator would."""
        with self.lock:
            number = sum(map(len, self.fields.values()))
            field = custom_field(name, field_type, options, number)
            self.fields[kind][field.code] = field
            return field

    def create(self, kind: str, body: Any) -> Record:
        """Create a record. Raise ProviderError if API v2 would refuse it."""
        values = validate(kind, body, self.fields[kind], create=True)
        if sum(map(len, self.all_records.values())) >= MAX_RECORDS:
            raise self.storage_full_error()
        number = len(self.all_records[kind]) + 1
        record = Record(
            number, kind, {"owner_id": self.users[0]["id"], "custom_fields": {}}, self.now(), self.now()
        )
        record.values |= _DEFAULTS[kind] | ({"type": "call"} if kind == "activity" else {})
        if kind == "person":
            record.values["marketing_status"] = "no_consent"
        if kind == "deal":
            record.values |= self._first_stage(values)
        self.change(record, values)
        self.all_records[kind][number] = record
        return record

    def change(self, record: Record, values: Mapping[str, Any]) -> None:
        """Write values to a record. Raise ProviderError for references that do not exist."""
        values = dict(values)
        self._check_references(record.kind, values)
        custom = {**record.values.get("custom_fields", {}), **values.pop("custom_fields", {})}
        for name in ("emails", "phones"):
            if name in values:
                values[name] = _with_primary(values[name])
        if "participants" in values:
            primary = next((item for item in values["participants"] if item.get("primary")), None)
            values["person_id"] = primary["person_id"] if primary else None
        if "note" in values:
            values["note"] = _sanitized(values["note"])
        record.values |= values
        if record.kind != "activity":
            record.values["custom_fields"] = custom
        else:
            record.values.pop("custom_fields", None)
        if record.kind == "person":
            first, _, last = record.values["name"].partition(" ")
            record.values |= {"first_name": first, "last_name": last or None}
        record.updated_at = self.now()
        record.versions.append((record.updated_at, dict(record.values)))

    def _first_stage(self, values: Mapping[str, Any]) -> dict[str, int]:
        """Return the stage of a new deal, and its pipeline."""
        if stage_id := values.get("stage_id"):
            return {"stage_id": stage_id, "pipeline_id": self._stage(stage_id)["pipeline_id"]}
        pipeline_id = values.get("pipeline_id", self.pipelines[0]["id"])
        first = next((stage for stage in self.stages if stage["pipeline_id"] == pipeline_id), None)
        if first is None:
            raise invalid("Pipeline does not exist")
        return {"stage_id": first["id"], "pipeline_id": pipeline_id}

    def _stage(self, stage_id: int) -> dict[str, Any]:
        stage = next((stage for stage in self.stages if stage["id"] == stage_id), None)
        if stage is None:
            raise invalid("Stage does not exist")
        return stage

    def _check_references(self, kind: str, values: Mapping[str, Any]) -> None:
        references = {"person_id": "person", "org_id": "organization", "deal_id": "deal"}
        ids = [(target, values[name]) for name, target in references.items() if values.get(name)]
        ids += [("person", item["person_id"]) for item in values.get("participants", ())]
        for target, number in ids:
            found = self.all_records[target].get(number)
            if found is None or found.is_deleted:
                raise invalid(f"{target.capitalize()} does not exist")
        owner = values.get("owner_id")
        if owner and not any(user["id"] == owner and user["active_flag"] for user in self.users):
            raise invalid("'owner_id' is not an active user")
        if "type" in values and values["type"] not in [item["key_string"] for item in self.activity_types]:
            raise invalid("Activity type does not exist")
        stage, pipeline = values.get("stage_id"), values.get("pipeline_id")
        if stage and pipeline and self._stage(stage)["pipeline_id"] != pipeline:
            raise invalid("Stage does not belong to the pipeline")
        if kind == "person" and "marketing_status" in values and not self.has_campaigns:
            raise invalid("'marketing_status' is not allowed")


def _data(value: Any, status: int = 200) -> Response:
    return JSONResponse({"success": True, "data": value}, status)


def _body(request: ProviderRequest) -> Any:
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise invalid("API v2 accepts only JSON")
    try:
        return request.json()
    except ValueError:
        raise invalid("The request body is not valid JSON") from None


def _with_primary(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    has_primary = any(item.get("primary") for item in items)
    return [
        {"value": item["value"], "label": item.get("label", "work"), "primary": item.get("primary", False)}
        | ({} if has_primary or number else {"primary": True})
        for number, item in enumerate(items)
    ]


def _sanitized(note: str) -> str:
    """Return HTML as Pipedrive might store it: without comments and scripts, with closed line breaks."""
    note = re.sub(r"<!--.*?-->|<script.*?</script>", "", note, flags=re.DOTALL | re.IGNORECASE)
    return re.sub(r"<br\s*/?>", "<br />", note)
