"""Requests with several operations: collections of records, and composite requests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import ProviderRequest
from bridge.sandbox.salesforce.errors import RecordError, api_error
from bridge.sandbox.salesforce.records import SObject
from bridge.sandbox.salesforce.schema import Field, SObjectType, long_id

if TYPE_CHECKING:
    from bridge.sandbox.salesforce.api import SalesforceApi

MAX_COLLECTION_RECORDS = 200
MAX_SUBREQUESTS = 25
MAX_COMPOSITE_QUERIES = 5

RecordOperation = Callable[["SalesforceApi", dict[str, Any], bool], tuple[SObject, bool | None]]
"""Writes one record of a collection; with True, assignment rules set its owner."""


def assigns(request: ProviderRequest) -> bool:
    """Return whether assignment rules apply to the created or updated records: unless the header says no."""
    return request.headers.get("sforce-auto-assign", "").lower() != "false"


def parse_object(request: ProviderRequest) -> dict[str, Any]:
    """Return the body as a JSON object. Raise ProviderError if it is not one."""
    try:
        body = request.json()
    except ValueError:
        raise api_error("JSON_PARSER_ERROR", "Unexpected character in the request body") from None
    if not isinstance(body, dict):
        raise api_error("JSON_PARSER_ERROR", "The HTTP entity body is required to be a JSON object")
    return body


def collection(org: SalesforceApi, request: ProviderRequest, operation: RecordOperation) -> Response:
    """Apply `operation` to each record. The response is 200 with one result per record."""
    body = parse_object(request)
    records = body.get("records")
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise api_error("JSON_PARSER_ERROR", "records must be a list of objects")
    if len(records) > MAX_COLLECTION_RECORDS:
        raise api_error(
            "EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than 200 records in this call"
        )
    snapshot = org.crm.snapshot() if body.get("allOrNone") else None
    results: list[dict[str, Any]] = []
    for record in records:
        try:
            saved, created = operation(org, record, assigns(request))
        except RecordError as error:
            results.append({"success": False, "errors": [error.error() | error.more]})
            continue
        result: dict[str, Any] = {"id": saved.id, "success": True, "errors": []}
        results.append(result if created is None else result | {"created": created})
    if snapshot is not None and not all(result["success"] for result in results):
        org.crm.restore(snapshot)
        rolled_back = {
            "statusCode": "ALL_OR_NONE_OPERATION_ROLLED_BACK",
            "message": "Record rolled back because not all records were valid and the request was using AllOrNone",
            "fields": [],
        }
        results = [
            result if not result["success"] else {"success": False, "errors": [rolled_back]}
            for result in results
        ]
    return JSONResponse(results)


def create_one(org: SalesforceApi, record: dict[str, Any], assign: bool) -> tuple[SObject, None]:
    """Create one record of a collection."""
    return org.crm.create(_type(org, record), record, org.now(), assign=assign), None


def update_one(org: SalesforceApi, record: dict[str, Any], assign: bool) -> tuple[SObject, None]:
    """Update one record of a collection by its ID."""
    kind = _type(org, record)
    identifier = record.get("id") or record.get("Id")
    if not isinstance(identifier, str) or not re.fullmatch(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?", identifier):
        raise RecordError("MALFORMED_ID", f"malformed id {identifier}", ["Id"])
    existing = org.crm.tables[kind.name].get(long_id(identifier))
    if existing is None:
        raise RecordError("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
    values = {name: value for name, value in record.items() if name.lower() != "id"}
    return org.crm.update(kind, existing, values, org.now(), assign=assign), None


def upsert_by(kind: SObjectType, key_field: Field) -> RecordOperation:
    """Return an upsert by one external ID. It rejects a second record with the same external ID."""
    seen_keys: set[str] = set()

    def upsert(org: SalesforceApi, record: dict[str, Any], assign: bool) -> tuple[SObject, bool]:
        if _type(org, record).name != kind.name:
            raise RecordError("INVALID_TYPE", f"all records must be of type {kind.name}")
        key = record.get(key_field.name)
        if not isinstance(key, str) or not key:
            raise RecordError("MISSING_ARGUMENT", f"{key_field.name} not specified", [key_field.name])
        if key.lower() in seen_keys:
            raise RecordError("DUPLICATE_VALUE", f"Duplicate external id specified: {key}", [key_field.name])
        seen_keys.add(key.lower())
        existing = org.crm.find_indexed(kind, key_field.name, [key])
        if len(existing) > 1:
            raise RecordError(
                "DUPLICATE_EXTERNAL_ID", f"{key_field.name}: more than one record found for {key}"
            )
        if existing:
            return org.crm.update(kind, existing[0], record, org.now(), assign=assign), False
        return org.crm.create(kind, record, org.now(), assign=assign), True

    return upsert


def composite(org: SalesforceApi, request: ProviderRequest) -> Response:
    """Run up to 25 requests in sequence, counted as one. Each may refer to the responses of earlier ones."""
    body = parse_object(request)
    requests = body.get("compositeRequest")
    if (
        not isinstance(requests, list)
        or not requests
        or not all(isinstance(subrequest, dict) for subrequest in requests)
    ):
        raise api_error("JSON_PARSER_ERROR", "compositeRequest must be a list of requests")
    if len(requests) > MAX_SUBREQUESTS:
        raise api_error("INVALID_INPUT", f"at most {MAX_SUBREQUESTS} subrequests")
    names = [subrequest.get("referenceId") for subrequest in requests]
    if not all(isinstance(name, str) and re.fullmatch(r"[A-Za-z]\w*", name) for name in names):
        raise api_error("INVALID_INPUT", "each subrequest needs a referenceId of letters, digits and _")
    if len(set(names)) < len(names):
        raise api_error("INVALID_INPUT", "a referenceId may only be used once")
    urls = [str(subrequest.get("url")) for subrequest in requests]
    if sum(bool(re.search(r"/query|/composite/sobjects", url)) for url in urls) > MAX_COMPOSITE_QUERIES:
        raise api_error("INVALID_INPUT", f"at most {MAX_COMPOSITE_QUERIES} queries and collections")
    snapshot = org.crm.snapshot() if body.get("allOrNone") else None
    response_bodies: dict[str, Any] = {}
    responses = []
    failed = False
    for subrequest in requests:
        if failed and snapshot is not None:
            status, response_body = 400, [_rolled_back_error()]
        else:
            status, response_body = _subrequest(org, request, subrequest, response_bodies)
        failed = failed or status >= 300
        response_bodies[subrequest["referenceId"]] = response_body if status < 300 else None
        responses.append(
            {
                "body": response_body,
                "httpHeaders": {},
                "httpStatusCode": status,
                "referenceId": subrequest["referenceId"],
            }
        )
    if failed and snapshot is not None:
        org.crm.restore(snapshot)
        for response in responses:
            if response["httpStatusCode"] < 300:
                response |= {"body": [_rolled_back_error()], "httpStatusCode": 400}
    return JSONResponse({"compositeResponse": responses})


def _rolled_back_error() -> dict[str, str]:
    return {
        "errorCode": "PROCESSING_HALTED",
        "message": "The transaction was rolled back since another operation in the same transaction failed.",
    }


def _subrequest(
    org: SalesforceApi, request: ProviderRequest, subrequest: dict[str, Any], response_bodies: dict[str, Any]
) -> tuple[int, Any]:
    try:
        url = urlsplit(_resolve_references(str(subrequest.get("url")), response_bodies))
        body = _resolve_references(subrequest.get("body"), response_bodies)
    except LookupError as error:
        return 400, [{"errorCode": "PROCESSING_HALTED", "message": f"Invalid reference specified: {error}"}]
    if not url.path.startswith("/services/data/") or url.path.rstrip("/").endswith("/composite"):
        return 400, [
            {
                "errorCode": "INVALID_INPUT",
                "message": "a subrequest's url must start with /services/data/vXX.X/",
            }
        ]
    headers = subrequest.get("httpHeaders") or {}
    if not isinstance(headers, dict) or not all(
        f"{name}{value}".isascii() for name, value in headers.items()
    ):
        return 400, [{"errorCode": "INVALID_INPUT", "message": "httpHeaders must be an object of strings"}]
    provider_request = ProviderRequest(
        str(subrequest.get("method")).upper(),
        url.path,
        QueryParams(parse_qsl(url.query)),
        Headers(dict(request.headers) | {name.lower(): str(value) for name, value in headers.items()}),
        json.dumps(body).encode() if body is not None else b"",
        request.prefix,
    )
    response = org.handle_subrequest(provider_request)
    content = bytes(response.body)
    return response.status_code, json.loads(content) if content else None


def _resolve_references(value: Any, response_bodies: dict[str, Any]) -> Any:
    """Replace `@{name.path}` with values from subrequest responses. Raise LookupError for unknown references."""
    if isinstance(value, dict):
        return {name: _resolve_references(inner, response_bodies) for name, inner in value.items()}
    if isinstance(value, list):
        return [_resolve_references(inner, response_bodies) for inner in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"@\{([^}]+)\}", lambda match: str(_lookup_reference(match[1], response_bodies)), value)


def _lookup_reference(path: str, response_bodies: dict[str, Any]) -> Any:
    name, *keys = re.findall(r"\w+", path)
    value: Any = response_bodies.get(name)
    for key in keys:
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (TypeError, ValueError, IndexError, KeyError):
            raise LookupError(path) from None
    if value is None:
        raise LookupError(path)
    return value


def _type(org: SalesforceApi, record: dict[str, Any]) -> SObjectType:
    attributes = record.get("attributes")
    name = attributes.get("type") if isinstance(attributes, dict) else None
    object_type = org.crm.visible_type(str(name))
    if object_type is None:
        raise RecordError("INVALID_TYPE", f"sObject type '{name}' is not supported.")
    return object_type
