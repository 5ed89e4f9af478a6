"""Salesforce's stand-in, driven by simple-salesforce: what the org takes, and how it says no."""

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
from bridge.sandbox.salesforce.schema import Field
from bridge.sandbox.salesforce.sessions import USERNAME


@pytest.fixture
def session(sandbox: RunningSandbox) -> Iterator[requests.Session]:
    with requests.Session() as found:
        found.mount("https://", DeadlineAdapter(redirect_to=sandbox.environment["SALESFORCE_URL"]))
        yield found


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


def refusal(act: Callable[[], Any]) -> tuple[int, str]:
    """Status and code of simple-salesforce's exception."""
    with pytest.raises(SalesforceError) as caught:
        act()
    return caught.value.status, caught.value.content[0]["errorCode"]


def upsert(org: Any, key: str, fields: dict[str, Any]) -> tuple[int, Any]:
    answer = org.Task.upsert(f"Conversation_Id__c/{key}", fields, raw_response=True)
    return answer.status_code, answer.json() if answer.content else None


def collection(org: Any, method: str, records: list[dict[str, Any]], path: str = "", **more: Any) -> Any:
    records = [{"attributes": {"type": "Task"}} | record for record in records]
    return org.restful(f"composite/sobjects{path}", method=method, json={"records": records} | more)


# Logging in


def test_client_credentials_log_in(org: Any) -> None:
    assert org.session_id
    assert org.sf_instance.endswith("salesforce.com"), "the SDK puts https:// before it by itself"
    assert org.query("SELECT Id FROM Organization")["totalSize"] == 1


@pytest.mark.parametrize(
    ("name", "code"), [("consumer_key", "invalid_client_id"), ("consumer_secret", "invalid_client")]
)
def test_wrong_credentials_are_refused(
    sandbox: RunningSandbox, session: requests.Session, name: str, code: str
) -> None:
    env = sandbox.environment
    given = {
        "consumer_key": env["SALESFORCE_CONSUMER_KEY"],
        "consumer_secret": env["SALESFORCE_CONSUMER_SECRET"],
    } | {name: "wrong"}
    with pytest.raises(SalesforceAuthenticationFailed) as caught:
        Salesforce(domain="acme.my", session=session, **given)
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


def test_a_jwt_logs_in_when_it_is_signed_with_the_known_key(
    sandbox: RunningSandbox, session: requests.Session
) -> None:
    private, public = key_pair()
    known = sandbox.environment["SALESFORCE_CONSUMER_KEY"]

    def log_in(consumer_key: str = known, username: str = USERNAME, domain: str = "login") -> Any:
        return Salesforce(
            username=username, consumer_key=consumer_key, privatekey=private, domain=domain, session=session
        )

    assert log_in().session_id, "no key known: the signature is not looked at"
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


def test_an_ended_session_is_401_and_the_client_logs_in_again(sandbox: RunningSandbox, org: Any) -> None:
    sandbox.salesforce.expire_sessions()
    old = org.session_id
    assert org.Contact.create({"LastName": "Okafor"})["success"]
    assert org.session_id != old
    statuses = [(request.path.rsplit("/", 1)[-1], request.status) for request in sandbox.requests[1:]]
    assert statuses == [("", 401), ("token", 200), ("", 201)]
    given = Salesforce(session_id="stale", instance_url="https://acme.my.salesforce.com", session=org.session)
    assert refusal(lambda: given.query("SELECT Id FROM Task")) == (401, "INVALID_SESSION_ID")


# Records and their fields


