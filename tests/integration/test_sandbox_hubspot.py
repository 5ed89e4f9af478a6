"""Mock HubSpot, driven by HubSpot's own client: accepted requests and error responses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hubspot import HubSpot
from hubspot.crm.association_type import AssociationType
from hubspot.crm.contacts.models import BatchResponseSimplePublicObjectWithErrors, Filter
from hubspot.crm.objects.calls.models import BatchResponseSimplePublicUpsertObjectWithErrors
from hubspot.crm.properties.models import PropertyCreate
from urllib3.util.retry import Retry

from bridge.sandbox import RunningSandbox
from bridge.sandbox.hubspot.associations import ASSOCIATIONS
from bridge.sandbox.hubspot.schema import DISPOSITIONS, default_object_types

WHEN = "2026-03-02T21:30:00Z"
CONVERSATION = {
    "name": "conversation_id",
    "label": "Conversation",
    "type": "string",
    "fieldType": "text",
    "groupName": "call",
    "hasUniqueValue": True,
}


@pytest.fixture
def client(sandbox: RunningSandbox) -> Any:
    env = sandbox.environment
    return HubSpot(access_token=env["HUBSPOT_ACCESS_TOKEN"], host=env["HUBSPOT_URL"], retry=Retry(0))


@pytest.fixture
def contacts(client: Any) -> Any:
    return client.crm.contacts


@pytest.fixture
def calls(client: Any) -> Any:
    return client.crm.objects.calls


def api_error(request: Callable[[], Any]) -> tuple[int, dict[str, Any]]:
    """Return the status and body of the client's exception. Every package has its own exception class."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        request()
    assert hasattr(caught.value, "status"), repr(caught.value)
    return caught.value.status, json.loads(caught.value.body)


