"""Request cost of logging a call in the CRMs: the real worker runs, the sandbox counts the requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.bootstrap import Role, Service, build_service
from bridge.clock import Clock
from bridge.sandbox import RunningSandbox, start_sandbox
from bridge.signing import read_event
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.ingest import IncomingEvent, store_events
from bridge.testing import event
from tests.acceptance.service_process import eventually
from tests.integration.crm import email_address, phone_number

CONTACTS = 50
CALLS = 300
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
    """Providers that have a contact for every caller."""
    with start_sandbox() as running:
        for number in range(CONTACTS):
            running.hubspot.add("contacts", email=email_address(number), phone=phone_number(number))
            running.salesforce.add(
                "Contact",
                LastName=f"Person {number}",
                Email=email_address(number),
                Phone=phone_number(number),
            )
        yield running


@contextmanager
def running_service(folder: Path, sandbox: RunningSandbox) -> Iterator[Service]:
    """Yield a service whose worker is not started yet, and stop it at the end."""
    (folder / "rules.yaml").write_text(RULES, "utf-8")
    environ = {
        "HEPPU_WEBHOOK_SECRET": "whsec_of_the_costs",
        "BRIDGE_RULES_FILE": str(folder / "rules.yaml"),
        "BRIDGE_DATABASE_URL": f"sqlite:///{folder}/bridge.db",
    }
    running = build_service(Role.WORKER, sandbox.environment | environ)
    try:
        yield running
    finally:
        running.stop()
        running.close()


def store_calls(running: Service, conversations: range) -> None:
    """Store one call per conversation, from each contact in turn."""
    incoming = []
    for number in conversations:
        contact = number % CONTACTS
        call = event(
            "call.completed",
            {
                "conversationId": f"conv_{number}",
                "metadata.contactPhone": phone_number(contact),
                "metadata.contactEmail": email_address(contact),
            },
            clock=Clock(),
        )
        raw = json.dumps(dict(call.body) | {"webhookId": f"whd_{number}"}).encode()
        incoming.append(IncomingEvent(read_event(raw, running.database.clock.now()), raw))
    assert set(store_events(running.database, incoming)) == {"stored"}


def logged_counts(sandbox: RunningSandbox) -> tuple[int, int]:
    return len(sandbox.hubspot.calls), len(sandbox.salesforce.tasks)


def all_finished(running: Service) -> Any:
    unfinished = list_deliveries(running.database, DeliveryFilter(states=UNFINISHED), limit=1).items
    return not unfinished


def count_new_requests(sandbox: RunningSandbox) -> dict[str, int]:
    """Return the number of requests to each CRM since the last call."""
    counts = {crm: len(sandbox.requests_to(crm)) for crm in CRMS}
    sandbox.clear_requests()
    return counts


def wait_until_logged(running: Service, sandbox: RunningSandbox, calls: int, seconds: float = 60.0) -> None:
    assert eventually(lambda: logged_counts(sandbox) == (calls, calls) and all_finished(running), seconds), (
        logged_counts(sandbox)
    )


def test_cached_contact_takes_one_request_per_call_and_a_tenth_in_backlog(
    tmp_path: Path, sandbox: RunningSandbox
) -> None:
    with running_service(tmp_path, sandbox) as running:
        store_calls(running, range(CONTACTS))
        running.start()
        wait_until_logged(running, sandbox, CONTACTS)  # from here on all contacts are cached
        count_new_requests(sandbox)

        single_calls = 20
        for number in range(CONTACTS, CONTACTS + single_calls):
            store_calls(running, range(number, number + 1))
            wait_until_logged(running, sandbox, number + 1)
        single_requests = count_new_requests(sandbox)
        for crm, count in single_requests.items():
            assert count <= 1.1 * single_calls, (
                f"{crm}: {count} requests for {single_calls} calls, one at a time"
            )

    # A new process has to log in and reads the contact cache from the database.
    with running_service(tmp_path, sandbox) as running:
        first = CONTACTS + single_calls
        store_calls(running, range(first, first + CALLS))
        running.start()
        wait_until_logged(running, sandbox, first + CALLS)
        backlog_requests = count_new_requests(sandbox)
        for crm, count in backlog_requests.items():
            assert count <= 0.1 * CALLS, f"{crm}: {count} requests for a backlog of {CALLS} calls"
    print(
        f"requests for {single_calls} calls one at a time: {single_requests}; "
        f"for a backlog of {CALLS}: {backlog_requests}"
    )