def test_a_contact_is_created_read_changed_and_deleted(sandbox: RunningSandbox, org: Any) -> None:
    made = org.Contact.create({"FirstName": "Ines", "LastName": "Okafor", "Email": "ines@example.com"})
    assert (len(made["id"]), made["id"][:3]) == (18, "003")
    assert org.Contact.get(made["id"])["Name"] == "Ines Okafor"
    assert org.Contact.get(made["id"][:15])["Id"] == made["id"], "the id of 15 characters is the same one"
    assert org.Contact.update(made["id"], {"Title": "Captain", "FirstName": ""}) == 204
    assert sandbox.salesforce.contacts[0]["Title"] == "Captain"
    assert sandbox.salesforce.contacts[0]["FirstName"] is None
    assert org.Contact.delete(made["id"]) == 204
    assert refusal(lambda: org.Contact.get(made["id"])) == (404, "NOT_FOUND")
    assert refusal(lambda: org.Contact.update(made["id"], {"Title": "x"})) == (404, "ENTITY_IS_DELETED")


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
def test_types_lengths_and_picklists_of_a_task_are_held(
    sandbox: RunningSandbox, org: Any, fields: dict[str, Any], code: str
) -> None:
    assert refusal(lambda: org.Task.create({"Subject": "Call"} | fields)) == (400, code)
    assert sandbox.salesforce.tasks == []


def test_required_fields_are_named(org: Any) -> None:
    assert refusal(lambda: org.Contact.create({"Email": "a@b.co"})) == (400, "REQUIRED_FIELD_MISSING")
    with pytest.raises(SalesforceError) as caught:
        org.Lead.create({"Email": "a@b.co"})
    assert caught.value.content[0]["fields"] == ["LastName", "Company"]
    assert refusal(lambda: org.Contact.create({"LastName": "x", "Email": "a@b"})) == (
        400,
        "INVALID_EMAIL_ADDRESS",
    )


def test_a_finished_call_is_a_closed_task(sandbox: RunningSandbox, org: Any) -> None:
    who = org.Contact.create({"LastName": "Okafor"})["id"]
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
            "WhoId": who,
        }
    )
    task = sandbox.salesforce.tasks[0]
    assert (task["IsClosed"], task["WhoId"], task["Priority"]) == (True, who, "Normal")
    assert task["CompletedDateTime"]


def test_the_subtype_is_set_once(org: Any) -> None:
    made = org.Task.create({"TaskSubtype": "Call", "Subject": "x"})["id"]
    code = "INVALID_FIELD_FOR_INSERT_UPDATE"
    assert refusal(lambda: org.Task.update(made, {"TaskSubtype": "Call"})) == (400, code)


def test_a_task_for_a_lead_has_no_what(sandbox: RunningSandbox, org: Any) -> None:
    lead = org.Lead.create({"LastName": "Raman", "Company": "Lamps"})["id"]
    case = org.Case.create({"Subject": "Broken lamp"})["id"]
    code = "FIELD_INTEGRITY_EXCEPTION"
    assert refusal(lambda: org.Task.create({"Subject": "x", "WhoId": lead, "WhatId": case})) == (400, code)
    made = org.Task.create({"Subject": "x", "WhatId": case})["id"]
    assert refusal(lambda: org.Task.update(made, {"WhoId": lead})) == (400, code)
    org.Task.update(made, {"WhoId": lead, "WhatId": None})
    assert sandbox.salesforce.tasks[0]["WhoId"] == lead


def test_a_converted_lead_is_closed_to_us(sandbox: RunningSandbox, org: Any) -> None:
    lead = org.Lead.create({"LastName": "Raman", "Company": "Lamps", "Phone": "+12125550123"})["id"]
    contact = org.Contact.create({"LastName": "Raman", "Phone": "+12125550123"})["id"]
    sandbox.salesforce.convert(lead, contact)
    code = "CANNOT_UPDATE_CONVERTED_LEAD"
    assert refusal(lambda: org.Lead.update(lead, {"Rating": "Hot"})) == (400, code)
    assert refusal(lambda: org.Task.create({"Subject": "x", "WhoId": lead})) == (400, code)
    assert org.Lead.get(lead)["ConvertedContactId"] == contact
    found = org.search(
        "FIND {2125550123} IN PHONE FIELDS RETURNING Contact(Id), Lead(Id WHERE IsConverted = false)"
    )
    assert [one["Id"] for one in found["searchRecords"]] == [contact]