def link(contact_id: str, type_id: int = 194) -> list[dict[str, Any]]:
    types = [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": type_id}]
    return [{"to": {"id": contact_id}, "types": types}]


def create(api: Any, properties: dict[str, Any], associations: Any = None) -> Any:
    body: dict[str, Any] = {"properties": properties}
    if associations is not None:
        body["associations"] = associations
    return api.basic_api.create(body, _request_timeout=5)


# Agreement with HubSpot's own client


def test_association_types_match_the_client() -> None:
    client_types = {
        tuple(name.removeprefix("PRIMARY_").split("_TO_")): number
        for name, number in vars(AssociationType).items()
        if isinstance(number, int)
    }
    names = {
        object_type.name: object_type.singular.upper() for object_type in default_object_types().values()
    }
    for (start, end), number in ASSOCIATIONS.items():
        if "communications" in (start, end):  # absent from the client's table
            continue
        assert getattr(AssociationType, f"{names[start]}_TO_{names[end]}") == number
        assert (names[start], names[end]) in client_types


def test_search_operators_and_property_types_match_the_client(contacts: Any, client: Any) -> None:
    for operator in ("EQ", "NEQ", "LT", "LTE", "GT", "GTE", "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"):
        Filter(property_name="phone", operator=operator, value="1")
        response = contacts.search_api.do_search(
            {"filterGroups": [{"filters": [{"propertyName": "phone", "operator": operator, "value": "1"}]}]}
        )
        assert response.total == 0
    for property_type in ("string", "number", "date", "datetime"):
        name = f"of_type_{property_type}"
        PropertyCreate(
            name=name, label="x", type=property_type, field_type="text", group_name="contactinformation"
        )
        created = client.crm.properties.core_api.create(
            "contacts",
            {
                "name": name,
                "label": "x",
                "type": property_type,
                "fieldType": "text",
                "groupName": "contactinformation",
            },
        )
        assert created.type == property_type


# Authentication


def test_invalid_and_missing_token_return_401(sandbox: RunningSandbox) -> None:
    invalid_client = HubSpot(
        access_token="pat-wrong", host=sandbox.environment["HUBSPOT_URL"], retry=Retry(0)
    )
    status, body = api_error(lambda: invalid_client.crm.contacts.basic_api.get_page())
    assert (status, body["category"]) == (401, "EXPIRED_AUTHENTICATION")
    response = httpx.get(sandbox.environment["HUBSPOT_URL"] + "/crm/objects/2026-03/contacts")
    assert (response.status_code, response.json()["category"]) == (401, "INVALID_AUTHENTICATION")


def test_missing_scope_returns_403_with_its_name(sandbox: RunningSandbox, contacts: Any, calls: Any) -> None:
    sandbox.hubspot.missing_scopes.add("crm.objects.contacts.write")
    status, body = api_error(lambda: create(calls, {"hs_timestamp": WHEN}))
    assert (status, body["category"]) == (403, "MISSING_SCOPES")
    assert body["errors"][0]["context"]["requiredGranularScopes"] == ["crm.objects.contacts.write"]
    assert contacts.search_api.do_search({}).total == 0, "reading requires a different scope"


def test_account_details_usage_and_scopes_are_readable(sandbox: RunningSandbox) -> None:
    url, token = sandbox.environment["HUBSPOT_URL"], sandbox.environment["HUBSPOT_ACCESS_TOKEN"]
    headers = {"authorization": f"Bearer {token}"}
    details = httpx.get(url + "/account-info/v3/details", headers=headers).json()
    assert details["timeZone"] == "US/Eastern"
    usage = httpx.get(url + "/account-info/v3/api-usage/daily/private-apps", headers=headers).json()
    assert usage["results"][0]["currentUsage"] == 2
    sandbox.hubspot.is_private_app = True
    scopes = httpx.post(
        url + "/oauth/v2/private-apps/get/access-token-info", json={"tokenKey": token}, headers=headers
    ).json()["scopes"]
    assert "tickets" in scopes


# Contacts


def test_contact_is_read_by_id_by_email_and_in_batch(contacts: Any) -> None:
    created = create(contacts, {"email": "Ines+a@Example.com", "firstname": "Ines", "phone": "+12125550123"})
    assert created.properties["email"] == "ines+a@example.com"
    by_email = contacts.basic_api.get_by_id("INES+a@example.com", id_property="email", properties=["phone"])
    assert (by_email.id, by_email.properties["phone"]) == (created.id, "+12125550123")
    assert "firstname" not in by_email.properties, "only the requested properties"
    by_id = contacts.basic_api.get_by_id(created.id)
    assert by_id.properties["firstname"] == "Ines"
    assert "phone" not in by_id.properties, "not one of the default properties"
    response = contacts.batch_api.read(
        {
            "idProperty": "email",
            "properties": ["firstname"],
            "propertiesWithHistory": [],
            "inputs": [{"id": "ines+a@example.com"}, {"id": "nobody@example.com"}],
        }
    )
    assert isinstance(response, BatchResponseSimplePublicObjectWithErrors)
    assert ([result.id for result in response.results], response.num_errors) == ([created.id], 1)
    assert response.errors[0].category == "OBJECT_NOT_FOUND"
    assert response.errors[0].context == {"ids": ["nobody@example.com"]}


def test_unknown_contact_returns_404(contacts: Any) -> None:
    status, body = api_error(lambda: contacts.basic_api.get_by_id("no@example.com", id_property="email"))
    assert (status, body["category"]) == (404, "OBJECT_NOT_FOUND")
    assert api_error(lambda: contacts.basic_api.get_by_id("51999"))[0] == 404
    assert api_error(lambda: contacts.basic_api.update("51999", {"properties": {"city": "Oslo"}}))[0] == 404


def test_duplicate_email_returns_409(sandbox: RunningSandbox, contacts: Any) -> None:
    first = create(contacts, {"email": "ines@example.com"})
    status, body = api_error(lambda: create(contacts, {"email": "INES@example.com"}))
    assert (status, body["category"]) == (409, "CONFLICT")
    assert body["message"] == f"Contact already exists. Existing ID: {first.id}"
    other = create(contacts, {"firstname": "No email"})
    update = {"properties": {"email": "ines@example.com"}}
    assert api_error(lambda: contacts.basic_api.update(other.id, update))[0] == 409
    contacts.basic_api.update(first.id, {"properties": {"email": "new@example.com"}})
    create(contacts, {"email": "ines@example.com"})
    assert len(sandbox.hubspot.contacts) == 3


def test_every_invalid_property_is_listed(contacts: Any) -> None:
    properties = {
        "fristname": "Ines",
        "email": "no address",
        "lifecyclestage": "LEAD",
        "hs_object_id": "7",
        "hubspot_owner_id": "1",
    }
    status, body = api_error(lambda: create(contacts, properties))
    assert (status, body["category"]) == (400, "VALIDATION_ERROR")
    assert {error["context"]["propertyName"][0]: error["code"] for error in body["errors"]} == {
        "fristname": "PROPERTY_DOESNT_EXIST",
        "email": "INVALID_EMAIL",
        "lifecyclestage": "INVALID_OPTION",
        "hs_object_id": "READ_ONLY_VALUE",
        "hubspot_owner_id": "INVALID_OWNER_ID",
    }
    assert body["message"].startswith("Property values were not valid: [")


@pytest.mark.parametrize("value", [125000, True, None, ["x"], {"a": "b"}])
def test_non_string_property_value_is_rejected(sandbox: RunningSandbox, calls: Any, value: Any) -> None:
    properties = {"hs_timestamp": WHEN, "hs_call_duration": value}
    status, body = api_error(lambda: create(calls, properties))
    assert (status, body["category"]) == (400, "VALIDATION_ERROR")
    assert sandbox.hubspot.calls == []


def test_empty_value_clears_property(sandbox: RunningSandbox, contacts: Any) -> None:
    created = create(contacts, {"email": "ines@example.com", "city": "Oslo"})
    contacts.basic_api.update(created.id, {"properties": {"city": ""}})
    assert "city" not in sandbox.hubspot.contacts[0].properties


def test_lifecycle_stage_only_advances(sandbox: RunningSandbox, contacts: Any) -> None:
    created = create(contacts, {"email": "ines@example.com", "lifecyclestage": "customer"})

    def stage_after_update(stage: str) -> str | None:
        contacts.basic_api.update(created.id, {"properties": {"lifecyclestage": stage, "city": "Oslo"}})
        return sandbox.hubspot.contacts[0].properties.get("lifecyclestage")

    assert stage_after_update("lead") == "customer", "silently ignored"
    assert stage_after_update("evangelist") == "evangelist"
    assert stage_after_update("") is None
    assert stage_after_update("lead") == "lead"


def test_deleted_contact_returns_404_and_releases_email(sandbox: RunningSandbox, contacts: Any) -> None:
    created = create(contacts, {"email": "ines@example.com"})
    contacts.basic_api.archive(created.id)
    assert api_error(lambda: contacts.basic_api.get_by_id(created.id))[0] == 404
    assert (
        api_error(lambda: contacts.basic_api.update(created.id, {"properties": {"city": "Oslo"}}))[0] == 404
    )
    assert create(contacts, {"email": "ines@example.com"}).id != created.id
    sandbox.hubspot.delete("contacts", sandbox.hubspot.contacts[0].id)
    assert sandbox.hubspot.contacts == []


def test_merged_contact_resolves_both_ids(sandbox: RunningSandbox, contacts: Any, calls: Any) -> None:
    winner = create(contacts, {"email": "ines@example.com"})
    other = create(contacts, {"phone": "+12125550123", "email": "old@example.com"})
    call = create(calls, {"hs_timestamp": WHEN}, link(other.id))
    contacts.basic_api.merge({"primaryObjectId": winner.id, "objectIdToMerge": other.id})
    merged = contacts.basic_api.get_by_id(other.id, properties=["phone", "email"])
    assert merged.id == winner.id
    assert merged.properties["phone"] == "+12125550123"
    assert merged.properties["email"] == "ines@example.com"
    assert sandbox.hubspot.associated("calls", call.id, "contacts") == [winner.id]
    later_call = create(calls, {"hs_timestamp": WHEN}, link(other.id))
    assert sandbox.hubspot.associated("calls", later_call.id, "contacts") == [winner.id]


# Calls


def test_call_is_created_with_association(sandbox: RunningSandbox, contacts: Any, calls: Any) -> None:
    contact = create(contacts, {"email": "ines@example.com"})
    connected = next(iter(DISPOSITIONS))
    created = create(
        calls,
        {
            "hs_timestamp": "1772487000000",
            "hs_call_duration": "125000",
            "hs_call_direction": "INBOUND",
            "hs_call_status": "COMPLETED",
            "hs_call_disposition": connected,
            "hs_call_title": "Call with Ines",
            "hs_call_body": "Asked about the order",
            "hs_call_from_number": "+12125550123",
            "hs_call_to_number": "+12125550100",
        },
        link(contact.id),
    )
    assert created.properties["hs_timestamp"] == "2026-03-02T21:30:00.000Z"
    assert sandbox.hubspot.associated("contacts", contact.id, "calls") == [created.id]
    read = calls.basic_api.get_by_id(created.id, associations=["contacts"])
    assert [item.id for item in read.associations["contacts"].results] == [contact.id]
    associations = {(item.from_type, item.to_type, item.type_id) for item in sandbox.hubspot.associations}
    assert associations == {("calls", "contacts", 194), ("contacts", "calls", 193)}


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("hs_timestamp", "yesterday", "INVALID_DATE"),
        ("hs_timestamp", "2026-03-02T21:30:00", "INVALID_DATE"),
        ("hs_call_duration", "125.5", "INVALID_LONG"),
        ("hs_call_duration", "2 minutes", "INVALID_LONG"),
        ("hs_call_direction", "inbound", "INVALID_OPTION"),
        ("hs_call_status", "NO-ANSWER", "INVALID_OPTION"),
        ("hs_call_disposition", "Connected", "INVALID_OPTION"),
        ("hs_call_recording_url", "http://example.com/a.mp3", "INVALID_URL"),
        ("hs_call_body", "x" * 65_537, "EXCEEDED_MAX_LENGTH"),
    ],
)
def test_invalid_call_property_is_rejected(
    sandbox: RunningSandbox, calls: Any, name: str, value: str, code: str
) -> None:
    status, body = api_error(lambda: create(calls, {"hs_timestamp": WHEN, name: value}))
    assert (status, body["errors"][0]["code"]) == (400, code)
    assert sandbox.hubspot.calls == []


