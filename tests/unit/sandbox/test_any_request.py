"""Mock providers handle any request: malformed input never causes a server error."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers, QueryParams

from bridge.clock import Clock
from bridge.sandbox.faults import Faults
from bridge.sandbox.heppu import Heppu
from bridge.sandbox.heppu_requests import API_KEY
from bridge.sandbox.hubspot.account import ACCESS_TOKEN, HubSpot
from bridge.sandbox.pipedrive.account import API_TOKEN, Pipedrive
from bridge.sandbox.provider import MockProvider, ProviderRequest
from bridge.sandbox.salesforce.org import CONSUMER_KEY, CONSUMER_SECRET, Salesforce
from bridge.sandbox.slack import Slack
from bridge.sandbox.twilio.account import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    NUMBER,
    SERVICE_SID,
    WHATSAPP_NUMBER,
    Twilio,
)
from bridge.sandbox.twilio.templates import MISSED_CALL

WORDS = st.sampled_from(
    [
        "properties inputs id idProperty associations to types associationTypeId associationCategory filterGroups",
        "filters propertyName operator value values highValue sorts query limit after records attributes allOrNone",
        "compositeRequest method url body referenceId email phone hs_timestamp conversation_id contacts calls 194 EQ",
        "HUBSPOT_DEFINED Contact Task LastName Conversation_Id__c WhoId Status Completed 51001 name label fieldType",
        "string text groupName call hasUniqueValue agentId contactPhone scheduledAt priority metadata events secret",
        "blocks attachments channel payload @{a.b} /services/data/v66.0/sobjects/Task POST 2026-03-02 +12125550123",
    ]
).flatmap(lambda line: st.sampled_from(line.split()))
SCALARS = st.one_of(
    WORDS, st.text(max_size=8), st.integers(), st.floats(allow_nan=False), st.booleans(), st.none()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(WORDS, st.text(max_size=5)), inner, max_size=4)
    ),
    max_leaves=12,
)
NUMBERS = st.sampled_from(["", "0", "-1", "1.5", "x", "٣", "9" * 5000, "1e9", " 7"])

VALID_REQUESTS: dict[str, list[tuple[str, str, Any]]] = {
    "pipedrive": [
        (
            "POST",
            "/api/v2/persons",
            {"name": "Maya", "emails": [{"value": "a@b.co", "primary": True}], "custom_fields": {}},
        ),
        ("POST", "/api/v2/deals", {"title": "Fleet", "stage_id": 11, "value": 5, "currency": "EUR"}),
        (
            "POST",
            "/api/v2/activities",
            {
                "subject": "A",
                "type": "call",
                "participants": [{"person_id": 1, "primary": True}],
                "note": "x",
            },
        ),
        ("PATCH", "/api/v2/persons/1", {"phones": [{"value": "1"}], "owner_id": 1201}),
        ("POST", "/api/v2/dealFields", {"field_name": "Plan", "field_type": "varchar"}),
    ],
    "hubspot": [
        ("POST", "/crm/objects/2026-03/contacts", {"properties": {"email": "a@b.co"}, "associations": []}),
        ("PATCH", "/crm/objects/2026-03/contacts/51001", {"properties": {"city": "Oslo"}}),
        ("POST", "/crm/objects/2026-03/calls", {"properties": {"hs_timestamp": "2026-03-02T00:00:00Z"}}),
        (
            "POST",
            "/crm/objects/2026-03/contacts/merge",
            {"primaryObjectId": "51001", "objectIdToMerge": "51001"},
        ),
        ("POST", "/crm/objects/2026-03/calls/batch/upsert", {"inputs": [{"id": "1", "properties": {}}]}),
        ("POST", "/crm/objects/2026-03/contacts/batch/create", {"inputs": [{"properties": {}}]}),
        ("POST", "/communication-preferences/2026-03/statuses/a@b.co/unsubscribe-all", {}),
        (
            "POST",
            "/crm/objects/2026-03/contacts/batch/read",
            {"inputs": [{"id": "51001"}], "properties": ["email"]},
        ),
        (
            "POST",
            "/crm/objects/2026-03/contacts/search",
            {
                "filterGroups": [{"filters": [{"propertyName": "email", "operator": "EQ", "value": "a"}]}],
                "sorts": ["email"],
                "limit": 5,
                "after": "0",
                "properties": ["phone"],
            },
        ),
        ("PUT", "/crm/objects/2026-03/calls/51001/associations/contacts/51001", [{"associationTypeId": 194}]),
        (
            "POST",
            "/crm/associations/2026-03/calls/contacts/batch/associate/default",
            {"inputs": [{"from": {"id": "1"}, "to": {"id": "2"}}]},
        ),
        ("POST", "/crm/associations/2026-03/contacts/calls/batch/read", {"inputs": [{"id": "51001"}]}),
        (
            "POST",
            "/crm/properties/2026-03/calls",
            {
                "name": "x",
                "label": "x",
                "type": "string",
                "fieldType": "text",
                "groupName": "call",
                "options": [],
            },
        ),
        ("POST", "/oauth/v2/private-apps/get/access-token-info", {"tokenKey": "x"}),
    ],
    "salesforce": [
        ("POST", "/services/data/v66.0/sobjects/Contact", {"LastName": "Okafor", "Email": "a@b.co"}),
        ("PATCH", "/services/data/v66.0/sobjects/Task/Conversation_Id__c/c1", {"Subject": "x"}),
        (
            "PATCH",
            "/services/data/v66.0/composite/sobjects/Task/Conversation_Id__c",
            {"records": [{"attributes": {"type": "Task"}, "Conversation_Id__c": "c1"}]},
        ),
        (
            "PATCH",
            "/services/data/v66.0/composite/sobjects",
            {"allOrNone": True, "records": [{"attributes": {"type": "Task"}, "id": "x"}]},
        ),
        (
            "POST",
            "/services/data/v66.0/composite",
            {
                "allOrNone": False,
                "compositeRequest": [
                    {
                        "method": "POST",
                        "url": "/services/data/v66.0/sobjects/Task",
                        "referenceId": "a",
                        "body": {"Subject": "x"},
                        "httpHeaders": {"x": "y"},
                    }
                ],
            },
        ),
    ],
    "heppu": [
        (
            "POST",
            "/api/v1/calls/schedule",
            {
                "agentId": "3f0c6f0e-8a57-4a53-9c7e-5b2b7c1f6a10",
                "contactPhone": "+12125550123",
                "scheduledAt": "2026-03-02T00:00:00Z",
                "priority": 5,
                "metadata": {},
            },
        ),
        ("POST", "/api/v1/webhooks", {"url": "https://a.example/", "events": ["call.busy"], "secret": "x"}),
    ],
    "slack": [
        ("POST", Slack(Clock(), Faults()).webhook_path, {"text": "x", "blocks": [{"type": "divider"}]})
    ],
}
QUERY_REQUESTS = [
    (
        "hubspot",
        "/crm/objects/2026-03/contacts",
        ("limit", "after", "properties", "associations", "idProperty"),
    ),
    ("hubspot", "/crm/objects/2026-03/contacts/51001", ("idProperty", "properties", "associations")),
    ("hubspot", "/crm/owners/2026-03", ("email",)),
    ("pipedrive", "/api/v2/persons/search", ("term", "fields", "exact_match", "limit", "cursor")),
    (
        "pipedrive",
        "/api/v2/activities",
        (
            "ids",
            "person_id",
            "done",
            "updated_since",
            "sort_by",
            "sort_direction",
            "limit",
            "cursor",
            "filter_id",
        ),
    ),
    ("salesforce", "/services/data/v66.0/query/", ("q",)),
    ("salesforce", "/services/data/v66.0/query/01g-2000", ("q",)),
    ("salesforce", "/services/data/v66.0/search/", ("q",)),
    ("salesforce", "/services/data/v66.0/sobjects/Contact/0035g000000000A", ("fields",)),
    ("heppu", "/api/v1/calls", ("limit", "offset", "startDate", "agentId", "status", "sortBy", "direction")),
    ("heppu", "/api/v1/agents", ("limit", "type")),
    (
        "twilio",
        f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json",
        ("PageSize", "Page", "PageToken", "DateSent<"),
    ),
    ("twilio", "/v2/Content", ("ContentName", "Language")),
    ("twilio", "/v2/Channels/Senders", ("Channel",)),
]


def new_providers() -> tuple[dict[str, MockProvider], dict[str, str]]:
    """Return new providers and an Authorization header for each."""
    clock, faults = Clock(), Faults()
    providers = [
        provider_class(clock, faults)
        for provider_class in (HubSpot, Salesforce, Pipedrive, Twilio, Slack, Heppu)
    ]
    by_name: dict[str, MockProvider] = {provider.name: provider for provider in providers}
    basic = base64.b64encode(f"{ACCOUNT_SID}:{AUTH_TOKEN}".encode()).decode()
    client = base64.b64encode(f"{CONSUMER_KEY}:{CONSUMER_SECRET}".encode()).decode()
    login = build_request(
        "POST", "/services/oauth2/token", f"Basic {client}", b"grant_type=client_credentials"
    )
    token = json.loads(bytes(by_name["salesforce"].handle(login).body))["access_token"]
    return by_name, {
        "hubspot": f"Bearer {ACCESS_TOKEN}",
        "salesforce": f"Bearer {token}",
        "twilio": f"Basic {basic}",
        "heppu": f"Bearer {API_KEY}",
        "pipedrive": "",
        "slack": "",
    }


def build_request(
    method: str, path: str, authorization: str, body: bytes = b"", query: str = ""
) -> ProviderRequest:
    headers = {"authorization": authorization}
    if path.startswith("/api/v2/"):
        headers |= {"x-api-token": API_TOKEN, "content-type": "application/json"}
    return ProviderRequest(method, path, QueryParams(query), Headers(headers), body)


PROVIDERS, AUTHORIZATIONS = new_providers()


def check_handled(provider: str, method: str, path: str, body: bytes = b"", query: str = "") -> None:
    response = PROVIDERS[provider].handle(build_request(method, path, AUTHORIZATIONS[provider], body, query))
    assert response.status_code < 500
    assert response.status_code not in (401, 403, 405)


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """Return `value` with one part replaced by an arbitrary value."""
    if draw(st.integers(0, 3)) == 0 or not value or not isinstance(value, dict | list):
        return draw(VALUES)
    copy = value.copy()
    keys = list(copy) if isinstance(copy, dict) else list(range(len(copy)))
    key = draw(st.sampled_from(keys))
    copy[key] = draw(mutated(copy[key]))
    if isinstance(copy, dict) and draw(st.booleans()):
        copy[draw(st.one_of(WORDS, st.text(max_size=5)))] = draw(VALUES)
    return copy


@pytest.mark.parametrize(
    ("provider", "method", "path", "valid_body"),
    [(provider, *request) for provider, requests in VALID_REQUESTS.items() for request in requests],
)
@given(st.data())
def test_any_body_is_handled(
    provider: str, method: str, path: str, valid_body: Any, data: st.DataObject
) -> None:
    body = data.draw(mutated(valid_body))
    check_handled(provider, method, path, json.dumps(body).encode())


@pytest.mark.parametrize(("provider", "path", "names"), QUERY_REQUESTS)
@given(st.data())
def test_any_query_is_handled(provider: str, path: str, names: tuple[str, ...], data: st.DataObject) -> None:
    query = data.draw(
        st.dictionaries(st.sampled_from(names), st.one_of(NUMBERS, WORDS, st.text(max_size=20)), max_size=3)
    )
    check_handled(provider, "GET", path, query=urlencode(query, errors="replace"))


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "To",
                "From",
                "Body",
                "ValidityPeriod",
                "StatusCallback",
                "SendAt",
                "ScheduleType",
                "MessagingServiceSid",
                "ContentSid",
                "ContentVariables",
            ]
        ),
        st.one_of(
            NUMBERS,
            st.text(max_size=20),
            st.sampled_from(["+14155550188", NUMBER, SERVICE_SID, "fixed", "2026-01-01", "http://[", "true"]),
            st.sampled_from(
                [
                    "whatsapp:+14155550188",
                    f"whatsapp:{WHATSAPP_NUMBER}",
                    MISSED_CALL.sid,
                    '{"1": "Ines"}',
                    "[" * 5000,
                ]
            ),
        ),
    )
)
def test_any_message_is_handled(form: dict[str, str]) -> None:
    body = urlencode(form, errors="replace").encode()
    check_handled("twilio", "POST", f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json", body)


@pytest.mark.parametrize("number", ["LIMIT 1.5", "LIMIT -1", "LIMIT " + "9" * 5000, "OFFSET 1.5"])
def test_invalid_query_limit_is_rejected(number: str) -> None:
    query = urlencode({"q": f"SELECT Id FROM Contact {number}"})
    authorization = AUTHORIZATIONS["salesforce"]
    response = PROVIDERS["salesforce"].handle(
        build_request("GET", "/services/data/v66.0/query/", authorization, query=query)
    )
    assert response.status_code == 400