def test_a_merged_contact_is_gone_and_names_its_winner(sandbox: RunningSandbox, org: Any) -> None:
    winner, other = (org.Contact.create({"LastName": name})["id"] for name in ("Okafor", "Okafor-Lee"))
    task = org.Task.create({"Subject": "x", "WhoId": other})["id"]
    sandbox.salesforce.merge("Contact", winner, other)
    assert refusal(lambda: org.Contact.update(other, {"Title": "x"})) == (404, "ENTITY_IS_DELETED")
    assert refusal(lambda: org.Task.create({"Subject": "x", "WhoId": other})) == (400, "ENTITY_IS_DELETED")
    assert org.Task.get(task)["WhoId"] == winner


def test_a_lock_is_refused_as_often_as_asked(sandbox: RunningSandbox, org: Any) -> None:
    contact = org.Contact.create({"LastName": "Okafor"})["id"]
    sandbox.salesforce.lock_record(contact, times=2)
    assert refusal(lambda: org.Contact.update(contact, {"Title": "x"})) == (400, "UNABLE_TO_LOCK_ROW")
    assert refusal(lambda: org.Task.create({"Subject": "x", "WhoId": contact})) == (400, "UNABLE_TO_LOCK_ROW")
    assert org.Contact.update(contact, {"Title": "x"}) == 204
    assert sandbox.salesforce.tasks == []


def test_a_duplicate_rule_alerts_or_blocks(sandbox: RunningSandbox, org: Any) -> None:
    person = {"LastName": "Okafor", "Email": "ines@example.com"}
    first = org.Contact.create(person)["id"]
    org.Contact.create(person)
    sandbox.salesforce.set_duplicate_rule("alert")
    with pytest.raises(SalesforceError) as caught:
        org.Contact.create(person | {"Email": "INES@example.com"})
    told = caught.value.content[0]
    assert told["errorCode"] == "DUPLICATES_DETECTED"
    matches = told["duplicateResult"]["matchResults"][0]["matchRecords"]
    assert first in [match["record"]["Id"] for match in matches]
    save = {"Sforce-Duplicate-Rule-Header": "allowSave=true"}
    assert org.Contact.create(person, headers=save)["success"]
    sandbox.salesforce.set_duplicate_rule("block")
    assert refusal(lambda: org.Contact.create(person, headers=save)) == (400, "DUPLICATES_DETECTED")


def test_a_validation_rule_of_the_org_speaks(sandbox: RunningSandbox, org: Any) -> None:
    def needs_reason(case: Any) -> str | None:
        return "Say why it is closed." if case["Status"] == "Closed" and not case.get("Reason") else None

    sandbox.salesforce.add_rule("Case", needs_reason)
    case = org.Case.create({"Subject": "Broken lamp"})["id"]
    code = "FIELD_CUSTOM_VALIDATION_EXCEPTION"
    assert refusal(lambda: org.Case.update(case, {"Status": "Closed"})) == (400, code)
    org.Case.update(case, {"Status": "Closed", "Reason": "Mended"})
    closed = sandbox.salesforce.cases[0]
    assert (closed["IsClosed"], bool(closed["ClosedDate"])) == (True, True)


def test_the_closed_status_is_what_the_org_calls_it(sandbox: RunningSandbox, org: Any) -> None:
    sandbox.salesforce.set_statuses("Task", {"Offen": False, "Erledigt": True})
    found = org.query("SELECT ApiName FROM TaskStatus WHERE IsClosed = true ORDER BY SortOrder")
    assert [one["ApiName"] for one in found["records"]] == ["Erledigt"]
    code = "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"
    assert refusal(lambda: org.Task.create({"Subject": "x", "Status": "Completed"})) == (400, code)
    org.Task.create({"Subject": "x", "Status": "Erledigt"})
    assert sandbox.salesforce.tasks[0]["IsClosed"] is True
    closed = org.query("SELECT ApiName FROM CaseStatus WHERE IsClosed = true")
    assert [one["ApiName"] for one in closed["records"]] == ["Closed"]


def test_a_typo_is_a_404_and_a_path_in_an_id_too(org: Any) -> None:
    assert refusal(lambda: org.Taks.create({"Subject": "x"}))[0] == 404
    assert refusal(lambda: org.Contact.get("../Account/001"))[0] == 404
    assert refusal(lambda: org.TaskStatus.create({"MasterLabel": "x"}))[0] == 400


