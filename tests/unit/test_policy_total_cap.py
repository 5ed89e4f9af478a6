"""The cap on all messages of a connection: no window contains more than it allows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.policy import Allow, DueDelivery, Hold, MessageCounts, PolicyInputs, Suppress, decide
from bridge.rules.model import Cap, MessagingPolicy
from bridge.rules.quiet_hours import NO_WINDOW, every_day

NOON = datetime(2026, 3, 2, 17, 0, tzinfo=UTC)
HOUR = Cap(3, timedelta(hours=1))
POLICY = MessagingPolicy(quiet_hours=every_day(NO_WINDOW), total_caps={"sms": HOUR})


def counted(*instants: datetime, cap: Cap = HOUR) -> MessageCounts:
    counts = MessageCounts()
    for instant in instants:
        counts.add("sms", cap, instant)
    return counts


def test_message_counts_until_its_period_has_left_the_window() -> None:
    counts = counted(NOON + timedelta(seconds=30))
    assert counts.within("sms", HOUR, NOON + timedelta(minutes=59)) == 1
    assert counts.within("sms", HOUR, NOON + timedelta(minutes=60, seconds=59)) == 1
    assert counts.within("sms", HOUR, NOON + timedelta(minutes=61)) == 0
    assert counts.within("email", HOUR, NOON) == 0


def test_counts_are_stored_and_stay_small() -> None:
    counts = counted(*(NOON + timedelta(seconds=second) for second in range(0, 4 * 3600, 7)))
    restored = MessageCounts.from_json(counts.to_json())
    assert restored == counts
    assert len(restored.by_channel["sms"]) <= 62
    assert MessageCounts.from_json(None) == MessageCounts()


def test_message_that_was_not_sent_is_taken_back_once() -> None:
    counts = counted(NOON, NOON + timedelta(minutes=5))
    for _ in range(3):
        counts.remove("sms", NOON + timedelta(minutes=5))
    assert counts.within("sms", HOUR, NOON + timedelta(minutes=6)) == 1
    counts.remove("sms", NOON - timedelta(hours=1))
    counts.remove("email", NOON)
    assert counts.within("sms", HOUR, NOON + timedelta(minutes=6)) == 1


@given(
    st.lists(st.integers(0, 600), min_size=1, max_size=60),
    st.integers(1, 5),
    st.integers(1, 300),
)
def test_no_window_contains_more_messages_than_the_cap(gaps: list[int], count: int, seconds: int) -> None:
    cap = Cap(count, timedelta(seconds=seconds))
    counts, now, sent = MessageCounts(), NOON, []
    for gap in gaps:
        now += timedelta(seconds=gap / 10)
        counts = MessageCounts.from_json(counts.to_json())
        if counts.within("sms", cap, now) < cap.count:
            counts.add("sms", cap, now)
            sent.append(now)
    assert sent
    for last in sent:
        assert sum(last - cap.per < instant <= last for instant in sent) <= cap.count
    # A sixtieth of the window, and at least a second, is all that a message counts too long.
    later = now + cap.per + max(timedelta(seconds=1), cap.per / 60)
    assert counts.within("sms", cap, later) == 0


def due(**changes: object) -> DueDelivery:
    fields = {"id": "dlv_1", "occurred_at": NOON, "channel": "sms", "recipient": "+12125550123"}
    return DueDelivery(**(fields | changes))  # type: ignore[arg-type]


def test_message_beyond_the_cap_is_held() -> None:
    inputs = PolicyInputs(messages_of_connection=3)
    decision = decide(due(), inputs, POLICY, NOON)
    assert isinstance(decision, Hold)
    assert decision.detail == (
        "messaging.caps.total.sms: at most 3 text messages per 1h to all recipients, "
        "and 3 already sent or possibly sent"
    )
    assert isinstance(decide(due(), PolicyInputs(messages_of_connection=2), POLICY, NOON), Allow)


@pytest.mark.parametrize(
    "changes", [{"internal": True}, {"channel": None, "recipient": None}, {"channel": "email"}]
)
def test_team_messages_and_other_channels_are_not_held(changes: dict[str, object]) -> None:
    assert isinstance(decide(due(**changes), PolicyInputs(messages_of_connection=9), POLICY, NOON), Allow)


def test_message_that_is_suppressed_anyway_does_not_hold_the_connection() -> None:
    inputs = PolicyInputs(messages_of_connection=3)
    assert isinstance(decide(due(expires_at=NOON), inputs, POLICY, NOON), Suppress)
    assert isinstance(decide(due(shadow=True), inputs, POLICY, NOON), Suppress)
