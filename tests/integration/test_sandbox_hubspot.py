"""HubSpot's stand-in, driven by HubSpot's own client: what the account takes, and how it says no."""

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
from bridge.sandbox.hubspot.schema import ASSOCIATIONS, DISPOSITIONS, default_object_types

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


def refusal(act: Callable[[], Any]) -> tuple[int, dict[str, Any]]:
    """Status and body of the client's exception; every package has one of its own."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        act()
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


# What HubSpot's own client knows of the API


def test_association_types_are_those_of_the_client() -> None:
    known = {
        tuple(name.removeprefix("PRIMARY_").split("_TO_")): number
        for name, number in vars(AssociationType).items()
        if isinstance(number, int)
    }
    plural = {kind.name: kind.singular.upper() for kind in default_object_types().values()}
    for (start, end), number in ASSOCIATIONS.items():
        if "communications" in (start, end):  # absent from the client's table
            continue
        assert getattr(AssociationType, f"{plural[start]}_TO_{plural[end]}") == number
        assert (plural[start], plural[end]) in known


def test_search_operators_and_property_types_are_those_of_the_client(contacts: Any, client: Any) -> None:
    for operator in ("EQ", "NEQ", "LT", "LTE", "GT", "GTE", "CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"):
        Filter(property_name="phone", operator=operator, value="1")
        found = contacts.search_api.do_search(
            {"filterGroups": [{"filters": [{"propertyName": "phone", "operator": operator, "value": "1"}]}]}
        )
        assert found.total == 0
    for kind in ("string", "number", "date", "datetime"):
        name = f"of_type_{kind}"
        PropertyCreate(name=name, label="x", type=kind, field_type="text", group_name="contactinformation")
        made = client.crm.properties.core_api.create(
            "contacts",
            {
                "name": name,
                "label": "x",
                "type": kind,
                "fieldType": "text",
                "groupName": "contactinformation",
            },
        )
        assert made.type == kind


# Logging in


def test_a_wrong_token_is_401_and_a_missing_one_too(sandbox: RunningSandbox) -> None:
    wrong = HubSpot(access_token="pat-wrong", host=sandbox.environment["HUBSPOT_URL"], retry=Retry(0))
    status, body = refusal(lambda: wrong.crm.contacts.basic_api.get_page())
    assert (status, body["category"]) == (401, "EXPIRED_AUTHENTICATION")
    answer = httpx.get(sandbox.environment["HUBSPOT_URL"] + "/crm/v3/objects/contacts")
    assert (answer.status_code, answer.json()["category"]) == (401, "INVALID_AUTHENTICATION")


def test_a_missing_scope_is_403_and_named(sandbox: RunningSandbox, contacts: Any, calls: Any) -> None:
    sandbox.hubspot.missing_scopes.add("crm.objects.contacts.write")
    status, body = refusal(lambda: create(calls, {"hs_timestamp": WHEN}))
    assert (status, body["category"]) == (403, "MISSING_SCOPES")
    assert body["errors"][0]["context"]["requiredGranularScopes"] == ["crm.objects.contacts.write"]
    assert contacts.search_api.do_search({}).total == 0, "reading needs another scope"


def test_the_account_tells_of_itself(sandbox: RunningSandbox) -> None:
    url, token = sandbox.environment["HUBSPOT_URL"], sandbox.environment["HUBSPOT_ACCESS_TOKEN"]
    headers = {"authorization": f"Bearer {token}"}
    details = httpx.get(url + "/account-info/v3/details", headers=headers).json()
    assert details["timeZone"] == "US/Eastern"
    usage = httpx.get(url + "/account-info/v3/api-usage/daily/private-apps", headers=headers).json()
    assert usage["results"][0]["currentUsage"] == 2
    scopes = httpx.post(
        url + "/oauth/v2/private-apps/get/access-token-info", json={"tokenKey": token}, headers=headers
    ).json()["scopes"]
    assert "tickets" in scopes


# Contacts


def test_a_contact_is_found_by_id_by_email_and_in_a_batch(contacts: Any) -> None:
    made = create(contacts, {"email": "Ines+a@Example.com", "firstname": "Ines", "phone": "+12125550123"})
    assert made.properties["email"] == "ines+a@example.com"
    by_email = contacts.basic_api.get_by_id("INES+a@example.com", id_property="email", properties=["phone"])
    assert (by_email.id, by_email.properties["phone"]) == (made.id, "+12125550123")
    assert "firstname" not in by_email.properties, "only what was asked for"
    plain = contacts.basic_api.get_by_id(made.id)
    assert plain.properties["firstname"] == "Ines"
    assert "phone" not in plain.properties, "not among the properties that a plain read shows"
    found = contacts.batch_api.read(
        {
            "idProperty": "email",
            "properties": ["firstname"],
            "propertiesWithHistory": [],
            "inputs": [{"id": "ines+a@example.com"}, {"id": "nobody@example.com"}],
        }
    )
    assert isinstance(found, BatchResponseSimplePublicObjectWithErrors)
    assert ([one.id for one in found.results], found.num_errors) == ([made.id], 1)
    assert found.errors[0].category == "OBJECT_NOT_FOUND"
    assert found.errors[0].context == {"ids": ["nobody@example.com"]}


def test_an_absent_contact_is_404(contacts: Any) -> None:
    status, body = refusal(lambda: contacts.basic_api.get_by_id("no@example.com", id_property="email"))
    assert (status, body["category"]) == (404, "OBJECT_NOT_FOUND")
    assert refusal(lambda: contacts.basic_api.get_by_id("51999"))[0] == 404
    assert refusal(lambda: contacts.basic_api.update("51999", {"properties": {"city": "Oslo"}}))[0] == 404


def test_an_email_is_there_once(sandbox: RunningSandbox, contacts: Any) -> None:
    first = create(contacts, {"email": "ines@example.com"})
    status, body = refusal(lambda: create(contacts, {"email": "INES@example.com"}))
    assert (status, body["category"]) == (409, "CONFLICT")
    assert body["message"] == f"Contact already exists. Existing ID: {first.id}"
    other = create(contacts, {"firstname": "No mail"})
    update = {"properties": {"email": "ines@example.com"}}
    assert refusal(lambda: contacts.basic_api.update(other.id, update))[0] == 409
    contacts.basic_api.update(first.id, {"properties": {"email": "new@example.com"}})
    create(contacts, {"email": "ines@example.com"})
    assert len(sandbox.hubspot.contacts) == 3


def test_all_that_is_wrong_with_the_properties_is_listed(contacts: Any) -> None:
    wrong = {
        "fristname": "Ines",
        "email": "no address",
        "lifecyclestage": "LEAD",
        "hs_object_id": "7",
        "hubspot_owner_id": "1",
    }
    status, body = refusal(lambda: create(contacts, wrong))
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
def test_property_values_are_strings(sandbox: RunningSandbox, calls: Any, value: Any) -> None:
    properties = {"hs_timestamp": WHEN, "hs_call_duration": value}
    status, body = refusal(lambda: create(calls, properties))
    assert (status, body["category"]) == (400, "VALIDATION_ERROR")
    assert sandbox.hubspot.calls == []


def test_an_empty_value_clears_a_property(sandbox: RunningSandbox, contacts: Any) -> None:
    made = create(contacts, {"email": "ines@example.com", "city": "Oslo"})
    contacts.basic_api.update(made.id, {"properties": {"city": ""}})
    assert "city" not in sandbox.hubspot.contacts[0].properties


def test_a_lifecycle_stage_goes_forward_only(sandbox: RunningSandbox, contacts: Any) -> None:
    made = create(contacts, {"email": "ines@example.com", "lifecyclestage": "customer"})

    def after(stage: str) -> str | None:
        contacts.basic_api.update(made.id, {"properties": {"lifecyclestage": stage, "city": "Oslo"}})
        return sandbox.hubspot.contacts[0].properties.get("lifecyclestage")

    assert after("lead") == "customer", "silently ignored"
    assert after("evangelist") == "evangelist"
    assert after("") is None
    assert after("lead") == "lead"


def test_deleted_is_404_and_its_email_is_free_again(sandbox: RunningSandbox, contacts: Any) -> None:
    made = create(contacts, {"email": "ines@example.com"})
    contacts.basic_api.archive(made.id)
    assert refusal(lambda: contacts.basic_api.get_by_id(made.id))[0] == 404
    assert refusal(lambda: contacts.basic_api.update(made.id, {"properties": {"city": "Oslo"}}))[0] == 404
    assert create(contacts, {"email": "ines@example.com"}).id != made.id
    sandbox.hubspot.delete("contacts", sandbox.hubspot.contacts[0].id)
    assert sandbox.hubspot.contacts == []


def test_a_merged_contact_answers_for_both_ids(sandbox: RunningSandbox, contacts: Any, calls: Any) -> None:
    winner = create(contacts, {"email": "ines@example.com"})
    other = create(contacts, {"phone": "+12125550123", "email": "old@example.com"})
    call = create(calls, {"hs_timestamp": WHEN}, link(other.id))
    contacts.basic_api.merge({"primaryObjectId": winner.id, "objectIdToMerge": other.id})
    found = contacts.basic_api.get_by_id(other.id, properties=["phone", "email"])
    assert found.id == winner.id
    assert found.properties["phone"] == "+12125550123"
    assert found.properties["email"] == "ines@example.com"
    assert sandbox.hubspot.associated("calls", call.id, "contacts") == [winner.id]
    late = create(calls, {"hs_timestamp": WHEN}, link(other.id))
    assert sandbox.hubspot.associated("calls", late.id, "contacts") == [winner.id]


# Calls


def test_a_call_and_its_association_in_one_request(
    sandbox: RunningSandbox, contacts: Any, calls: Any
) -> None:
    contact = create(contacts, {"email": "ines@example.com"})
    connected = next(iter(DISPOSITIONS))
    made = create(
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
    assert made.properties["hs_timestamp"] == "2026-03-02T21:30:00.000Z"
    assert sandbox.hubspot.associated("contacts", contact.id, "calls") == [made.id]
    read = calls.basic_api.get_by_id(made.id, associations=["contacts"])
    assert [one.id for one in read.associations["contacts"].results] == [contact.id]
    kinds = {(one.from_type, one.to_type, one.type_id) for one in sandbox.hubspot.associations}
    assert kinds == {("calls", "contacts", 194), ("contacts", "calls", 193)}


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
def test_units_and_enums_of_a_call_are_held(
    sandbox: RunningSandbox, calls: Any, name: str, value: str, code: str
) -> None:
    status, body = refusal(lambda: create(calls, {"hs_timestamp": WHEN, name: value}))
    assert (status, body["errors"][0]["code"]) == (400, code)
    assert sandbox.hubspot.calls == []


def test_a_call_needs_its_time(calls: Any) -> None:
    status, body = refusal(lambda: create(calls, {"hs_call_title": "x"}))
    assert (status, body["context"]) == (400, {"properties": ["hs_timestamp"]})


@pytest.mark.parametrize("type_id", [193, 202, 1, 99999])
def test_an_association_type_holds_in_one_direction_between_two_kinds(
    sandbox: RunningSandbox, contacts: Any, calls: Any, type_id: int
) -> None:
    contact = create(contacts, {"email": "ines@example.com"})
    status, _ = refusal(lambda: create(calls, {"hs_timestamp": WHEN}, link(contact.id, type_id)))
    assert status == 400
    assert sandbox.hubspot.calls == []


def test_an_association_needs_something_that_is_there(
    sandbox: RunningSandbox, client: Any, calls: Any
) -> None:
    assert refusal(lambda: create(calls, {"hs_timestamp": WHEN}, link("51999")))[0] == 400
    assert sandbox.hubspot.calls == []
    call = create(calls, {"hs_timestamp": WHEN})
    api = client.crm.associations.v4.basic_api
    assert refusal(lambda: api.create_default("calls", call.id, "contacts", "51999"))[0] == 404


def test_a_default_association_may_be_put_again(
    sandbox: RunningSandbox, client: Any, contacts: Any, calls: Any
) -> None:
    contact = create(contacts, {"email": "ines@example.com"})
    call = create(calls, {"hs_timestamp": WHEN})
    for _ in range(2):
        made = client.crm.associations.v4.basic_api.create_default("calls", call.id, "contacts", contact.id)
        assert made.results[0].association_spec.association_type_id == 194
    assert sandbox.hubspot.associated("calls", call.id, "contacts") == [contact.id]
    page = client.crm.associations.v4.basic_api.get_page("contacts", contact.id, "calls")
    assert [one.to_object_id for one in page.results] == [call.id]
    client.crm.associations.v4.basic_api.archive("calls", call.id, "contacts", contact.id)
    assert sandbox.hubspot.associations == []


def test_a_batch_of_associations_reports_what_is_missing(
    sandbox: RunningSandbox, client: Any, contacts: Any, calls: Any
) -> None:
    contact = create(contacts, {"email": "ines@example.com"})
    first, second = (create(calls, {"hs_timestamp": WHEN}) for _ in range(2))
    inputs = [
        {"from": {"id": first.id}, "to": {"id": contact.id}},
        {"from": {"id": second.id}, "to": {"id": "51999"}},
    ]
    made = client.crm.associations.v4.batch_api.create_default("calls", "contacts", {"inputs": inputs})
    assert (len(made.results), made.num_errors) == (1, 1)
    assert sandbox.hubspot.associated("contacts", contact.id, "calls") == [first.id]


# A unique property of one's own


def test_a_unique_property_makes_the_upsert_repeatable(
    sandbox: RunningSandbox, client: Any, calls: Any
) -> None:
    client.crm.properties.core_api.create("calls", CONVERSATION)
    known = client.crm.properties.core_api.get_by_name("calls", "conversation_id")
    assert known.has_unique_value is True
    assert refusal(lambda: client.crm.properties.core_api.create("calls", CONVERSATION))[0] == 409

    def upsert(title: str) -> Any:
        properties = {"hs_timestamp": WHEN, "hs_call_title": title}
        one = {"id": "conv_1", "idProperty": "conversation_id", "properties": properties}
        return calls.batch_api.upsert({"inputs": [one]}).results[0]

    first, second = upsert("first"), upsert("second")
    assert (first.new, second.new, second.id) == (True, False, first.id)
    assert [call.properties["hs_call_title"] for call in sandbox.hubspot.calls] == ["second"]
    assert sandbox.hubspot.calls[0].properties["conversation_id"] == "conv_1"
    assert calls.basic_api.get_by_id("conv_1", id_property="conversation_id").id == first.id
    again = {"hs_timestamp": WHEN, "conversation_id": "conv_1"}
    status, body = refusal(lambda: create(calls, again))
    assert (status, body["errors"][0]["code"]) == (400, "CONFLICTING_UNIQUE_VALUE")
    assert f"{first.id} already has that value." in body["errors"][0]["message"]


def test_an_upsert_needs_a_unique_property(calls: Any) -> None:
    one = {"id": "x", "idProperty": "hs_call_title", "properties": {"hs_timestamp": WHEN}}
    status, body = refusal(lambda: calls.batch_api.upsert({"inputs": [one]}))
    assert (status, body["category"]) == (400, "VALIDATION_ERROR")


def test_a_batch_is_refused_whole_for_what_is_wrong_in_itself(
    sandbox: RunningSandbox, client: Any, calls: Any
) -> None:
    client.crm.properties.core_api.create("calls", CONVERSATION)

    def one(identifier: str, **properties: str) -> dict[str, Any]:
        return {
            "id": identifier,
            "idProperty": "conversation_id",
            "properties": {"hs_timestamp": WHEN} | properties,
        }

    good = [one(f"conv_{number}") for number in range(101)]
    for inputs in (
        good,
        [one("a"), one("a")],
        [one("a"), one("b", hs_call_status="DONE")],
        [one("a"), one("b") | {"associations": []}],
        [],
    ):
        status, _ = refusal(lambda inputs=inputs: calls.batch_api.upsert({"inputs": inputs}))
        assert status == 400
    assert sandbox.hubspot.calls == []
    assert len(calls.batch_api.upsert({"inputs": good[:100]}).results) == 100


def test_a_batch_goes_through_in_part_for_what_is_missing(
    sandbox: RunningSandbox, client: Any, calls: Any
) -> None:
    client.crm.properties.core_api.create("calls", CONVERSATION)
    inputs = [
        {"id": "conv_1", "idProperty": "conversation_id", "properties": {"hs_timestamp": WHEN}},
        {"id": "conv_2", "idProperty": "conversation_id", "properties": {"hs_call_title": "no time"}},
    ]
    made = calls.batch_api.upsert({"inputs": inputs})
    assert isinstance(made, BatchResponseSimplePublicUpsertObjectWithErrors)
    assert (len(made.results), made.num_errors) == (1, 1)
    assert made.errors[0].context == {"ids": ["conv_2"]}
    assert len(sandbox.hubspot.calls) == 1


def test_a_batch_of_creates_is_all_or_nothing(sandbox: RunningSandbox, contacts: Any) -> None:
    create(contacts, {"email": "ines@example.com"})
    inputs = [
        {"properties": {"email": address}, "associations": []} for address in ("a@b.co", "ines@example.com")
    ]
    assert refusal(lambda: contacts.batch_api.create({"inputs": inputs}))[0] == 409
    twice = [{"properties": {"email": "c@b.co"}, "associations": []}] * 2
    assert refusal(lambda: contacts.batch_api.create({"inputs": twice}))[0] == 400
    assert len(sandbox.hubspot.contacts) == 1
    assert len(contacts.batch_api.create({"inputs": inputs[:1]}).results) == 1


def test_a_batch_of_traced_creates_goes_through_in_part(sandbox: RunningSandbox, contacts: Any) -> None:
    create(contacts, {"email": "ines@example.com"})
    inputs = [
        {"properties": {"email": address}, "associations": [], "objectWriteTraceId": f"t{number}"}
        for number, address in enumerate(("a@b.co", "ines@example.com", "no address"))
    ]
    made = contacts.batch_api.create({"inputs": inputs})
    assert (len(made.results), made.num_errors) == (1, 2)
    assert [(error.category, error.context) for error in made.errors] == [
        ("CONFLICT", {"objectWriteTraceId": ["t1"]}),
        ("VALIDATION_ERROR", {"objectWriteTraceId": ["t2"]}),
    ]
    assert len(sandbox.hubspot.contacts) == 2


def test_a_batch_of_updates_reports_what_is_missing(sandbox: RunningSandbox, contacts: Any) -> None:
    made = create(contacts, {"email": "ines@example.com"})
    done = contacts.batch_api.update(
        {
            "inputs": [
                {"id": made.id, "properties": {"city": "Oslo"}},
                {"id": "51999", "properties": {"city": "Oslo"}},
            ]
        }
    )
    assert ([one.id for one in done.results], done.num_errors) == ([made.id], 1)
    assert sandbox.hubspot.contacts[0].properties["city"] == "Oslo"
    contacts.batch_api.archive({"inputs": [{"id": made.id}]})
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
def test_a_property_that_cannot_be_made_is_refused(client: Any, change: dict[str, Any]) -> None:
    api = client.crm.properties.core_api
    assert refusal(lambda: api.create("calls", CONVERSATION | change))[0] == 400


def test_only_ten_unique_properties(client: Any) -> None:
    api = client.crm.properties.core_api
    for number in range(10):
        api.create("calls", CONVERSATION | {"name": f"unique_{number}"})
    assert refusal(lambda: api.create("calls", CONVERSATION))[0] == 400
    api.archive("calls", "unique_0")
    api.create("calls", CONVERSATION)


# Search


def by_phone(digits: str, name: str = "hs_searchable_calculated_phone_number") -> dict[str, Any]:
    one = {"propertyName": name, "operator": "EQ", "value": digits}
    return {"filterGroups": [{"filters": [one]}], "properties": ["phone"]}


@pytest.mark.parametrize("written", ["+12125550123", "(212) 555-0123", "212.555.0123", "1 212 555 0123"])
def test_a_phone_is_searched_by_its_national_digits(contacts: Any, written: str) -> None:
    made = create(contacts, {"phone": written})
    found = contacts.search_api.do_search(by_phone("2125550123"))
    assert [one.id for one in found.results] == [made.id]
    assert found.results[0].properties["phone"] == written
    assert contacts.search_api.do_search(by_phone("12125550123")).total == 0
    assert contacts.search_api.do_search(by_phone("+12125550123")).total == 0


def test_a_mobile_number_is_searched_apart(contacts: Any) -> None:
    create(contacts, {"mobilephone": "+4915123456789"})
    assert contacts.search_api.do_search(by_phone("15123456789")).total == 0
    mobile = by_phone("15123456789", "hs_searchable_calculated_mobile_number")
    assert contacts.search_api.do_search(mobile).total == 1


def test_the_search_index_lags_behind(sandbox: RunningSandbox, contacts: Any) -> None:
    sandbox.fault("hubspot", lag=30)
    made = create(contacts, {"phone": "+12125550123", "email": "ines@example.com"})
    assert contacts.search_api.do_search(by_phone("2125550123")).total == 0
    assert contacts.basic_api.get_by_id("ines@example.com", id_property="email").id == made.id
    sandbox.clock.advance(seconds=31)
    assert contacts.search_api.do_search(by_phone("2125550123")).total == 1
    contacts.basic_api.update(made.id, {"properties": {"phone": "+13105550142"}})
    old = contacts.search_api.do_search(by_phone("2125550123"))
    assert old.results[0].properties["phone"] == "+12125550123", "the index still shows what it knew"
    assert contacts.search_api.do_search(by_phone("3105550142")).total == 0
    contacts.basic_api.archive(made.id)
    assert contacts.search_api.do_search(by_phone("2125550123")).total == 1
    sandbox.clock.advance(seconds=31)
    assert contacts.search_api.do_search(by_phone("2125550123")).total == 0


def test_groups_are_alternatives_and_filters_are_conditions(contacts: Any) -> None:
    create(contacts, {"email": "a@example.com", "city": "Oslo", "phone": "+12125550123"})
    create(contacts, {"email": "b@example.com", "city": "Oslo"})
    create(contacts, {"email": "c@example.com", "city": "Rome"})

    def emails(*groups: list[tuple[Any, ...]]) -> list[str]:
        body = {
            "filterGroups": [
                {
                    "filters": [
                        dict(zip(("propertyName", "operator", "value"), one, strict=False)) for one in group
                    ]
                }
                for group in groups
            ],
            "sorts": ["-email"],
        }
        return [one.properties["email"][0] for one in contacts.search_api.do_search(body).results]

    assert emails([("city", "EQ", "oslo")]) == ["b", "a"]
    assert emails([("city", "EQ", "Oslo"), ("email", "EQ", "a@example.com")]) == ["a"]
    assert emails([("city", "EQ", "Rome")], [("email", "EQ", "A@example.com")]) == ["c", "a"]
    assert emails([("phone", "HAS_PROPERTY")]) == ["a"]
    assert emails([("phone", "NOT_HAS_PROPERTY")]) == ["c", "b"]
    assert emails([("city", "NEQ", "Oslo")]) == ["c"]
    assert emails([("email", "CONTAINS_TOKEN", "b*")]) == ["b"]
    found = contacts.search_api.do_search({"query": "rome a@example"})
    assert found.total == 0
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
def test_a_search_that_asks_too_much_or_wrongly_is_400(contacts: Any, body: dict[str, Any]) -> None:
    assert refusal(lambda: contacts.search_api.do_search(body))[0] == 400


def test_a_search_goes_from_page_to_page(contacts: Any) -> None:
    for number in range(5):
        create(contacts, {"email": f"{number}@example.com"})
    first = contacts.search_api.do_search({"limit": 3})
    second = contacts.search_api.do_search({"limit": 3, "after": first.paging.next.after})
    assert (first.total, len(first.results), len(second.results)) == (5, 3, 2)
    assert second.paging is None
    page = contacts.basic_api.get_page(limit=4)
    rest = contacts.basic_api.get_page(limit=4, after=page.paging.next.after)
    assert [len(page.results), len(rest.results)] == [4, 1]


# Tickets, notes, tasks


def test_a_ticket_is_closed_by_a_stage_of_its_own_pipeline(sandbox: RunningSandbox, client: Any) -> None:
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
        refusal(lambda: tickets.basic_api.update(ticket.id, {"properties": {"hs_pipeline_stage": other}}))[0]
        == 400
    )
    assert (
        refusal(lambda: tickets.basic_api.update(ticket.id, {"properties": {"hs_pipeline_stage": "4"}}))[0]
        == 400
    )
    tickets.basic_api.update(ticket.id, {"properties": {"hs_pipeline_stage": closed[first.id][0]}})
    found = sandbox.hubspot.tickets[0].properties
    assert found["hs_pipeline_stage"] == closed[first.id][0]
    assert "closed_date" in found
    assert refusal(lambda: create(tickets, {"subject": "no stage"}))[0] == 400


def test_notes_and_tasks_are_linked_to_their_contact(
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
    assert [one.properties["hs_task_subject"] for one in sandbox.hubspot.tasks] == ["Call back"]
    assert [one.properties["hs_note_body"] for one in sandbox.hubspot.notes] == ["hi"]


# Limits


def test_requests_are_counted_in_the_headers_but_not_of_searches(sandbox: RunningSandbox) -> None:
    url = sandbox.environment["HUBSPOT_URL"] + "/crm/v3/objects/contacts"
    headers = {"authorization": f"Bearer {sandbox.environment['HUBSPOT_ACCESS_TOKEN']}"}
    first, second = (httpx.get(url, headers=headers).headers for _ in range(2))
    left = [int(answer["x-hubspot-ratelimit-daily-remaining"]) for answer in (first, second)]
    assert left[0] - left[1] == 1
    assert first["x-hubspot-ratelimit-interval-milliseconds"] == "10000"
    searched = httpx.post(url + "/search", json={}, headers=headers).headers
    assert not [name for name in searched if name.startswith("x-hubspot-ratelimit")]


def test_the_rolling_limit_holds_when_it_is_switched_on(sandbox: RunningSandbox, contacts: Any) -> None:
    sandbox.hubspot.burst_limit = 3
    for _ in range(3):
        contacts.basic_api.get_page()
    status, body = refusal(lambda: contacts.basic_api.get_page())
    assert (status, body["policyName"]) == (429, "TEN_SECONDLY_ROLLING")
    sandbox.clock.advance(seconds=11)
    contacts.basic_api.get_page()


def test_ten_thousand_contacts_are_searched_quickly(sandbox: RunningSandbox, contacts: Any) -> None:
    for number in range(10_000):
        sandbox.hubspot.add("contacts", phone=f"+1212{number:07}")
    body = by_phone("2120001234")
    body["filterGroups"] += by_phone("2120001234", "hs_searchable_calculated_mobile_number")["filterGroups"]
    began = sandbox.clock.now()
    for _ in range(20):
        assert contacts.search_api.do_search(body).total == 1
    assert (sandbox.clock.now() - began).total_seconds() < 2