# Upserts by external id


def test_an_upsert_creates_once_and_then_updates(sandbox: RunningSandbox, org: Any) -> None:
    status, made = upsert(org, "conv_1", {"Subject": "first", "TaskSubtype": "Call"})
    assert (status, made["created"]) == (201, True)
    status, again = upsert(org, "CONV_1", {"Subject": "second"})
    assert (status, again["created"], again["id"]) == (200, False, made["id"])
    assert [task["Subject"] for task in sandbox.salesforce.tasks] == ["second"]
    assert sandbox.salesforce.tasks[0]["Conversation_Id__c"] == "conv_1"
    assert org.Task.get_by_custom_id("Conversation_Id__c", "conv_1")["Id"] == made["id"]
    code = "INVALID_FIELD"
    assert refusal(lambda: upsert(org, "conv_2", {"Conversation_Id__c": "conv_2", "Subject": "x"})) == (
        400,
        code,
    )
    code = "INVALID_FIELD_FOR_INSERT_UPDATE"
    assert refusal(lambda: upsert(org, "conv_1", {"TaskSubtype": "Call"})) == (400, code)


def test_a_key_may_hold_any_character(sandbox: RunningSandbox, org: Any) -> None:
    status, _ = upsert(org, "conv%2F1%20%C3%A9", {"Subject": "x"})
    assert status == 201
    assert sandbox.salesforce.tasks[0]["Conversation_Id__c"] == "conv/1 é"


def test_update_only_creates_nothing(sandbox: RunningSandbox, org: Any) -> None:
    def act() -> Any:
        path = "sobjects/Task/Conversation_Id__c/conv_1"
        return org.restful(path, params={"updateOnly": "true"}, method="PATCH", json={"Subject": "x"})

    assert refusal(act)[0] == 404
    assert sandbox.salesforce.tasks == []


def test_a_unique_value_is_there_once(org: Any) -> None:
    upsert(org, "conv_1", {"Subject": "x"})
    assert refusal(lambda: org.Task.create({"Conversation_Id__c": "conv_1"})) == (400, "DUPLICATE_VALUE")


def test_several_matches_are_300_and_write_nothing(sandbox: RunningSandbox, org: Any) -> None:
    sandbox.salesforce.add_field("Contact", Field("Legacy_Id__c", external_id=True))
    for name in ("one", "two"):
        org.Contact.create({"LastName": name, "Legacy_Id__c": "7"})
    with pytest.raises(SalesforceError) as caught:
        org.Contact.upsert("Legacy_Id__c/7", {"Title": "x"})
    assert caught.value.status == 300
    assert len(caught.value.content) == 2
    assert [contact["Title"] for contact in sandbox.salesforce.contacts] == [None, None]


def test_an_org_may_lack_the_field(sandbox: RunningSandbox, org: Any) -> None:
    assert "Conversation_Id__c" in [field["name"] for field in org.Task.describe()["fields"]]
    sandbox.salesforce.remove_field("Task", "Conversation_Id__c")
    assert refusal(lambda: upsert(org, "conv_1", {"Subject": "x"}))[0] == 404
    assert refusal(lambda: org.Task.create({"Conversation_Id__c": "conv_1"})) == (400, "INVALID_FIELD")
    query = "SELECT Id FROM Task WHERE Conversation_Id__c = 'x'"
    assert refusal(lambda: org.query(query)) == (400, "INVALID_FIELD")
    assert "Conversation_Id__c" not in [field["name"] for field in org.Task.describe()["fields"]]


# Collections and composite requests


def test_a_collection_has_a_result_for_each_record(sandbox: RunningSandbox, org: Any) -> None:
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
    used = sandbox.salesforce.requests_today
    again = collection(
        org, "PATCH", [{"Conversation_Id__c": "conv_1", "Subject": "b"}], "/Task/Conversation_Id__c"
    )
    assert (again[0]["created"], again[0]["id"]) == (False, results[0]["id"])
    assert sandbox.salesforce.requests_today == used + 1