def test_call_without_timestamp_is_rejected(calls: Any) -> None:
    status, body = api_error(lambda: create(calls, {"hs_call_title": "x"}))
    assert (status, body["context"]) == (400, {"properties": ["hs_timestamp"]})


@pytest.mark.parametrize("type_id", [193, 202, 1, 99999])
def test_association_type_of_other_direction_or_objects_is_rejected(
    sandbox: RunningSandbox, contacts: Any, calls: Any, type_id: int
) -> None:
    contact = create(contacts, {"email": "ines@example.com"})
    status, _ = api_error(lambda: create(calls, {"hs_timestamp": WHEN}, link(contact.id, type_id)))
    assert status == 400
    assert sandbox.hubspot.calls == []


def test_association_with_unknown_object_is_rejected(
    sandbox: RunningSandbox, client: Any, calls: Any
) -> None:
    assert api_error(lambda: create(calls, {"hs_timestamp": WHEN}, link("51999")))[0] == 400
    assert sandbox.hubspot.calls == []
    call = create(calls, {"hs_timestamp": WHEN})
    api = client.crm.associations.v4.basic_api
    assert api_error(lambda: api.create_default("calls", call.id, "contacts", "51999"))[0] == 404


def test_default_association_is_idempotent(
    sandbox: RunningSandbox, client: Any, contacts: Any, calls: Any
) -> None:
    contact = create(contacts, {"email": "ines@example.com"})
    call = create(calls, {"hs_timestamp": WHEN})
    for _ in range(2):
        response = client.crm.associations.v4.basic_api.create_default(
            "calls", call.id, "contacts", contact.id
        )
        assert response.results[0].association_spec.association_type_id == 194
    assert sandbox.hubspot.associated("calls", call.id, "contacts") == [contact.id]
    page = client.crm.associations.v4.basic_api.get_page("contacts", contact.id, "calls")
    assert [item.to_object_id for item in page.results] == [call.id]
    client.crm.associations.v4.basic_api.archive("calls", call.id, "contacts", contact.id)
    assert sandbox.hubspot.associations == []


