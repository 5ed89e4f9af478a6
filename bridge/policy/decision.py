"""Decides whether a due delivery is sent, deferred, suppressed or cancelled, and explains the decision."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from bridge.clock import format_duration
from bridge.connector.callbacks import Channel
from bridge.contacts.address import address_key
from bridge.contacts.country import country_of
from bridge.contacts.parse import Contact
from bridge.lifecycle import SuppressReason
from bridge.policy.cancellation import EventRef
from bridge.policy.idempotency import IdempotencyRecord
from bridge.policy.opt_outs import (
    NOUNS,
    ActiveOptOut,
    CrmFlag,
    UndeliverableAddress,
    describe_opt_out,
    utc_minute,
)
from bridge.policy.public_holidays import holidays_of
from bridge.policy.quiet_hours import NEVER, Calendar, quiet_hours_end, quiet_hours_start, quiet_period
from bridge.policy.zones import reference_phone, regions_of, state_of, zones_of
from bridge.rules.model import MessagingPolicy, OncePer
from bridge.rules.trace import Truth
from bridge.telemetry import mask

RECHECK_INTERVAL: Final = timedelta(minutes=1)
"""How long a delivery is deferred while another delivery holds its idempotency key with an unknown outcome."""

CRM_RECHECK_INTERVAL: Final = timedelta(minutes=5)
"""How long a message is deferred at a time while a CRM does not answer."""


@dataclass(slots=True)
class DueDelivery:
    """The fields of a due delivery that the decision needs."""

    id: str
    occurred_at: datetime
    """The event's own time."""
    precedence: int = 0
    """`event_precedence` of the event."""
    contact: Contact = field(default_factory=Contact)
    channel: Channel | None = None
    """None if the delivery contacts no recipient; then the messaging policy does not apply."""
    recipient: str | None = None
    expires_at: datetime | None = None
    once: OncePer | None = None
    consent: Truth | None = None
    """The result of `messaging.consent` for the event; None if there is no such condition."""
    updates: bool = False
    """A later event updates the record of a completed idempotency key (`IdempotencyScope.updates`)."""
    shadow: bool = False
    internal: bool = False
    """A message to the team, whose recipient is a literal of the rules file: the messaging policy does not apply."""
    more_recipients: Sequence[str] = ()
    """The other addresses of a message to several colleagues."""
    force: bool = False
    """An operator requested a replay with `--force`: completed actions are repeated."""


@dataclass(slots=True)
class PolicyInputs:
    """The stored data that the decision about one delivery needs."""

    cancelled_by: EventRef | None = None
    """The result of `find_cancelling_event` over the accepted events."""
    last_done_at: datetime | None = None
    """When the same rule and action last took effect, or may have, for the same contact or conversation."""
    opt_out: ActiveOptOut | None = None
    undeliverable: UndeliverableAddress | None = None
    crm_flag: CrmFlag | None = None
    """The opt-out flag of a CRM that covers the message."""
    crms_to_ask: Sequence[str] = ()
    """The connections of `messaging.crm_opt_outs` without a current answer about the recipient."""
    crm_time_zone: str | None = None
    """The recipient's time zone according to a CRM; used if the event has none."""
    messages_sent_at: Sequence[datetime] = ()
    """When any rule sent, or may have sent, a message on this channel to this address; in any order."""
    messages_of_connection: int = 0
    """Messages on this channel that the connection sent, or may have sent, within the window of `caps.total`."""
    idempotency_record: IdempotencyRecord | None = None


@dataclass(frozen=True)
class Allow:
    """The delivery may be attempted now."""

    updates: bool = False
    """The idempotency key is already completed: the attempt updates the existing record."""
    quiet_hours_start: datetime | None = field(default=None, compare=False)
    """For a message: when the recipient's quiet hours start; the message must arrive before then."""
    note: str = field(default="", compare=False)
    """What the policy could not consider, such as the holidays of an unknown country."""


@dataclass(frozen=True)
class Defer:
    """The delivery has to wait; decide again at `until`."""

    until: datetime
    detail: str
    crms_to_ask: Sequence[str] = ()
    """The CRM connections whose answer it waits for; it is decided again as soon as they have answered."""
    needs_details: bool = False
    """It waits for the details of its conversation; it is decided again as soon as they are there."""


@dataclass(frozen=True)
class Suppress:
    """The delivery is not sent.

    `until` is when the limit that stopped it allows a new delivery; None if it never does so automatically.
    """

    reason: SuppressReason
    detail: str
    until: datetime | None = None


@dataclass(frozen=True)
class Cancel:
    """A later event cancelled the delivery."""

    by: EventRef
    detail: str


@dataclass(frozen=True)
class Hold:
    """The connection reached `messaging.caps.total`: it is paused, and the delivery waits until it is resumed."""

    detail: str


Decision = Allow | Defer | Suppress | Cancel | Hold