def test_a_collection_creates_and_updates_by_id(sandbox: RunningSandbox, org: Any) -> None:
    made = collection(org, "POST", [{"Subject": "a"}, {"Subject": "b"}])
    done = collection(org, "PATCH", [{"id": made[0]["id"], "Subject": "c"}, {"id": "x", "Subject": "d"}])
    assert [one["success"] for one in done] == [True, False]
    assert [task["Subject"] for task in sandbox.salesforce.tasks] == ["c", "b"]


def test_all_or_none_takes_everything_back(sandbox: RunningSandbox, org: Any) -> None:
    results = collection(org, "POST", [{"Subject": "a"}, {"Status": "Done"}], allOrNone=True)
    codes = [result["errors"][0]["statusCode"] for result in results]
    assert codes == ["ALL_OR_NONE_OPERATION_ROLLED_BACK", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"]
    assert sandbox.salesforce.tasks == []


def test_a_collection_is_refused_whole_when_it_is_too_big_or_of_no_type(
    sandbox: RunningSandbox, org: Any
) -> None:
    too_many = [{"Subject": "x"}] * 201
    assert refusal(lambda: collection(org, "POST", too_many)) == (400, "EXCEEDED_ID_LIMIT")
    result = org.restful("composite/sobjects", method="POST", json={"records": [{"Subject": "x"}]})
    assert result[0]["errors"][0]["statusCode"] == "INVALID_TYPE"
    assert len(collection(org, "POST", [{"Subject": "x"}] * 200)) == 200


def step(name: str, method: str, url: str, body: Any = None) -> dict[str, Any]:
    found = {"referenceId": name, "method": method, "url": f"/services/data/v66.0/{url}"}
    return found | ({"body": body} if body is not None else {})


def test_a_composite_request_uses_its_own_answers_and_counts_once(sandbox: RunningSandbox, org: Any) -> None:
    used = sandbox.salesforce.requests_today
    answer = org.restful(
        "composite",
        method="POST",
        json={
            "allOrNone": True,
            "compositeRequest": [
                step("person", "POST", "sobjects/Contact", {"LastName": "Okafor"}),
                step("call", "PATCH", "sobjects/Task/Conversation_Id__c/conv_1", {"WhoId": "@{person.id}"}),
                step("found", "GET", "query?q=SELECT+Id+FROM+Task+WHERE+WhoId+=+'@{person.id}'"),
            ],
        },
    )
    person, call, found = answer["compositeResponse"]
    assert [one["httpStatusCode"] for one in (person, call, found)] == [201, 201, 200]
    assert found["body"]["records"][0]["Id"] == call["body"]["id"]
    assert sandbox.salesforce.tasks[0]["WhoId"] == person["body"]["id"]
    assert sandbox.salesforce.requests_today == used + 1


def test_a_composite_request_reports_or_takes_back(sandbox: RunningSandbox, org: Any) -> None:
    steps = [
        step("good", "POST", "sobjects/Contact", {"LastName": "Okafor"}),
        step("bad", "POST", "sobjects/Task", {"Status": "Done"}),
        step("after", "POST", "sobjects/Task", {"WhoId": "@{bad.id}"}),
    ]
    body = {"allOrNone": True, "compositeRequest": steps}
    answer = org.restful("composite", method="POST", json=body)["compositeResponse"]
    assert [one["httpStatusCode"] for one in answer] == [400, 400, 400]
    assert answer[0]["body"][0]["errorCode"] == "PROCESSING_HALTED"
    assert sandbox.salesforce.contacts == []
    body["allOrNone"] = False
    answer = org.restful("composite", method="POST", json=body)["compositeResponse"]
    assert [one["httpStatusCode"] for one in answer] == [201, 400, 400]
    assert len(sandbox.salesforce.contacts) == 1


@pytest.mark.parametrize(
    "steps",
    [
        [step(f"s{number}", "GET", "limits") for number in range(26)],
        [step("same", "GET", "limits")] * 2,
        [step(f"q{number}", "GET", "query?q=SELECT+Id+FROM+Task") for number in range(6)],
        [step("bad name", "GET", "limits")],
        [],
    ],
)
def test_a_composite_request_has_bounds(org: Any, steps: list[dict[str, Any]]) -> None:
    body = {"compositeRequest": steps}
    assert refusal(lambda: org.restful("composite", method="POST", json=body))[0] == 400


# Queries and searches, as they travel


def test_a_quote_in_a_value_is_only_a_quote(sandbox: RunningSandbox, org: Any) -> None:
    org.Contact.create({"LastName": "O'Brien", "Email": "x'y@example.com"})
    query = format_soql(
        "SELECT Id, Name FROM Contact WHERE Email = {} AND LastName = {}", "x'y@example.com", "O'Brien"
    )
    assert org.query(query)["records"][0]["Name"] == "O'Brien"
    like = format_soql("SELECT Id FROM Contact WHERE LastName LIKE '%{:like}'", "b%")
    assert org.query(like)["totalSize"] == 0


def test_a_long_answer_comes_in_pages(sandbox: RunningSandbox, org: Any) -> None:
    for number in range(2001):
        sandbox.salesforce.add("Task", Subject=f"{number}")
    first = org.query("SELECT Subject FROM Task ORDER BY CreatedDate")
    assert (first["totalSize"], first["done"], len(first["records"])) == (2001, False, 2000)
    assert len(org.query_all("SELECT Id FROM Task")["records"]) == 2001
    assert org.query("SELECT COUNT() FROM Task")["totalSize"] == 2001


def test_the_search_index_lags_behind_and_the_query_does_not(sandbox: RunningSandbox, org: Any) -> None:
    sandbox.fault("salesforce", lag=60)
    made = org.Contact.create({"LastName": "Okafor", "Phone": "(212) 555-0123"})["id"]
    search = "FIND {2125550123} IN PHONE FIELDS RETURNING Contact(Id, Phone)"
    assert org.search(search)["searchRecords"] == []
    assert org.query("SELECT Id FROM Contact WHERE Phone LIKE '%212%555%0123'")["totalSize"] == 1
    sandbox.clock.advance(seconds=61)
    assert [one["Id"] for one in org.search(search)["searchRecords"]] == [made]


def test_quick_search_escapes_nothing_and_is_refused(org: Any) -> None:
    assert refusal(lambda: org.quick_search("O'Brien"))[0] == 400
    assert refusal(lambda: org.quick_search("+12125550123"))[0] == 400


# Limits


def test_requests_are_counted_and_end(sandbox: RunningSandbox, org: Any) -> None:
    org.query("SELECT Id FROM Task")
    assert org.api_usage["api-usage"].total == 100_000
    assert org.limits()["DailyApiRequests"]["Max"] == 100_000
    sandbox.salesforce.daily_limit = sandbox.salesforce.requests_today
    assert refusal(lambda: org.query("SELECT Id FROM Task")) == (403, "REQUEST_LIMIT_EXCEEDED")
    sandbox.salesforce.daily_limit = 100_000
    sandbox.fault("salesforce", quota=1)
    org.query("SELECT Id FROM Task")
    assert refusal(lambda: org.Task.create({"Subject": "x"})) == (403, "REQUEST_LIMIT_EXCEEDED")


def test_ten_thousand_contacts_are_found_quickly(sandbox: RunningSandbox, org: Any) -> None:
    for number in range(10_000):
        sandbox.salesforce.add(
            "Contact", LastName="x", Email=f"{number}@example.com", Phone=f"+1212{number:07}"
        )
    began = sandbox.clock.now()
    for number in range(20):
        assert org.query(f"SELECT Id FROM Contact WHERE Email = '{number}@example.com'")["totalSize"] == 1
        search = f"FIND {{212{number:07}}} IN PHONE FIELDS RETURNING Contact(Id), Lead(Id)"
        assert len(org.search(search)["searchRecords"]) == 1
    assert (sandbox.clock.now() - began).total_seconds() < 2