def test_association_batch_reports_missing_objects(
    sandbox: RunningSandbox, client: Any, contacts: Any, calls: Any
) -> None:
    contact = create(contacts, {"email": "ines@example.com"})
    first, second = (create(calls, {"hs_timestamp": WHEN}) for _ in range(2))
    inputs = [
        {"from": {"id": first.id}, "to": {"id": contact.id}},
        {"from": {"id": second.id}, "to": {"id": "51999"}},
    ]
    response = client.crm.associations.v4.batch_api.create_default("calls", "contacts", {"inputs": inputs})
    assert (len(response.results), response.num_errors) == (1, 1)
    assert sandbox.hubspot.associated("contacts", contact.id, "calls") == [first.id]


# Custom unique properties


def test_upsert_by_unique_property_is_idempotent(sandbox: RunningSandbox, client: Any, calls: Any) -> None:
    client.crm.properties.core_api.create("calls", CONVERSATION)
    definition = client.crm.properties.core_api.get_by_name("calls", "conversation_id")
    assert definition.has_unique_value is True
    assert api_error(lambda: client.crm.properties.core_api.create("calls", CONVERSATION))[0] == 409

    def upsert(title: str) -> Any:
        properties = {"hs_timestamp": WHEN, "hs_call_title": title}
        batch_input = {"id": "conv_1", "idProperty": "conversation_id", "properties": properties}
        return calls.batch_api.upsert({"inputs": [batch_input]}).results[0]

    first, second = upsert("first"), upsert("second")
    assert (first.new, second.new, second.id) == (True, False, first.id)
    assert [call.properties["hs_call_title"] for call in sandbox.hubspot.calls] == ["second"]
    assert sandbox.hubspot.calls[0].properties["conversation_id"] == "conv_1"
    assert calls.basic_api.get_by_id("conv_1", id_property="conversation_id").id == first.id
    duplicate = {"hs_timestamp": WHEN, "conversation_id": "conv_1"}
    status, body = api_error(lambda: create(calls, duplicate))
    assert (status, body["errors"][0]["code"]) == (400, "CONFLICTING_UNIQUE_VALUE")
    assert f"{first.id} already has that value." in body["errors"][0]["message"]


def test_upsert_by_non_unique_property_is_rejected(calls: Any) -> None:
    batch_input = {"id": "x", "idProperty": "hs_call_title", "properties": {"hs_timestamp": WHEN}}
    status, body = api_error(lambda: calls.batch_api.upsert({"inputs": [batch_input]}))
    assert (status, body["category"]) == (400, "VALIDATION_ERROR")


def test_batch_with_invalid_input_is_rejected_entirely(
    sandbox: RunningSandbox, client: Any, calls: Any
) -> None:
    client.crm.properties.core_api.create("calls", CONVERSATION)

    def batch_input(identifier: str, **properties: str) -> dict[str, Any]:
        return {
            "id": identifier,
            "idProperty": "conversation_id",
            "properties": {"hs_timestamp": WHEN} | properties,
        }

    valid = [batch_input(f"conv_{number}") for number in range(101)]
    for inputs in (
        valid,
        [batch_input("a"), batch_input("a")],
        [batch_input("a"), batch_input("b", hs_call_status="DONE")],
        [batch_input("a"), batch_input("b") | {"associations": []}],
        [],
    ):
        status, _ = api_error(lambda inputs=inputs: calls.batch_api.upsert({"inputs": inputs}))
        assert status == 400
    assert sandbox.hubspot.calls == []
    assert len(calls.batch_api.upsert({"inputs": valid[:100]}).results) == 100


