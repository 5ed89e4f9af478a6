"""What logging a call costs at the CRMs: requests counted at the sandbox while the real worker does the work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.bootstrap import Service, build_service
from bridge.clock import Clock
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.signing import read_event
from bridge.store.ingest import IncomingEvent, store_events
from bridge.store.queries import list_deliveries
from bridge.testing import event
from tests.acceptance.service_process import eventually
from tests.integration.crm import email_address, phone_number

PEOPLE = 400
CALLS = 2000
CRMS = ("hubspot", "salesforce")
UNFINISHED = ("pending", "running", "retrying")
RULES = """
version: 1
rules:
  - name: log
    when: call.completed
    do:
      - use: hubspot.log_call
      - use: salesforce.log_call
"""


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """Partners that know everybody who calls here."""
    with start_sandbox() as running:
        for number in range(PEOPLE):
            running.hubspot.add("contacts", email=email_address(number), phone=phone_number(number))
            running.salesforce.add(
                "Contact", LastName=f"Person {number}", Email=email_address(number), Phone=phone_number(number)
            )
        yield running


@contextmanager
def service(folder: Path, sandbox: RunningSandbox) -> Iterator[Service]:
    """A service whose worker has not begun; it is stopped in the end."""
    (folder / "rules.yaml").write_text(RULES, "utf-8")
    own = {
        "HEPPU_WEBHOOK_SECRET": "whsec_cost",
        "BRIDGE_RULES_FILE": str(folder / "rules.yaml"),
        "BRIDGE_DATABASE_URL": f"sqlite:///{folder}/bridge.db",
    }
    built = build_service(sandbox.environment | own)
    try:
        yield built
    finally:
        built.stop()
        built.close()


def store(built: Service, conversations: range) -> None:
    """Store a call for each of these conversations, from one person after the other."""
    receipts = []
    for number in conversations:
        person = number % PEOPLE
        happened = event(
            "call.completed",
            {
                "conversationId": f"conv_{number}",
                "metadata.contactPhone": phone_number(person),
                "metadata.contactEmail": email_address(person),
            },
            clock=Clock(),
        )
        raw = json.dumps(dict(happened.body) | {"webhookId": f"whd_{number}"}).encode()
        receipts.append(IncomingEvent(read_event(raw, built.database.clock.now()), raw))
    assert set(store_events(built.database, receipts)) == {"stored"}


def logged(sandbox: RunningSandbox) -> tuple[int, int]:
    return len(sandbox.hubspot.calls), len(sandbox.salesforce.tasks)


def finished(built: Service) -> Any:
    left = list_deliveries(built.database, delivery_states=UNFINISHED, limit=1).items
    return not left


def requests(sandbox: RunningSandbox) -> dict[str, int]:
    """How many requests each CRM got since the last time."""
    counted = {crm: len(sandbox.requests_to(crm)) for crm in CRMS}
    sandbox.clear_requests()
    return counted


def wait(built: Service, sandbox: RunningSandbox, calls: int, seconds: float = 60.0) -> None:
    assert eventually(lambda: logged(sandbox) == (calls, calls) and finished(built), seconds), logged(sandbox)


def test_a_call_of_a_known_contact_costs_one_request_and_a_backlog_a_hundredth(
    tmp_path: Path, sandbox: RunningSandbox
) -> None:
    with service(tmp_path, sandbox) as built:
        store(built, range(PEOPLE))
        built.start()
        wait(built, sandbox, PEOPLE)  # from here on the bridge knows them
        requests(sandbox)

        singles = 40
        for number in range(PEOPLE, PEOPLE + singles):
            store(built, range(number, number + 1))
            wait(built, sandbox, number + 1)
        single = requests(sandbox)
        for crm, count in single.items():
            assert count <= 1.1 * singles, f"{crm}: {count} requests for {singles} calls, one at a time"

    # A new process: it has to log in, and knows people from the database alone.
    with service(tmp_path, sandbox) as built:
        known = PEOPLE + singles
        store(built, range(known, known + CALLS))
        built.start()
        wait(built, sandbox, known + CALLS)
        spent = requests(sandbox)
        for crm, count in spent.items():
            assert count <= 0.1 * CALLS, f"{crm}: {count} requests for a backlog of {CALLS} calls"
    print(f"requests for {singles} calls one at a time: {single}; for {CALLS} that waited: {spent}")
