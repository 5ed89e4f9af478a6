"""Clocks that jump, as when a machine's time is set or its virtual host moves.

The service runs in this process, with all its threads, because only here its clock can be moved.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bridge.cli.bootstrap import build_service
from bridge.clock import Clock
from tests.asgi_server import serving
from tests.faults.harness import Deployment, Heppu, Outcome, calls, happening, slow, wait_for

Report = Callable[[Outcome], None]


@contextmanager
def _serving(deployment: Deployment, clock: Clock) -> Iterator[None]:
    """Serve on `clock`; the tolerance is a day, because Heppu's clock does not jump with ours."""
    variables = {
        "BRIDGE_RULES_FILE": str(deployment.folder / "rules.yaml"),
        "HEPPU_TIMESTAMP_TOLERANCE": "86400",
    }
    service = build_service(deployment.environ | variables, clock=clock)
    service.start()
    with serving(service.app) as url:
        deployment.heppu.close()
        deployment.heppu = Heppu(lambda: [url])
        try:
            yield
        finally:
            deployment.heppu.close()
            service.stop()
            service.close()


def test_a_clock_that_jumps_back_and_forth_loses_and_doubles_nothing(
    deployment: Deployment, report: Report, clock: Clock
) -> None:
    chance = random.Random(5)
    with _serving(deployment, clock), slow(deployment.sandbox, 0.2):
        deployment.heppu.send(calls(60), per_second=20)
        for _ in range(12):
            time.sleep(0.3)
            clock.advance(seconds=chance.choice([-7200, -3600, -45, 45, 3600, 7200]))
        deployment.heppu.wait()
        # What was due before the clock was put back is due again, and nothing has expired.
        clock.advance(hours=12)
        seconds = deployment.wait_until_final(60)
        report(deployment.outcome("12 jumps of the clock", seconds))
        assert (deployment.lost(), deployment.doubled()) == ([], [])
        assert set(deployment.states()) == {"succeeded"}


@pytest.mark.faults
def test_a_jump_during_an_attempt_does_not_make_it_be_looked_up_too_early(
    deployment: Deployment, report: Report, clock: Clock
) -> None:
    """The partner takes 14 s, longer than we wait: a lookup that came before would find nothing, and text again."""
    with _serving(deployment, clock):
        deployment.sandbox.fault("twilio", delay=14.0)
        deployment.heppu.send([happening("call.busy")])
        wait_for(lambda: deployment.states()["running"] == 1, 10, "the attempt", deployment.states)
        clock.advance(hours=1)
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(60)
        wait_for(lambda: deployment.texts(), 10, "the slow partner")
        time.sleep(max(0.0, 16 - seconds))
        report(deployment.outcome("clock put forward in an attempt", seconds))
        assert (deployment.lost(), deployment.doubled()) == ([], [])


def test_new_events_do_not_wait_after_the_clock_was_put_back(
    deployment: Deployment, report: Report, clock: Clock
) -> None:
    with _serving(deployment, clock):
        deployment.heppu.send(calls(10))
        deployment.heppu.wait()
        deployment.wait_until_final(20)
        clock.advance(hours=-1)
        deployment.heppu.send(calls(10))
        deployment.heppu.wait()
        seconds = deployment.wait_until_final(30)
        report(deployment.outcome("clock put back by an hour", seconds))
        assert (deployment.lost(), deployment.doubled()) == ([], [])