def test_upsert_batch_reports_incomplete_new_objects(
    sandbox: RunningSandbox, client: Any, calls: Any
) -> None:
    client.crm.properties.core_api.create("calls", CONVERSATION)
    inputs = [
        {"id": "conv_1", "idProperty": "conversation_id", "properties": {"hs_timestamp": WHEN}},
        {"id": "conv_2", "idProperty": "conversation_id", "properties": {"hs_call_title": "no time"}},
    ]
    response = calls.batch_api.upsert({"inputs": inputs})
    assert isinstance(response, BatchResponseSimplePublicUpsertObjectWithErrors)
    assert (len(response.results), response.num_errors) == (1, 1)
    assert response.errors[0].context == {"ids": ["conv_2"]}
    assert len(sandbox.hubspot.calls) == 1


def test_create_batch_is_all_or_nothing(sandbox: RunningSandbox, contacts: Any) -> None:
    create(contacts, {"email": "ines@example.com"})
    inputs = [
        {"properties": {"email": address}, "associations": []} for address in ("a@b.co", "ines@example.com")
    ]
    assert api_error(lambda: contacts.batch_api.create({"inputs": inputs}))[0] == 409
    duplicates = [{"properties": {"email": "c@b.co"}, "associations": []}] * 2
    assert api_error(lambda: contacts.batch_api.create({"inputs": duplicates}))[0] == 400
    assert len(sandbox.hubspot.contacts) == 1
    assert len(contacts.batch_api.create({"inputs": inputs[:1]}).results) == 1


def test_create_batch_with_trace_ids_succeeds_partially(sandbox: RunningSandbox, contacts: Any) -> None:
    create(contacts, {"email": "ines@example.com"})
    inputs = [
        {"properties": {"email": address}, "associations": [], "objectWriteTraceId": f"t{number}"}
        for number, address in enumerate(("a@b.co", "ines@example.com", "no address"))
    ]
    response = contacts.batch_api.create({"inputs": inputs})
    assert (len(response.results), response.num_errors) == (1, 2)
    assert [(error.category, error.context) for error in response.errors] == [
        ("CONFLICT", {"objectWriteTraceId": ["t1"]}),
        ("VALIDATION_ERROR", {"objectWriteTraceId": ["t2"]}),
    ]
    assert len(sandbox.hubspot.contacts) == 2


def test_update_batch_reports_missing_objects(sandbox: RunningSandbox, contacts: Any) -> None:
    created = create(contacts, {"email": "ines@example.com"})
    response = contacts.batch_api.update(
        {
            "inputs": [
                {"id": created.id, "properties": {"city": "Oslo"}},
                {"id": "51999", "properties": {"city": "Oslo"}},
            ]
        }
    )
    assert ([item.id for item in response.results], response.num_errors) == ([created.id], 1)
    assert sandbox.hubspot.contacts[0].properties["city"] == "Oslo"
    contacts.batch_api.archive({"inputs": [{"id": created.id}]})
    assert sandbox.hubspot.contacts == []


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Conversation"},
        {"name": "hs_mine"},
        {"groupName": "nowhere"},
        {"type": "text"},
        {"type": "datetime", "fieldType": "date"},
        {"label": ""},
        {"unknown": 1},
    ],
)
def test_invalid_property_definition_is_rejected(client: Any, change: dict[str, Any]) -> None:
    api = client.crm.properties.core_api
    assert api_error(lambda: api.create("calls", CONVERSATION | change))[0] == 400


def test_eleventh_unique_property_is_rejected(client: Any) -> None:
    api = client.crm.properties.core_api
    for number in range(10):
        api.create("calls", CONVERSATION | {"name": f"unique_{number}"})
    assert api_error(lambda: api.create("calls", CONVERSATION))[0] == 400
    api.archive("calls", "unique_0")
    api.create("calls", CONVERSATION)


# Search


def by_phone(digits: str, name: str = "hs_searchable_calculated_phone_number") -> dict[str, Any]:
    search_filter = {"propertyName": name, "operator": "EQ", "value": digits}
    return {"filterGroups": [{"filters": [search_filter]}], "properties": ["phone"]}


@pytest.mark.parametrize("phone", ["+12125550123", "(212) 555-0123", "212.555.0123", "1 212 555 0123"])
def test_phone_search_uses_national_number(contacts: Any, phone: str) -> None:
    created = create(contacts, {"phone": phone})
    response = contacts.search_api.do_search(by_phone("2125550123"))
    assert [item.id for item in response.results] == [created.id]
    assert response.results[0].properties["phone"] == phone
    assert contacts.search_api.do_search(by_phone("12125550123")).total == 0
    assert contacts.search_api.do_search(by_phone("+12125550123")).total == 0


