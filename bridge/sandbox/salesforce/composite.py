"""Several things in one request: collections of records, and composite requests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import Call
from bridge.sandbox.salesforce.errors import RecordRefusal, refuse
from bridge.sandbox.salesforce.records import SObject
from bridge.sandbox.salesforce.schema import Field, SObjectType, long_id

if TYPE_CHECKING:
    from bridge.sandbox.salesforce.api import SalesforceApi

MOST_RECORDS = 200
MOST_SUBREQUESTS = 25
MOST_QUERIES = 5

One = Callable[["SalesforceApi", dict[str, Any]], tuple[SObject, bool | None]]


def object_of(call: Call) -> dict[str, Any]:
    """The body as a JSON object; raises Refusal."""
    try:
        body = call.json()
    except ValueError:
        raise refuse("JSON_PARSER_ERROR", "Unexpected character in the request body") from None
    if not isinstance(body, dict):
        raise refuse("JSON_PARSER_ERROR", "The HTTP entity body is required to be a JSON object")
    return body


def collection(org: SalesforceApi, call: Call, act: One) -> Response:
    """Do `act` for each record; the answer is 200, and each record has its own result."""
    body = object_of(call)
    records = body.get("records")
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise refuse("JSON_PARSER_ERROR", "records must be a list of objects")
    if len(records) > MOST_RECORDS:
        raise refuse(
            "EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than 200 records in this call"
        )
    before = org.crm.snapshot() if body.get("allOrNone") else None
    results: list[dict[str, Any]] = []
    for record in records:
        try:
            found, created = act(org, record)
        except RecordRefusal as refusal:
            results.append({"success": False, "errors": [refusal.error() | refusal.more]})
            continue
        result: dict[str, Any] = {"id": found.id, "success": True, "errors": []}
        results.append(result if created is None else result | {"created": created})
    if before is not None and not all(result["success"] for result in results):
        org.crm.restore(before)
        halted = {
            "statusCode": "ALL_OR_NONE_OPERATION_ROLLED_BACK",
            "message": "Record rolled back because not all records were valid and the request was using AllOrNone",
            "fields": [],
        }
        results = [
            result if not result["success"] else {"success": False, "errors": [halted]} for result in results
        ]
    return JSONResponse(results)


def create_one(org: SalesforceApi, record: dict[str, Any]) -> tuple[SObject, None]:
    """Create one record of a collection."""
    return org.crm.create(_type(org, record), record, org.now(), allow_duplicates=False), None


def update_one(org: SalesforceApi, record: dict[str, Any]) -> tuple[SObject, None]:
    """Update one record of a collection, by its id."""
    kind = _type(org, record)
    identifier = record.get("id") or record.get("Id")
    if not isinstance(identifier, str) or not re.fullmatch(r"[a-zA-Z0-9]{15}([a-zA-Z0-9]{3})?", identifier):
        raise RecordRefusal("MALFORMED_ID", f"malformed id {identifier}", ["Id"])
    found = org.crm.tables[kind.name].get(long_id(identifier))
    if found is None:
        raise RecordRefusal("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
    values = {name: value for name, value in record.items() if name.lower() != "id"}
    return org.crm.update(kind, found, values, org.now()), None


def upsert_one(kind: SObjectType, known: Field) -> One:
    """Upsert the records of a collection by one external id; two records with the same one are refused."""
    seen: set[str] = set()

    def act(org: SalesforceApi, record: dict[str, Any]) -> tuple[SObject, bool]:
        if _type(org, record).name != kind.name:
            raise RecordRefusal("INVALID_TYPE", f"all records must be of type {kind.name}")
        key = record.get(known.name)
        if not isinstance(key, str) or not key:
            raise RecordRefusal("MISSING_ARGUMENT", f"{known.name} not specified", [known.name])
        if key.lower() in seen:
            raise RecordRefusal("DUPLICATE_VALUE", f"Duplicate external id specified: {key}", [known.name])
        seen.add(key.lower())
        found = org.crm.holding(kind, known.name, [key])
        if len(found) > 1:
            raise RecordRefusal(
                "DUPLICATE_EXTERNAL_ID", f"{known.name}: more than one record found for {key}"
            )
        if found:
            return org.crm.update(kind, found[0], record, org.now()), False
        return org.crm.create(kind, record, org.now(), allow_duplicates=False), True

    return act


def composite(org: SalesforceApi, call: Call) -> Response:
    """Up to 25 requests in a row, which may use each other's answers; together they count as one."""
    body = object_of(call)
    requests = body.get("compositeRequest")
    if not isinstance(requests, list) or not requests or not all(isinstance(one, dict) for one in requests):
        raise refuse("JSON_PARSER_ERROR", "compositeRequest must be a list of requests")
    if len(requests) > MOST_SUBREQUESTS:
        raise refuse("INVALID_INPUT", f"at most {MOST_SUBREQUESTS} subrequests")
    names = [one.get("referenceId") for one in requests]
    if not all(isinstance(name, str) and re.fullmatch(r"[A-Za-z]\w*", name) for name in names):
        raise refuse("INVALID_INPUT", "each subrequest needs a referenceId of letters, digits and _")
    if len(set(names)) < len(names):
        raise refuse("INVALID_INPUT", "a referenceId may only be used once")
    if (
        sum(bool(re.search(r"/query|/composite/sobjects", str(one.get("url")))) for one in requests)
        > MOST_QUERIES
    ):
        raise refuse("INVALID_INPUT", f"at most {MOST_QUERIES} queries and collections")
    before = org.crm.snapshot() if body.get("allOrNone") else None
    answers: dict[str, Any] = {}
    responses = []
    failed = False
    for one in requests:
        if failed and before is not None:
            status, told = 400, [_halted()]
        else:
            status, told = _subrequest(org, call, one, answers)
        failed = failed or status >= 300
        answers[one["referenceId"]] = told if status < 300 else None
        responses.append(
            {"body": told, "httpHeaders": {}, "httpStatusCode": status, "referenceId": one["referenceId"]}
        )
    if failed and before is not None:
        org.crm.restore(before)
        for response in responses:
            if response["httpStatusCode"] < 300:
                response |= {"body": [_halted()], "httpStatusCode": 400}
    return JSONResponse({"compositeResponse": responses})


