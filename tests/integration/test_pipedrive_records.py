"""Persons, deals, opt-outs and rule checks in Pipedrive, against the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bridge.connector import FROM_EVENT, ProviderRecord
from bridge.errors import (
    AccountError,
    AuthenticationError,
    ConfigError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
)
from bridge.sandbox import RunningSandbox
from bridge.testing import build_context, event, load_connector
from tests.integration.crm import CrmConnection, email_address, phone_number

PHONE, EMAIL = "+12125550123", "maya.lindqvist@example.com"
RESULTS = {"callMetadata.custom": {"plan": "gold", "seats": "12", "visit": "2026-03-02T15:00:00Z"}}
FIELDS = {
    "Plan": "{{ event.callMetadata.custom.plan }}",
    "Seats": "{{ event.callMetadata.custom.seats }}",
    "Visit": "{{ event.callMetadata.custom.visit }}",
}


@pytest.fixture
def crm(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    connection = CrmConnection("pipedrive", sandbox)
    yield connection
    connection.close()


def add_person(crm: CrmConnection, **values: Any) -> Any:
    return crm.sandbox.pipedrive.add(
        "person", **{"name": "Maya Lindqvist", "phone": PHONE, "email": EMAIL} | values
    )


# ------------------------------------------------------------------------------------------------ upsert_person


def test_structured_results_become_typed_custom_fields(crm: CrmConnection) -> None:
    plan = crm.sandbox.pipedrive.add_field("person", "Plan", "enum", "Silver", "Gold")
    seats = crm.sandbox.pipedrive.add_field("person", "Seats", "double")
    visit = crm.sandbox.pipedrive.add_field("person", "Visit", "date")
    person = add_person(crm)
    result = crm.deliver(
        "upsert_person", event("call.completed", RESULTS, clock=crm.clock), {"properties": FIELDS}
    )
    gold = next(number for number, label in plan.options.items() if label == "Gold")
    assert person["custom_fields"] == {plan.code: gold, seats.code: 12, visit.code: "2026-03-02"}
    assert result.id == str(person.id)


@pytest.mark.parametrize(
    ("kind", "options", "value", "stored"),
    [
        ("set", ("Red", "Blue"), ["red", "BLUE"], [0, 1]),
        ("enum", ("Yes", "No"), True, 0),
        ("monetary", (), "500 usd", {"value": 500, "currency": "USD"}),
        ("monetary", (), 500, {"value": 500, "currency": "EUR"}),
        ("varchar", (), ["a", 5], "a, 5"),
        ("user", (), "sam@example.com", 1202),
        ("address", (), "Main Street 1", {"value": "Main Street 1"}),
        ("org", (), "7", 7),
    ],
)
def test_each_type_gets_its_form(
    crm: CrmConnection, kind: str, options: tuple[str, ...], value: Any, stored: Any
) -> None:
    field = crm.sandbox.pipedrive.add_field("person", "Extra", kind, *options)
    person = add_person(crm)
    crm.deliver("upsert_person", params={"properties": {"extra": value}})
    numbers = list(field.options)
    if kind == "set":
        stored = [numbers[at] for at in stored]
    if kind == "enum":
        stored = numbers[stored]
    assert person["custom_fields"] == {field.code: stored}


@pytest.mark.parametrize(
    ("kind", "options", "value", "problem"),
    [
        ("enum", ("Red",), "green", "has no such option; its options are Red"),
        ("double", (), "many", "must be a number"),
        ("date", (), "soon", "must be a date"),
        ("monetary", (), "much", "must be an amount"),
        ("user", (), "nobody@example.com", "has an unknown user"),
        ("varchar", (), "x" * 256, "must have at most 255 characters"),
    ],
)
def test_value_of_the_wrong_type_is_left_out_and_named(
    crm: CrmConnection, kind: str, options: tuple[str, ...], value: Any, problem: str
) -> None:
    crm.sandbox.pipedrive.add_field("person", "Extra", kind, *options)
    person = add_person(crm)
    result = crm.deliver("upsert_person", params={"properties": {"Extra": value}})
    assert f"without `Extra`, which {problem}" in result.detail
    assert str(value) not in result.detail
    assert person["custom_fields"] == {}


def test_fill_keeps_what_a_user_has_entered(crm: CrmConnection) -> None:
    plan = crm.sandbox.pipedrive.add_field("person", "Plan", "varchar")
    person = add_person(crm, custom_fields={plan.code: "Old"})
    fill = {"properties": {plan.code: {"value": "New", "mode": "fill"}}}
    crm.deliver("upsert_person", params=fill)
    assert person["custom_fields"] == {plan.code: "Old"}
    crm.deliver("upsert_person", params={"properties": {"Plan": "New"}})
    assert person["custom_fields"] == {plan.code: "New"}


def test_new_person_gets_fields_owner_and_name_of_the_rule(crm: CrmConnection) -> None:
    plan = crm.sandbox.pipedrive.add_field("person", "Plan", "varchar")
    params = {"first_name": "Maya", "last_name": "Okafor", "owner": "1202", "properties": {"Plan": "Gold"}}
    crm.deliver("upsert_person", params=params)
    [person] = crm.sandbox.pipedrive.persons
    assert (person["name"], person["owner_id"]) == ("Maya Okafor", 1202)
    assert person["custom_fields"] == {plan.code: "Gold"}
    assert (person.emails, person.phones) == ([EMAIL], [PHONE])


@pytest.mark.parametrize("exists", [True, False])
def test_company_is_an_organization(crm: CrmConnection, exists: bool) -> None:
    if exists:
        crm.sandbox.pipedrive.add("organization", name="LINDQVIST cycles")
    company = {"callMetadata.customer": {"company": "Lindqvist Cycles"}}
    person = add_person(crm)
    result = crm.deliver("upsert_person", event("call.completed", company, clock=crm.clock))
    assert person["org_id"] == (1 if exists else None)
    assert exists or "Pipedrive has none with the company's name" in result.detail
    crm.sandbox.fault("pipedrive", lag=60)  # the search does not show a new organization yet
    for number in (1, 2):
        changes = company | {"metadata.contactPhone": phone_number(number), "metadata.contactEmail": None}
        source = event("call.completed", changes, clock=crm.clock)
        crm.deliver("upsert_person", source, {"organization": "create"})
    assert [record["org_id"] for record in crm.sandbox.pipedrive.persons[1:]] == [1, 1]
    assert len(crm.sandbox.pipedrive.organizations) == 1


def test_company_whose_name_cannot_be_searched_for_is_not_created_with_each_person(
    crm: CrmConnection,
) -> None:
    company = {"callMetadata.customer": {"company": "X"}}
    source = event("call.completed", company, clock=crm.clock)
    result = crm.deliver("upsert_person", source, {"organization": "create"})
    assert "cannot search for the company's name" in result.detail
    assert crm.sandbox.pipedrive.organizations == []


def test_unknown_person_is_skipped_on_request(crm: CrmConnection) -> None:
    result = crm.deliver("upsert_person", params={"on_missing": "skip"})
    assert (result.detail, crm.sandbox.pipedrive.persons) == ("not updated: the CRM has no such contact", [])


def test_unknown_field_is_an_error_with_the_nearest_name(crm: CrmConnection) -> None:
    crm.sandbox.pipedrive.add_field("person", "Plan", "varchar")
    add_person(crm)
    with pytest.raises(PermanentError, match=r"persons have no field `Plam`; did you mean `Plan`\?"):
        crm.deliver("upsert_person", params={"properties": {"Plam": "Gold"}})


# ------------------------------------------------------------------------------------------------ create_deal


def test_deal_is_linked_and_placed(crm: CrmConnection) -> None:
    source = crm.sandbox.pipedrive.add_field("deal", "Source", "varchar")
    organization = crm.sandbox.pipedrive.add("organization", name="Lindqvist Cycles")
    person = add_person(crm, org_id=organization.id, owner_id=1202)
    params = {"stage": "offer", "value": 1200, "currency": "EUR", "properties": {"Source": "Phone"}}
    result = crm.deliver("create_deal", params=params)
    [deal] = crm.sandbox.pipedrive.deals
    expected = {
        "title": "Call with Maya Lindqvist", "value": 1200, "currency": "EUR", "person_id": person.id,
        "org_id": organization.id, "owner_id": 1202, "pipeline_id": 1, "stage_id": 12,
    }  # fmt: skip
    assert {name: deal[name] for name in expected} == expected
    assert (result.id, deal["custom_fields"]) == (str(deal.id), {source.code: "Phone"})


@pytest.mark.parametrize(
    ("value", "stored"), [("1200", 1200), (" 5.5 ", 5.5), ("about 500", None), ("Infinity", None), (-1, None)]
)
def test_value_of_an_event_that_is_no_amount_does_not_lose_the_deal(
    crm: CrmConnection, value: Any, stored: float | None
) -> None:
    add_person(crm)
    result = crm.deliver("create_deal", params={"value": value})
    [deal] = crm.sandbox.pipedrive.deals
    assert deal["value"] in ((stored,) if stored is not None else (None, 0))
    assert ("without `value`" in result.detail) == (stored is None)
    check = crm.connector.actions["create_deal"].run_check_params
    assert check is not None
    assert (check(None, {"value": value}) is None) == (stored is not None)


def test_later_event_updates_the_deal_but_not_its_stage(crm: CrmConnection) -> None:
    add_person(crm)
    first = crm.deliver("create_deal", params={"value": 100})
    [deal] = crm.sandbox.pipedrive.deals
    crm.sandbox.pipedrive.update(deal, stage_id=12)
    params = {"value": 200, "stage": "Qualified"}
    assert crm.deliver("create_deal", params=params, existing_id=first.id).id == first.id
    assert (deal["value"], deal["stage_id"]) == (200, 12)
    assert crm.deliver("create_deal", existing_id=first.id).detail == "nothing to update"
    crm.sandbox.pipedrive.delete("deal", deal.id)
    assert "was deleted" in crm.deliver("create_deal", params=params, existing_id=first.id).detail


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"stage": "Won"}, "Pipedrive has no stage `Won`"),
        ({"pipeline": "Marketing"}, "Pipedrive has no pipeline `Marketing`"),
        (
            {"pipeline": "Service", "stage": "Offer"},
            "Pipedrive has no stage `Offer` in the pipeline `Service`",
        ),
    ],
)
def test_unknown_stage_does_not_lose_the_deal(
    crm: CrmConnection, params: dict[str, str], problem: str
) -> None:
    add_person(crm)
    result = crm.deliver("create_deal", params=params)
    assert f"in the first stage: {problem}" in result.detail
    assert len(crm.sandbox.pipedrive.deals) == 1


def test_lookup_recognizes_the_deal_by_its_reference(crm: CrmConnection) -> None:
    assert "created the deal field" in crm.connected.setup()
    assert crm.connected.setup().startswith("nothing to do")
    add_person(crm)
    source = event("call.completed", {"conversationId": "conv_ours"}, clock=crm.clock)
    context = build_context(source, crm.connector.actions["create_deal"], now=crm.clock.now())
    crm.deliver("create_deal", event("call.completed", {"conversationId": "conv_other"}, clock=crm.clock))
    assert crm.connected.find("create_deal", context=context) is None
    crm.sandbox.fault("pipedrive", path="/api/v2/deals", method="POST", drop="after")
    with pytest.raises(OutcomeUnknown):
        crm.deliver("create_deal", source)
    found = crm.connected.find("create_deal", context=context)
    assert found is not None
    assert found.id == "2"


def test_without_the_field_a_deal_of_the_same_title_needs_review(crm: CrmConnection) -> None:
    add_person(crm)
    action = crm.connector.actions["create_deal"]
    context = build_context(event(clock=crm.clock), action, now=crm.clock.now())
    assert crm.connected.find("create_deal", context=context) is None
    crm.deliver("create_deal")
    with pytest.raises(LookupInconclusive, match="bridge connections setup"):
        crm.connected.find("create_deal", context=context)
    known = build_context(
        event(clock=crm.clock), action, now=crm.clock.now(), ids_used_by_others=lambda ids: set(ids)
    )
    assert crm.connected.find("create_deal", context=known) is None


def test_open_deal_of_the_bridge_is_linked_to_the_next_call(crm: CrmConnection) -> None:
    add_person(crm)
    crm.deliver("log_call")
    deal = crm.deliver("create_deal")
    crm.deliver("log_call", event("call.completed", {"conversationId": "conv_2"}, clock=crm.clock))
    assert str(crm.sandbox.pipedrive.activities[1]["deal_id"]) == deal.id


# ------------------------------------------------------------------------------------------------ account


def test_check_names_the_company_and_writes_nothing(crm: CrmConnection) -> None:
    assert crm.connected.check() == "authenticated at Harbor Light (harborlight.pipedrive.com)"
    assert {request.method for request in crm.sandbox.requests_to("pipedrive")} == {"GET"}
    crm.sandbox.pipedrive.token = "another"
    with pytest.raises(AuthenticationError, match="does not accept the API token"):
        crm.connected.check()


def test_opt_outs_of_many_addresses_take_one_request_per_filter(sandbox: RunningSandbox) -> None:
    filters = {"PIPEDRIVE_DO_NOT_CALL_FILTER": "17", "PIPEDRIVE_DO_NOT_EMAIL_FILTER": "18"}
    crm = CrmConnection("pipedrive", sandbox, filters)
    with pytest.raises(ConfigError, match="PIPEDRIVE_DO_NOT_EMAIL_FILTER: Pipedrive has no filter 18"):
        crm.connected.check()
    with pytest.raises(AccountError, match="cannot read the filter 18"):
        crm.connected.opt_out_flags([EMAIL], [])
    person = add_person(crm, phone="(212) 555-0123")
    sandbox.pipedrive.filters = {"17": {person.id}, "18": set()}
    sandbox.clear_requests()
    emails = [email_address(number) for number in range(99)]
    flags = crm.connected.opt_out_flags([EMAIL, *emails], [PHONE, "+12125550199"])
    assert {address: [flag.field for flag in found] for address, found in flags.items()} == {
        EMAIL: ["filter 17"],
        PHONE: ["filter 17"],
    }
    assert all("email" not in flag.channels for found in flags.values() for flag in found)
    assert crm.requests() == ["GET /api/v2/persons"] * 2
    crm.close()


def test_opt_outs_need_a_filter(crm: CrmConnection) -> None:
    with pytest.raises(AccountError, match="no field for opt-outs"):
        crm.connected.opt_out_flags([EMAIL], [])


def test_rules_are_checked_against_the_account(crm: CrmConnection) -> None:
    crm.sandbox.pipedrive.add_field("person", "Plan", "enum", "Gold")
    crm.sandbox.pipedrive.add_field("person", "Seats", "double")
    steps: list[tuple[str, dict[str, Any]]] = [
        ("upsert_person", {"properties": {"Plam": "Gold"}}),
        ("upsert_person", {"properties": {"Plan": "Bronze", "Seats": "many"}}),
        ("upsert_person", {"properties": {"Plan": "gold", "Seats": FROM_EVENT}, "owner": "sam@exampel.com"}),
        ("create_deal", {"pipeline": "Sale"}),
        ("create_deal", {"stage": "Ofer"}),
        ("create_deal", {"properties": {"value": 5}}),
        ("log_call", {"call_type": "Meetin", "properties": {"Priority": "Urgent"}}),
        ("log_chat", {"new_contact": {"Plan": "Gold"}}),
    ]
    problems = [(problem.text, problem.hint) for problem in crm.connected.check_rules(*steps)]
    assert problems == [
        ("Pipedrive's persons have no field `Plam`", "did you mean `Plan`?"),
        ("the field `Plan` has no such option; its options are Gold", ""),
        ("the field `Seats` must be a number", ""),
        ("no user of Pipedrive has the owner's email address", "did you mean `sam@example.com`?"),
        ("Pipedrive has no pipeline `Sale`", "did you mean `Sales`?"),
        ("Pipedrive has no stage `Ofer`", "did you mean `Offer`?"),
        ("the field `value` cannot be set here", "use the param of the action for it, or leave it out"),
        ("the field `Priority` has no such option; its options are Low, Medium, High", ""),
        ("Pipedrive has no activity type `Meetin`", "did you mean `Meeting`?"),
        (
            "Pipedrive has no deal field `Heppu reference`",
            "run `bridge connections setup`, which creates it; without it, a deal whose response was lost needs review",
        ),
    ]


@pytest.mark.parametrize(("deal", "is_valid"), [("88", True), (None, True), ("my deal", False)])
def test_deal_of_a_rule_is_checked_when_it_is_loaded(deal: str | None, is_valid: bool) -> None:
    check = load_connector("pipedrive").actions["log_call"].run_check_params
    assert check is not None
    assert (check(None, {"deal": deal}) is None) == is_valid


@pytest.mark.parametrize(
    ("url", "action", "external_id", "page"),
    [
        ("https://acme.pipedrive.com", "contact", "5", "https://acme.pipedrive.com/person/5"),
        ("https://acme.pipedrive.com", "create_deal", "7", "https://acme.pipedrive.com/deal/7"),
        ("https://acme.pipedrive.com", "create_deal", "7/../8", None),
        ("https://acme.pipedrive.com", "log_call", "7", None),
        ("https://api.pipedrive.com", "contact", "5", None),
    ],
)
def test_record_links_to_its_page(url: str, action: str, external_id: str, page: str | None) -> None:
    connector = load_connector("pipedrive")
    settings = connector.settings.model_validate({"api_token": "t", "url": url})
    assert connector.build_record_url is not None
    assert connector.build_record_url(settings, ProviderRecord(action, external_id)) == page
