"""Property: whatever the order of a person's events, however their addresses are written, and whatever requests fail,
each CRM has one contact for everything that the events connect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.connector import Success
from bridge.sandbox import RunningSandbox
from bridge.store.database import Database
from tests.integration.test_contact_matching import Crm
from tests.sqlite import create_sqlite

PHONES = (
    "+12125550123",
    "+1 (212) 555-0123",
    "001 212 555 0123",
    "tel:+1-212-555-0123",
    "\u200e+1\u00a0212 555\u20110123",
)
EMAILS = ("maya.lindqvist@example.com", "Maya.Lindqvist@Example.com", " maya.lindqvist@EXAMPLE.com ")
NAMES = (None, "Maya Lindqvist", "maya LINDQVIST", "Dr. Maya Lindqvist", "Maya")
WRITES = {"hubspot": "*/batch/*", "salesforce": "*/composite/*", "pipedrive": "/api/v2/*"}
ADDRESSES = ("phone", "email", "both")
Contact = tuple[str, str, str, str | None]

contacts = st.tuples(
    st.sampled_from(ADDRESSES), st.sampled_from(PHONES), st.sampled_from(EMAILS), st.sampled_from(NAMES)
)
batches = st.lists(st.lists(contacts, min_size=1, max_size=4), min_size=1, max_size=5)
faults = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["before", "after"]), st.integers(1, 3)), max_size=3
)


def expected_contacts(batches: Sequence[Sequence[Contact]]) -> int:
    """Return the number of contacts: two only if phone and email were each known before an event had both."""
    by_phone, by_email = 0, 0
    created = 0
    for batch in batches:
        kinds = {contact[0] for contact in batch}
        if "both" in kinds:
            shared = by_phone or by_email
            if not shared:
                created += 1
                shared = created
            by_phone, by_email = by_phone or shared, by_email or shared
            continue
        if "phone" in kinds and not by_phone:
            created += 1
            by_phone = created
        if "email" in kinds and not by_email:
            created += 1
            by_email = created
    return created


def changes(contact: Contact) -> dict[str, Any]:
    kind, phone, email, name = contact
    return {
        "metadata.contactPhone": phone if kind != "email" else None,
        "metadata.contactEmail": email if kind != "phone" else None,
        "metadata.contactName": name,
    }


@pytest.mark.parametrize("name", ["hubspot", "salesforce", "pipedrive"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=batches, faults=faults, lag=st.sampled_from([0, 30]))
def test_events_of_one_person_lead_to_one_contact(
    name: Literal["hubspot", "salesforce", "pipedrive"],
    batches: list[list[Contact]],
    faults: list[tuple[int, Literal["before", "after"], int]],
    lag: int,
    sandbox: RunningSandbox,
    tmp_path: Path,
) -> None:
    sandbox.reset()
    database = Database(create_sqlite(tmp_path / "bridge.db"), sandbox.clock)
    crm = Crm(name, sandbox, database)
    try:
        crm.connection.connected.setup()
        if lag:
            sandbox.fault(name, lag=lag)
        for number, batch in enumerate(batches):
            for at, drop, times in faults:
                if at == number:
                    sandbox.fault(
                        name,
                        path=WRITES[name],
                        method="POST" if name == "pipedrive" else None,
                        drop=drop,
                        times=times,
                    )
            events = [crm.call(changes(contact)) for contact in batch]
            results = crm.settle(events)
            assert all(isinstance(result, Success) for result in results), results

        records = crm.contacts()
        assert len(records) == expected_contacts(batches)
        assert len(crm.records()) == sum(map(len, batches))
        assert {contact_id for contact_id, _ in crm.records()} <= {record["id"] for record in records}
        is_pair = len(records) == 2 and any(contact[0] == "both" for batch in batches for contact in batch)
        assert len(crm.duplicates()) == (1 if is_pair else 0)
        if len(records) == 1:
            kinds = {contact[0] for batch in batches for contact in batch}
            assert bool(records[0]["phone"]) == (kinds != {"email"})
            assert bool(records[0]["email"]) == (kinds != {"phone"})
    finally:
        crm.connection.close()
        database.close()
        for path in tmp_path.glob("bridge.db*"):
            path.unlink()
