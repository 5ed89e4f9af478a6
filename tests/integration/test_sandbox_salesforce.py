"""Mock Salesforce, driven by simple-salesforce: accepted requests and error responses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from simple_salesforce import Salesforce, format_soql
from simple_salesforce.exceptions import SalesforceAuthenticationFailed, SalesforceError

from bridge.connector import DeadlineAdapter
from bridge.sandbox import RunningSandbox
from bridge.sandbox.salesforce.records import QUEUE_ID, SALES_USER_ID
from bridge.sandbox.salesforce.schema import Field
from bridge.sandbox.salesforce.sessions import USERNAME


@pytest.fixture
def session(sandbox: RunningSandbox) -> Iterator[requests.Session]:
    with requests.Session() as http_session:
        http_session.mount("https://", DeadlineAdapter(redirect_to=sandbox.environment["SALESFORCE_URL"]))
        yield http_session


@pytest.fixture
def org(sandbox: RunningSandbox, session: requests.Session) -> Any:
    env = sandbox.environment
    return Salesforce(
        consumer_key=env["SALESFORCE_CONSUMER_KEY"],
        consumer_secret=env["SALESFORCE_CONSUMER_SECRET"],
        domain="acme.my",
        session=session,
        version="66.0",
    )


def api_error(request: Callable[[], Any]) -> tuple[int, str]:
    """Return the status and error code of simple-salesforce's exception."""
    with pytest.raises(SalesforceError) as caught:
        request()
    return caught.value.status, caught.value.content[0]["errorCode"]


def upsert(org: Any, key: str, fields: dict[str, Any]) -> tuple[int, Any]:
    response = org.Task.upsert(f"Conversation_Id__c/{key}", fields, raw_response=True)
    return response.status_code, response.json() if response.content else None


def collection(org: Any, method: str, records: list[dict[str, Any]], path: str = "", **more: Any) -> Any:
    records = [{"attributes": {"type": "Task"}} | record for record in records]
    return org.restful(f"composite/sobjects{path}", method=method, json={"records": records} | more)


# Authentication


def test_client_credentials_log_in(org: Any) -> None:
    assert org.session_id
    assert org.sf_instance.endswith("salesforce.com"), "the SDK prepends https://"
    assert org.query("SELECT Id FROM Organization")["totalSize"] == 1


@pytest.mark.parametrize(
    ("name", "code"), [("consumer_key", "invalid_client_id"), ("consumer_secret", "invalid_client")]
)
def test_wrong_credentials_are_rejected(
    sandbox: RunningSandbox, session: requests.Session, name: str, code: str
) -> None:
    env = sandbox.environment
    credentials = {
        "consumer_key": env["SALESFORCE_CONSUMER_KEY"],
        "consumer_secret": env["SALESFORCE_CONSUMER_SECRET"],
    } | {name: "wrong"}
    with pytest.raises(SalesforceAuthenticationFailed) as caught:
        Salesforce(domain="acme.my", session=session, **credentials)
    assert caught.value.code == code


