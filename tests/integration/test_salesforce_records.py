"""Salesforce contacts, leads, cases and to-do Tasks; sessions, quota, check, setup and errors of the org."""

from __future__ import annotations

import threading
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
from bridge.testing import event
from tests.integration.crm import CrmConnection, call_events

PHONE = "+12125550123"
EMAIL = "maya.lindqvist@example.com"
DATA = "/services/data/v66.0"
TOKEN = "/services/oauth2/token"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The path of a private key, and the public key as PEM."""
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


def add_contact(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.salesforce.add("Contact", **({"LastName": "Lindqvist"} | values)).id


def add_lead(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.salesforce.add("Lead", **({"LastName": "Lindqvist", "Company": "Cycles"} | values)).id


# --------------------------------------------------------------------------------------------- contacts


def test_upsert_contact_creates_lead(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    result = salesforce.deliver("upsert_contact", params={"properties": {"Industry": "Workshop"}})

    [created] = sandbox.salesforce.leads
    assert (result.id, result.detail) == (created.id, "created a new lead")
    expected = {
        "FirstName": "Maya",
        "LastName": "Lindqvist",
        "Email": EMAIL,
        "Phone": PHONE,
        "Company": "Lindqvist Cycles",
        "LeadSource": "Heppu",
        "Status": "Open - Not Contacted",
        "Industry": "Workshop",
    }
    assert {name: created[name] for name in expected} == expected


def test_upsert_contact_fills_empty_fields_and_overwrites_only_if_told(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    existing = add_contact(sandbox, Email=EMAIL, FirstName="M.", Title="Owner", Department="Old")
    properties = {
        "Title": {"value": "Buyer", "mode": "fill"},
        "MailingCity": {"value": "Boston", "mode": "fill"},
        "Department": "New",
        "MailingState": None,
    }
    result = salesforce.deliver("upsert_contact", params={"properties": properties})

    [stored] = sandbox.salesforce.contacts
    assert (result.id, result.detail) == (existing, "updated")
    expected = {
        "FirstName": "M.",
        "Title": "Owner",
        "MailingCity": "Boston",
        "Department": "New",
        "Phone": PHONE,
    }
    assert {name: stored[name] for name in expected} == expected
    assert stored["MailingState"] is None


def test_placeholder_last_name_is_replaced_by_name(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    nameless = {"metadata.contactName": None, "callMetadata.customer": None, "metadata.contactEmail": None}
    salesforce.deliver("log_call", event(changes=nameless, clock=salesforce.clock))
    assert sandbox.salesforce.leads[0]["LastName"] == PHONE

    salesforce.deliver(
        "upsert_contact", event(changes={"metadata.contactEmail": None}, clock=salesforce.clock)
    )
    [stored] = sandbox.salesforce.leads
    assert (stored["FirstName"], stored["LastName"]) == ("Maya", "Lindqvist")


def test_placeholder_company_is_replaced_and_a_real_one_kept(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    for company in (None, "Lindqvist Cycles", "Another"):
        changes = {"callMetadata.customer": {"company": company}}
        salesforce.deliver("upsert_contact", event(changes=changes, clock=salesforce.clock))
    [lead] = sandbox.salesforce.leads
    assert lead["Company"] == "Lindqvist Cycles"


def test_upsert_contact_updates_open_lead(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    lead_id = add_lead(sandbox, Phone=PHONE)
    result = salesforce.deliver("upsert_contact", params={"properties": {"Title": "Owner"}})
    assert result.id == lead_id
    assert sandbox.salesforce.leads[0]["Title"] == "Owner"
    assert sandbox.salesforce.contacts == []


@pytest.mark.parametrize("change", ["deleted", "merged"])
def test_cached_contact_that_was_deleted_or_merged_is_found_again(
    salesforce: CrmConnection, sandbox: RunningSandbox, change: str
) -> None:
    first = add_contact(sandbox, Email=EMAIL)
    assert salesforce.deliver("upsert_contact").id == first
    replacement = add_contact(sandbox, Email=EMAIL)
    if change == "deleted":
        sandbox.salesforce.delete("Contact", first)
    else:
        sandbox.salesforce.merge("Contact", replacement, first)
    assert salesforce.deliver("upsert_contact").id == replacement


def test_unknown_field_is_rejected_before_query(salesforce: CrmConnection) -> None:
    salesforce.deliver("upsert_contact")
    with pytest.raises(PermanentError, match="contacts and leads have no field `Id FROM User --`"):
        salesforce.deliver("upsert_contact", params={"properties": {"Id FROM User --": "x"}})


# ------------------------------------------------------------------------------------------------ leads


def test_update_lead_updates_open_lead(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    lead_id = add_lead(sandbox, Phone="(212) 555-0167", Rating="Hot")
    source_event = event("call.no-answer", {"metadata.contactPhone": "+12125550167"}, clock=salesforce.clock)
    params = {
        "status": "Working - Contacted",
        "properties": {"Rating": {"value": "Cold", "mode": "fill"}, "Title": "Dr"},
    }
    assert salesforce.deliver("update_lead", source_event, params).id == lead_id

    [stored] = sandbox.salesforce.leads
    assert (stored["Status"], stored["Rating"], stored["Title"]) == ("Working - Contacted", "Hot", "Dr")


def test_update_lead_finds_lead_despite_cached_contact(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    add_contact(sandbox, Email=EMAIL)
    salesforce.deliver("log_call")
    lead_id = add_lead(sandbox, Email=EMAIL)
    assert salesforce.deliver("update_lead", params={"status": "Working - Contacted"}).id == lead_id
    salesforce.deliver("log_call")
    assert {task["WhoId"][:3] for task in sandbox.salesforce.tasks} == {"003"}


def test_update_lead_never_changes_converted_lead(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    lead_id = add_lead(sandbox, Phone=PHONE)
    params = {"status": "Working - Contacted"}
    salesforce.deliver("update_lead", params=params)
    sandbox.salesforce.convert(lead_id, add_contact(sandbox, Phone=PHONE))
    for named, place in (({}, "with this email or phone"), ({"lead": lead_id}, "with this ID")):
        detail = f"Salesforce has no open lead {place}"
        assert salesforce.deliver("update_lead", params=params | named).detail == detail
        with pytest.raises(PermanentError, match=detail):
            salesforce.deliver("update_lead", params=params | named | {"on_missing": "error"})
    assert sandbox.salesforce.leads[0]["Status"] == "Closed - Converted"


# ------------------------------------------------------------------------------------------------ cases


def test_close_case_sets_closed_status_of_org(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.salesforce.set_statuses("Case", {"Neu": False, "Gelöst": True})
    case_id = sandbox.salesforce.add("Case", Subject="Help").id
    source_event = event("chat.resolved", {"metadata.caseId": case_id}, clock=salesforce.clock)
    result = salesforce.deliver("close_case", source_event, {"properties": {"Reason": "Solved by Heppu"}})

    [stored] = sandbox.salesforce.cases
    assert (result.id, stored["Status"], stored["Reason"]) == (case_id, "Gelöst", "Solved by Heppu")
    assert salesforce.deliver("close_case", source_event).detail == "no open case"


def test_close_case_without_id_closes_open_case_of_contact(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    contact_id = add_contact(sandbox, Email="priya.raman@example.com")
    sandbox.salesforce.add("Case", ContactId=contact_id, Status="Closed")
    case_id = sandbox.salesforce.add("Case", ContactId=contact_id).id
    sandbox.salesforce.add("Case", ContactId=add_contact(sandbox, Email="other@example.com"))
    source_event = event("chat.resolved", clock=salesforce.clock)
    with pytest.raises(PermanentError, match="no case ID"):
        salesforce.deliver("close_case", source_event)
    assert salesforce.deliver("close_case", source_event, {"without_id": "review"}).id == case_id

    sandbox.salesforce.add("Case", ContactId=contact_id)
    salesforce.clock.advance(minutes=1)
    newest = sandbox.salesforce.add("Case", ContactId=contact_id).id
    with pytest.raises(LookupInconclusive, match="several open cases"):
        salesforce.deliver("close_case", source_event, {"without_id": "review"})
    assert salesforce.deliver("close_case", source_event, {"without_id": "newest"}).id == newest


def test_validation_rule_message_is_reported(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    case_id = sandbox.salesforce.add("Case").id
    rule = "A closed case needs a reason."
    sandbox.salesforce.add_rule(
        "Case", lambda case: rule if case["Status"] == "Closed" and not case.get("Reason") else None
    )
    with pytest.raises(PermanentError, match=rule):
        salesforce.deliver("close_case", params={"case": case_id})


@pytest.mark.parametrize("invalid_id", ["../Account/001", "500", "5005g00000AbCdE'"])
def test_invalid_id_sends_no_request(salesforce: CrmConnection, invalid_id: str) -> None:
    from pydantic import ValidationError

    for action, name in (("close_case", "case"), ("update_lead", "lead")):
        with pytest.raises(ValidationError, match="pattern"):
            salesforce.deliver(action, params={name: invalid_id})
    assert salesforce.requests() == []


# ------------------------------------------------------------------------------------------------ tasks


def test_create_task_is_open_and_due_on_contacts_local_date(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.clock.set(datetime(2026, 3, 2, 23, tzinfo=UTC))
    contact_id = add_contact(sandbox, Phone=PHONE)
    source_event = event(changes={"callMetadata.timezone": "America/New_York"}, clock=salesforce.clock)
    result = salesforce.deliver(
        "create_task", source_event, {"subject": "Send the invoice", "due": "1d", "priority": "High"}
    )

    [task] = sandbox.salesforce.tasks
    assert result.id == task.id
    assert (task["Subject"], task["Status"], task["Priority"]) == ("Send the invoice", "Not Started", "High")
    assert (task["ActivityDate"], task["WhoId"]) == ("2026-03-03", contact_id)


@pytest.mark.parametrize("with_field", [True, False])
def test_retry_after_lost_response_creates_one_task(
    salesforce: CrmConnection, sandbox: RunningSandbox, with_field: bool
) -> None:
    if not with_field:
        sandbox.salesforce.remove_field("Task", "Conversation_Id__c")
    source_event = event(clock=salesforce.clock)
    salesforce.deliver("create_task", source_event, idempotency_key="another")
    path = "*/Task/Conversation_Id__c" if with_field else "*/composite/sobjects"
    sandbox.fault("salesforce", path=path, drop="after")
    with pytest.raises(OutcomeUnknown):
        salesforce.deliver("create_task", source_event)
    result = salesforce.deliver("create_task", source_event, attempt=2)
    assert len(sandbox.salesforce.tasks) == 2
    assert sandbox.salesforce.tasks[1].id == result.id


# ----------------------------------------------------------------------------------------- session and quota


def test_expired_session_is_renewed_once(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    salesforce.deliver("log_call")
    sandbox.salesforce.expire_sessions()
    salesforce.requests()
    salesforce.deliver("log_call")
    assert [request for request in salesforce.requests() if request.endswith(TOKEN)] == [f"POST {TOKEN}"]
    assert len(sandbox.salesforce.tasks) == 2


def test_repeatedly_rejected_session_raises_authentication_error(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("log_call")
    sandbox.fault("salesforce", path=f"{DATA}/*", status=401, times=None)
    salesforce.requests()
    with pytest.raises(AuthenticationError):
        salesforce.deliver("log_call")
    assert len(salesforce.requests()) == 3
    with pytest.raises(AuthenticationError) as raised:
        salesforce.deliver("log_call")
    assert "API Enabled" in raised.value.fix
    assert len(salesforce.requests()) == 2, "without another login"


def test_401_with_html_body_raises_authentication_error(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.fault("salesforce", path=f"{DATA}/*", status=401, body="<html>who are you?</html>", times=None)
    with pytest.raises(AuthenticationError):
        salesforce.deliver("log_call")


def test_threads_with_expired_session_log_in_once(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    salesforce.deliver("log_call")
    sandbox.salesforce.expire_sessions()
    salesforce.requests()
    errors: list[BaseException] = []

    def deliver_calls(start: int) -> None:
        try:
            for source_event in call_events(3, salesforce.clock, start):
                salesforce.deliver("log_call", source_event)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=deliver_calls, args=(start,)) for start in (0, 100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(sandbox.salesforce.tasks) == 13
    assert [request for request in salesforce.requests() if request.endswith(TOKEN)] == [f"POST {TOKEN}"]


def test_client_sends_no_request_before_first_use(salesforce: CrmConnection) -> None:
    assert salesforce.requests() == []


def test_login_with_private_key(sandbox: RunningSandbox, key_file: tuple[Path, str]) -> None:
    path, public = key_file
    sandbox.salesforce.sessions.public_key = public
    environ = {
        "SALESFORCE_CONSUMER_SECRET": "",
        "SALESFORCE_USERNAME": "integration@harbourlight.example",
        "SALESFORCE_PRIVATE_KEY_FILE": str(path),
    }
    connection = CrmConnection("salesforce", sandbox, environ)
    connection.deliver("log_call")
    assert len(sandbox.salesforce.tasks) == 1
    connection.close()


def test_invalid_private_key_is_reported(sandbox: RunningSandbox, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("no key at all")
    environ = {
        "SALESFORCE_CONSUMER_SECRET": "",
        "SALESFORCE_USERNAME": "integration@harbourlight.example",
        "SALESFORCE_PRIVATE_KEY_FILE": str(path),
    }
    connection = CrmConnection("salesforce", sandbox, environ)
    with pytest.raises(AuthenticationError, match="SALESFORCE_PRIVATE_KEY_FILE"):
        connection.deliver("log_call")
    connection.close()


@pytest.mark.parametrize(
    ("fault", "error_type"),
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
def test_failed_login_is_mapped_and_writes_nothing(
    salesforce: CrmConnection, sandbox: RunningSandbox, fault: dict[str, Any], error_type: type[DeliveryError]
) -> None:
    sandbox.fault("salesforce", path=TOKEN, **fault)
    with pytest.raises(DeliveryError) as caught:
        salesforce.deliver("log_call")
    assert type(caught.value) is error_type
    assert len(salesforce.requests()) == 1


def test_wrong_secret_is_reported_without_its_value(sandbox: RunningSandbox) -> None:
    connection = CrmConnection("salesforce", sandbox, {"SALESFORCE_CONSUMER_SECRET": "wrong-and-secret"})
    with pytest.raises(AuthenticationError, match="invalid_client") as caught:
        connection.connected.check()
    assert "wrong-and-secret" not in f"{caught.value!r} {caught.value.__cause__!r}"
    connection.close()


def test_max_quota_fraction_stops_requests(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.salesforce.daily_limit = 100
    sandbox.salesforce.requests_today = 70
    salesforce.deliver("log_call")
    sandbox.salesforce.requests_today = 79
    salesforce.deliver("log_call")
    salesforce.requests()
    with pytest.raises(QuotaExhausted) as caught:
        salesforce.deliver("log_call")
    assert str(caught.value) == (
        "80/100 of the org's daily requests are used; "
        "SALESFORCE_MAX_QUOTA_FRACTION leaves the rest to other applications"
    )
    assert caught.value.until is not None
    assert timedelta(minutes=9) < caught.value.until - datetime.now(UTC) <= timedelta(minutes=10)
    assert salesforce.requests() == []

    # After ten minutes, one request checks the usage again.
    sandbox.salesforce.requests_today = 10
    salesforce.connected.client.session._transport.adapter._exhausted_until = datetime.now(UTC)
    salesforce.deliver("log_call")


def test_max_quota_fraction_is_configurable(sandbox: RunningSandbox) -> None:
    connection = CrmConnection("salesforce", sandbox, {"SALESFORCE_MAX_QUOTA_FRACTION": "1"})
    sandbox.salesforce.daily_limit = 100
    sandbox.salesforce.requests_today = 80
    connection.deliver("log_call")
    connection.deliver("log_call")
    connection.close()


# --------------------------------------------------------------------------------- check, setup and errors


def test_check_reports_usage_and_missing_field(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    assert salesforce.connected.check() == (
        "logged in, 1/100000 of the org's daily requests used; Task.Conversation_Id__c exists"
    )
    sandbox.salesforce.remove_field("Task", "Conversation_Id__c")
    line = salesforce.connected.check()
    assert "Task.Conversation_Id__c is missing or hidden from this user" in line
    assert "run `bridge connections setup salesforce`" in line
    assert [request for request in salesforce.requests() if not request.startswith("GET")] == [
        f"POST {TOKEN}"
    ]


@pytest.mark.parametrize(
    ("field", "advice"),
    [
        ({"unique": False}, "must be an External ID and unique"),
        ({"external_id": False}, "must be an External ID and unique"),
        ({"createable": False}, "this user may not write Task.Conversation_Id__c"),
    ],
)
def test_check_reports_unusable_field(
    salesforce: CrmConnection, sandbox: RunningSandbox, field: dict[str, bool], advice: str
) -> None:
    fields = sandbox.salesforce.crm.types["Task"].fields
    fields["Conversation_Id__c"] = replace(fields["Conversation_Id__c"], **field)
    with pytest.raises(ConfigError, match=advice):
        salesforce.connected.check()


def test_check_reports_missing_permission_for_tasks(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    fields = sandbox.salesforce.crm.types["Task"].fields
    fields.update({name: replace(existing, createable=False) for name, existing in fields.items()})
    with pytest.raises(ConfigError, match="this user may not create Tasks"):
        salesforce.connected.check()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SALESFORCE_CONSUMER_SECRET": ""}, "SALESFORCE_USERNAME and SALESFORCE_PRIVATE_KEY_FILE"),
        ({"SALESFORCE_URL": "http://acme.my.salesforce.com"}, "SALESFORCE_URL"),
        ({"SALESFORCE_PRIVATE_KEY_FILE": "/no/such/file"}, "SALESFORCE_PRIVATE_KEY_FILE"),
        ({"SALESFORCE_TIME_ZONE": "Mars/Olympus"}, "SALESFORCE_TIME_ZONE"),
        ({"SALESFORCE_API_VERSION": "v66"}, "SALESFORCE_API_VERSION"),
        ({"SALESFORCE_OWNER": "Ana"}, "SALESFORCE_OWNER"),
        ({"SALESFORCE_MAX_QUOTA_FRACTION": "1.5"}, "SALESFORCE_MAX_QUOTA_FRACTION"),
    ],
)
def test_invalid_setting_is_named(sandbox: RunningSandbox, environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CrmConnection("salesforce", sandbox, environ)
