"""Owners of what the bridge writes to Salesforce: updates keep them, new records have one, wrong ones cost no call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bridge.sandbox import RunningSandbox
from bridge.sandbox.salesforce.records import QUEUE_ID, SALES_USER_ID
from bridge.testing import event
from tests.integration.crm import CrmConnection

PHONE = "+12125550123"
EMAIL = "maya.lindqvist@example.com"


@pytest.fixture
def salesforce(sandbox: RunningSandbox) -> Iterator[CrmConnection]:
    connection = CrmConnection("salesforce", sandbox)
    yield connection
    connection.close()


def add_lead(sandbox: RunningSandbox, **values: str) -> str:
    return sandbox.salesforce.add("Lead", **({"LastName": "Lindqvist", "Company": "Cycles"} | values)).id


# ---------------------------------------------------------------------------------------------- updates


@pytest.mark.parametrize(
    ("kind", "action", "params"),
    [
        ("Case", "close_case", {"without_id": "newest"}),
        ("Lead", "update_lead", {"status": "Working - Contacted"}),
        ("Lead", "upsert_contact", {"properties": {"Title": "Owner"}}),
        ("Lead", "log_call", {}),  # fills in the phone number
        ("Lead", "set_opt_out", {"channel": "email"}),
    ],
)
def test_update_runs_no_assignment_rule(
    salesforce: CrmConnection, sandbox: RunningSandbox, kind: str, action: str, params: dict[str, Any]
) -> None:
    if kind == "Case":
        contact = sandbox.salesforce.add("Contact", LastName="Lindqvist", Email=EMAIL).id
        sandbox.salesforce.add("Case", ContactId=contact, OwnerId=SALES_USER_ID)
    else:
        add_lead(sandbox, Email=EMAIL, OwnerId=SALES_USER_ID)
    sandbox.salesforce.set_assignment_rule(kind, QUEUE_ID)
    salesforce.deliver(action, event(clock=salesforce.clock), params)

    [record] = sandbox.salesforce.records_of(kind)
    changed = {"Case": "Status", "Lead": "Phone"}[kind] if action in ("close_case", "log_call") else ""
    assert record["OwnerId"] == SALES_USER_ID
    assert not changed or record[changed]
