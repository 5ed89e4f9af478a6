"""Partners that hang, break off, answer garbage, are full, or say what is not true: each delivery ends right, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.sandbox import RunningSandbox
from tests.faults.harness import Deployment, Outcome, calls, happening, wait_for

Report = Callable[[Outcome], None]

PAGE = "<html><body>Welcome to the hotel's Wi-Fi</body></html>"
FAULTS: dict[str, tuple[dict[str, Any], ...]] = {
    "says nothing": ({"drop": "after"}, {"drop": "before"}, {"drop": "after", "hang": True}, {"hang": True}),
    "did it, and denies it": (
        {"drop": "after", "status": 500},
        {"drop": "after", "status": 200, "body": PAGE},
        {"drop": "after", "status": 201, "body": {}},
    ),
    "did not do it": (
        {"status": 503},
        {"status": 200, "body": PAGE},
        {"status": 201, "body": {}},
        {"status": 429, "retry_after": 1},
    ),
}
"""Few enough at a time that no circuit opens."""
WRITES = {
    "twilio": "/2010-04-01/Accounts/*/Messages.json",
    "hubspot": "/crm/v3/objects/calls/batch/create",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_whatever_a_partner_does_ends_right(deployment: Deployment, report: Report, kind: str) -> None:
    """Each fault meets one request of either partner, among others that go well."""
    deployment.start().ready()
    deployment.heppu.send(calls(2))  # HubSpot gets our property with the first record
    deployment.heppu.wait()
    deployment.wait_until_final(20)
    for partner, path in WRITES.items():
        for fault in FAULTS[kind]:
            deployment.sandbox.fault(partner, path=path, method="POST", **fault)  # type: ignore[arg-type]
    deployment.heppu.send(calls(32), per_second=16)
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(40, hurry=True)
    met = sum(request.status != 201 for request in deployment.sandbox.requests if request.method == "POST")
    report(deployment.outcome(f"a partner {kind}", seconds))
    assert met >= len(FAULTS[kind])
    assert (deployment.lost(), deployment.doubled()) == ([], [])
    assert set(deployment.states()) == {"succeeded"}
    assert deployment.sandbox.slack.messages == []


def test_a_partner_that_hangs_delays_nobody_else(
    tmp_path: Path, sqlite_url: str, sandbox: RunningSandbox
) -> None:
    with Deployment(tmp_path, sqlite_url, sandbox) as deployment:
        deployment.start().ready()
        sandbox.fault("twilio", hang=True, times=None)
        deployment.heppu.send([happening("call.busy") for _ in range(30)])
        deployment.heppu.wait()
        wait_for(lambda: len(sandbox.requests_to("twilio")) >= 8, 10, "every thread of Twilio's to hang")
        begin = time.monotonic()
        records = [happening("call.completed") for _ in range(30)]
        deployment.heppu.send(records)
        wait_for(
            lambda: len(deployment.records()) == 30, 20, "the other partner's records", deployment.states
        )
        assert time.monotonic() - begin < 5
        assert deployment.texts() == {}


def test_a_partner_that_asks_for_a_pause_gets_exactly_that(deployment: Deployment, report: Report) -> None:
    deployment.start().ready()
    deployment.sandbox.fault("twilio", retry_after=4)
    deployment.heppu.send([happening("call.busy")])
    paused = "SELECT 1 FROM connections WHERE name = 'twilio' AND paused_until IS NOT NULL"
    wait_for(lambda: deployment.query(paused), 20, "the pause", deployment.states)
    deployment.heppu.send([happening("call.busy") for _ in range(5)])
    deployment.heppu.wait()
    seconds = deployment.wait_until_final(30)
    report(deployment.outcome("429 with Retry-After", seconds))
    first, *others = [request.at for request in deployment.sandbox.requests_to("twilio")]
    waited = [(at - first).total_seconds() for at in others]
    assert len(waited) == 6
    assert all(4 <= wait < 8 for wait in waited), waited
    assert deployment.lost() == []
    assert {row[0] for row in deployment.query("SELECT attempts FROM deliveries")} == {1}


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"hang": True}, {"drop": "before"}], ids=["503", "hangs", "drops"]
)
def test_an_outage_ends_without_review_and_drains_by_itself(
    tmp_path: Path, sqlite_url: str, sandbox: RunningSandbox, report: Report, fault: dict[str, Any]
) -> None:
    """Longer than a failing lookup is tried: what was under way when it began must not need a person."""
    with Deployment(tmp_path, sqlite_url, sandbox) as deployment:
        deployment.start().ready()
        deployment.heppu.send([happening("call.busy") for _ in range(400)], per_second=2)
        time.sleep(5)
        sandbox.fault("twilio", times=None, **fault)
        time.sleep(175)
        waiting = deployment.states()
        sandbox.clear_faults()
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(90)
        name = next(iter(fault.values()))
        report(
            deployment.outcome(
                f"Twilio away for 175 s ({name})", seconds, f"{waiting['needs_review']} in review before"
            )
        )
        assert (deployment.lost(), deployment.doubled()) == ([], [])
        assert set(deployment.states()) == {"succeeded"}
