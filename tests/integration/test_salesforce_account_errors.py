"""What is wrong with a Salesforce org or its integration user: an AccountError, whatever the form of the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bridge_connectors.salesforce import account_errors
from bridge_connectors.salesforce.errors import record_result
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import AccountError, DeliveryError, PermanentError, QuotaExhausted, TransientError
from bridge.sandbox import RunningSandbox
from bridge.sandbox.salesforce.org import Salesforce
from bridge.testing import event
from tests.integration.crm import CrmConnection

EMAIL = "maya.lindqvist@example.com"
PHONE = "+12125550123"
CODES_OF_RECORDS = (
    "INSUFFICIENT_ACCESS_OR_READONLY",
    "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
    "INVALID_TYPE",
    "INVALID_FIELD",
    "INVALID_FIELD_FOR_INSERT_UPDATE",
    "INVALID_CROSS_REFERENCE_KEY",
    "REQUEST_LIMIT_EXCEEDED",
    "ENTITY_IS_LOCKED",
    "STRING_TOO_LONG",
)
UPSERT = "*/Task/Conversation_Id__c"


def failure_of(connection: CrmConnection, action: str, params: dict[str, Any] | None = None) -> DeliveryError:
    """Return the error of a delivery that fails."""
    with pytest.raises(DeliveryError) as caught:
        connection.deliver(action, params=params)
    return caught.value


def fill_storage(org: Salesforce) -> None:
    org.crm.access.storage_full = True


def deny_people(org: Salesforce) -> None:
    org.deny("Contact", "create")
    org.deny("Lead", "create")


@pytest.mark.parametrize(
    ("break_org", "action", "fix"),
    [
        (fill_storage, "log_call", "Storage Usage"),
        (fill_storage, "upsert_contact", "Storage Usage"),
        (lambda org: org.deny("Task", "create", "edit"), "log_call", "Object Settings"),
        (deny_people, "upsert_contact", "Object Settings"),
        (lambda org: org.deny("Lead", "read"), "log_call", "Object Settings"),
        (lambda org: org.hide_field("Contact", "Phone"), "log_call", "Object Settings"),
    ],
    ids=["storage, collection", "storage, contact", "task", "contact", "hidden object", "hidden field"],
)
def test_account_is_at_fault_and_nothing_is_written(
    salesforce: CrmConnection,
    sandbox: RunningSandbox,
    break_org: Callable[[Salesforce], None],
    action: str,
    fix: str,
) -> None:
    break_org(sandbox.salesforce)
    failure = failure_of(salesforce, action)
    assert type(failure) is AccountError
    assert fix in failure.fix
    assert sandbox.salesforce.tasks == []


def test_every_delivery_of_a_batch_waits_for_the_account(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    salesforce.deliver("log_call")
    sandbox.salesforce.crm.access.storage_full = True
    results = salesforce.deliver_all("log_call", [event("call.busy", clock=salesforce.clock)])
    other = event("call.completed", {"conversationId": "conv_other"}, clock=salesforce.clock)
    results += salesforce.deliver_all("log_call", [other])
    assert [type(result) for result in results][1:] == [AccountError]


def test_missing_edit_permission_is_told_from_one_locked_record(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    org = sandbox.salesforce
    contact = org.add("Contact", LastName="Lindqvist", Email=EMAIL, FirstName="Maya", Phone="+12125550123").id
    params = {"properties": {"Department": "Workshop"}}

    org.crm.access.approval_locks.add(contact)
    locked = failure_of(salesforce, "upsert_contact", params)
    assert isinstance(locked, PermanentError)
    assert "approval" in locked.detail
    org.crm.access.approval_locks.clear()

    org.crm.access.unshared.add(contact)
    assert type(failure_of(salesforce, "upsert_contact", params)) is AccountError
    org.crm.access.unshared.clear()

    org.deny("Contact", "edit")
    denied = failure_of(salesforce, "upsert_contact", params)
    assert type(denied) is AccountError
    assert "Contact" in denied.fix


@pytest.mark.parametrize("reason", ["sharing", "permission", "field"])
def test_contact_that_may_not_be_edited_is_left_alone_and_its_call_is_logged(
    salesforce: CrmConnection, sandbox: RunningSandbox, reason: str
) -> None:
    org = sandbox.salesforce
    contact = org.add("Contact", LastName="Lindqvist", Email=EMAIL).id
    if reason == "sharing":
        org.crm.access.read_only.add(contact)
    elif reason == "permission":
        org.deny("Contact", "edit")
    else:
        org.make_read_only("Contact", "Phone")
    result = salesforce.deliver("log_call")
    assert [task["WhoId"] for task in org.tasks] == [contact]
    assert org.contacts[0]["Phone"] is None
    assert "without the phone number, which the CRM refused" in result.detail
    # An action whose purpose is the change still needs the permission.
    failure = failure_of(salesforce, "upsert_contact", {"properties": {"Department": "Workshop"}})
    assert type(failure) is AccountError


def test_inactive_integration_user_pauses_contact_and_lead_writes(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    error = {
        "statusCode": "INACTIVE_OWNER_OR_USER",
        "message": "operation performed with inactive user [0055g00000AbCdEAAV] as owner of contact",
        "fields": ["OwnerId"],
    }
    sandbox.fault("salesforce", path="*/composite/sobjects", body=[{"success": False, "errors": [error]}])
    failure = failure_of(salesforce, "upsert_contact")
    assert type(failure) is AccountError
    assert "active user" in failure.fix


def test_field_of_a_rule_is_not_the_accounts_fault(salesforce: CrmConnection) -> None:
    failure = failure_of(salesforce, "log_call", {"properties": {"Nope__c": "x"}})
    assert isinstance(failure, PermanentError)
    assert "Nope__c" in failure.detail


def test_read_only_field_of_the_bridge_is_the_accounts_fault(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    for kind in ("Contact", "Lead"):
        sandbox.salesforce.make_read_only(kind, "Phone")
    failure = failure_of(salesforce, "log_call")
    assert type(failure) is AccountError
    assert "hides Phone" in failure.detail


def test_maintenance_is_waited_for(salesforce: CrmConnection, sandbox: RunningSandbox) -> None:
    sandbox.salesforce.crm.access.in_maintenance = True
    failure = failure_of(salesforce, "log_call")
    assert type(failure) is TransientError
    assert "maintenance" in failure.detail
    sandbox.salesforce.crm.access.in_maintenance = False
    salesforce.deliver("log_call")


@pytest.mark.parametrize("in_collection", [False, True])
@pytest.mark.parametrize(
    ("code", "error_type"),
    [
        ("STORAGE_LIMIT_EXCEEDED", AccountError),
        ("INSUFFICIENT_ACCESS_OR_READONLY", AccountError),
        ("INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY", AccountError),
        ("API_DISABLED_FOR_ORG", AccountError),
        ("API_CURRENTLY_DISABLED", AccountError),
        ("ORG_LOCKED", AccountError),
        ("TRIAL_EXPIRED", AccountError),
        ("TXN_SECURITY_NO_ACCESS", AccountError),
        ("INVALID_OPERATION_WITH_EXPIRED_PASSWORD", AccountError),
        ("REQUEST_LIMIT_EXCEEDED", QuotaExhausted),
    ],
)
def test_code_has_the_same_meaning_in_both_forms(
    salesforce: CrmConnection,
    sandbox: RunningSandbox,
    code: str,
    error_type: type[DeliveryError],
    in_collection: bool,
) -> None:
    error: dict[str, Any] = {"message": "x", "fields": []}
    body = (
        [{"success": False, "errors": [error | {"statusCode": code}]}]
        if in_collection
        else [error | {"errorCode": code}]
    )
    fault = {"body": body} if in_collection else {"status": 403, "body": body}
    sandbox.fault("salesforce", path=UPSERT, times=None, **fault)
    failure = failure_of(salesforce, "log_call")
    assert isinstance(failure, error_type)
    if isinstance(failure, AccountError):
        assert failure.fix


def test_hidden_optional_phone_fields_are_left_out_of_searches(
    salesforce: CrmConnection, sandbox: RunningSandbox
) -> None:
    org = sandbox.salesforce
    contact = org.add("Contact", LastName="Lindqvist", Phone="(212) 555-0123", OtherPhone="+12125550199").id
    org.hide_field("Contact", "HomePhone")
    org.hide_field("Contact", "OtherPhone")
    org.hide_field("Lead", "MobilePhone")
    by_phone = event("call.busy", {"metadata.contactPhone": "+12125550123"}, clock=salesforce.clock)
    salesforce.deliver("log_call", by_phone)
    assert [task["WhoId"] for task in org.tasks] == [contact]

    salesforce.requests()
    stranger = event("call.busy", {"metadata.contactPhone": "+12125550177"}, clock=salesforce.clock)
    salesforce.deliver("log_call", stranger)
    assert not [
        request for request in salesforce.requests() if request.startswith("GET") and "describe" in request
    ]
    assert len(org.leads) == 1


@given(
    code=st.sampled_from([*account_errors._CAUSES, *CODES_OF_RECORDS])
    | st.from_regex(r"[A-Z]{3,9}_[A-Z]{3,9}", fullmatch=True),
    words=st.lists(
        st.sampled_from(["locked", "oncurrent", "No such column 'X'", "entity type", "of", PHONE, EMAIL])
    ),
    names=st.lists(st.sampled_from(["Phone", "OwnerId", "RecordTypeId", "Nope__c"]), max_size=2),
)
def test_messages_of_salesforce_are_never_repeated(code: str, words: list[str], names: list[str]) -> None:
    error = {"statusCode": code, "message": " ".join([*words, PHONE, EMAIL]), "fields": names}
    failure = record_result({"success": False, "errors": [error]})
    assert isinstance(failure, DeliveryError)
    text = f"{failure!r} {getattr(failure, 'fix', '')}"
    assert PHONE not in text
    assert EMAIL not in text
