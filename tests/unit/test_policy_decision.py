"""The decision before every attempt: what goes, waits, is suppressed or cancelled, and in which words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.events import Contact, Event
from bridge.policy import (
    Cancel,
    Due,
    EventRef,
    Facts,
    Go,
    Held,
    Suppress,
    Wait,
    decide,
    event_precedence,
    find_cancelling_event,
    zones_of,
)
from bridge.rules.model import Cap, Messaging, Once, QuietHours
from bridge.samples import sample

PHONE = "+12125550123"
NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
NIGHT = datetime(2026, 3, 3, 2, 30, tzinfo=UTC)
MORNING = datetime(2026, 3, 3, 13, tzinfo=UTC)
HOUR = timedelta(hours=1)
DEFAULTS = Messaging()

TEXT = Due(
    id="dlv_1",
    occurred_at=NOON,
    contact=Contact(phone=PHONE),
    channel="sms",
    recipient=PHONE,
    expires_at=NOON + 24 * HOUR,
)
LOG = Due(id="dlv_1", occurred_at=NOON, updates=True)


def test_a_text_by_day_goes():
    assert decide(TEXT, Facts(), DEFAULTS, NOON) == Go()


def test_a_text_says_when_it_must_have_arrived_and_a_record_does_not() -> None:
    night = datetime(2026, 3, 3, 1, tzinfo=UTC)  # 20:00 where the person is
    assert decide(TEXT, Facts(), DEFAULTS, NOON).quiet_hours_start == night
    assert decide(LOG, Facts(), DEFAULTS, NOON).quiet_hours_start is None


def test_a_crms_word_on_the_persons_clock_decides_and_is_told() -> None:
    knows = Facts(zone="America/Los_Angeles")
    assert decide(TEXT, knows, DEFAULTS, NIGHT) == Go()  # 18:30 there, whatever the area code says
    waits = decide(TEXT, knows, DEFAULTS, MORNING)
    assert isinstance(waits, Wait)
    assert waits.until == MORNING + 3 * HOUR
    assert "it is 05:00 in America/Los_Angeles, as the CRM says; they end" in waits.why
    said = replace(TEXT, contact=replace(TEXT.contact, time_zone="America/New_York"))
    assert decide(said, knows, DEFAULTS, MORNING) == Go()


def test_an_alert_to_the_team_waits_for_no_morning_and_no_cap() -> None:
    consent_needed = replace(DEFAULTS, consent="event.consent")
    alert = replace(TEXT, alert=True, recipient="+12025550100", consent="unknown")
    crowded = Facts(sent=[NIGHT] * 9)
    assert decide(alert, crowded, consent_needed, NIGHT) == Go()
    assert isinstance(decide(replace(alert, alert=False), crowded, consent_needed, NIGHT), Suppress)


def test_an_alert_is_kept_from_who_said_stop_and_from_the_customer_at_night() -> None:
    alert = replace(TEXT, alert=True, recipient="+12025550100")
    stopped = decide(alert, Facts(opted_out_at=NOON), DEFAULTS, NIGHT)
    assert isinstance(stopped, Suppress)
    assert stopped.reason == "opted_out"
    shadowed = decide(alert, Facts(), DEFAULTS, NIGHT, allowlist=[PHONE])
    assert isinstance(shadowed, Suppress)
    assert isinstance(decide(replace(alert, recipient=PHONE), Facts(), DEFAULTS, NIGHT), Wait)


def test_a_text_at_night_waits_for_the_persons_morning():
    decision = decide(TEXT, Facts(), DEFAULTS, NIGHT)
    assert decision == Wait(
        MORNING,
        "messaging.quiet_hours 20:00-08:00: it is 21:30 in America/New_York; "
        "they end on 2026-03-03 at 08:00 there (13:00 UTC)",
    )


def test_what_is_no_message_has_no_hours_and_no_caps():
    assert decide(LOG, Facts(sent=[NIGHT] * 9, opted_out_at=NOON), DEFAULTS, NIGHT) == Go()


def test_a_number_of_many_zones_is_told_as_such():
    decision = decide(replace(TEXT, recipient="+18005550123"), Facts(), DEFAULTS, NOON - 2 * HOUR)
    assert isinstance(decision, Wait)
    assert decision.until == NOON + HOUR
    assert "one of 8 zones that the number allows; all zones allow it at 2026-03-02 18:00 UTC" in decision.why


def test_a_wait_that_would_outlive_the_message_is_its_end():
    decision = decide(replace(TEXT, expires_at=MORNING), Facts(), DEFAULTS, NIGHT)
    assert isinstance(decision, Suppress)
    assert decision.reason == "expired"
    assert decision.until == MORNING
    assert "it expires at 2026-03-03 13:00 UTC" in decision.why


def test_expiry_counts_to_the_second():
    assert decide(TEXT, Facts(), DEFAULTS, NOON + 24 * HOUR - timedelta(seconds=1)) == Go()
    expired = decide(TEXT, Facts(), DEFAULTS, NOON + 24 * HOUR)
    assert isinstance(expired, Suppress)
    assert expired.reason == "expired"


def test_a_regions_stricter_hours_hold_on_top():
    strict = Messaging(
        regions={"US-NY": QuietHours(time(18), time(10)), "US-FL": QuietHours(time(12), time(11))}
    )
    decision = decide(TEXT, Facts(), strict, MORNING)
    assert isinstance(decision, Wait)
    assert decision.until == MORNING + 2 * HOUR
    assert decision.why.startswith("messaging.regions.US-NY 18:00-10:00: it is 08:00 in America/New_York")


def test_hours_that_no_zone_shares_suppress_instead_of_disturbing():
    short = Messaging(quiet_hours=QuietHours(time(12), time(10)))
    decision = decide(replace(TEXT, recipient="+18005550123", expires_at=None), Facts(), short, NOON)
    assert isinstance(decision, Suppress)
    assert decision.reason == "expired"
    assert "tell the person's time zone" in decision.why


def test_an_opt_out_stops_everything_on_its_channel():
    decision = decide(TEXT, Facts(opted_out_at=NOON - HOUR), DEFAULTS, NOON)
    assert decision == Suppress(
        "opted_out",
        "opt-out: the person asked on 2026-03-02 16:00 UTC for no more texts; holds until the person takes it back",
    )


@pytest.mark.parametrize("consent", ["false", "unknown"])
def test_without_the_required_consent_nothing_goes(consent):
    asking = Messaging(consent="event.callMetadata.custom.smsConsent")
    decision = decide(replace(TEXT, consent=consent), Facts(), asking, NOON)
    assert isinstance(decision, Suppress)
    assert decision.reason == "opted_out"
    assert f"`event.callMetadata.custom.smsConsent` is {consent}" in decision.why
    assert decide(replace(TEXT, consent="true"), Facts(), asking, NOON) == Go()


def test_a_cap_says_when_there_is_room_again():
    sent = [NOON - HOUR, NOON - 23 * HOUR, NOON - 25 * HOUR]
    decision = decide(TEXT, Facts(sent=sent), DEFAULTS, NOON)
    assert isinstance(decision, Suppress)
    assert (decision.reason, decision.until) == ("frequency_capped", NOON + HOUR)
    assert "messaging.caps.sms: at most 2 texts per 24h" in decision.why
    assert decide(TEXT, Facts(sent=sent), DEFAULTS, NOON + HOUR) == Go()


def test_a_cap_of_none_never_has_room():
    decision = decide(TEXT, Facts(), Messaging(caps={"sms": Cap(0, HOUR)}), NOON)
    assert isinstance(decision, Suppress)
    assert (decision.reason, decision.until) == ("frequency_capped", None)


def test_a_channel_without_a_cap_is_not_capped():
    assert decide(TEXT, Facts(sent=[NOON] * 100), Messaging(caps={}), NOON) == Go()


def test_only_to_lets_through_who_is_named_and_compares_mails_without_case():
    mail = replace(TEXT, channel="email", recipient="Maya@Example.com")
    assert decide(mail, Facts(), DEFAULTS, NOON, ["maya@example.COM"]) == Go()
    assert decide(TEXT, Facts(), DEFAULTS, NOON, [PHONE]) == Go()
    decision = decide(TEXT, Facts(), DEFAULTS, NOON, ["+14155550188"])
    assert isinstance(decision, Suppress)
    assert decision.reason == "shadow"
    assert decision.why.startswith("BRIDGE_RECIPIENT_ALLOWLIST")
    assert decide(LOG, Facts(), DEFAULTS, NOON, ["+14155550188"]) == Go()


def test_once_holds_for_its_span_and_not_longer():
    once = replace(TEXT, once=Once("contact", 24 * HOUR))
    decision = decide(once, Facts(once_at=NOON - HOUR), DEFAULTS, NOON)
    assert isinstance(decision, Suppress)
    assert (decision.reason, decision.until) == ("cooldown", NOON + 23 * HOUR)
    assert decide(once, Facts(once_at=NOON - 24 * HOUR), DEFAULTS, NOON) == Go()


def held(*, done=True, precedence=0, at=NOON, holder="dlv_0") -> Held:
    return Held(holder, done, precedence, at)


def test_what_is_already_done_is_not_done_again():
    decision = decide(TEXT, Facts(held=held()), DEFAULTS, NOON)
    assert isinstance(decision, Suppress)
    assert decision.reason == "duplicate"


def test_again_overrides_what_is_done_and_nothing_else():
    force = replace(TEXT, force=True)
    assert decide(force, Facts(held=held()), DEFAULTS, NOON) == Go()
    assert isinstance(decide(force, Facts(held=held(), opted_out_at=NOON), DEFAULTS, NOON), Suppress)
    assert isinstance(decide(force, Facts(held=held()), DEFAULTS, NIGHT), Wait)


@pytest.mark.parametrize("due", [TEXT, LOG])
def test_an_effect_whose_outcome_is_unknown_is_waited_for_unless_it_is_ones_own(due):
    assert isinstance(decide(due, Facts(held=held(done=False)), DEFAULTS, NOON), Wait)
    assert decide(due, Facts(held=held(done=False, holder=due.id)), DEFAULTS, NOON) == Go()


def test_a_later_event_updates_the_one_record_and_an_older_one_does_not():
    assert decide(LOG, Facts(held=held(at=NOON - HOUR)), DEFAULTS, NOON) == Go(updates=True)
    assert decide(LOG, Facts(held=held(at=NOON)), DEFAULTS, NOON) == Go(updates=True)
    decision = decide(LOG, Facts(held=held(at=NOON + HOUR)), DEFAULTS, NOON + HOUR)
    assert isinstance(decision, Suppress)
    assert decision.reason == "superseded"


def test_resolved_and_abandoned_win_over_completed_whenever_they_happened():
    resolved, completed = event_precedence("chat.resolved"), event_precedence("chat.completed")
    assert event_precedence("chat.abandoned") == resolved > completed == event_precedence("call.busy")
    late = replace(LOG, precedence=completed, occurred_at=NOON + HOUR)
    assert isinstance(decide(late, Facts(held=held(precedence=resolved)), DEFAULTS, NOON), Suppress)
    early = replace(LOG, precedence=resolved, occurred_at=NOON - HOUR)
    assert decide(early, Facts(held=held(precedence=completed)), DEFAULTS, NOON) == Go(updates=True)


def test_a_shadow_is_stopped_last_so_that_it_shows_all_the_rest():
    shadow = replace(TEXT, shadow=True)
    decision = decide(shadow, Facts(), DEFAULTS, NOON)
    assert isinstance(decision, Suppress)
    assert decision.reason == "shadow"
    assert isinstance(decide(shadow, Facts(), DEFAULTS, NIGHT), Wait)
    capped = decide(shadow, Facts(sent=[NOON, NOON]), DEFAULTS, NOON)
    assert isinstance(capped, Suppress)
    assert capped.reason == "frequency_capped"


def seen(name: str, at: datetime = NOON, dedupe_key: str = "other", **about: str) -> EventRef:
    return EventRef(dedupe_key, name, at, about.pop("conversation", "conv_x"), **about)


def test_a_later_event_of_the_same_conversation_phone_or_mail_cancels():
    cause = seen("call.busy", dedupe_key="cause", phone=PHONE, email="maya@example.com")
    for about in (
        {"conversation": "conv_x"},
        {"conversation": "c", "phone": PHONE},
        {"conversation": "c", "email": "Maya@example.com"},
    ):
        event = seen("call.completed", NOON + HOUR, **about)
        assert find_cancelling_event(("call.completed",), cause, [event]) == event


def test_what_is_older_another_persons_or_not_named_cancels_nothing():
    cause = seen("call.busy", dedupe_key="cause", phone=PHONE)
    others = [
        seen("call.completed", NOON - timedelta(seconds=1)),
        seen("call.failed", NOON + HOUR),
        seen("call.completed", NOON + HOUR, conversation="c", phone="+14155550188"),
        seen("call.completed", NOON + HOUR, conversation="c"),
    ]
    assert find_cancelling_event(("call.completed",), cause, others) is None
    assert find_cancelling_event(("call.busy",), cause, [cause]) is None


def test_the_earliest_event_that_cancels_is_named():
    cause = seen("call.busy", dedupe_key="cause")
    later, first = seen("call.completed", NOON + HOUR), seen("call.completed", NOON, dedupe_key="first")
    found = find_cancelling_event(("call.completed",), cause, [later, first])
    assert found == first
    decision = decide(TEXT, Facts(cancelled_by=found), DEFAULTS, NOON)
    assert isinstance(decision, Cancel)
    assert decision.why == "cancel_on: call.completed of 2026-03-02 17:00 UTC makes it pointless"


def test_an_event_counts_by_its_own_timestamp_and_by_its_receipt_when_it_has_none():
    body = sample("call.busy")
    event = Event(body, "one", NIGHT)
    assert EventRef.of(event) == EventRef(
        "one", "call.busy", event.timestamp, "conv_sample_call_busy", "+12125550167"
    )
    del body["timestamp"]
    assert EventRef.of(Event(body, "one", NIGHT)).at == NIGHT


addresses = st.sampled_from([PHONE, "+18005550123", "+13055550100", "+358401234567", "maya@example.com"])
instants = st.integers(0, 4 * 365 * 1440).map(
    lambda minute: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
)


@given(
    now=instants,
    recipient=addresses,
    channel=st.sampled_from(["sms", "email", "call"]),
    time_zone=st.sampled_from([None, "America/Denver", "Asia/Kathmandu"]),
    ages=st.lists(st.integers(0, 10 * 24 * 60), max_size=4),
    lasts=st.one_of(st.none(), st.integers(1, 72 * 60)),
)
def test_whatever_goes_goes_outside_all_quiet_hours_and_under_the_cap(
    now, recipient, channel, time_zone, ages, lasts
):
    contact = Contact(phone=recipient if recipient[0] == "+" else None, time_zone=time_zone)
    due = Due(
        id="dlv_1",
        occurred_at=now,
        contact=contact,
        channel=channel,
        recipient=recipient,
        expires_at=None if lasts is None else now + timedelta(minutes=lasts),
    )
    sent = [now - timedelta(minutes=age) for age in ages]
    decision = decide(due, Facts(sent=sent), DEFAULTS, now)
    walls = [now.astimezone(ZoneInfo(zone)).hour for zone in zones_of(contact, recipient, "America/New_York")]
    cap = DEFAULTS.caps[channel]
    if isinstance(decision, Go):
        assert all(8 <= hour < 20 for hour in walls)
        assert sum(now - instant < cap.per for instant in sent) < cap.count
    elif isinstance(decision, Wait):
        assert due.expires_at is None or decision.until < due.expires_at
        later = decide(replace(due, occurred_at=now), Facts(), DEFAULTS, decision.until)
        assert later == Go()
    else:
        assert isinstance(decision, Suppress)
        assert recipient not in decision.why
