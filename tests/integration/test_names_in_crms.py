"""Names in CRM records: both parts, and everything that was given, also what messages to customers leave out."""

from __future__ import annotations

import pytest

from bridge.sandbox import RunningSandbox
from bridge.testing import event
from tests.integration.crm import CrmConnection

PHISHING = "your parcel is held: https://evil.example/p"


@pytest.mark.parametrize(
    ("given", "hubspot", "salesforce", "pipedrive"),
    [
        (
            "Ludwig van Beethoven",
            ("Ludwig", "van Beethoven"),
            ("Ludwig", "van Beethoven"),
            "Ludwig van Beethoven",
        ),
        (
            "Beethoven, Ludwig van",
            ("Ludwig", "van Beethoven"),
            ("Ludwig", "van Beethoven"),
            "Ludwig van Beethoven",
        ),
        ("Dr. Anna Weber", ("Anna", "Weber"), ("Anna", "Weber"), "Dr. Anna Weber"),
        ("Frau Weber", (None, "Weber"), (None, "Weber"), "Frau Weber"),
        ("Anna", ("Anna", None), (None, "Anna"), "Anna"),  # Salesforce requires a last name
        ("Acme, Inc.", ("Acme, Inc.", None), (None, "Acme, Inc."), "Acme, Inc."),
        (PHISHING, (PHISHING, None), (None, PHISHING), PHISHING),
        ("Unknown", (None, None), (None, "+12125550123"), "+12125550123"),
    ],
)
def test_a_new_contact_has_the_name_that_was_given(
    sandbox: RunningSandbox,
    given: str,
    hubspot: tuple[str | None, str | None],
    salesforce: tuple[str | None, str | None],
    pipedrive: str,
) -> None:
    changes: dict[str, object] = {
        "metadata.contactName": given,
        "metadata.contactPhone": "+12125550123",
        "metadata.contactEmail": None,
        "callMetadata.customer": {},
    }
    for name in ("hubspot", "salesforce", "pipedrive"):
        connection = CrmConnection(name, sandbox)
        connection.deliver("log_call", event("call.completed", changes, clock=sandbox.clock))
        connection.close()
    [contact] = sandbox.hubspot.contacts
    assert (contact.properties.get("firstname"), contact.properties.get("lastname")) == hubspot
    [record] = sandbox.salesforce.leads
    assert (record.fields.get("FirstName"), record.fields.get("LastName")) == salesforce
    [person] = sandbox.pipedrive.persons  # which has one name, in one field
    assert person["name"] == pipedrive
