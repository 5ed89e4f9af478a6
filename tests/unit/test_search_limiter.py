"""The pace of searches: none is sent earlier than the provider allows, and none waits past the deadline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.clock import uptime
from bridge.connector import SearchLimiter
from bridge.connector.deadline import attempt_deadline
from bridge.errors import TransientError


class ManualClock:
    """A monotonic clock that sleeping advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(st.lists(st.floats(0, 3), min_size=1, max_size=40), st.sampled_from([0.5, 1, 4, 5]))
def test_no_second_has_more_searches_than_allowed(pauses: list[float], per_second: float) -> None:
    clock = ManualClock()
    limiter = SearchLimiter(per_second, lambda: clock.now, clock.sleep)
    sent = []
    for pause in pauses:
        clock.now += pause
        limiter.wait()
        sent.append(clock.now)
    slots, window = max(1, int(per_second)), max(1, int(per_second)) / per_second
    assert all(later - earlier >= window - 1e-6 for earlier, later in zip(sent, sent[slots:], strict=False))


def test_idle_limiter_lets_all_searches_of_a_second_pass_at_once() -> None:
    clock = ManualClock()
    limiter = SearchLimiter(4, lambda: clock.now, clock.sleep)
    for _ in range(4):
        limiter.wait()
    assert clock.now == 100.0
    limiter.wait()
    assert clock.now == 101.0


def test_search_that_would_start_after_the_deadline_is_not_waited_for() -> None:
    clock = ManualClock()
    limiter = SearchLimiter(1, lambda: clock.now, clock.sleep)
    limiter.wait()
    with attempt_deadline(uptime() + 0.5), pytest.raises(TransientError) as caught:
        limiter.wait()
    assert (clock.now, caught.value.reason) == (100.0, "rate_limited")