def _halted() -> dict[str, str]:
    return {
        "errorCode": "PROCESSING_HALTED",
        "message": "The transaction was rolled back since another operation in the same transaction failed.",
    }


def _subrequest(
    org: SalesforceApi, call: Call, one: dict[str, Any], answers: dict[str, Any]
) -> tuple[int, Any]:
    try:
        url = urlsplit(_filled(str(one.get("url")), answers))
        body = _filled(one.get("body"), answers)
    except LookupError as error:
        return 400, [{"errorCode": "PROCESSING_HALTED", "message": f"Invalid reference specified: {error}"}]
    if not url.path.startswith("/services/data/") or url.path.rstrip("/").endswith("/composite"):
        return 400, [
            {"errorCode": "INVALID_INPUT", "message": "a subrequest's url begins with /services/data/vXX.X/"}
        ]
    headers = one.get("httpHeaders") or {}
    if not isinstance(headers, dict) or not all(
        f"{name}{value}".isascii() for name, value in headers.items()
    ):
        return 400, [{"errorCode": "INVALID_INPUT", "message": "httpHeaders must be an object of texts"}]
    inner = Call(
        str(one.get("method")).upper(),
        url.path,
        QueryParams(parse_qsl(url.query)),
        Headers(dict(call.headers) | {name.lower(): str(value) for name, value in headers.items()}),
        json.dumps(body).encode() if body is not None else b"",
        call.prefix,
    )
    response = org.sub_answer(inner)
    text = bytes(response.body)
    return response.status_code, json.loads(text) if text else None


def _filled(value: Any, answers: dict[str, Any]) -> Any:
    """`@{name.path}` replaced by what that subrequest answered; raises LookupError."""
    if isinstance(value, dict):
        return {name: _filled(inner, answers) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, answers) for inner in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"@\{([^}]+)\}", lambda match: str(_looked_up(match[1], answers)), value)


def _looked_up(path: str, answers: dict[str, Any]) -> Any:
    name, *steps = re.findall(r"\w+", path)
    found: Any = answers.get(name)
    for step in steps:
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (TypeError, ValueError, IndexError, KeyError):
            raise LookupError(path) from None
    if found is None:
        raise LookupError(path)
    return found


def _type(org: SalesforceApi, record: dict[str, Any]) -> SObjectType:
    attributes = record.get("attributes")
    name = attributes.get("type") if isinstance(attributes, dict) else None
    found = org.crm.types.get(str(name))
    if found is None:
        raise RecordRefusal("INVALID_TYPE", f"sObject type '{name}' is not supported.")
    return found
