"""Members of Salesforce campaigns: each contact or lead once, with a status that the campaign has."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from bridge.errors import OutcomeUnknown, PermanentError
from bridge.events import Event
from bridge.sandbox import RunningSandbox
from bridge.sandbox.salesforce.schema import Field
from bridge.testing import event
from tests.integration.crm import CrmConnection, call_events, email_address

EMAIL = "maya.lindqvist@example.com"
SPRING = {"campaign": "Spring test rides"}


@pytest.fixture
def salesforce(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    connection = CrmConnection("salesforce", sandbox)
    sandbox.salesforce.add_campaign("Spring test rides", {"Called": False, "Test ride": True})
    yield connection
    connection.close()


def call(connection: CrmConnection, **changes: Any) -> Event:
    return event("call.completed", {"metadata.contactEmail": EMAIL} | changes, clock=connection.clock)


def members(sandbox: RunningSandbox) -> list[Any]:
    return sandbox.salesforce.records_of("CampaignMember")


@pytest.mark.parametrize("kind", ["Contact", "Lead"])
def test_person_is_added_once_and_keeps_the_status(
    salesforce: CrmConnection, sandbox: RunningSandbox, kind: str
) -> None:
    company = {"Company": "Cycles"} if kind == "Lead" else {}
    person = sandbox.salesforce.add(kind, LastName="Lindqvist", Email=EMAIL, **company)
    params = SPRING | {"status": "test ride"}
    first = salesforce.deliver("add_to_campaign", call(salesforce), params)
    second = salesforce.deliver("add_to_campaign", call(salesforce), SPRING | {"status": "Called"})
    [member] = members(sandbox)
    assert [(item.id, item.detail) for item in (first, second)] == [
        (member.id, "added"),
        (member.id, "was a member already"),
    ]
    assert (member[f"{kind}Id"], member["Status"], member["HasResponded"]) == (person.id, "Test ride", True)


def test_stranger_is_left_out_unless_the_rule_creates_a_lead(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    skipped = salesforce.deliver("add_to_campaign", call(salesforce), SPRING)
    assert (skipped.id, skipped.detail) == (None, "not added: Salesforce has no such contact or lead")
    salesforce.contact_cache.ids.clear()
    result = salesforce.deliver("add_to_campaign", call(salesforce), SPRING | {"on_missing": "lead"})
    [member], [lead] = members(sandbox), sandbox.salesforce.leads
    assert (member.id, member["LeadId"], member["Status"]) == (result.id, lead.id, "Called")


def test_batch_takes_one_write_and_names_each_person_once(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    for number in range(3):
        sandbox.salesforce.add("Contact", LastName=f"Person {number}", Email=email_address(number))
    sources = call_events(3, salesforce.clock)
    again = event("call.completed", {"metadata.contactEmail": email_address(0)}, clock=salesforce.clock)
    salesforce.deliver_all("log_call", sources)
    salesforce.requests()
    results = salesforce.deliver_all("add_to_campaign", [*sources, again], SPRING)
    assert len(members(sandbox)) == 3
    assert [item.detail for item in results] == [*["added"] * 3, "was a member already"]  # type: ignore[union-attr]
    assert sum("composite/sobjects" in item for item in salesforce.requests()) == 1


def test_lost_response_adds_nobody_twice(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL)
    sandbox.fault("salesforce", method="POST", path="*/composite/sobjects", drop="after")
    with pytest.raises(OutcomeUnknown):
        salesforce.deliver("add_to_campaign", call(salesforce), SPRING)
    result = salesforce.deliver("add_to_campaign", call(salesforce), SPRING, attempt=2)
    assert [member.id for member in members(sandbox)] == [result.id]


def test_status_that_the_campaign_does_not_have_is_never_replaced_in_silence(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL)
    wrong = SPRING | {"status": "Test rode"}
    added = salesforce.deliver("add_to_campaign", call(salesforce), wrong)
    assert added.detail.startswith(
        "added; with the default status: the campaign has no member status `Test rode`"
    )
    with pytest.raises(PermanentError, match="no member status `Test rode`"):
        salesforce.deliver("update_campaign_member", call(salesforce), wrong)
    [problem] = [
        problem
        for problem in salesforce.connected.check_rules(("update_campaign_member", wrong))
        if problem.level == "error"
    ]
    assert (problem.text, problem.hint) == (
        "the campaign has no member status `Test rode`",
        "did you mean `Test ride`?",
    )


def test_member_is_updated_and_who_is_none_does_not_become_one(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    for field in (Field("Interest__c"), Field("Units__c", "int")):
        sandbox.salesforce.add_field("CampaignMember", field)
    sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL)
    change = SPRING | {"status": "Test ride", "properties": {"Interest__c": "bikes", "Units__c": "many"}}
    skipped = salesforce.deliver("update_campaign_member", call(salesforce), change)
    assert (skipped.id, skipped.detail) == (None, "not updated: the contact or lead is not a member")
    with pytest.raises(PermanentError):
        salesforce.deliver("update_campaign_member", call(salesforce), change | {"on_missing": "error"})
    salesforce.deliver("add_to_campaign", call(salesforce), SPRING)
    result = salesforce.deliver("update_campaign_member", call(salesforce), change)
    [member] = members(sandbox)
    assert (member["Status"], member["HasResponded"], member["Interest__c"]) == ("Test ride", True, "bikes")
    assert (result.id, result.detail) == (
        member.id,
        "updated; without `Units__c`, which takes a whole number",
    )


def test_only_the_active_one_of_two_campaigns_counts_and_an_id_always_does(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL)
    old = sandbox.salesforce.add("Campaign", Name="Spring test rides")
    salesforce.deliver("add_to_campaign", call(salesforce), SPRING)
    salesforce.deliver("add_to_campaign", call(salesforce), {"campaign": old.id})
    assert [member["CampaignId"] == old.id for member in members(sandbox)] == [False, True]


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("Spring test ride", "Salesforce has no campaign `Spring test ride`", "did you mean `Spring test rides`?"),
        ("7015g00000AbCdEAAA", "Salesforce has no campaign `7015g00000AbCdEAAA`", ""),
        ("Twice", "2 active campaigns have the name `Twice`", "write the ID of one"),
    ],
)  # fmt: skip
def test_wrong_campaign_is_explained(
    salesforce: CrmConnection, sandbox: RunningSandbox, name: str, text: str, hint: str
) -> None:
    for _ in range(2):
        sandbox.salesforce.add_campaign("Twice")
    [problem] = [
        problem
        for problem in salesforce.connected.check_rules(("add_to_campaign", {"campaign": name}))
        if problem.level == "error"
    ]
    assert problem.text.startswith(text)
    assert hint in problem.hint
    with pytest.raises(PermanentError) as caught:
        salesforce.deliver("add_to_campaign", params={"campaign": name})
    assert str(caught.value).startswith(text)


def test_campaign_and_status_that_are_created_are_found_soon(
    salesforce: CrmConnection, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL)
    autumn = {"campaign": "Autumn", "status": "Came"}
    with pytest.raises(PermanentError, match="no campaign `Autumn`"):
        salesforce.deliver("add_to_campaign", call(salesforce), autumn)
    sandbox.salesforce.add_campaign("Autumn", {"Sent": False})
    campaigns = sys.modules[type(salesforce.connected.client.campaigns).__module__]
    now = monotonic()
    monkeypatch.setattr(campaigns, "monotonic", lambda: now + 61)
    assert "default status" in salesforce.deliver("add_to_campaign", call(salesforce), autumn).detail
    statuses = sandbox.salesforce.crm.tables["CampaignMemberStatus"].values()
    next(status for status in statuses if status["Label"] == "Sent").fields["Label"] = "Came"
    monkeypatch.setattr(campaigns, "monotonic", lambda: now + 123)
    salesforce.deliver("update_campaign_member", call(salesforce), autumn)
    assert members(sandbox)[0]["Status"] == "Came"


def test_missing_permission_is_named(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.salesforce.deny("CampaignMember", "create")
    found = [problem.text for problem in salesforce.connected.check_rules(("add_to_campaign", SPRING))]
    assert any("no Create access to CampaignMember (for add_to_campaign)" in text for text in found)
