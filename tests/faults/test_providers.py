"""Providers that hang, disconnect, return garbage, are over their limits or report a wrong result.

Every delivery must still take effect exactly once.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bridge.sandbox import RunningSandbox
from tests.faults.harness import BUSY_FACTOR, Deployment, Report, call_events, event_body, wait_for

PAGE = "<html><body>Welcome to the hotel's Wi-Fi</body></html>"
FAULTS: dict[str, tuple[dict[str, Any], ...]] = {
    "does not respond": (
        {"drop": "after"},
        {"drop": "before"},
        {"drop": "after", "hang": True},
        {"hang": True},
    ),
    "succeeds and reports an error": (
        {"drop": "after", "status": 500},
        {"drop": "after", "status": 200, "body": PAGE},
        {"drop": "after", "status": 201, "body": {}},
    ),
    "fails": (
        {"status": 503},
        {"status": 200, "body": PAGE},
        {"status": 201, "body": {}},
        {"status": 429, "retry_after": 1},
    ),
}
"""Few enough at a time to keep the circuit closed."""
RECORDED_DURING_THE_HANG = """
SELECT count(*) FROM deliveries WHERE connection = 'hubspot' AND finished_at < COALESCE(
  (SELECT min(finished_at) FROM attempts
   WHERE delivery_id IN (SELECT id FROM deliveries WHERE connection = 'twilio')), finished_at + 1)
"""
"""Counts the records that were created before the first hanging request ended, after 10 s."""
WRITES = {
    "twilio": "/2010-04-01/Accounts/*/Messages.json",
    "hubspot": "/crm/objects/2026-03/calls/batch/create",
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("does not respond", marks=pytest.mark.faults),
        "succeeds and reports an error",
        "fails",
    ],
)
def test_provider_faults_lose_and_duplicate_nothing(
    deployment: Deployment, report: Report, kind: str
) -> None:
    """Each fault hits one request to each provider, among others that succeed."""
    deployment.start().ready()
    deployment.heppu.send(call_events(2))  # the first record creates the HubSpot property
    deployment.heppu.wait()
    deployment.wait_until_final(20)
    for provider, path in WRITES.items():
        for fault in FAULTS[kind]:
            deployment.sandbox.fault(provider, path=path, method="POST", **fault)  # type: ignore[arg-type]
    deployment.heppu.send(call_events(32), per_second=16)
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(40, skip_waits=True)
    faulty_responses = sum(
        request.status != 201 for request in deployment.sandbox.requests if request.method == "POST"
    )
    report(deployment.outcome(f"a provider {kind}", seconds))
    assert faulty_responses >= len(FAULTS[kind])
    assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}
    assert deployment.sandbox.slack.messages == []


@pytest.mark.faults  # needs a processor while requests hang for their 15 s
def test_hanging_provider_does_not_delay_others(
    tmp_path: Path, sqlite_url: str, sandbox: RunningSandbox
) -> None:
    with Deployment(tmp_path, sqlite_url, sandbox) as deployment:
        deployment.start().ready()
        sandbox.fault("twilio", hang=True, times=None)
        deployment.heppu.send([event_body("call.busy") for _ in range(30)])
        deployment.heppu.wait()
        wait_for(lambda: len(sandbox.requests_to("twilio")) >= 8, 10, "every Twilio thread to hang")
        records = [event_body("call.completed") for _ in range(30)]
        deployment.heppu.send(records)
        wait_for(
            lambda: len(deployment.call_records()) == 30,
            20,
            "the other provider's records",
            deployment.states,
        )
        assert deployment.query(RECORDED_DURING_THE_HANG)[0][0] > 0
        assert deployment.text_messages() == {}


def test_retry_after_pauses_connection_for_that_time(deployment: Deployment, report: Report) -> None:
    deployment.start().ready()
    deployment.sandbox.fault("twilio", retry_after=4)
    deployment.heppu.send([event_body("call.busy")])
    paused = "SELECT 1 FROM connections WHERE name = 'twilio' AND paused_until IS NOT NULL"
    wait_for(lambda: deployment.query(paused), 20, "the pause", deployment.states)
    deployment.heppu.send([event_body("call.busy") for _ in range(5)])
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(30)
    report(deployment.outcome("429 with Retry-After", seconds))
    first, *others = [request.received_at for request in deployment.sandbox.requests_to("twilio")]
    waits = [(at - first).total_seconds() for at in others]
    assert len(waits) == 6
    assert all(4 <= wait < 10 * BUSY_FACTOR for wait in waits), waits
    assert deployment.lost_events() == []
    assert {row[0] for row in deployment.query("SELECT attempts FROM deliveries")} == {1}


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"hang": True}, {"drop": "before"}], ids=["503", "hangs", "drops"]
)
def test_provider_outage_drains_without_review(
    tmp_path: Path, sqlite_url: str, sandbox: RunningSandbox, report: Report, fault: dict[str, Any]
) -> None:
    """The outage is longer than failing lookups are repeated, but running attempts must not need review."""
    with Deployment(tmp_path, sqlite_url, sandbox) as deployment:
        deployment.start().ready()
        deployment.heppu.send([event_body("call.busy") for _ in range(400)], per_second=2)
        time.sleep(5)
        sandbox.fault("twilio", times=None, **fault)
        time.sleep(175)
        states = deployment.states()
        sandbox.clear_faults()
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(90)
        name = next(iter(fault.values()))
        report(
            deployment.outcome(
                f"Twilio down for 175 s ({name})", seconds, f"{states['needs_review']} in review before"
            )
        )
        assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
        assert set(deployment.states()) == {"succeeded"}