def decide(
    due: DueDelivery,
    inputs: PolicyInputs,
    messaging: MessagingPolicy,
    now: datetime,
    allowlist: Collection[str] = (),
) -> Decision:
    """Decide whether a due delivery is sent, deferred, suppressed, cancelled or held.

    Every `detail` names the setting that decided and never contains an address. `allowlist` is
    BRIDGE_RECIPIENT_ALLOWLIST. Caps are checked only after the quiet hours are over, because they may allow another
    message by then.
    """
    if inputs.cancelled_by is not None:
        event = inputs.cancelled_by
        return Cancel(event, f"cancel_on: cancelled by {event.type} at {utc_minute(event.occurred_at)}")
    if due.expires_at is not None and now >= due.expires_at:
        return Suppress(SuppressReason.EXPIRED, f"expires: expired at {utc_minute(due.expires_at)}")
    if (
        due.once is not None
        and inputs.last_done_at is not None
        and now - inputs.last_done_at < due.once.within
    ):
        until = inputs.last_done_at + due.once.within
        return Suppress(
            SuppressReason.COOLDOWN,
            f"once per {due.once.per} within {format_duration(due.once.within)}: last done at "
            f"{utc_minute(inputs.last_done_at)}; next allowed at {utc_minute(until)}",
            until,
        )
    if due.channel is not None:
        stopped = _apply_messaging(due, due.channel, inputs, messaging, allowlist)
        if stopped is not None:
            return stopped
    if due.channel is None or due.internal:
        return _apply_idempotency(due, inputs.idempotency_record, now)
    calendar = _calendar(due, due.channel, inputs, messaging)
    limited = _apply_quiet_hours(due, inputs, calendar, now) or _apply_cap(
        due.channel, inputs, messaging, now
    )
    if limited is not None:
        return limited
    decision = _apply_idempotency(due, inputs.idempotency_record, now)
    if isinstance(decision, Allow):
        held = _apply_total_cap(due.channel, inputs, messaging)
        if held is not None:
            return held
        if inputs.crms_to_ask:
            return _wait_for_crms(due, due.channel, inputs.crms_to_ask, now)
        start = quiet_hours_start(calendar, now)
        return replace(decision, quiet_hours_start=start, note=_missing_holidays(calendar))
    return decision


def _wait_for_crms(due: DueDelivery, channel: Channel, crms: Sequence[str], now: datetime) -> Defer:
    """Defer a message until the CRMs have answered. It is decided again earlier, so that it expires on time."""
    until = now + CRM_RECHECK_INTERVAL
    return Defer(
        min(until, due.expires_at) if due.expires_at is not None else until,
        f"messaging.crm_opt_outs: asking {' and '.join(crms)} whether the contact wants no {NOUNS[channel]}s",
        crms,
    )


def _calendar(
    due: DueDelivery, channel: Channel, inputs: PolicyInputs, messaging: MessagingPolicy
) -> Calendar:
    """Return the recipient's quiet hours: the general ones, and those of the regions of the phone number."""
    zones = zones_of(due.contact, due.recipient, messaging.time_zone, inputs.crm_time_zone)
    hours = [messaging.quiet_hours[channel]]
    if messaging.regions:
        regions = regions_of(due.contact, due.recipient)
        hours += [item[channel] for name, item in messaging.regions.items() if name in regions]
    if not [item for item in hours if item.holidays is not None]:
        return Calendar(zones, hours)
    phone = reference_phone(due.contact, due.recipient)
    return Calendar(zones, hours, holidays_of(country_of(phone), state_of(phone)) if phone else None)


def _missing_holidays(calendar: Calendar) -> str:
    """Say which quiet hours do without holidays because those of the recipient's country are not known."""
    settings = [hours.setting for hours in calendar.hours if hours.holidays is not None]
    if calendar.holidays is not None or not settings:
        return ""
    return f"{settings[0]} holidays: none are known, because there is no phone number of a known country"


def _apply_messaging(
    due: DueDelivery,
    channel: Channel,
    inputs: PolicyInputs,
    messaging: MessagingPolicy,
    allowlist: Collection[str],
) -> Defer | Suppress | None:
    if allowlist:
        allowed = {address_key(address) for address in allowlist}
        refused = [it for it in (due.recipient or "", *due.more_recipients) if address_key(it) not in allowed]
        if refused:
            several = "each of these addresses" if due.more_recipients else "this address"
            return Suppress(
                SuppressReason.NOT_ALLOWLISTED, f"BRIDGE_RECIPIENT_ALLOWLIST does not contain {several}"
            )
    if due.internal:
        return None
    if inputs.opt_out is not None:
        return Suppress(
            SuppressReason.OPTED_OUT, describe_opt_out(inputs.opt_out, channel, messaging.opt_out_scope)
        )
    if inputs.undeliverable is not None:
        until = inputs.undeliverable.until
        return Suppress(
            SuppressReason.UNDELIVERABLE,
            f"undeliverable: {NOUNS[channel]}s to this address failed at {utc_minute(inputs.undeliverable.since)} "
            f"({mask(inputs.undeliverable.detail)}); tried again after {utc_minute(until)}, or once "
            "`bridge opt-outs remove` clears it",
            until,
        )
    if inputs.crm_flag is not None:
        return Suppress(
            SuppressReason.OPTED_OUT,
            f"messaging.crm_opt_outs: {inputs.crm_flag.field} is set in {inputs.crm_flag.connection}: the contact "
            f"wants no {NOUNS[channel]}s; clear it there, and it applies within an hour",
        )
    if messaging.countries and channel != "email":
        stopped = _apply_countries(due.recipient or "", messaging)
        if stopped is not None:
            return stopped
    if due.consent in ("false", "unknown"):
        return Suppress(
            SuppressReason.NO_CONSENT,
            f"messaging.consent: `{messaging.consent}` is {due.consent} for this event: no consent",
        )
    return None