def test_mobile_number_has_separate_search_property(contacts: Any) -> None:
    create(contacts, {"mobilephone": "+4915123456789"})
    assert contacts.search_api.do_search(by_phone("15123456789")).total == 0
    mobile = by_phone("15123456789", "hs_searchable_calculated_mobile_number")
    assert contacts.search_api.do_search(mobile).total == 1


def test_search_index_lags_with_lag_fault(sandbox: RunningSandbox, contacts: Any) -> None:
    sandbox.fault("hubspot", lag=30)
    created = create(contacts, {"phone": "+12125550123", "email": "ines@example.com"})
    assert contacts.search_api.do_search(by_phone("2125550123")).total == 0
    assert contacts.basic_api.get_by_id("ines@example.com", id_property="email").id == created.id
    sandbox.clock.advance(seconds=31)
    assert contacts.search_api.do_search(by_phone("2125550123")).total == 1
    contacts.basic_api.update(created.id, {"properties": {"phone": "+13105550142"}})
    stale = contacts.search_api.do_search(by_phone("2125550123"))
    assert stale.results[0].properties["phone"] == "+12125550123", "the index still has the old value"
    assert contacts.search_api.do_search(by_phone("3105550142")).total == 0
    contacts.basic_api.archive(created.id)
    assert contacts.search_api.do_search(by_phone("2125550123")).total == 1
    sandbox.clock.advance(seconds=31)
    assert contacts.search_api.do_search(by_phone("2125550123")).total == 0


def test_search_combines_groups_with_or_and_filters_with_and(contacts: Any) -> None:
    create(contacts, {"email": "a@example.com", "city": "Oslo", "phone": "+12125550123"})
    create(contacts, {"email": "b@example.com", "city": "Oslo"})
    create(contacts, {"email": "c@example.com", "city": "Rome"})

    def emails(*groups: list[tuple[Any, ...]]) -> list[str]:
        body = {
            "filterGroups": [
                {
                    "filters": [
                        dict(zip(("propertyName", "operator", "value"), item, strict=False)) for item in group
                    ]
                }
                for group in groups
            ],
            "sorts": ["-email"],
        }
        return [item.properties["email"][0] for item in contacts.search_api.do_search(body).results]

    assert emails([("city", "EQ", "oslo")]) == ["b", "a"]
    assert emails([("city", "EQ", "Oslo"), ("email", "EQ", "a@example.com")]) == ["a"]
    assert emails([("city", "EQ", "Rome")], [("email", "EQ", "A@example.com")]) == ["c", "a"]
    assert emails([("phone", "HAS_PROPERTY")]) == ["a"]
    assert emails([("phone", "NOT_HAS_PROPERTY")]) == ["c", "b"]
    assert emails([("city", "NEQ", "Oslo")]) == ["c"]
    assert emails([("email", "CONTAINS_TOKEN", "b*")]) == ["b"]
    response = contacts.search_api.do_search({"query": "rome a@example"})
    assert response.total == 0
    assert contacts.search_api.do_search({"query": "a@example.com"}).total == 1


@pytest.mark.parametrize(
    "body",
    [
        by_phone("1", "phone_number"),
        {"filterGroups": [{"filters": [{"propertyName": "phone", "operator": "IS", "value": "1"}]}]},
        {"filterGroups": [{"filters": [{"propertyName": "phone", "operator": "EQ", "value": 1}]}]},
        {"filterGroups": [{"filters": [{"propertyName": "phone", "operator": "IN", "value": "1"}]}]},
        {"filterGroups": [{"filters": [{"propertyName": "phone", "operator": "HAS_PROPERTY"}] * 7}]},
        {"filterGroups": by_phone("1")["filterGroups"] * 6},
        {"limit": 201},
        {"after": "9995", "limit": 10},
        {"sorts": ["email", "phone"]},
        {"filter": []},
    ],
)
def test_invalid_search_returns_400(contacts: Any, body: dict[str, Any]) -> None:
    assert api_error(lambda: contacts.search_api.do_search(body))[0] == 400


def test_search_is_paged(contacts: Any) -> None:
    for number in range(5):
        create(contacts, {"email": f"{number}@example.com"})
    first = contacts.search_api.do_search({"limit": 3})
    second = contacts.search_api.do_search({"limit": 3, "after": first.paging.next.after})
    assert (first.total, len(first.results), len(second.results)) == (5, 3, 2)
    assert second.paging is None
    page = contacts.basic_api.get_page(limit=4)
    second_page = contacts.basic_api.get_page(limit=4, after=page.paging.next.after)
    assert [len(page.results), len(second_page.results)] == [4, 1]


# Tickets, notes, tasks


