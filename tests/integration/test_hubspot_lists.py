"""Contacts on HubSpot lists: static ones, found by name or ID."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from time import monotonic

import pytest

from bridge.connector import Success
from bridge.errors import OutcomeUnknown, PermanentError
from bridge.sandbox import RunningSandbox
from bridge.testing import event
from tests.integration.crm import CrmConnection, call_events, email_address

EMAIL = "maya.lindqvist@example.com"


@pytest.fixture
def hubspot(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    connection = CrmConnection("hubspot", sandbox)
    connection.requests()
    yield connection
    connection.close()


@pytest.mark.parametrize("by", ["name", "id"])
def test_contact_is_added_once(hubspot: CrmConnection, sandbox: RunningSandbox, by: str) -> None:
    target = sandbox.hubspot.add_list("Test ride / interest")
    contact = sandbox.hubspot.add("contacts", email=EMAIL).id
    params = {"list": target.name if by == "name" else target.id}
    source = event(changes={"metadata.contactEmail": EMAIL}, clock=hubspot.clock)
    results = [hubspot.deliver("add_to_list", source, params) for _ in range(2)]
    assert target.members == [contact]
    assert [(result.id, result.detail) for result in results] == [
        (contact, "added"),
        (contact, "was a member already"),
    ]
    requests = hubspot.requests()
    assert sum("/memberships/add" in request for request in requests) == 2
    assert sum(request.startswith("GET") for request in requests) == 1  # the list is cached


def test_batch_adds_all_contacts_of_a_list_with_one_request(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    target = sandbox.hubspot.add_list("Callers")
    contacts = [sandbox.hubspot.add("contacts", email=email_address(number)).id for number in range(3)]
    results = hubspot.deliver_all("add_to_list", call_events(4, hubspot.clock), {"list": "Callers"})
    assert sorted(target.members) == sorted(contacts)
    assert results[3] == Success(detail="not added: HubSpot has no such contact")
    assert sum("/memberships/add" in request for request in hubspot.requests()) == 1


def test_stranger_is_an_error_if_the_rule_says_so(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.hubspot.add_list("Callers")
    with pytest.raises(PermanentError, match="HubSpot has no such contact"):
        hubspot.deliver("add_to_list", params={"list": "Callers", "on_missing": "error"})
    assert sandbox.hubspot.contacts == []


def test_lost_response_adds_nobody_twice(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    target = sandbox.hubspot.add_list("Callers")
    contact = sandbox.hubspot.add("contacts", email=EMAIL).id
    source = event(changes={"metadata.contactEmail": EMAIL}, clock=hubspot.clock)
    sandbox.fault("hubspot", path="*/memberships/add", drop="after")
    with pytest.raises(OutcomeUnknown):
        hubspot.deliver("add_to_list", source, {"list": "Callers"})
    assert hubspot.deliver("add_to_list", source, {"list": "Callers"}, attempt=2).id == contact
    assert target.members == [contact]


def test_contact_that_was_merged_meanwhile_is_searched_for_again(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    target = sandbox.hubspot.add_list("Callers")
    first = sandbox.hubspot.add("contacts", email=EMAIL).id
    source = event(changes={"metadata.contactEmail": EMAIL}, clock=hubspot.clock)
    hubspot.deliver("add_to_list", source, {"list": "Callers"})
    target.members.clear()
    sandbox.hubspot.delete("contacts", first)
    second = sandbox.hubspot.add("contacts", email=EMAIL).id
    assert hubspot.deliver("add_to_list", source, {"list": "Callers"}).id == second
    assert target.members == [second]


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("Caller", "HubSpot has no list `Caller` of contacts", "did you mean `Callers`?"),
        ("99", "HubSpot has no list `99` of contacts", ""),
        ("Customers", "the list `Customers` is active", "use a static list"),
        ("402", "the list `402` is active", "use a static list"),
        ("Companies", "HubSpot has no list `Companies` of contacts", ""),
        ("403", "the list `403` does not contain contacts", ""),
    ],
)
def test_list_that_takes_no_contacts_is_explained(
    hubspot: CrmConnection, sandbox: RunningSandbox, name: str, text: str, hint: str
) -> None:
    sandbox.hubspot.add_list("Callers")
    sandbox.hubspot.add_list("Customers", "DYNAMIC")
    sandbox.hubspot.add_list("Companies", kind="companies")
    found = hubspot.connected.check_rules(("add_to_list", {"list": name}))
    [problem] = [problem for problem in found if problem.level == "error"]
    assert text in problem.text
    assert hint in problem.hint
    with pytest.raises(PermanentError) as caught:
        hubspot.deliver("add_to_list", params={"list": name})
    assert text in str(caught.value)


def test_list_that_is_created_or_replaced_is_found_soon(
    hubspot: CrmConnection, sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.hubspot.add("contacts", email=EMAIL)
    source = event(changes={"metadata.contactEmail": EMAIL}, clock=hubspot.clock)
    with pytest.raises(PermanentError, match="no list `Callers`"):
        hubspot.deliver("add_to_list", source, {"list": "Callers"})
    first = sandbox.hubspot.add_list("Callers")
    lists = sys.modules[type(hubspot.connected.client.lists).__module__]
    later = monotonic() + 61
    monkeypatch.setattr(lists, "monotonic", lambda: later)
    assert hubspot.deliver("add_to_list", source, {"list": "Callers"}).detail == "added"
    del sandbox.hubspot.crm.lists[first.id]
    sandbox.hubspot.add_list("Callers", "DYNAMIC")
    with pytest.raises(PermanentError):
        hubspot.deliver("add_to_list", source, {"list": "Callers"})
    with pytest.raises(PermanentError, match="the list `Callers` is active"):
        hubspot.deliver("add_to_list", source, {"list": "Callers"})


def test_missing_scope_for_lists_is_named(hubspot: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.hubspot.missing_scopes = {"crm.lists.write"}
    found = [problem.text for problem in hubspot.connected.check_rules(("add_to_list", {"list": "Callers"}))]
    assert any("lacks the scope crm.lists.write (for add_to_list)" in text for text in found)
