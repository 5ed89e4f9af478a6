"""The decision before every attempt: allow, defer, suppress or cancel a due delivery, and the detail text."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.contacts.parse import Contact
from bridge.events import Event
from bridge.policy import (
    ActiveOptOut,
    Allow,
    Cancel,
    CrmFlag,
    Defer,
    DueDelivery,
    EventRef,
    IdempotencyRecord,
    OptOutEntry,
    PolicyInputs,
    Suppress,
    UndeliverableAddress,
    decide,
    event_precedence,
    find_cancelling_event,
    zones_of,
)
from bridge.rules.model import Cap, MessagingPolicy, OncePer
from bridge.rules.quiet_hours import ALL_DAY, QuietHours, QuietWindow, every_day
from bridge.samples import sample

PHONE = "+12125550123"
NOON = datetime(2026, 3, 2, 17, tzinfo=UTC)
NIGHT = datetime(2026, 3, 3, 2, 30, tzinfo=UTC)
MORNING = datetime(2026, 3, 3, 13, tzinfo=UTC)
HOUR = timedelta(hours=1)
DEFAULTS = MessagingPolicy()
WORKING_HOURS = QuietHours(
    (QuietWindow.between(time(17), time(9)),) * 5 + (ALL_DAY, ALL_DAY), ALL_DAY, "messaging.quiet_hours.sms"
)

SMS = DueDelivery(
    id="dlv_1",
    occurred_at=NOON,
    contact=Contact(phone=PHONE),
    channel="sms",
    recipient=PHONE,
    expires_at=NOON + 24 * HOUR,
)
LOG = DueDelivery(id="dlv_1", occurred_at=NOON, updates=True)


def opt_out(at: datetime = NOON, **changes: object) -> ActiveOptOut:
    """Return an opt-out of text messages."""
    return ActiveOptOut(replace(OptOutEntry("sms", at, at, "STOP to twilio"), **changes))


def test_message_during_the_day_is_allowed():
    assert decide(SMS, PolicyInputs(), DEFAULTS, NOON) == Allow()


def test_allow_has_quiet_hours_start_only_for_messages() -> None:
    night = datetime(2026, 3, 3, 1, tzinfo=UTC)  # 20:00 local time of the recipient
    assert decide(SMS, PolicyInputs(), DEFAULTS, NOON).quiet_hours_start == night
    assert decide(LOG, PolicyInputs(), DEFAULTS, NOON).quiet_hours_start is None


def test_crm_time_zone_is_used_and_named_in_detail() -> None:
    inputs = PolicyInputs(crm_time_zone="America/Los_Angeles")
    assert (
        decide(SMS, inputs, DEFAULTS, NIGHT) == Allow()
    )  # 18:30 there, although the area code is in New York
    decision = decide(SMS, inputs, DEFAULTS, MORNING)
    assert isinstance(decision, Defer)
    assert decision.until == MORNING + 3 * HOUR
    assert "it is 05:00 in America/Los_Angeles (time zone from the CRM); they end" in decision.detail
    with_event_zone = replace(SMS, contact=replace(SMS.contact, time_zone="America/New_York"))
    assert decide(with_event_zone, inputs, DEFAULTS, MORNING) == Allow()


def test_internal_message_ignores_quiet_hours_caps_consent_and_opt_outs() -> None:
    consent_needed = replace(DEFAULTS, consent="event.consent")
    internal = replace(SMS, internal=True, recipient="+12025550100", consent="unknown")
    undeliverable = UndeliverableAddress(NOON, NOON + HOUR, "landline")
    inputs = PolicyInputs(messages_sent_at=[NIGHT] * 9, opt_out=opt_out(), undeliverable=undeliverable)
    decision = decide(internal, inputs, consent_needed, NIGHT)
    assert decision == Allow()
    assert decision.quiet_hours_start is None
    assert isinstance(decide(replace(internal, internal=False), inputs, consent_needed, NIGHT), Suppress)
    not_listed = decide(internal, PolicyInputs(), DEFAULTS, NIGHT, allowlist=[PHONE])
    assert isinstance(not_listed, Suppress)
    assert not_listed.reason == "not_allowlisted"


def test_message_at_night_is_deferred_to_recipients_morning():
    decision = decide(SMS, PolicyInputs(), DEFAULTS, NIGHT)
    assert decision == Defer(
        MORNING,
        "messaging.quiet_hours 20:00-08:00: it is 21:30 in America/New_York; "
        "they end on 2026-03-03 at 08:00 local time (13:00 UTC)",
    )


def test_delivery_without_channel_ignores_quiet_hours_caps_and_opt_outs():
    assert (
        decide(LOG, PolicyInputs(messages_sent_at=[NIGHT] * 9, opt_out=opt_out()), DEFAULTS, NIGHT) == Allow()
    )


def test_detail_names_number_of_possible_time_zones():
    decision = decide(replace(SMS, recipient="+18005550123"), PolicyInputs(), DEFAULTS, NOON - 2 * HOUR)
    assert isinstance(decision, Defer)
    assert decision.until == NOON + HOUR
    assert (
        "one of 8 time zones that the number allows; all zones allow it at 2026-03-02 18:00 UTC"
        in decision.detail
    )


def test_deferral_beyond_expiry_suppresses_as_expired():
    decision = decide(replace(SMS, expires_at=MORNING), PolicyInputs(), DEFAULTS, NIGHT)
    assert isinstance(decision, Suppress)
    assert decision.reason == "expired"
    assert decision.until == MORNING
    assert "the delivery expires at 2026-03-03 13:00 UTC" in decision.detail


def test_expiry_is_exact_to_the_second():
    assert decide(SMS, PolicyInputs(), DEFAULTS, NOON + 24 * HOUR - timedelta(seconds=1)) == Allow()
    expired = decide(SMS, PolicyInputs(), DEFAULTS, NOON + 24 * HOUR)
    assert isinstance(expired, Suppress)
    assert expired.reason == "expired"


def test_stricter_region_hours_apply_in_addition():
    strict = MessagingPolicy(
        regions={
            name: every_day(QuietWindow.between(time(start), time(end)), f"messaging.regions.{name}")
            for name, start, end in (("US-NY", 18, 10), ("US-FL", 12, 11))
        }
    )
    decision = decide(SMS, PolicyInputs(), strict, MORNING)
    assert isinstance(decision, Defer)
    assert decision.until == MORNING + 2 * HOUR
    assert decision.detail.startswith("messaging.regions.US-NY 18:00-10:00: it is 08:00 in America/New_York")


def test_zones_without_common_allowed_hours_suppress():
    short = MessagingPolicy(quiet_hours=every_day(QuietWindow.between(time(12), time(10))))
    decision = decide(replace(SMS, recipient="+18005550123", expires_at=None), PolicyInputs(), short, NOON)
    assert isinstance(decision, Suppress)
    assert decision.reason == "expired"
    assert "set the contact's time zone" in decision.detail


def test_opt_out_suppresses_message():
    decision = decide(SMS, PolicyInputs(opt_out=opt_out(NOON - HOUR)), DEFAULTS, NOON)
    assert decision == Suppress(
        "opted_out",
        "opt-out: the recipient opted out of text messages at 2026-03-02 16:00 UTC (STOP to twilio); "
        "applies until the recipient opts in again",
    )


def test_opt_out_of_an_operator_is_not_described_as_the_recipients_wish() -> None:
    found = opt_out(source="import", actor="ada@host", reason="our DNC list 2026-11")
    decision = decide(SMS, PolicyInputs(opt_out=found), DEFAULTS, NOON)
    assert isinstance(decision, Suppress)
    assert decision.detail == (
        "opt-out of text messages: added by operator ada@host (import) at 2026-03-02 17:00 UTC: our DNC list 2026-11; "
        "applies until `bridge opt-outs remove` or an opt-in of the recipient"
    )


def test_opt_out_of_another_channel_and_address_says_so() -> None:
    call = replace(SMS, channel="call")
    decision = decide(call, PolicyInputs(opt_out=replace(opt_out(), other_address=True)), DEFAULTS, NOON)
    assert isinstance(decision, Suppress)
    assert "(STOP to twilio), with another address of the same contact" in decision.detail
    assert "messaging.opt_out_scope `phone` extends it to calls" in decision.detail


def test_undeliverable_address_is_suppressed_until_it_is_tried_again() -> None:
    problem = UndeliverableAddress(
        NOON, NOON + 90 * 24 * HOUR, "Twilio error 30006: a landline, +12125550123"
    )
    decision = decide(SMS, PolicyInputs(undeliverable=problem), DEFAULTS, NOON)
    assert isinstance(decision, Suppress)
    assert (decision.reason, decision.until) == ("undeliverable", problem.until)
    assert (
        "text messages to this address failed at 2026-03-02 17:00 UTC (Twilio error 30006" in decision.detail
    )
    assert PHONE not in decision.detail
    assert "`bridge opt-outs remove` clears it" in decision.detail


@pytest.mark.parametrize("consent", ["false", "unknown"])
def test_missing_consent_suppresses(consent):
    messaging = MessagingPolicy(consent="event.callMetadata.custom.smsConsent")
    decision = decide(replace(SMS, consent=consent), PolicyInputs(), messaging, NOON)
    assert isinstance(decision, Suppress)
    assert decision.reason == "no_consent"
    assert f"`event.callMetadata.custom.smsConsent` is {consent}" in decision.detail
    assert decide(replace(SMS, consent="true"), PolicyInputs(), messaging, NOON) == Allow()


def test_cap_reports_when_next_message_is_allowed():
    sent = [NOON - HOUR, NOON - 23 * HOUR, NOON - 25 * HOUR]
    decision = decide(SMS, PolicyInputs(messages_sent_at=sent), DEFAULTS, NOON)
    assert isinstance(decision, Suppress)
    assert (decision.reason, decision.until) == ("frequency_capped", NOON + HOUR)
    assert "messaging.caps.sms: at most 2 text messages per 24h" in decision.detail
    assert decide(SMS, PolicyInputs(messages_sent_at=sent), DEFAULTS, NOON + HOUR) == Allow()


def test_zero_cap_suppresses_everything():
    decision = decide(SMS, PolicyInputs(), MessagingPolicy(caps={"sms": Cap(0, HOUR)}), NOON)
    assert isinstance(decision, Suppress)
    assert (decision.reason, decision.until) == ("frequency_capped", None)


def test_channel_without_cap_is_not_capped():
    assert decide(SMS, PolicyInputs(messages_sent_at=[NOON] * 100), MessagingPolicy(caps={}), NOON) == Allow()


def test_allowlist_allows_listed_recipients_and_ignores_case_of_emails():
    email = replace(SMS, channel="email", recipient="Maya@Example.com")
    assert decide(email, PolicyInputs(), DEFAULTS, NOON, ["maya@example.COM"]) == Allow()
    assert decide(SMS, PolicyInputs(), DEFAULTS, NOON, [PHONE]) == Allow()
    decision = decide(SMS, PolicyInputs(), DEFAULTS, NOON, ["+14155550188"])
    assert isinstance(decision, Suppress)
    assert decision.reason == "not_allowlisted"
    assert decision.detail.startswith("BRIDGE_RECIPIENT_ALLOWLIST")
    assert decide(LOG, PolicyInputs(), DEFAULTS, NOON, ["+14155550188"]) == Allow()


def test_allowlist_must_contain_every_recipient_of_a_message_to_several_colleagues():
    team = replace(SMS, channel="email", recipient="ann@team.example", internal=True)
    several = replace(team, more_recipients=("bo@team.example", "cy@team.example"))
    listed = ["ann@team.example", "BO@team.example"]
    assert decide(team, PolicyInputs(), DEFAULTS, NOON, listed) == Allow()
    decision = decide(several, PolicyInputs(), DEFAULTS, NOON, listed)
    assert isinstance(decision, Suppress)
    assert decision.detail == "BRIDGE_RECIPIENT_ALLOWLIST does not contain each of these addresses"
    assert decide(several, PolicyInputs(), DEFAULTS, NOON, [*listed, "cy@team.example"]) == Allow()


def test_once_suppresses_only_within_its_duration():
    due = replace(SMS, once=OncePer("contact", 24 * HOUR))
    decision = decide(due, PolicyInputs(last_done_at=NOON - HOUR), DEFAULTS, NOON)
    assert isinstance(decision, Suppress)
    assert (decision.reason, decision.until) == ("cooldown", NOON + 23 * HOUR)
    assert decide(due, PolicyInputs(last_done_at=NOON - 24 * HOUR), DEFAULTS, NOON) == Allow()


def with_record(*, completed=True, precedence=0, occurred_at=NOON, delivery_id="dlv_0") -> PolicyInputs:
    return PolicyInputs(idempotency_record=IdempotencyRecord(delivery_id, completed, precedence, occurred_at))


def test_completed_key_suppresses_as_duplicate():
    decision = decide(SMS, with_record(), DEFAULTS, NOON)
    assert isinstance(decision, Suppress)
    assert decision.reason == "duplicate"


def test_force_overrides_only_completed_key():
    force = replace(SMS, force=True)
    assert decide(force, with_record(), DEFAULTS, NOON) == Allow()
    assert isinstance(decide(force, replace(with_record(), opt_out=opt_out()), DEFAULTS, NOON), Suppress)
    assert isinstance(decide(force, with_record(), DEFAULTS, NIGHT), Defer)


@pytest.mark.parametrize("due", [SMS, LOG])
def test_key_reserved_by_other_delivery_defers(due):
    assert isinstance(decide(due, with_record(completed=False), DEFAULTS, NOON), Defer)
    assert decide(due, with_record(completed=False, delivery_id=due.id), DEFAULTS, NOON) == Allow()


def test_newer_event_updates_record_and_older_event_is_superseded():
    assert decide(LOG, with_record(occurred_at=NOON - HOUR), DEFAULTS, NOON) == Allow(updates=True)
    assert decide(LOG, with_record(occurred_at=NOON), DEFAULTS, NOON) == Allow(updates=True)
    decision = decide(LOG, with_record(occurred_at=NOON + HOUR), DEFAULTS, NOON + HOUR)
    assert isinstance(decision, Suppress)
    assert decision.reason == "superseded"


def test_resolved_and_abandoned_take_precedence_over_completed_at_any_time():
    resolved, completed = event_precedence("chat.resolved"), event_precedence("chat.completed")
    assert event_precedence("chat.abandoned") == resolved > completed == event_precedence("call.busy")
    late = replace(LOG, precedence=completed, occurred_at=NOON + HOUR)
    assert isinstance(decide(late, with_record(precedence=resolved), DEFAULTS, NOON), Suppress)
    early = replace(LOG, precedence=resolved, occurred_at=NOON - HOUR)
    assert decide(early, with_record(precedence=completed), DEFAULTS, NOON) == Allow(updates=True)


def test_shadow_is_checked_last():
    shadow = replace(SMS, shadow=True)
    decision = decide(shadow, PolicyInputs(), DEFAULTS, NOON)
    assert isinstance(decision, Suppress)
    assert decision.reason == "shadow"
    assert isinstance(decide(shadow, PolicyInputs(), DEFAULTS, NIGHT), Defer)
    capped = decide(shadow, PolicyInputs(messages_sent_at=[NOON, NOON]), DEFAULTS, NOON)
    assert isinstance(capped, Suppress)
    assert capped.reason == "frequency_capped"


def event_ref(
    event_type: str, occurred_at: datetime = NOON, dedupe_key: str = "other", **fields: str
) -> EventRef:
    return EventRef(dedupe_key, event_type, occurred_at, fields.pop("conversation_id", "conv_x"), **fields)


def test_later_event_of_same_conversation_phone_or_email_cancels():
    trigger = event_ref("call.busy", dedupe_key="trigger", phone=PHONE, email="maya@example.com")
    for fields in (
        {"conversation_id": "conv_x"},
        {"conversation_id": "c", "phone": PHONE},
        {"conversation_id": "c", "email": "Maya@example.com"},
    ):
        event = event_ref("call.completed", NOON + HOUR, **fields)
        assert find_cancelling_event(("call.completed",), trigger, [event]) == event


def test_older_unrelated_or_unlisted_event_does_not_cancel():
    trigger = event_ref("call.busy", dedupe_key="trigger", phone=PHONE)
    others = [
        event_ref("call.completed", NOON - timedelta(seconds=1)),
        event_ref("call.failed", NOON + HOUR),
        event_ref("call.completed", NOON + HOUR, conversation_id="c", phone="+14155550188"),
        event_ref("call.completed", NOON + HOUR, conversation_id="c"),
    ]
    assert find_cancelling_event(("call.completed",), trigger, others) is None
    assert find_cancelling_event(("call.busy",), trigger, [trigger]) is None


def test_earliest_cancelling_event_is_named():
    trigger = event_ref("call.busy", dedupe_key="trigger")
    later, first = (
        event_ref("call.completed", NOON + HOUR),
        event_ref("call.completed", NOON, dedupe_key="first"),
    )
    cancelling = find_cancelling_event(("call.completed",), trigger, [later, first])
    assert cancelling == first
    decision = decide(SMS, PolicyInputs(cancelled_by=cancelling), DEFAULTS, NOON)
    assert isinstance(decision, Cancel)
    assert decision.detail == "cancel_on: cancelled by call.completed at 2026-03-02 17:00 UTC"


def test_event_ref_uses_body_timestamp_or_else_received_at():
    body = sample("call.busy")
    event = Event(body, "one", NIGHT)
    assert EventRef.of(event) == EventRef(
        "one", "call.busy", event.timestamp, "conv_sample_call_busy", "+12125550167"
    )
    del body["timestamp"]
    assert EventRef.of(Event(body, "one", NIGHT)).occurred_at == NIGHT


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
    minutes_to_expiry=st.one_of(st.none(), st.integers(1, 72 * 60)),
)
def test_every_allowed_message_is_outside_quiet_hours_and_below_cap(
    now, recipient, channel, time_zone, ages, minutes_to_expiry
):
    contact = Contact(phone=recipient if recipient[0] == "+" else None, time_zone=time_zone)
    due = DueDelivery(
        id="dlv_1",
        occurred_at=now,
        contact=contact,
        channel=channel,
        recipient=recipient,
        expires_at=None if minutes_to_expiry is None else now + timedelta(minutes=minutes_to_expiry),
    )
    sent = [now - timedelta(minutes=age) for age in ages]
    decision = decide(due, PolicyInputs(messages_sent_at=sent), DEFAULTS, now)
    local_hours = [
        now.astimezone(ZoneInfo(zone)).hour for zone in zones_of(contact, recipient, "America/New_York")
    ]
    cap = DEFAULTS.caps[channel]
    if isinstance(decision, Allow):
        assert all(8 <= hour < 20 for hour in local_hours)
        assert sum(now - instant < cap.per for instant in sent) < cap.count
    elif isinstance(decision, Defer):
        assert due.expires_at is None or decision.until < due.expires_at
        later = decide(replace(due, occurred_at=now), PolicyInputs(), DEFAULTS, decision.until)
        assert later == Allow()
    else:
        assert isinstance(decision, Suppress)
        assert recipient not in decision.detail


def test_opt_out_flag_of_a_crm_suppresses_the_message():
    inputs = PolicyInputs(crm_flag=CrmFlag("salesforce", "Contact.DoNotCall"), crms_to_ask=("hubspot",))
    assert decide(SMS, inputs, DEFAULTS, NOON) == Suppress(
        "opted_out",
        "messaging.crm_opt_outs: Contact.DoNotCall is set in salesforce: the contact wants no text messages; clear it "
        "there, and it applies within an hour",
    )


@pytest.mark.parametrize(
    ("expires_at", "until"), [(None, NOON + timedelta(minutes=5)), (NOON + timedelta(minutes=2),) * 2]
)
def test_message_waits_for_crms_that_have_not_answered(expires_at, until):
    due = replace(SMS, expires_at=expires_at)
    assert decide(due, PolicyInputs(crms_to_ask=("hubspot", "salesforce")), DEFAULTS, NOON) == Defer(
        until,
        "messaging.crm_opt_outs: asking hubspot and salesforce whether the contact wants no text messages",
        ("hubspot", "salesforce"),
    )


@pytest.mark.parametrize(
    ("due", "now"),
    [(replace(SMS, internal=True), NOON), (LOG, NOON), (SMS, NIGHT), (replace(SMS, shadow=True), NOON)],
)
def test_no_crm_is_asked_about_what_is_not_a_message_now(due, now):
    decision = decide(due, PolicyInputs(crms_to_ask=("hubspot",)), DEFAULTS, now)
    assert not getattr(decision, "crms_to_ask", ())


def test_quiet_hours_depend_on_the_channel() -> None:
    messaging = replace(DEFAULTS, quiet_hours={**DEFAULTS.quiet_hours, "sms": WORKING_HOURS})
    saturday = datetime(2026, 3, 7, 15, 12, tzinfo=UTC)
    decision = decide(replace(SMS, expires_at=None), PolicyInputs(), messaging, saturday)
    assert decision == Defer(
        datetime(2026, 3, 9, 13, tzinfo=UTC),
        "messaging.quiet_hours.sms sat: all day; it is Sat 10:12 in America/New_York; "
        "they end on 2026-03-09 at 09:00 local time (13:00 UTC)",
    )
    call = replace(SMS, channel="call", expires_at=None)
    assert decide(call, PolicyInputs(), messaging, saturday) == Allow()


def test_expiry_during_a_holiday_names_it() -> None:
    messaging = replace(DEFAULTS, quiet_hours={"sms": WORKING_HOURS})
    memorial_day = datetime(2026, 5, 25, 15, tzinfo=UTC)
    due = replace(SMS, expires_at=memorial_day + 2 * HOUR)
    decision = decide(due, PolicyInputs(), messaging, memorial_day)
    assert decision == Suppress(
        "expired",
        "messaging.quiet_hours.sms holidays: all day (Memorial Day); it is Mon 11:00 in America/New_York; "
        "they end on 2026-05-26 at 09:00 local time (13:00 UTC), but the delivery expires at 2026-05-25 17:00 UTC",
        datetime(2026, 5, 26, 13, tzinfo=UTC),
    )


def test_quiet_hours_start_is_that_of_the_channel_and_the_day() -> None:
    messaging = replace(DEFAULTS, quiet_hours={"sms": WORKING_HOURS})
    decision = decide(SMS, PolicyInputs(), messaging, NOON)
    assert isinstance(decision, Allow)
    assert decision.quiet_hours_start == datetime(2026, 3, 2, 22, tzinfo=UTC)  # 17:00 in New York
    assert decision.note == ""


@pytest.mark.parametrize(
    ("recipient", "is_holiday"),
    [
        ("+12125550167", True),
        ("+14165550167", False),
        ("+442079460018", True),
        ("ines@okafor.example", False),
    ],
)
def test_holidays_are_those_of_the_recipients_country(recipient: str, is_holiday: bool) -> None:
    """The last Monday of May is a holiday in the US and in the United Kingdom."""
    messaging = replace(DEFAULTS, quiet_hours=dict.fromkeys(("sms", "email"), WORKING_HOURS))
    memorial_day = datetime(2026, 5, 25, 15, tzinfo=UTC)
    channel = "email" if "@" in recipient else "sms"
    due = replace(SMS, channel=channel, recipient=recipient, contact=Contact(), expires_at=None)
    decision = decide(due, PolicyInputs(), messaging, memorial_day)
    assert isinstance(decision, Defer if is_holiday else Allow)


def test_message_without_known_holidays_says_so() -> None:
    messaging = replace(DEFAULTS, quiet_hours={"email": WORKING_HOURS})
    due = replace(SMS, channel="email", recipient="ines@okafor.example", contact=Contact(), expires_at=None)
    note = "messaging.quiet_hours.sms holidays: none are known, because there is no phone number of a known country"
    decision = decide(due, PolicyInputs(), messaging, NOON)
    assert isinstance(decision, Allow)
    assert decision.note == note
    deferred = decide(due, PolicyInputs(), messaging, NIGHT)
    assert isinstance(deferred, Defer)
    assert deferred.detail.endswith(f"; {note}")