def test_ticket_is_closed_by_stage_of_its_pipeline(sandbox: RunningSandbox, client: Any) -> None:
    pipelines = client.crm.pipelines.pipelines_api.get_all("tickets").results
    closed = {
        pipeline.id: [stage.id for stage in pipeline.stages if stage.metadata["ticketState"] == "CLOSED"]
        for pipeline in pipelines
    }
    assert all(len(stages) == 1 for stages in closed.values())
    assert "4" not in {stage.id for pipeline in pipelines for stage in pipeline.stages}
    tickets = client.crm.tickets
    first = pipelines[0]
    ticket = create(tickets, {"subject": "Broken lamp", "hs_pipeline_stage": first.stages[0].id})
    assert ticket.properties["hs_pipeline"] == first.id
    other = closed[pipelines[1].id][0]
    assert (
        api_error(lambda: tickets.basic_api.update(ticket.id, {"properties": {"hs_pipeline_stage": other}}))[
            0
        ]
        == 400
    )
    assert (
        api_error(lambda: tickets.basic_api.update(ticket.id, {"properties": {"hs_pipeline_stage": "4"}}))[0]
        == 400
    )
    tickets.basic_api.update(ticket.id, {"properties": {"hs_pipeline_stage": closed[first.id][0]}})
    properties = sandbox.hubspot.tickets[0].properties
    assert properties["hs_pipeline_stage"] == closed[first.id][0]
    assert "closed_date" in properties
    assert api_error(lambda: create(tickets, {"subject": "no stage"}))[0] == 400


def test_notes_and_tasks_are_associated_with_contact(
    sandbox: RunningSandbox, client: Any, contacts: Any
) -> None:
    contact = create(contacts, {"email": "ines@example.com"})
    note = create(
        client.crm.objects.notes, {"hs_timestamp": WHEN, "hs_note_body": "hi"}, link(contact.id, 202)
    )
    task = create(
        client.crm.objects.tasks,
        {
            "hs_timestamp": WHEN,
            "hs_task_subject": "Call back",
            "hs_task_status": "NOT_STARTED",
            "hs_task_priority": "HIGH",
            "hs_task_type": "CALL",
            "hubspot_owner_id": client.crm.owners.owners_api.get_page().results[0].id,
        },
        link(contact.id, 204),
    )
    assert sandbox.hubspot.associated("contacts", contact.id, "notes") == [note.id]
    assert sandbox.hubspot.associated("contacts", contact.id, "tasks") == [task.id]
    assert [item.properties["hs_task_subject"] for item in sandbox.hubspot.tasks] == ["Call back"]
    assert [item.properties["hs_note_body"] for item in sandbox.hubspot.notes] == ["hi"]


# Limits


def test_rate_limit_headers_are_absent_from_searches(sandbox: RunningSandbox) -> None:
    url = sandbox.environment["HUBSPOT_URL"] + "/crm/objects/2026-03/contacts"
    headers = {"authorization": f"Bearer {sandbox.environment['HUBSPOT_ACCESS_TOKEN']}"}
    first, second = (httpx.get(url, headers=headers).headers for _ in range(2))
    remaining = [
        int(response_headers["x-hubspot-ratelimit-daily-remaining"]) for response_headers in (first, second)
    ]
    assert remaining[0] - remaining[1] == 1
    assert first["x-hubspot-ratelimit-interval-milliseconds"] == "10000"
    search_headers = httpx.post(url + "/search", json={}, headers=headers).headers
    assert not [name for name in search_headers if name.startswith("x-hubspot-ratelimit")]


def test_burst_limit_is_enforced_when_set(sandbox: RunningSandbox, contacts: Any) -> None:
    sandbox.hubspot.burst_limit = 3
    for _ in range(3):
        contacts.basic_api.get_page()
    status, body = api_error(lambda: contacts.basic_api.get_page())
    assert (status, body["policyName"]) == (429, "TEN_SECONDLY_ROLLING")
    sandbox.clock.advance(seconds=11)
    contacts.basic_api.get_page()


def test_search_of_ten_thousand_contacts_is_fast(sandbox: RunningSandbox, contacts: Any) -> None:
    for number in range(10_000):
        sandbox.hubspot.add("contacts", phone=f"+1212{number:07}")
    body = by_phone("2120001234")
    body["filterGroups"] += by_phone("2120001234", "hs_searchable_calculated_mobile_number")["filterGroups"]
    started_at = sandbox.clock.now()
    for _ in range(20):
        assert contacts.search_api.do_search(body).total == 1
    assert (sandbox.clock.now() - started_at).total_seconds() < 2


def test_owner_is_found_by_email_by_id_and_by_user_id(sandbox: RunningSandbox) -> None:
    headers = {"Authorization": f"Bearer {sandbox.environment['HUBSPOT_ACCESS_TOKEN']}"}
    url = f"{sandbox.environment['HUBSPOT_URL']}/crm/owners/2026-03"

    def get(path: str) -> Any:
        return httpx.get(url + path, headers=headers).json()

    assert [owner["id"] for owner in get("?email=second@harbourlight.example")["results"]] == ["70012"]
    assert get("?email=former@harbourlight.example")["results"] == []
    [former] = get("?email=former@harbourlight.example&archived=true")["results"]
    assert (former["userId"], former["userIdIncludingInactive"]) == (None, 9100219)
    assert get("/9100211?idProperty=userId")["id"] == "70011"
    assert get("/9100211")["category"] == "OBJECT_NOT_FOUND"


