"""The opt-out that covers a message, for any history of opt-outs and opt-ins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from bridge.policy import CHANNELS, OptOutEntry, channels_of, covered_channels, find_opt_out
from bridge.rules.model import OptOutScope

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SCOPES: tuple[OptOutScope, ...] = ("channel", "phone", "all")
entries = st.builds(
    lambda channel, minute, opted_out: OptOutEntry(
        channel,
        NOON + timedelta(minutes=minute) if opted_out else None,
        NOON + timedelta(minutes=minute),
        "STOP to twilio",
    ),
    st.sampled_from(CHANNELS),
    st.integers(0, 20),
    st.booleans(),
)


@given(
    st.lists(entries, unique_by=lambda entry: entry.channel),
    st.sampled_from(CHANNELS),
    st.sampled_from(SCOPES),
)
def test_message_is_stopped_unless_an_opt_in_on_its_channel_came_later(
    own: list[OptOutEntry], channel: str, scope: OptOutScope
) -> None:
    covering = covered_channels(channel, scope)
    opt_outs = [entry.opted_out_at for entry in own if entry.channel in covering and entry.opted_out_at]
    opt_ins = [entry.changed_at for entry in own if entry.channel == channel and not entry.opted_out_at]
    stopped = bool(opt_outs) and (not opt_ins or max(opt_outs) > max(opt_ins))
    assert (find_opt_out(own, [], channel, scope) is not None) is stopped


@given(
    st.lists(entries, max_size=6),
    st.lists(st.lists(entries, max_size=4), max_size=3),
    st.sampled_from(CHANNELS),
)
def test_wider_scope_and_other_addresses_never_allow_more_messages(
    own: list[OptOutEntry], others: list[list[OptOutEntry]], channel: str
) -> None:
    stopped = [find_opt_out(own, others, channel, scope) is not None for scope in SCOPES]
    assert stopped == sorted(stopped)
    if find_opt_out(own, [], channel, "channel") is not None:
        assert all(stopped)


@given(st.sampled_from(CHANNELS), st.sampled_from(CHANNELS), st.sampled_from(SCOPES))
def test_scope_is_symmetric_and_includes_the_channel_itself(one: str, two: str, scope: OptOutScope) -> None:
    assert one in covered_channels(one, scope)
    assert (one in covered_channels(two, scope)) is (two in covered_channels(one, scope))


def test_own_opt_out_is_named_before_that_of_another_address() -> None:
    own = OptOutEntry("call", NOON, NOON, "call")
    other = OptOutEntry("sms", NOON - timedelta(days=1), NOON - timedelta(days=1), "other")
    found = find_opt_out([own], [[other]], "sms", "phone")
    assert found is not None
    assert (found.entry, found.other_address) == (own, False)


def test_channels_of_an_address() -> None:
    assert channels_of("+14155550123") == ("sms", "whatsapp", "call")
    assert channels_of("a@b.example") == ("email",)