def _apply_countries(phone: str, messaging: MessagingPolicy) -> Suppress | None:
    country = country_of(phone)
    if country in messaging.countries:
        return None
    found = f"of {country}" if country else "of no known country, or one that charges its callers"
    allowed = ", ".join(sorted(messaging.countries))
    return Suppress(
        SuppressReason.COUNTRY_NOT_ALLOWED, f"messaging.countries: the number is {found}; allowed: {allowed}"
    )


def _apply_cap(
    channel: Channel, inputs: PolicyInputs, messaging: MessagingPolicy, now: datetime
) -> Suppress | None:
    cap = messaging.caps.get(channel)
    if cap is None:
        return None
    counted = sorted(sent_at for sent_at in inputs.messages_sent_at if now - sent_at < cap.per)
    if len(counted) < cap.count:
        return None
    limit = (
        f"messaging.caps.{channel}: at most {_pluralize(cap.count, channel)} per {format_duration(cap.per)}"
    )
    if cap.count == 0:
        return Suppress(SuppressReason.FREQUENCY_CAPPED, f"{limit}: none allowed")
    until = counted[-cap.count] + cap.per
    return Suppress(
        SuppressReason.FREQUENCY_CAPPED,
        f"{limit}, and {len(counted)} already sent or possibly sent; next allowed at {utc_minute(until)}",
        until,
    )


def _apply_total_cap(channel: Channel, inputs: PolicyInputs, messaging: MessagingPolicy) -> Hold | None:
    cap = messaging.total_caps.get(channel)
    if cap is None or inputs.messages_of_connection < cap.count:
        return None
    return Hold(
        f"messaging.caps.total.{channel}: at most {_pluralize(cap.count, channel)} per {format_duration(cap.per)} "
        f"to all recipients, and {inputs.messages_of_connection} already sent or possibly sent"
    )


def _apply_quiet_hours(
    due: DueDelivery, inputs: PolicyInputs, calendar: Calendar, now: datetime
) -> Defer | Suppress | None:
    until, zones = quiet_hours_end(calendar, now), calendar.zones
    period = quiet_period(calendar, now) if until else None
    if until is None or period is None:
        return None
    detail = str(period)
    if len(zones) > 1:
        detail += f", one of {len(zones)} time zones that the number allows"
    if tuple(zones) == (inputs.crm_time_zone,) and due.contact.time_zone is None:
        detail += " (time zone from the CRM)"
    if until is NEVER:
        return Suppress(
            SuppressReason.EXPIRED,
            f"{detail}; no hour is outside the quiet hours of all time zones that the number allows: "
            "set the contact's time zone in the event, or shorten the quiet hours",
        )
    end = (
        f"they end {_local(until, zones[0])}"
        if len(zones) == 1
        else f"all zones allow it at {utc_minute(until)}"
    )
    if due.expires_at is not None and until >= due.expires_at:
        return Suppress(
            SuppressReason.EXPIRED,
            f"{detail}; {end}, but the delivery expires at {utc_minute(due.expires_at)}",
            until,
        )
    missing = _missing_holidays(calendar)
    return Defer(until, f"{detail}; {end}" + (f"; {missing}" if missing else ""))


def _apply_idempotency(due: DueDelivery, record: IdempotencyRecord | None, now: datetime) -> Decision:
    updates = False
    if record is not None and record.delivery_id != due.id and not due.force:
        if not record.completed:
            return Defer(
                now + RECHECK_INTERVAL,
                f"idempotency key: reserved by delivery {record.delivery_id}, whose outcome is not known yet",
            )
        if not due.updates:
            return Suppress(
                SuppressReason.DUPLICATE,
                f"idempotency key: already completed by delivery {record.delivery_id}",
            )
    if record is not None and record.completed and due.updates:
        if record.is_newer_than(due.precedence, due.occurred_at):
            return Suppress(
                SuppressReason.SUPERSEDED,
                f"idempotency key: delivery {record.delivery_id} already wrote a later or more final event, "
                f"of {utc_minute(record.occurred_at)}",
            )
        updates = True
    if due.shadow:
        return Suppress(SuppressReason.SHADOW, "shadow: true: the rule only shows what it would do")
    return Allow(updates)


def _pluralize(count: int, channel: Channel) -> str:
    return f"{count} {NOUNS[channel]}{'' if count == 1 else 's'}"


def _local(instant: datetime, zone: str) -> str:
    return f"on {instant.astimezone(ZoneInfo(zone)):%Y-%m-%d at %H:%M} local time ({instant:%H:%M} UTC)"
