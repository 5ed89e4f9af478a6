"""Clock jumps, for example when a machine's time is set or its virtual host moves.

The service runs in this process, with all its threads, because its clock can only be moved here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bridge.cli.bootstrap import Role, build_service
from bridge.cli.web_service import build_receiver
from bridge.clock import Clock
from tests.asgi_server import serving
from tests.faults.harness import (
    Deployment,
    Report,
    WebhookSender,
    call_events,
    event_body,
    slow_providers,
    wait_for,
)


@contextmanager
def _serving(deployment: Deployment, clock: Clock) -> Iterator[None]:
    """Run the service on `clock`. The tolerance is a day, because the sender's clock does not jump with it."""
    variables = {
        "BRIDGE_RULES_FILE": str(deployment.folder / "rules.yaml"),
        "HEPPU_TIMESTAMP_TOLERANCE": "86400",
    }
    service = build_service(Role.WORKER, deployment.environ | variables, clock=clock)
    service.start()
    with serving(build_receiver(service).app) as url:
        deployment.heppu.close()
        deployment.heppu = WebhookSender(lambda: [url])
        try:
            yield
        finally:
            deployment.heppu.close()
            service.stop()
            service.close()


def test_clock_jumps_lose_and_duplicate_nothing(deployment: Deployment, report: Report, clock: Clock) -> None:
    rng = random.Random(5)
    with _serving(deployment, clock), slow_providers(deployment.sandbox, 0.2):
        deployment.heppu.send(call_events(60), per_second=20)
        for _ in range(12):
            time.sleep(0.3)
            clock.advance(seconds=rng.choice([-7200, -3600, -45, 45, 3600, 7200]))
        deployment.heppu.wait()
        # Deliveries that were due before the clock was set back are due again, and none has expired.
        clock.advance(hours=12)
        seconds = deployment.wait_until_final(60)
        report(deployment.outcome("12 jumps of the clock", seconds))
        assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
        assert set(deployment.states()) == {"succeeded"}


@pytest.mark.faults
def test_clock_jump_during_attempt_does_not_cause_early_lookup(
    deployment: Deployment, report: Report, clock: Clock
) -> None:
    """The provider takes 14 s, longer than the deadline: an early lookup would find nothing and cause a duplicate."""
    with _serving(deployment, clock):
        deployment.sandbox.fault("twilio", delay=14.0)
        deployment.heppu.send([event_body("call.busy")])
        wait_for(lambda: deployment.states()["running"] == 1, 10, "the attempt", deployment.states)
        clock.advance(hours=1)
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(60)
        wait_for(lambda: deployment.text_messages(), 10, "the slow provider")
        time.sleep(max(0.0, 16 - seconds))
        report(deployment.outcome("clock set forward in an attempt", seconds))
        assert (deployment.lost_events(), deployment.duplicates()) == ([], [])


def test_new_events_are_not_delayed_after_clock_is_set_back(
    deployment: Deployment, report: Report, clock: Clock
) -> None:
    with _serving(deployment, clock):
        deployment.heppu.send(call_events(10))
        deployment.heppu.wait()
        deployment.wait_until_final(20)
        clock.advance(hours=-1)
        deployment.heppu.send(call_events(10))
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(30)
        report(deployment.outcome("clock set back by an hour", seconds))
        assert (deployment.lost_events(), deployment.duplicates()) == ([], [])
