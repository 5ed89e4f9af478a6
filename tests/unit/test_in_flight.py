"""In-flight claims: from the claim until the result is recorded, whatever thread reports the progress."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.clock import uptime
from bridge.store.claimed_delivery import ClaimedDelivery
from bridge.worker.in_flight import InFlight

LEASE = timedelta(seconds=30)


def claim_of(delivery_id: str, fencing_token: int = 1) -> ClaimedDelivery:
    return cast(
        ClaimedDelivery,
        SimpleNamespace(delivery=SimpleNamespace(id=delivery_id), fencing_token=fencing_token),
    )


@pytest.fixture
def fast_thread_switches() -> Iterator[None]:
    """Make the interpreter switch threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_claim_is_alive_until_its_lease_is_over() -> None:
    in_flight, claim = InFlight(), claim_of("a")
    assert not in_flight.is_alive(claim, LEASE)
    in_flight.claimed([claim], uptime() - 29)
    assert in_flight.is_alive(claim, LEASE)
    in_flight.claimed([claim], uptime() - 31)
    assert not in_flight.is_alive(claim, LEASE)
    in_flight.started([claim])
    assert not in_flight.is_alive(claim, LEASE)


def test_claim_with_known_result_is_alive_until_it_is_recorded() -> None:
    in_flight, claim = InFlight(), claim_of("a")
    in_flight.claimed([claim], uptime() - 3600)
    in_flight.started([claim])
    in_flight.result_known([claim])
    assert in_flight.is_alive(claim, LEASE)
    in_flight.recorded([claim])
    assert not in_flight.is_alive(claim, LEASE)


def test_claim_waits_for_thread_until_its_attempt_starts() -> None:
    in_flight, claim = InFlight(), claim_of("a")
    assert not in_flight.waits_for_thread(claim)
    in_flight.claimed([claim], uptime())
    assert in_flight.waits_for_thread(claim)
    in_flight.started([claim])
    assert not in_flight.waits_for_thread(claim)


def test_claims_of_one_delivery_are_separate() -> None:
    in_flight, first, second = InFlight(), claim_of("a", 1), claim_of("a", 2)
    in_flight.claimed([first], uptime() - 31)
    in_flight.claimed([second], uptime())
    assert not in_flight.is_alive(first, LEASE)
    assert in_flight.is_alive(second, LEASE)
    in_flight.recorded([first])
    assert in_flight.is_alive(second, LEASE)


def test_wait_idle_returns_when_the_last_claim_is_recorded() -> None:
    in_flight, claims = InFlight(), [claim_of("a"), claim_of("b")]
    assert in_flight.wait_idle(0)
    in_flight.claimed(claims, uptime())
    assert not in_flight.wait_idle(0.01)
    in_flight.recorded(claims[:1])
    threading.Timer(0.05, in_flight.recorded, [claims[1:]]).start()
    assert in_flight.wait_idle(5)
    assert in_flight.wait_idle(-1), "an idle worker needs no time"


@pytest.mark.usefixtures("fast_thread_switches")
def test_concurrent_threads_lose_no_claim() -> None:
    """As in the worker: threads claim, attempt and record, while maintenance asks about the same claims."""
    in_flight, errors, finished = InFlight(), list[BaseException](), threading.Event()
    claims = [[claim_of(f"{thread}-{n}", 1 + n % 3) for n in range(400)] for thread in range(6)]

    def work(own: list[ClaimedDelivery]) -> None:
        shuffle = random.Random(own[0].delivery.id)
        for start in range(0, len(own), 8):
            batch = own[start : start + 8]
            in_flight.claimed(batch, uptime())
            shuffle.shuffle(batch)
            for claim in batch:
                assert in_flight.waits_for_thread(claim)
                in_flight.started([claim])
                assert not in_flight.waits_for_thread(claim)
                in_flight.result_known([claim])
                assert in_flight.is_alive(claim, timedelta(0)), "the result is known"
            assert not in_flight.wait_idle(0)
            in_flight.recorded(batch)
            assert not any(in_flight.is_alive(claim, LEASE) for claim in batch)

    def ask() -> None:
        while not finished.is_set():
            for own in claims:
                in_flight.is_alive(own[0], LEASE)
                in_flight.waits_for_thread(own[-1])
            in_flight.wait_idle(0.001)

    def guarded(target: Any, *args: Any) -> None:
        try:
            target(*args)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=guarded, args=(work, own)) for own in claims]
    asker = threading.Thread(target=guarded, args=(ask,))
    for thread in (*workers, asker):
        thread.start()
    end = time.monotonic() + 60
    for thread in workers:
        thread.join(max(0.0, end - time.monotonic()))
        assert not thread.is_alive()
    assert in_flight.wait_idle(5)
    finished.set()
    asker.join(5)
    assert errors == []
