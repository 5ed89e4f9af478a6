"""Salesforce's contacts, leads, cases and to-do Tasks; its sessions, its quota, and what an operator is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bridge.errors import (
    AuthenticationError,
    ConfigError,
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.sandbox import RunningSandbox
from bridge.testing import Reply, StubServer, event
from tests.integration.crm import Account, calls

PERSON = "+12125550123"
EMAIL = "maya.lindqvist@example.com"
DATA = "/services/data/v66.0"
TOKEN = "/services/oauth2/token"


@pytest.fixture
def salesforce(sandbox: RunningSandbox) -> Iterator[Account]:
    account = Account("salesforce", sandbox)
    yield account
    account.close()


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A private key, and its public half as PEM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path = tmp_path_factory.mktemp("keys") / "bridge.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return path, public.decode()


def contact(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.salesforce.add("Contact", **({"LastName": "Lindqvist"} | values)).id


def lead(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.salesforce.add("Lead", **({"LastName": "Lindqvist", "Company": "Cycles"} | values)).id


# --------------------------------------------------------------------------------------------- contacts


def test_an_unknown_person_becomes_a_contact(salesforce: Account, sandbox: RunningSandbox) -> None:
    sent = salesforce.deliver("upsert_contact", params={"properties": {"Department": "Workshop"}})

    [made] = sandbox.salesforce.contacts
    assert (sent.id, sent.detail) == (made.id, "a new person")
    wanted = {
        "FirstName": "Maya",
        "LastName": "Lindqvist",
        "Email": EMAIL,
        "Phone": PERSON,
        "Department": "Workshop",
    }
    assert {name: made[name] for name in wanted} == wanted


def test_what_people_wrote_is_filled_but_not_overwritten_unless_the_rule_says_so(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    known = contact(sandbox, Email=EMAIL, FirstName="M.", Title="Owner", Department="Old")
    properties = {
        "Title": {"value": "Buyer", "mode": "fill"},
        "MailingCity": {"value": "Boston", "mode": "fill"},
        "Department": "New",
        "MailingState": None,
    }
    sent = salesforce.deliver("upsert_contact", params={"properties": properties})

    [held] = sandbox.salesforce.contacts
    assert (sent.id, sent.detail) == (known, "updated")
    wanted = {
        "FirstName": "M.",
        "Title": "Owner",
        "MailingCity": "Boston",
        "Department": "New",
        "Phone": PERSON,
    }
    assert {name: held[name] for name in wanted} == wanted
    assert held["MailingState"] is None


def test_the_number_that_stood_for_a_name_gives_way_to_it(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    nameless = {"metadata.contactName": None, "callMetadata.customer": None, "metadata.contactEmail": None}
    salesforce.deliver("log_call", event(changes=nameless, clock=salesforce.clock))
    assert sandbox.salesforce.contacts[0]["LastName"] == PERSON

    salesforce.deliver(
        "upsert_contact", event(changes={"metadata.contactEmail": None}, clock=salesforce.clock)
    )
    [held] = sandbox.salesforce.contacts
    assert (held["FirstName"], held["LastName"]) == ("Maya", "Lindqvist")


def test_an_open_lead_is_the_person_too(salesforce: Account, sandbox: RunningSandbox) -> None:
    one = lead(sandbox, Phone=PERSON)
    sent = salesforce.deliver("upsert_contact", params={"properties": {"Title": "Owner"}})
    assert sent.id == one
    assert sandbox.salesforce.leads[0]["Title"] == "Owner"
    assert sandbox.salesforce.contacts == []


@pytest.mark.parametrize("fate", ["deleted", "merged"])
def test_a_remembered_contact_that_is_gone_is_looked_for_again(
    salesforce: Account, sandbox: RunningSandbox, fate: str
) -> None:
    first = str(salesforce.deliver("upsert_contact").id)
    heir = contact(sandbox, Email=EMAIL)
    if fate == "deleted":
        sandbox.salesforce.delete("Contact", first)
    else:
        sandbox.salesforce.merge("Contact", heir, first)
    assert salesforce.deliver("upsert_contact").id == heir


def test_a_name_of_a_field_that_is_none_is_refused_before_it_is_asked_for(salesforce: Account) -> None:
    salesforce.deliver("upsert_contact")
    with pytest.raises(PermanentError, match="is no name of a field"):
        salesforce.deliver("upsert_contact", params={"properties": {"Id FROM User --": "x"}})


# ------------------------------------------------------------------------------------------------ leads


def test_the_persons_open_lead_is_updated(salesforce: Account, sandbox: RunningSandbox) -> None:
    one = lead(sandbox, Phone="(212) 555-0167", Rating="Hot")
    about = event("call.no-answer", {"metadata.contactPhone": "+12125550167"}, clock=salesforce.clock)
    params = {
        "status": "Working - Contacted",
        "properties": {"Rating": {"value": "Cold", "mode": "fill"}, "Title": "Dr"},
    }
    assert salesforce.deliver("update_lead", about, params).id == one

    [held] = sandbox.salesforce.leads
    assert (held["Status"], held["Rating"], held["Title"]) == ("Working - Contacted", "Hot", "Dr")


def test_a_lead_is_found_although_the_person_is_remembered_as_a_contact(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    contact(sandbox, Email=EMAIL)
    salesforce.deliver("log_call")
    one = lead(sandbox, Email=EMAIL)
    assert salesforce.deliver("update_lead", params={"status": "Working - Contacted"}).id == one
    salesforce.deliver("log_call")
    assert {task["WhoId"][:3] for task in sandbox.salesforce.tasks} == {"003"}


def test_a_converted_lead_is_left_alone(salesforce: Account, sandbox: RunningSandbox) -> None:
    one = lead(sandbox, Phone=PERSON)
    params = {"status": "Working - Contacted"}
    salesforce.deliver("update_lead", params=params)
    sandbox.salesforce.convert(one, contact(sandbox, Phone=PERSON))
    with pytest.raises(PermanentError, match="does not know this person"):
        salesforce.deliver("update_lead", params=params)
    with pytest.raises(PermanentError, match="no open lead with this id"):
        salesforce.deliver("update_lead", params=params | {"lead": one})
    assert sandbox.salesforce.leads[0]["Status"] == "Closed - Converted"


# ------------------------------------------------------------------------------------------------ cases


def test_a_case_is_closed_in_the_orgs_own_word(salesforce: Account, sandbox: RunningSandbox) -> None:
    sandbox.salesforce.set_statuses("Case", {"Neu": False, "Gelöst": True})
    one = sandbox.salesforce.add("Case", Subject="Help").id
    about = event("chat.resolved", {"metadata.caseId": one}, clock=salesforce.clock)
    sent = salesforce.deliver("close_case", about, {"properties": {"Reason": "Solved by Heppu"}})

    [held] = sandbox.salesforce.cases
    assert (sent.id, held["Status"], held["Reason"]) == (one, "Gelöst", "Solved by Heppu")
    assert salesforce.deliver("close_case", about).detail == "no open case"


def test_without_an_id_the_persons_one_open_case_is_closed(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    person = contact(sandbox, Email="priya.raman@example.com")
    sandbox.salesforce.add("Case", ContactId=person, Status="Closed")
    one = sandbox.salesforce.add("Case", ContactId=person).id
    sandbox.salesforce.add("Case", ContactId=contact(sandbox, Email="other@example.com"))
    about = event("chat.resolved", clock=salesforce.clock)
    assert salesforce.deliver("close_case", about).id == one

    sandbox.salesforce.add("Case", ContactId=person)
    salesforce.clock.advance(minutes=1)
    newest = sandbox.salesforce.add("Case", ContactId=person).id
    with pytest.raises(LookupInconclusive, match="several open cases"):
        salesforce.deliver("close_case", about)
    assert salesforce.deliver("close_case", about, {"on_multiple": "newest"}).id == newest


def test_a_validation_rule_is_told_in_the_administrators_words(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    one = sandbox.salesforce.add("Case").id
    rule = "A closed case needs a reason."
    sandbox.salesforce.add_rule(
        "Case", lambda case: rule if case["Status"] == "Closed" and not case.get("Reason") else None
    )
    with pytest.raises(PermanentError, match=rule):
        salesforce.deliver("close_case", params={"case": one})


@pytest.mark.parametrize("wrong", ["../Account/001", "500", "5005g00000AbCdE'"])
def test_an_id_that_is_none_never_reaches_a_path(salesforce: Account, wrong: str) -> None:
    from pydantic import ValidationError

    for action, name in (("close_case", "case"), ("update_lead", "lead")):
        with pytest.raises(ValidationError, match="pattern"):
            salesforce.deliver(action, params={name: wrong})
    assert salesforce.requests() == []


# ------------------------------------------------------------------------------------------------ tasks


def test_a_task_for_a_colleague_is_open_and_due_on_the_persons_day(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    person = contact(sandbox, Phone=PERSON)
    salesforce.clock.set(datetime(2026, 3, 2, 23, tzinfo=UTC))
    about = event(changes={"callMetadata.timezone": "America/New_York"}, clock=salesforce.clock)
    sent = salesforce.deliver(
        "create_task", about, {"subject": "Send the receipt", "due": "1d", "priority": "High"}
    )

    [task] = sandbox.salesforce.tasks
    assert sent.id == task.id
    assert (task["Subject"], task["Status"], task["Priority"]) == ("Send the receipt", "Not Started", "High")
    assert (task["ActivityDate"], task["WhoId"]) == ("2026-03-03", person)


@pytest.mark.parametrize("with_field", [True, False])
def test_a_lost_answer_and_the_retry_after_it_make_one_task(
    salesforce: Account, sandbox: RunningSandbox, with_field: bool
) -> None:
    if not with_field:
        sandbox.salesforce.remove_field("Task", "Conversation_Id__c")
    about = event(clock=salesforce.clock)
    salesforce.deliver("create_task", about, idempotency_key="another")
    path = "*/Task/Conversation_Id__c" if with_field else "*/composite/sobjects"
    sandbox.fault("salesforce", path=path, drop="after")
    with pytest.raises(OutcomeUnknown):
        salesforce.deliver("create_task", about)
    sent = salesforce.deliver("create_task", about, attempt=2)
    assert len(sandbox.salesforce.tasks) == 2
    assert sandbox.salesforce.tasks[1].id == sent.id


# ----------------------------------------------------------------------------------------- session and quota


def test_a_session_that_ended_is_renewed_once_and_nothing_is_lost(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("log_call")
    sandbox.salesforce.expire_sessions()
    salesforce.connected.client._logged_in_at -= 3600
    salesforce.requests()
    salesforce.deliver("log_call")
    assert [one for one in salesforce.requests() if one.endswith(TOKEN)] == [f"POST {TOKEN}"]
    assert len(sandbox.salesforce.tasks) == 2


def test_sessions_that_are_refused_for_ever_end_in_four_requests(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("log_call")
    salesforce.connected.client._logged_in_at -= 3600
    sandbox.fault("salesforce", path=f"{DATA}/*", status=401, times=None)
    salesforce.requests()
    with pytest.raises(AuthenticationError):
        salesforce.deliver("log_call")
    assert len(salesforce.requests()) == 3
    with pytest.raises(AuthenticationError, match="a moment ago"):
        salesforce.deliver("log_call")
    assert len(salesforce.requests()) == 1


def test_a_401_that_is_no_list_is_understood(salesforce: Account, sandbox: RunningSandbox) -> None:
    sandbox.fault("salesforce", path=f"{DATA}/*", status=401, body="<html>who are you?</html>", times=None)
    with pytest.raises(AuthenticationError):
        salesforce.deliver("log_call")


def test_threads_that_meet_an_ended_session_together_log_in_once(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("log_call")
    sandbox.salesforce.expire_sessions()
    salesforce.connected.client._logged_in_at -= 3600
    salesforce.requests()
    failed: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for about in calls(3, salesforce.clock, start):
                salesforce.deliver("log_call", about)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(sandbox.salesforce.tasks) == 13
    assert [one for one in salesforce.requests() if one.endswith(TOKEN)] == [f"POST {TOKEN}"]


def test_nothing_is_asked_before_the_first_use(salesforce: Account) -> None:
    assert salesforce.requests() == []


def test_a_private_key_logs_in(sandbox: RunningSandbox, key_file: tuple[Path, str]) -> None:
    path, public = key_file
    sandbox.salesforce.sessions.public_key = public
    environ = {
        "SALESFORCE_CONSUMER_SECRET": "",
        "SALESFORCE_USERNAME": "integration@harbourlight.example",
        "SALESFORCE_PRIVATE_KEY_FILE": str(path),
    }
    account = Account("salesforce", sandbox, environ)
    account.deliver("log_call")
    assert len(sandbox.salesforce.tasks) == 1
    account.close()


def test_a_file_that_is_no_key_is_told(sandbox: RunningSandbox, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("no key at all")
    environ = {
        "SALESFORCE_CONSUMER_SECRET": "",
        "SALESFORCE_USERNAME": "integration@harbourlight.example",
        "SALESFORCE_PRIVATE_KEY_FILE": str(path),
    }
    account = Account("salesforce", sandbox, environ)
    with pytest.raises(AuthenticationError, match="SALESFORCE_PRIVATE_KEY_FILE"):
        account.deliver("log_call")
    account.close()


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (
            {"status": 400, "body": {"error": "invalid_grant", "error_description": "expired"}},
            AuthenticationError,
        ),
        ({"status": 400, "body": {"error": "inactive_user", "error_description": "x"}}, AuthenticationError),
        ({"status": 400, "body": {"error": "login_rate_exceeded", "error_description": "x"}}, RateLimited),
        ({"status": 429, "retry_after": 7}, RateLimited),
        ({"status": 503, "body": "<html>down</html>"}, TransientError),
        ({"status": 200, "body": {"nothing": True}}, TransientError),
        ({"drop": "after"}, TransientError),
    ],
)
def test_a_login_that_fails_has_written_nothing(
    salesforce: Account, sandbox: RunningSandbox, fault: dict[str, Any], kind: type[DeliveryError]
) -> None:
    sandbox.fault("salesforce", path=TOKEN, **fault)
    with pytest.raises(DeliveryError) as caught:
        salesforce.deliver("log_call")
    assert type(caught.value) is kind
    assert len(salesforce.requests()) == 1


def test_a_wrong_secret_is_never_repeated(sandbox: RunningSandbox) -> None:
    account = Account("salesforce", sandbox, {"SALESFORCE_CONSUMER_SECRET": "wrong-and-secret"})
    with pytest.raises(AuthenticationError, match="invalid_client") as caught:
        account.connected.check()
    assert "wrong-and-secret" not in f"{caught.value!r} {caught.value.__cause__!r}"
    account.close()


def test_the_rest_of_the_quota_is_left_to_others(salesforce: Account, sandbox: RunningSandbox) -> None:
    sandbox.salesforce.daily_limit = 100
    sandbox.salesforce.requests_today = 70
    salesforce.deliver("log_call")
    sandbox.salesforce.requests_today = 79
    salesforce.deliver("log_call")
    salesforce.requests()
    with pytest.raises(QuotaExhausted) as caught:
        salesforce.deliver("log_call")
    assert str(caught.value) == "80/100 of the org's daily requests are used; the rest is for others"
    assert caught.value.until is not None
    assert timedelta(minutes=9) < caught.value.until - datetime.now(UTC) <= timedelta(minutes=10)
    assert salesforce.requests() == []

    # After ten minutes one request looks whether it is better now.
    sandbox.salesforce.requests_today = 10
    salesforce.connected.client.adapter._spent_until = datetime.now(UTC)
    salesforce.deliver("log_call")


def test_the_share_is_the_operators_choice(sandbox: RunningSandbox) -> None:
    account = Account("salesforce", sandbox, {"SALESFORCE_MAX_QUOTA_FRACTION": "1"})
    sandbox.salesforce.daily_limit = 100
    sandbox.salesforce.requests_today = 80
    account.deliver("log_call")
    account.deliver("log_call")
    account.close()


# ---------------------------------------------------------------------- what an operator has to know and do


def test_a_check_says_in_one_line_what_is_there_and_what_is_missing(
    salesforce: Account, sandbox: RunningSandbox
) -> None:
    assert salesforce.connected.check() == (
        "logged in, 1/100000 of the org's daily requests used; Task.Conversation_Id__c is there"
    )
    sandbox.salesforce.remove_field("Task", "Conversation_Id__c")
    line = salesforce.connected.check()
    assert "Task.Conversation_Id__c is missing or hidden from this user" in line
    assert "run `bridge connections setup salesforce`" in line
    assert [one for one in salesforce.requests() if not one.startswith("GET")] == [f"POST {TOKEN}"]


@pytest.mark.parametrize(
    ("field", "advice"),
    [
        ({"unique": False}, "must be an External ID and unique"),
        ({"external_id": False}, "must be an External ID and unique"),
        ({"createable": False}, "this user may not write Task.Conversation_Id__c"),
    ],
)
def test_a_check_says_when_the_field_is_there_but_no_use(
    salesforce: Account, sandbox: RunningSandbox, field: dict[str, bool], advice: str
) -> None:
    fields = sandbox.salesforce.crm.types["Task"].fields
    fields["Conversation_Id__c"] = replace(fields["Conversation_Id__c"], **field)
    with pytest.raises(ConfigError, match=advice):
        salesforce.connected.check()


def test_a_check_says_when_the_user_may_not_make_tasks(salesforce: Account, sandbox: RunningSandbox) -> None:
    fields = sandbox.salesforce.crm.types["Task"].fields
    fields.update({name: replace(known, createable=False) for name, known in fields.items()})
    with pytest.raises(ConfigError, match="this user may not make Tasks"):
        salesforce.connected.check()


def test_setup_leaves_alone_what_is_there(salesforce: Account) -> None:
    assert salesforce.connector.run_setup is not None
    assert salesforce.connector.run_setup(salesforce.connected.client) == "Task.Conversation_Id__c is there"


def test_setup_makes_the_field_on_activity(sandbox: RunningSandbox) -> None:
    with StubServer() as partner:
        account = _org(sandbox, partner)
        partner.answer(
            "POST",
            f"{DATA}/tooling/sobjects/CustomField",
            Reply(201, {"id": "00N000000000001", "success": True}),
        )
        assert "Activity.Conversation_Id__c is made" in account.connector.run_setup(account.connected.client)  # type: ignore[misc]
        asked = partner.requests[-1].json
        account.close()
    assert asked["FullName"] == "Activity.Conversation_Id__c"
    assert asked["Metadata"]["externalId"] is asked["Metadata"]["unique"] is True


def test_a_user_who_may_not_make_fields_is_told_what_to_click(sandbox: RunningSandbox) -> None:
    with StubServer() as partner:
        account = _org(sandbox, partner)
        refusal = [{"errorCode": "INSUFFICIENT_ACCESS_OR_READONLY", "message": "no"}]
        partner.answer("POST", f"{DATA}/tooling/sobjects/CustomField", Reply(403, refusal))
        with pytest.raises(
            ConfigError, match=r"add the text field Conversation_Id__c \(255, External ID, unique\)"
        ):
            account.connector.run_setup(account.connected.client)  # type: ignore[misc]
        account.close()


def _org(sandbox: RunningSandbox, partner: StubServer) -> Account:
    """An org whose Task has no field of ours."""
    partner.answer(
        "POST", TOKEN, Reply(200, {"access_token": "t", "instance_url": "https://acme.my.salesforce.com"})
    )
    partner.answer("GET", f"{DATA}/sobjects/Task/describe", Reply(200, {"fields": [{"name": "Subject"}]}))
    return Account("salesforce", sandbox, {"SALESFORCE_URL": partner.url})


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"SALESFORCE_CONSUMER_SECRET": ""}, "SALESFORCE_USERNAME and SALESFORCE_PRIVATE_KEY_FILE"),
        ({"SALESFORCE_URL": "http://acme.my.salesforce.com"}, "SALESFORCE_URL"),
        ({"SALESFORCE_PRIVATE_KEY_FILE": "/no/such/file"}, "SALESFORCE_PRIVATE_KEY_FILE"),
        ({"SALESFORCE_TIME_ZONE": "Mars/Olympus"}, "SALESFORCE_TIME_ZONE"),
        ({"SALESFORCE_API_VERSION": "v66"}, "SALESFORCE_API_VERSION"),
        ({"SALESFORCE_MAX_QUOTA_FRACTION": "1.5"}, "SALESFORCE_MAX_QUOTA_FRACTION"),
    ],
)
def test_a_wrong_setting_is_named(sandbox: RunningSandbox, environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Account("salesforce", sandbox, environ)