@pytest.mark.parametrize("owner", ["9100211", "70019", "1"])
def test_user_id_and_deactivated_owner_are_refused(
    sandbox: RunningSandbox, contacts: Any, owner: str
) -> None:
    with pytest.raises(Exception, match="INVALID_OWNER_ID"):
        contacts.basic_api.create({"properties": {"hubspot_owner_id": owner}})
    assert contacts.basic_api.create({"properties": {"hubspot_owner_id": "70012"}}).id


def test_search_has_its_own_limit_and_a_maximum_size(sandbox: RunningSandbox, contacts: Any) -> None:
    sandbox.hubspot.search_limit = 5
    for _ in range(5):
        contacts.search_api.do_search({})
    with pytest.raises(Exception, match="SECONDLY") as caught:
        contacts.search_api.do_search({})
    assert caught.value.status == 429  # type: ignore[attr-defined]
    assert contacts.basic_api.get_page().results == []
    sandbox.clock.advance(seconds=2)
    with pytest.raises(Exception, match="3000 characters"):
        contacts.search_api.do_search({"query": "x" * 2990})


def test_first_company_of_a_contact_is_its_primary_one(sandbox: RunningSandbox) -> None:
    account = sandbox.hubspot
    contact = account.add("contacts", email="a@example.com")
    first, second = (account.add("companies", name=name) for name in ("First", "Second"))
    account.link("contacts", contact.id, "companies", first.id)
    account.link("contacts", contact.id, "companies", second.id)
    assert contact.properties["associatedcompanyid"] == first.id
    account.crm.set_primary_company(contact.id, second.id)
    assert contact.properties["associatedcompanyid"] == second.id
    account.delete("companies", second.id)
    assert "associatedcompanyid" not in contact.properties


# Deals, meetings, lists


def test_deal_needs_a_name_and_a_stage_of_its_pipeline(client: Any) -> None:
    pipelines = client.crm.pipelines.pipelines_api.get_all("deals").results
    assert [stage.metadata["isClosed"] for stage in pipelines[1].stages] == ["false", "true"]
    deals = client.crm.deals
    for properties in (
        {"dealname": "Fleet"},
        {"dealstage": "qualifiedtobuy"},
        {"dealname": "Fleet", "dealstage": "Qualified to buy"},
        {"dealname": "Fleet", "dealstage": "88302", "pipeline": "default"},
        {"dealname": "Fleet", "dealstage": "qualifiedtobuy", "amount": "12,000"},
    ):
        refused = {"properties": properties}
        assert api_error(lambda body=refused: deals.basic_api.create(body))[0] == 400
    won = create(deals, {"dealname": "Fleet", "dealstage": "closedwon"})
    read = deals.basic_api.get_by_id(won.id, properties=["pipeline", "hs_is_closed", "closedate"]).properties
    assert (read["pipeline"], read["hs_is_closed"]) == ("default", "true")
    assert read["closedate"]


def test_meeting_needs_a_time_and_is_associated_with_type_200(client: Any, contacts: Any) -> None:
    contact = create(contacts, {"email": "maya.lindqvist@example.com"})
    meetings = client.crm.objects.meetings
    body = {"properties": {"hs_meeting_title": "Test ride"}, "associations": link(contact.id, 200)}
    assert api_error(lambda: meetings.basic_api.create(body))[0] == 400
    body["properties"] = {"hs_timestamp": WHEN, "hs_meeting_outcome": "scheduled"}
    assert api_error(lambda: meetings.basic_api.create(body))[0] == 400
    body["properties"] = {"hs_timestamp": WHEN, "hs_meeting_outcome": "SCHEDULED"}
    assert meetings.basic_api.create(body).id
    body["associations"] = link(contact.id, 194)  # that of a call
    assert api_error(lambda: meetings.basic_api.create(body))[0] == 400


def test_static_list_takes_members_once_and_an_active_one_takes_none(
    sandbox: RunningSandbox, client: Any, contacts: Any
) -> None:
    static, active = sandbox.hubspot.add_list("Callers"), sandbox.hubspot.add_list("Customers", "DYNAMIC")
    contact = create(contacts, {"email": "maya.lindqvist@example.com"})
    lists = client.crm.lists
    found = lists.lists_api.get_by_name("callers", "0-1").list
    assert (found.list_id, found.processing_type) == (static.id, "MANUAL")
    answers = [lists.memberships_api.add(static.id, [contact.id, "99"]) for _ in range(2)]
    assert [answer.records_ids_added for answer in answers] == [[contact.id], []]
    assert [answer.record_ids_missing for answer in answers] == [["99"], ["99"]]
    assert api_error(lambda: lists.memberships_api.add(active.id, [contact.id]))[0] == 400
    assert api_error(lambda: lists.lists_api.get_by_id("999"))[0] == 404
    sandbox.hubspot.missing_scopes = {"crm.lists.write"}
    assert api_error(lambda: lists.memberships_api.add(static.id, [contact.id]))[0] == 403
