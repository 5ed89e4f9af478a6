"""Calls logged in Pipedrive by the real worker, and what they cost."""

from __future__ import annotations

import json
import time
from pathlib import Path

from bridge.cli.bootstrap import Role, Service, build_service
from bridge.sandbox import RunningSandbox
from bridge.signing import read_event
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.ingest import IncomingEvent, store_events
from tests.integration.crm import call_events

ACTIVITIES = "/api/v2/activities"
PEOPLE = 12
RULES = """
version: 1
rules:
  - name: log
    when: call.completed
    do: [{use: pipedrive.log_call}]
"""


def store_calls(service: Service, first: int) -> None:
    """Store a call of each person."""
    incoming = []
    for number, call in enumerate(call_events(PEOPLE, service.database.clock)):
        body = dict(call.body) | {
            "conversationId": f"conv_{first + number}",
            "webhookId": f"wh_{first + number}",
        }
        raw = json.dumps(body).encode()
        incoming.append(IncomingEvent(read_event(raw, service.database.clock.now()), raw))
    assert set(store_events(service.database, incoming)) == {"stored"}


def until_succeeded(service: Service, count: int) -> None:
    end = time.monotonic() + 20
    while succeeded(service) < count:
        assert time.monotonic() < end, list_deliveries(service.database, DeliveryFilter(), limit=20).items
        time.sleep(0.02)


def succeeded(service: Service) -> int:
    return len(list_deliveries(service.database, DeliveryFilter(states=("succeeded",)), limit=100).items)


def test_people_who_called_within_the_hour_cost_one_request_each(
    tmp_path: Path, sandbox: RunningSandbox
) -> None:
    (tmp_path / "rules.yaml").write_text(RULES, "utf-8")
    environ = {
        "HEPPU_WEBHOOK_SECRET": "whsec_of_the_costs",
        "BRIDGE_RULES_FILE": str(tmp_path / "rules.yaml"),
        "BRIDGE_DATABASE_URL": f"sqlite:///{tmp_path}/bridge.db",
        "PIPEDRIVE_PER_SECOND": "1000",
        "PIPEDRIVE_SEARCHES_PER_SECOND": "10000",
    }
    service = build_service(Role.WORKER, sandbox.environment | environ, clock=sandbox.clock)
    try:
        store_calls(service, 0)
        service.start()
        until_succeeded(service, PEOPLE)
        assert len(sandbox.pipedrive.persons) == len(sandbox.pipedrive.activities) == PEOPLE

        store_calls(service, PEOPLE)  # now the owner, organization and deal of each person are read
        until_succeeded(service, 2 * PEOPLE)
        sandbox.clear_requests()
        store_calls(service, 2 * PEOPLE)
        until_succeeded(service, 3 * PEOPLE)
        assert [request.path for request in sandbox.requests_to("pipedrive")] == [ACTIVITIES] * PEOPLE
    finally:
        service.stop()
        service.close()
    persons = {activity["person_id"] for activity in sandbox.pipedrive.activities}
    assert (len(persons), len(sandbox.pipedrive.activities)) == (PEOPLE, 3 * PEOPLE)