def key_pair() -> tuple[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


def test_jwt_login_requires_signature_of_configured_key(
    sandbox: RunningSandbox, session: requests.Session
) -> None:
    private, public = key_pair()
    configured_key = sandbox.environment["SALESFORCE_CONSUMER_KEY"]

    def log_in(consumer_key: str = configured_key, username: str = USERNAME, domain: str = "login") -> Any:
        return Salesforce(
            username=username, consumer_key=consumer_key, privatekey=private, domain=domain, session=session
        )

    assert log_in().session_id, "without a configured key, the signature is not checked"
    sandbox.salesforce.sessions.public_key = public
    assert log_in(domain="test").session_id
    with pytest.raises(SalesforceAuthenticationFailed, match="client identifier invalid"):
        log_in(consumer_key="x")
    with pytest.raises(SalesforceAuthenticationFailed, match="audience is invalid"):
        log_in(domain="elsewhere.my")
    with pytest.warns(UserWarning, match="authorize"), pytest.raises(SalesforceAuthenticationFailed):
        log_in(username="who@example.com")
    sandbox.salesforce.sessions.public_key = key_pair()[1]
    with pytest.raises(SalesforceAuthenticationFailed, match="invalid assertion"):
        log_in()


def test_expired_session_returns_401_and_client_logs_in_again(sandbox: RunningSandbox, org: Any) -> None:
    sandbox.salesforce.expire_sessions()
    old_session_id = org.session_id
    assert org.Contact.create({"LastName": "Okafor"})["success"]
    assert org.session_id != old_session_id
    statuses = [(request.path.rsplit("/", 1)[-1], request.status) for request in sandbox.requests[1:]]
    assert statuses == [("", 401), ("token", 200), ("", 201)]
    stale_client = Salesforce(
        session_id="stale", instance_url="https://acme.my.salesforce.com", session=org.session
    )
    assert api_error(lambda: stale_client.query("SELECT Id FROM Task")) == (401, "INVALID_SESSION_ID")


# Records and their fields


def test_contact_is_created_read_updated_and_deleted(sandbox: RunningSandbox, org: Any) -> None:
    created = org.Contact.create({"FirstName": "Ines", "LastName": "Okafor", "Email": "ines@example.com"})
    assert (len(created["id"]), created["id"][:3]) == (18, "003")
    assert org.Contact.get(created["id"])["Name"] == "Ines Okafor"
    assert org.Contact.get(created["id"][:15])["Id"] == created["id"], (
        "the 15-character ID refers to the same record"
    )
    assert org.Contact.update(created["id"], {"Title": "Captain", "FirstName": ""}) == 204
    assert sandbox.salesforce.contacts[0]["Title"] == "Captain"
    assert sandbox.salesforce.contacts[0]["FirstName"] is None
    assert org.Contact.delete(created["id"]) == 204
    assert api_error(lambda: org.Contact.get(created["id"])) == (404, "NOT_FOUND")
    assert api_error(lambda: org.Contact.update(created["id"], {"Title": "x"})) == (404, "ENTITY_IS_DELETED")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"Sbject": "x"}, "INVALID_FIELD"),
        ({"Subject": "x" * 256}, "STRING_TOO_LONG"),
        ({"Description": "x" * 32_001}, "STRING_TOO_LONG"),
        ({"Status": "Done"}, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ({"CallType": "inbound"}, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ({"TaskSubtype": "Chat"}, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ({"CallDurationInSeconds": "125"}, "JSON_PARSER_ERROR"),
        ({"CallDurationInSeconds": 125.5}, "JSON_PARSER_ERROR"),
        ({"CallDurationInSeconds": True}, "JSON_PARSER_ERROR"),
        ({"Subject": 7}, "JSON_PARSER_ERROR"),
        ({"ActivityDate": "2026-03-02T21:30:00Z"}, "JSON_PARSER_ERROR"),
        ({"ActivityDate": "2026-02-30"}, "JSON_PARSER_ERROR"),
        ({"ReminderDateTime": "2026-03-02"}, "JSON_PARSER_ERROR"),
        ({"IsClosed": True}, "INVALID_FIELD_FOR_INSERT_UPDATE"),
        ({"WhoId": "nobody"}, "MALFORMED_ID"),
        ({"WhoId": "5005g000000000A"}, "MALFORMED_ID"),
        ({"WhoId": "0035g00000000zz"}, "INVALID_CROSS_REFERENCE_KEY"),
    ],
)
def test_invalid_task_field_is_rejected(
    sandbox: RunningSandbox, org: Any, fields: dict[str, Any], code: str
) -> None:
    assert api_error(lambda: org.Task.create({"Subject": "Call"} | fields)) == (400, code)
    assert sandbox.salesforce.tasks == []


def test_missing_required_fields_are_listed(org: Any) -> None:
    assert api_error(lambda: org.Contact.create({"Email": "a@b.co"})) == (400, "REQUIRED_FIELD_MISSING")
    with pytest.raises(SalesforceError) as caught:
        org.Lead.create({"Email": "a@b.co"})
    assert caught.value.content[0]["fields"] == ["LastName", "Company"]
    assert api_error(lambda: org.Contact.create({"LastName": "x", "Email": "a@b"})) == (
        400,
        "INVALID_EMAIL_ADDRESS",
    )


def test_completed_call_is_closed_task(sandbox: RunningSandbox, org: Any) -> None:
    contact_id = org.Contact.create({"LastName": "Okafor"})["id"]
    org.Task.create(
        {
            "TaskSubtype": "Call",
            "Subject": "Call with Ines",
            "Status": "Completed",
            "ActivityDate": "2026-03-02",
            "CallDurationInSeconds": 125,
            "CallType": "Inbound",
            "CallDisposition": "Resolved",
            "CallObject": "CA0123",
            "WhoId": contact_id,
        }
    )
    task = sandbox.salesforce.tasks[0]
    assert (task["IsClosed"], task["WhoId"], task["Priority"]) == (True, contact_id, "Normal")
    assert task["CompletedDateTime"]


def test_task_subtype_is_read_only_after_creation(org: Any) -> None:
    task_id = org.Task.create({"TaskSubtype": "Call", "Subject": "x"})["id"]
    code = "INVALID_FIELD_FOR_INSERT_UPDATE"
    assert api_error(lambda: org.Task.update(task_id, {"TaskSubtype": "Call"})) == (400, code)


def test_task_of_lead_with_what_id_is_rejected(sandbox: RunningSandbox, org: Any) -> None:
    lead = org.Lead.create({"LastName": "Raman", "Company": "Lamps"})["id"]
    case = org.Case.create({"Subject": "Broken lamp"})["id"]
    code = "FIELD_INTEGRITY_EXCEPTION"
    assert api_error(lambda: org.Task.create({"Subject": "x", "WhoId": lead, "WhatId": case})) == (400, code)
    task_id = org.Task.create({"Subject": "x", "WhatId": case})["id"]
    assert api_error(lambda: org.Task.update(task_id, {"WhoId": lead})) == (400, code)
    org.Task.update(task_id, {"WhoId": lead, "WhatId": None})
    assert sandbox.salesforce.tasks[0]["WhoId"] == lead


def test_converted_lead_is_rejected(sandbox: RunningSandbox, org: Any) -> None:
    lead = org.Lead.create({"LastName": "Raman", "Company": "Lamps", "Phone": "+12125550123"})["id"]
    contact = org.Contact.create({"LastName": "Raman", "Phone": "+12125550123"})["id"]
    sandbox.salesforce.convert(lead, contact)
    code = "CANNOT_UPDATE_CONVERTED_LEAD"
    assert api_error(lambda: org.Lead.update(lead, {"Rating": "Hot"})) == (400, code)
    assert api_error(lambda: org.Task.create({"Subject": "x", "WhoId": lead})) == (400, code)
    assert org.Lead.get(lead)["ConvertedContactId"] == contact
    response = org.search(
        "FIND {2125550123} IN PHONE FIELDS RETURNING Contact(Id), Lead(Id WHERE IsConverted = false)"
    )
    assert [record["Id"] for record in response["searchRecords"]] == [contact]


def test_merged_contact_is_deleted_and_tasks_move_to_winner(sandbox: RunningSandbox, org: Any) -> None:
    winner, other = (org.Contact.create({"LastName": name})["id"] for name in ("Okafor", "Okafor-Lee"))
    task = org.Task.create({"Subject": "x", "WhoId": other})["id"]
    sandbox.salesforce.merge("Contact", winner, other)
    assert api_error(lambda: org.Contact.update(other, {"Title": "x"})) == (404, "ENTITY_IS_DELETED")
    assert api_error(lambda: org.Task.create({"Subject": "x", "WhoId": other})) == (400, "ENTITY_IS_DELETED")
    assert org.Task.get(task)["WhoId"] == winner


def test_locked_record_is_rejected_given_times(sandbox: RunningSandbox, org: Any) -> None:
    contact = org.Contact.create({"LastName": "Okafor"})["id"]
    sandbox.salesforce.lock_record(contact, times=2)
    assert api_error(lambda: org.Contact.update(contact, {"Title": "x"})) == (400, "UNABLE_TO_LOCK_ROW")
    assert api_error(lambda: org.Task.create({"Subject": "x", "WhoId": contact})) == (
        400,
        "UNABLE_TO_LOCK_ROW",
    )
    assert org.Contact.update(contact, {"Title": "x"}) == 204
    assert sandbox.salesforce.tasks == []


def test_duplicate_rule_alerts_or_blocks(sandbox: RunningSandbox, org: Any) -> None:
    fields = {"LastName": "Okafor", "Email": "ines@example.com"}
    first_id = org.Contact.create(fields)["id"]
    org.Contact.create(fields)
    sandbox.salesforce.set_duplicate_rule("alert")
    with pytest.raises(SalesforceError) as caught:
        org.Contact.create(fields | {"Email": "INES@example.com"})
    error = caught.value.content[0]
    assert error["errorCode"] == "DUPLICATES_DETECTED"
    matches = error["duplicateResult"]["matchResults"][0]["matchRecords"]
    assert first_id in [match["record"]["Id"] for match in matches]
    save = {"Sforce-Duplicate-Rule-Header": "allowSave=true"}
    assert org.Contact.create(fields, headers=save)["success"]
    sandbox.salesforce.set_duplicate_rule("block")
    assert api_error(lambda: org.Contact.create(fields, headers=save)) == (400, "DUPLICATES_DETECTED")


def test_validation_rule_rejects_record(sandbox: RunningSandbox, org: Any) -> None:
    def needs_reason(case: Any) -> str | None:
        return "Say why it is closed." if case["Status"] == "Closed" and not case.get("Reason") else None

    sandbox.salesforce.add_rule("Case", needs_reason)
    case = org.Case.create({"Subject": "Broken lamp"})["id"]
    code = "FIELD_CUSTOM_VALIDATION_EXCEPTION"
    assert api_error(lambda: org.Case.update(case, {"Status": "Closed"})) == (400, code)
    org.Case.update(case, {"Status": "Closed", "Reason": "Repaired"})
    closed = sandbox.salesforce.cases[0]
    assert (closed["IsClosed"], bool(closed["ClosedDate"])) == (True, True)


def test_closed_status_uses_names_of_the_org(sandbox: RunningSandbox, org: Any) -> None:
    sandbox.salesforce.set_statuses("Task", {"Offen": False, "Erledigt": True})
    response = org.query("SELECT ApiName FROM TaskStatus WHERE IsClosed = true ORDER BY SortOrder")
    assert [record["ApiName"] for record in response["records"]] == ["Erledigt"]
    code = "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"
    assert api_error(lambda: org.Task.create({"Subject": "x", "Status": "Completed"})) == (400, code)
    org.Task.create({"Subject": "x", "Status": "Erledigt"})
    assert sandbox.salesforce.tasks[0]["IsClosed"] is True
    closed = org.query("SELECT ApiName FROM CaseStatus WHERE IsClosed = true")
    assert [record["ApiName"] for record in closed["records"]] == ["Closed"]


def test_unknown_type_and_path_in_id_return_404(org: Any) -> None:
    assert api_error(lambda: org.Taks.create({"Subject": "x"}))[0] == 404
    assert api_error(lambda: org.Contact.get("../Account/001"))[0] == 404
    assert api_error(lambda: org.TaskStatus.create({"MasterLabel": "x"}))[0] == 400


# Upserts by external ID


def test_upsert_creates_once_and_then_updates(sandbox: RunningSandbox, org: Any) -> None:
    status, created = upsert(org, "conv_1", {"Subject": "first", "TaskSubtype": "Call"})
    assert (status, created["created"]) == (201, True)
    status, updated = upsert(org, "CONV_1", {"Subject": "second"})
    assert (status, updated["created"], updated["id"]) == (200, False, created["id"])
    assert [task["Subject"] for task in sandbox.salesforce.tasks] == ["second"]
    assert sandbox.salesforce.tasks[0]["Conversation_Id__c"] == "conv_1"
    assert org.Task.get_by_custom_id("Conversation_Id__c", "conv_1")["Id"] == created["id"]
    code = "INVALID_FIELD"
    assert api_error(lambda: upsert(org, "conv_2", {"Conversation_Id__c": "conv_2", "Subject": "x"})) == (
        400,
        code,
    )
    code = "INVALID_FIELD_FOR_INSERT_UPDATE"
    assert api_error(lambda: upsert(org, "conv_1", {"TaskSubtype": "Call"})) == (400, code)


def test_external_id_may_contain_any_character(sandbox: RunningSandbox, org: Any) -> None:
    status, _ = upsert(org, "conv%2F1%20%C3%A9", {"Subject": "x"})
    assert status == 201
    assert sandbox.salesforce.tasks[0]["Conversation_Id__c"] == "conv/1 é"


def test_update_only_creates_nothing(sandbox: RunningSandbox, org: Any) -> None:
    def upsert_with_update_only() -> Any:
        path = "sobjects/Task/Conversation_Id__c/conv_1"
        return org.restful(path, params={"updateOnly": "true"}, method="PATCH", json={"Subject": "x"})

    assert api_error(upsert_with_update_only)[0] == 404
    assert sandbox.salesforce.tasks == []


def test_duplicate_unique_value_is_rejected(org: Any) -> None:
    upsert(org, "conv_1", {"Subject": "x"})
    assert api_error(lambda: org.Task.create({"Conversation_Id__c": "conv_1"})) == (400, "DUPLICATE_VALUE")


def test_multiple_matches_return_300_and_write_nothing(sandbox: RunningSandbox, org: Any) -> None:
    sandbox.salesforce.add_field("Contact", Field("Legacy_Id__c", external_id=True))
    for name in ("one", "two"):
        org.Contact.create({"LastName": name, "Legacy_Id__c": "7"})
    with pytest.raises(SalesforceError) as caught:
        org.Contact.upsert("Legacy_Id__c/7", {"Title": "x"})
    assert caught.value.status == 300
    assert len(caught.value.content) == 2
    assert [contact["Title"] for contact in sandbox.salesforce.contacts] == [None, None]


def test_missing_external_id_field_is_rejected(sandbox: RunningSandbox, org: Any) -> None:
    assert "Conversation_Id__c" in [field["name"] for field in org.Task.describe()["fields"]]
    sandbox.salesforce.remove_field("Task", "Conversation_Id__c")
    assert api_error(lambda: upsert(org, "conv_1", {"Subject": "x"}))[0] == 404
    assert api_error(lambda: org.Task.create({"Conversation_Id__c": "conv_1"})) == (400, "INVALID_FIELD")
    query = "SELECT Id FROM Task WHERE Conversation_Id__c = 'x'"
    assert api_error(lambda: org.query(query)) == (400, "INVALID_FIELD")
    assert "Conversation_Id__c" not in [field["name"] for field in org.Task.describe()["fields"]]


# Collections and composite requests


def test_collection_returns_result_for_each_record(sandbox: RunningSandbox, org: Any) -> None:
    results = collection(
        org,
        "PATCH",
        [
            {"Conversation_Id__c": "conv_1", "Subject": "a"},
            {"Conversation_Id__c": "conv_2", "Status": "Done"},
            {"Conversation_Id__c": "conv_1", "Subject": "twice"},
            {"Subject": "no key"},
        ],
        "/Task/Conversation_Id__c",
        allOrNone=False,
    )
    assert [result["success"] for result in results] == [True, False, False, False]
    assert [result["errors"][0]["statusCode"] for result in results[1:]] == [
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
        "DUPLICATE_VALUE",
        "MISSING_ARGUMENT",
    ]
    assert results[0]["created"] is True
    assert [task["Subject"] for task in sandbox.salesforce.tasks] == ["a"]
    requests_before = sandbox.salesforce.requests_today
    second = collection(
        org, "PATCH", [{"Conversation_Id__c": "conv_1", "Subject": "b"}], "/Task/Conversation_Id__c"
    )
    assert (second[0]["created"], second[0]["id"]) == (False, results[0]["id"])
    assert sandbox.salesforce.requests_today == requests_before + 1


def test_collection_creates_and_updates_by_id(sandbox: RunningSandbox, org: Any) -> None:
    created = collection(org, "POST", [{"Subject": "a"}, {"Subject": "b"}])
    updated = collection(
        org, "PATCH", [{"id": created[0]["id"], "Subject": "c"}, {"id": "x", "Subject": "d"}]
    )
    assert [result["success"] for result in updated] == [True, False]
    assert [task["Subject"] for task in sandbox.salesforce.tasks] == ["c", "b"]


def test_all_or_none_rolls_back_collection(sandbox: RunningSandbox, org: Any) -> None:
    results = collection(org, "POST", [{"Subject": "a"}, {"Status": "Done"}], allOrNone=True)
    codes = [result["errors"][0]["statusCode"] for result in results]
    assert codes == ["ALL_OR_NONE_OPERATION_ROLLED_BACK", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"]
    assert sandbox.salesforce.tasks == []


def test_collection_too_large_is_rejected(org: Any) -> None:
    too_many = [{"Subject": "x"}] * 201
    assert api_error(lambda: collection(org, "POST", too_many)) == (400, "EXCEEDED_ID_LIMIT")
    result = org.restful("composite/sobjects", method="POST", json={"records": [{"Subject": "x"}]})
    assert result[0]["errors"][0]["statusCode"] == "INVALID_TYPE"
    assert len(collection(org, "POST", [{"Subject": "x"}] * 200)) == 200


def subrequest(name: str, method: str, url: str, body: Any = None) -> dict[str, Any]:
    request = {"referenceId": name, "method": method, "url": f"/services/data/v66.0/{url}"}
    return request | ({"body": body} if body is not None else {})


def test_composite_request_resolves_references_and_counts_once(sandbox: RunningSandbox, org: Any) -> None:
    requests_before = sandbox.salesforce.requests_today
    response = org.restful(
        "composite",
        method="POST",
        json={
            "allOrNone": True,
            "compositeRequest": [
                subrequest("person", "POST", "sobjects/Contact", {"LastName": "Okafor"}),
                subrequest(
                    "call", "PATCH", "sobjects/Task/Conversation_Id__c/conv_1", {"WhoId": "@{person.id}"}
                ),
                subrequest("found", "GET", "query?q=SELECT+Id+FROM+Task+WHERE+WhoId+=+'@{person.id}'"),
            ],
        },
    )
    contact, task, query = response["compositeResponse"]
    assert [item["httpStatusCode"] for item in (contact, task, query)] == [201, 201, 200]
    assert query["body"]["records"][0]["Id"] == task["body"]["id"]
    assert sandbox.salesforce.tasks[0]["WhoId"] == contact["body"]["id"]
    assert sandbox.salesforce.requests_today == requests_before + 1


def test_composite_request_reports_errors_or_rolls_back(sandbox: RunningSandbox, org: Any) -> None:
    subrequests = [
        subrequest("good", "POST", "sobjects/Contact", {"LastName": "Okafor"}),
        subrequest("bad", "POST", "sobjects/Task", {"Status": "Done"}),
        subrequest("after", "POST", "sobjects/Task", {"WhoId": "@{bad.id}"}),
    ]
    body = {"allOrNone": True, "compositeRequest": subrequests}
    responses = org.restful("composite", method="POST", json=body)["compositeResponse"]
    assert [item["httpStatusCode"] for item in responses] == [400, 400, 400]
    assert responses[0]["body"][0]["errorCode"] == "PROCESSING_HALTED"
    assert sandbox.salesforce.contacts == []
    body["allOrNone"] = False
    responses = org.restful("composite", method="POST", json=body)["compositeResponse"]
    assert [item["httpStatusCode"] for item in responses] == [201, 400, 400]
    assert len(sandbox.salesforce.contacts) == 1


@pytest.mark.parametrize(
    "subrequests",
    [
        [subrequest(f"s{number}", "GET", "limits") for number in range(26)],
        [subrequest("same", "GET", "limits")] * 2,
        [subrequest(f"q{number}", "GET", "query?q=SELECT+Id+FROM+Task") for number in range(6)],
        [subrequest("bad name", "GET", "limits")],
        [],
    ],
)
def test_invalid_composite_request_is_rejected(org: Any, subrequests: list[dict[str, Any]]) -> None:
    body = {"compositeRequest": subrequests}
    assert api_error(lambda: org.restful("composite", method="POST", json=body))[0] == 400


# Queries and searches over HTTP


def test_quoted_value_is_matched_literally(org: Any) -> None:
    org.Contact.create({"LastName": "O'Brien", "Email": "x'y@example.com"})
    query = format_soql(
        "SELECT Id, Name FROM Contact WHERE Email = {} AND LastName = {}", "x'y@example.com", "O'Brien"
    )
    assert org.query(query)["records"][0]["Name"] == "O'Brien"
    like = format_soql("SELECT Id FROM Contact WHERE LastName LIKE '%{:like}'", "b%")
    assert org.query(like)["totalSize"] == 0


def test_large_query_result_is_paged(sandbox: RunningSandbox, org: Any) -> None:
    for number in range(2001):
        sandbox.salesforce.add("Task", Subject=f"{number}")
    first = org.query("SELECT Subject FROM Task ORDER BY CreatedDate")
    assert (first["totalSize"], first["done"], len(first["records"])) == (2001, False, 2000)
    assert len(org.query_all("SELECT Id FROM Task")["records"]) == 2001
    assert org.query("SELECT COUNT() FROM Task")["totalSize"] == 2001


def test_search_lags_with_lag_fault_and_query_does_not(sandbox: RunningSandbox, org: Any) -> None:
    sandbox.fault("salesforce", lag=60)
    contact_id = org.Contact.create({"LastName": "Okafor", "Phone": "(212) 555-0123"})["id"]
    search = "FIND {2125550123} IN PHONE FIELDS RETURNING Contact(Id, Phone)"
    assert org.search(search)["searchRecords"] == []
    assert org.query("SELECT Id FROM Contact WHERE Phone LIKE '%212%555%0123'")["totalSize"] == 1
    sandbox.clock.advance(seconds=61)
    assert [record["Id"] for record in org.search(search)["searchRecords"]] == [contact_id]


def test_unescaped_quick_search_is_rejected(org: Any) -> None:
    assert api_error(lambda: org.quick_search("O'Brien"))[0] == 400
    assert api_error(lambda: org.quick_search("+12125550123"))[0] == 400


# Limits


def test_request_limit_is_counted_and_enforced(sandbox: RunningSandbox, org: Any) -> None:
    org.query("SELECT Id FROM Task")
    assert org.api_usage["api-usage"].total == 100_000
    assert org.limits()["DailyApiRequests"]["Max"] == 100_000
    sandbox.salesforce.daily_limit = sandbox.salesforce.requests_today
    assert api_error(lambda: org.query("SELECT Id FROM Task")) == (403, "REQUEST_LIMIT_EXCEEDED")
    sandbox.salesforce.daily_limit = 100_000
    sandbox.fault("salesforce", quota=1)
    org.query("SELECT Id FROM Task")
    assert api_error(lambda: org.Task.create({"Subject": "x"})) == (403, "REQUEST_LIMIT_EXCEEDED")


def test_search_of_ten_thousand_contacts_is_fast(sandbox: RunningSandbox, org: Any) -> None:
    for number in range(10_000):
        sandbox.salesforce.add(
            "Contact", LastName="x", Email=f"{number}@example.com", Phone=f"+1212{number:07}"
        )
    started_at = sandbox.clock.now()
    for number in range(20):
        assert org.query(f"SELECT Id FROM Contact WHERE Email = '{number}@example.com'")["totalSize"] == 1
        search = f"FIND {{212{number:07}}} IN PHONE FIELDS RETURNING Contact(Id), Lead(Id)"
        assert len(org.search(search)["searchRecords"]) == 1
    assert (sandbox.clock.now() - started_at).total_seconds() < 2


# Owners and assignment rules


@pytest.mark.parametrize("header", [None, "TRUE", "FALSE", "false"])
@pytest.mark.parametrize("way", ["create", "update", "upsert", "create many", "update many", "composite"])
def test_assignment_rule_sets_the_owner_unless_the_header_says_no(
    sandbox: RunningSandbox, org: Any, way: str, header: str | None
) -> None:
    sandbox.salesforce.add_field("Lead", Field("Key__c", unique=True, external_id=True))
    lead = sandbox.salesforce.add(
        "Lead", LastName="Raman", Company="Cycles", OwnerId=SALES_USER_ID, Key__c="k"
    )
    sandbox.salesforce.set_assignment_rule("Lead", QUEUE_ID)
    new = {"LastName": "Marsh", "Company": "Cycles", "OwnerId": SALES_USER_ID}
    typed = {"attributes": {"type": "Lead"}}
    path, method, body = {
        "create": ("sobjects/Lead", "POST", new),
        "update": (f"sobjects/Lead/{lead.id}", "PATCH", {"Title": "Owner"}),
        "upsert": ("sobjects/Lead/Key__c/k", "PATCH", {"Title": "Owner"}),
        "create many": ("composite/sobjects", "POST", {"records": [typed | new]}),
        "update many": (
            "composite/sobjects",
            "PATCH",
            {"records": [typed | {"id": lead.id, "Title": "Owner"}]},
        ),
        "composite": (
            "composite",
            "POST",
            {
                "compositeRequest": [
                    {
                        "method": "PATCH",
                        "url": f"/services/data/v66.0/sobjects/Lead/{lead.id}",
                        "referenceId": "lead",
                        "body": {"Title": "Owner"},
                    }
                ]
            },
        ),
    }[way]
    org.restful(path, method=method, json=body, headers={"Sforce-Auto-Assign": header} if header else {})

    changed = sandbox.salesforce.leads[-1]
    assert changed["OwnerId"] == (SALES_USER_ID if (header or "").lower() == "false" else QUEUE_ID)


@pytest.mark.parametrize(
    ("kind", "owner", "code"),
    [
        ("Contact", SALES_USER_ID, None),
        ("Lead", QUEUE_ID, None),
        ("Contact", QUEUE_ID, "MALFORMED_ID"),
        ("Contact", "0055g00000Nobody", "MALFORMED_ID"),
        ("Contact", "0055g00000Nobod", "INVALID_CROSS_REFERENCE_KEY"),
        ("Contact", "inactive", "INACTIVE_OWNER_OR_USER"),
    ],
)
def test_owner_is_an_active_user_or_a_queue_for_leads(
    sandbox: RunningSandbox, org: Any, kind: str, owner: str, code: str | None
) -> None:
    if owner == "inactive":
        owner = SALES_USER_ID
        sandbox.salesforce.deactivate_user(owner)
    fields = {"LastName": "Marsh", "OwnerId": owner} | ({"Company": "Cycles"} if kind == "Lead" else {})

    def create() -> Any:
        return getattr(org, kind).create(fields)

    if code is None:
        create()
        assert sandbox.salesforce.records_of(kind)[0]["OwnerId"] == owner
    else:
        assert api_error(create) == (400, code)


def test_open_opportunities_of_a_contact_are_found_by_their_roles(sandbox: RunningSandbox, org: Any) -> None:
    contact = sandbox.salesforce.add("Contact", LastName="Raman").id
    stages: dict[str, list[str]] = {"Prospecting": [], "Closed Won": []}
    for stage in stages:
        opportunity = sandbox.salesforce.add(
            "Opportunity", Name=stage, StageName=stage, CloseDate="2026-06-30"
        ).id
        sandbox.salesforce.add("OpportunityContactRole", OpportunityId=opportunity, ContactId=contact)
        stages[stage].append(opportunity)
    rows = org.query(
        "SELECT OpportunityId, ContactId FROM OpportunityContactRole "
        f"WHERE ContactId IN ('{contact}') AND Opportunity.IsClosed = false"
    )["records"]
    assert [row["OpportunityId"] for row in rows] == stages["Prospecting"]


# Events, campaigns


@pytest.mark.parametrize(
    ("times", "code"),
    [
        ({"EndDateTime": "2026-03-05T15:00:00Z"}, "REQUIRED_FIELD_MISSING"),
        ({"StartDateTime": "2026-03-05T15:00:00Z"}, "REQUIRED_FIELD_MISSING"),
        (
            {"StartDateTime": "2026-03-05T15:00:00Z", "EndDateTime": "2026-03-05T14:00:00Z"},
            "FIELD_INTEGRITY_EXCEPTION",
        ),
        (
            {"StartDateTime": "2026-03-05T15:00:00Z", "EndDateTime": "2026-03-20T15:00:00Z"},
            "FIELD_INTEGRITY_EXCEPTION",
        ),
        ({"StartDateTime": "2026-03-05T15:00:00", "DurationInMinutes": 30}, "JSON_PARSER_ERROR"),
    ],
)
def test_event_needs_a_start_and_an_end_of_at_most_14_days_later(
    org: Any, times: dict[str, Any], code: str
) -> None:
    assert api_error(lambda: org.Event.create({"Subject": "Test ride"} | times))[1] == code


def test_event_is_upserted_by_its_external_id(org: Any, sandbox: RunningSandbox) -> None:
    times = {"StartDateTime": "2026-03-05T15:00:00Z", "DurationInMinutes": 30}
    for subject in ("Test ride", "Moved"):
        org.Event.upsert("Conversation_Id__c/event%3Aconv_1", times | {"Subject": subject})
    assert [item["Subject"] for item in sandbox.salesforce.records_of("Event")] == ["Moved"]


def test_campaign_has_each_person_once_and_replaces_an_unknown_status(
    org: Any, sandbox: RunningSandbox
) -> None:
    campaign = sandbox.salesforce.add_campaign("Spring", {"Called": False, "Test ride": True})
    contact = sandbox.salesforce.add("Contact", LastName="Lindqvist")
    row = {"CampaignId": campaign.id, "ContactId": contact.id, "Status": "Test ride"}
    member = org.CampaignMember.create(row)["id"]
    assert api_error(lambda: org.CampaignMember.create(row))[1] == "DUPLICATE_VALUE"
    assert (
        api_error(lambda: org.CampaignMember.create({"CampaignId": campaign.id}))[1]
        == "REQUIRED_FIELD_MISSING"
    )
    query = f"SELECT Status, HasResponded FROM CampaignMember WHERE Id = '{member}'"
    assert [org.query(query)["records"][0][name] for name in ("Status", "HasResponded")] == [
        "Test ride",
        True,
    ]
    org.CampaignMember.update(member, {"Status": "Unknown"})
    assert [org.query(query)["records"][0][name] for name in ("Status", "HasResponded")] == ["Called", False]
    refused = {"CampaignId": campaign.id}
    assert (
        api_error(lambda: org.CampaignMember.update(member, refused))[1] == "INVALID_FIELD_FOR_INSERT_UPDATE"
    )
