"""HubSpot deals: one per conversation, none next to an open one, in the right pipeline, with values that fit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

import pytest

from bridge.errors import OutcomeUnknown
from bridge.events import Event
from bridge.sandbox import RunningSandbox
from bridge.testing import event
from tests.integration.crm import CrmConnection

EMAIL = "maya.lindqvist@example.com"


def call(connection: CrmConnection, conversation: str = "conv_1", /, **changes: Any) -> Event:
    standard = {
        "conversationId": conversation,
        "metadata.contactEmail": EMAIL,
        "metadata.contactName": "Maya Lindqvist",
        "callMetadata.customer.company": "Lindqvist Cycles",
        "callMetadata.custom": {"budget": "12000"},
        "summary": "Wants 20 cargo bikes.",
    }
    return event("call.completed", standard | changes, clock=connection.clock)


def test_deal_has_its_values_and_belongs_to_contact_company_owner_and_call(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    company = sandbox.hubspot.add("companies", name="Lindqvist Cycles").id
    contact = sandbox.hubspot.add("contacts", email=EMAIL, hubspot_owner_id="70011").id
    sandbox.hubspot.link("contacts", contact, "companies", company)
    call_id = hubspot.deliver("log_call", call(hubspot)).id
    params = {
        "stage": "Qualified to buy",
        "amount": "{{ event.callMetadata.custom.budget }}",
        "close_date": "2026-03-31",
        "properties": {"dealtype": "newbusiness"},
    }
    result = hubspot.deliver("create_deal", call(hubspot), params)
    [deal] = sandbox.hubspot.objects("deals")
    expected = {
        "dealname": "Deal with Lindqvist Cycles",
        "description": "Wants 20 cargo bikes.\n\nConversation: conv_1",
        "pipeline": "default",
        "dealstage": "qualifiedtobuy",
        "amount": "12000",
        "closedate": "2026-03-31T12:00:00.000Z",
        "dealtype": "newbusiness",
        "hubspot_owner_id": "70011",
        "heppu_conversation_id": "conv_1",
    }
    assert (deal.id, result.detail) == (result.id, "")
    assert {name: deal.properties.get(name) for name in expected} == expected
    links = {
        kind: sandbox.hubspot.associated("deals", deal.id, kind)
        for kind in ("contacts", "companies", "calls")
    }
    assert links == {"contacts": [contact], "companies": [company], "calls": [call_id]}


def test_contact_with_an_open_deal_in_the_pipeline_gets_no_second_one(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = sandbox.hubspot.add("contacts", email=EMAIL).id
    for number, stage in enumerate(("closedwon", "qualifiedtobuy")):
        deal = sandbox.hubspot.add("deals", dealname=f"Deal {number}", dealstage=stage)
        sandbox.hubspot.link("deals", deal.id, "contacts", contact)
    result = hubspot.deliver("create_deal", call(hubspot))
    assert (result.id, result.detail) == (None, f"no new deal: the contact has the open deal {deal.id}")
    assert hubspot.deliver("create_deal", call(hubspot, "conv_2"), {"pipeline": "Leasing"}).id
    assert hubspot.deliver("create_deal", call(hubspot, "conv_3"), {"on_open_deal": "create"}).id
    assert len(sandbox.hubspot.objects("deals")) == 4


@pytest.mark.parametrize("when", ["after", "before"])
def test_retry_after_a_lost_response_creates_no_second_deal_and_takes_the_first_for_its_own(
    hubspot: CrmConnection, sandbox: RunningSandbox, when: Literal["before", "after"]
) -> None:
    sandbox.hubspot.add("contacts", email=EMAIL)
    sandbox.fault("hubspot", path="*/deals/batch/create", drop=when)
    with pytest.raises(OutcomeUnknown):
        hubspot.deliver("create_deal", call(hubspot))
    result = hubspot.deliver("create_deal", call(hubspot), attempt=2)
    assert [deal.id for deal in sandbox.hubspot.objects("deals")] == [result.id]


def test_later_event_leaves_what_sales_may_have_changed(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    first = hubspot.deliver("create_deal", call(hubspot), {"amount": 100})
    [deal] = sandbox.hubspot.objects("deals")
    chosen = {
        "dealstage": "qualifiedtobuy",
        "amount": "900",
        "dealname": "Fleet",
        "hubspot_owner_id": "70012",
    }
    crm = sandbox.hubspot.crm
    crm.update(crm.types["deals"], deal, chosen, hubspot.clock.now())
    for existing_id in (first.id, None):  # None: the bridge has forgotten the deal, HubSpot has not
        later = call(hubspot, summary="Called again.")
        result = hubspot.deliver("create_deal", later, {"amount": 5}, existing_id=existing_id)
        assert result.id == first.id
    [deal] = sandbox.hubspot.objects("deals")
    assert {name: deal.properties[name] for name in chosen} == chosen
    assert deal.properties["description"].startswith("Called again.")


@pytest.mark.parametrize(
    ("params", "pipeline", "stage", "note"),
    [
        ({}, "default", "appointmentscheduled", ""),
        ({"pipeline": "leasing"}, "88301", "88302", ""),
        ({"pipeline": "88301", "stage": "Signed"}, "88301", "88303", ""),
        (
            {"pipeline": "Leasign"},
            "default",
            "appointmentscheduled",
            "HubSpot has no deal pipeline `Leasign`; did you mean `Leasing`?",
        ),
        ({"stage": "Won"}, "default", "appointmentscheduled", "HubSpot has no deal stage `Won`; "),
    ],
)  # fmt: skip
def test_pipeline_and_stage_of_a_deal_are_found_by_label_and_id(
    hubspot: CrmConnection,
    sandbox: RunningSandbox,
    params: dict[str, str],
    pipeline: str,
    stage: str,
    note: str,
) -> None:
    result = hubspot.deliver("create_deal", call(hubspot), params)
    [deal] = sandbox.hubspot.objects("deals")
    assert (deal.properties["pipeline"], deal.properties["dealstage"]) == (pipeline, stage)
    assert note in result.detail
    problems = [
        f"{problem.text}; {problem.hint}"
        for problem in hubspot.connected.check_rules(("create_deal", params))
        if problem.level == "error"
    ]
    assert [text[: len(note)] for text in problems] == ([note] if note else [])


def test_amount_that_is_not_a_number_does_not_cost_the_deal(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    source = call(hubspot, "conv_1", **{"callMetadata.custom": {"budget": "about 12 thousand"}})
    params = {"amount": "{{ event.callMetadata.custom.budget }}", "close_date": "soon", "closes_in": "30d"}
    result = hubspot.deliver("create_deal", source, params)
    [deal] = sandbox.hubspot.objects("deals")
    assert deal.properties.get("amount") is None
    assert "without `amount`, which takes a number" in result.detail
    assert "without `closedate`, which takes a time" in result.detail
    found = hubspot.connected.check_rules(("create_deal", {"amount": "much", "close_date": "2026-03-31"}))
    assert [problem.text for problem in found if problem.level == "error"] == [
        "the property `amount` takes a number, not `much`"
    ]


def test_deal_closes_in_the_time_that_the_rule_names(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    source = call(hubspot)
    hubspot.deliver("create_deal", source, {"closes_in": "10d"})
    [deal] = sandbox.hubspot.objects("deals")
    day = (source.occurred_at + timedelta(days=10)).date()
    assert deal.properties["closedate"] == f"{day}T12:00:00.000Z"


def test_stranger_becomes_a_contact_unless_the_rule_skips_it(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    skipped = hubspot.deliver("create_deal", call(hubspot), {"on_missing": "skip"})
    assert (skipped.id, skipped.detail) == (None, "no deal: HubSpot has no such contact")
    hubspot.contact_cache.ids.clear()
    result = hubspot.deliver("create_deal", call(hubspot), {"owner": "70012"})
    [contact] = sandbox.hubspot.contacts
    assert sandbox.hubspot.associated("deals", str(result.id), "contacts") == [contact.id]
    assert contact.properties["hubspot_owner_id"] == "70012"


def test_call_that_is_logged_after_the_deal_is_associated_with_it(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact = sandbox.hubspot.add("contacts", email=EMAIL).id
    other = sandbox.hubspot.add("deals", dealname="Other", dealstage="qualifiedtobuy")
    sandbox.hubspot.link("deals", other.id, "contacts", contact)
    deal = hubspot.deliver("create_deal", call(hubspot), {"on_open_deal": "create"})
    logged = hubspot.deliver("log_call", call(hubspot))
    assert sandbox.hubspot.associated("calls", str(logged.id), "deals") == [deal.id]


def test_missing_scope_for_deals_is_named(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.hubspot.missing_scopes = {"crm.objects.deals.write"}
    found = [problem.text for problem in hubspot.connected.check_rules(("create_deal", {}))]
    assert any("lacks the scope crm.objects.deals.write (for create_deal)" in text for text in found)


def test_key_that_may_not_read_the_types_of_deals_still_creates_them(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.missing_scopes = {"crm.schemas.deals.read"}
    assert hubspot.deliver("create_deal", call(hubspot), {"amount": 5}).id
    refused = hubspot.deliver(
        "create_deal", call(hubspot, "conv_2"), {"amount": "much", "pipeline": "Leasing"}
    )
    assert "without `amount`, which HubSpot refused (INVALID_NUMBER)" in refused.detail
    found = [problem.text for problem in hubspot.connected.check_rules(("create_deal", {}))]
    assert any(
        "without the scope crm.schemas.deals.read, values for deals are not checked" in text for text in found
    )
