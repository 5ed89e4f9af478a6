"""What becomes of a delivery that is due: it goes, waits, is suppressed or cancelled, and in which words."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

from bridge.connector.api import Channel
from bridge.events import Contact
from bridge.policy.cancellation import EventRef
from bridge.policy.idempotency import Held
from bridge.policy.quiet_hours import NEVER, is_quiet, quiet_hours_start, quiet_until
from bridge.policy.zones import is_own, regions_of, zones_of
from bridge.rules.model import Messaging, Once, QuietHours, Truth

SuppressReason = Literal[
    "opted_out", "no_consent", "undeliverable", "frequency_capped", "cooldown", "expired", "duplicate",
    "superseded", "shadow", "not_allowlisted",
]  # fmt: skip

ASK_AGAIN: Final = timedelta(minutes=1)
"""How long a delivery waits before it asks again what became of the attempt that holds its effect."""

_NOUN: Final = {"sms": "text", "email": "mail", "call": "call"}


@dataclass(slots=True)
class Due:
    """A delivery whose time has come, as far as the decision about it needs."""

    id: str
    occurred_at: datetime
    """The event's own time."""
    precedence: int = 0
    """`rank_of` the event."""
    contact: Contact = field(default_factory=Contact)
    channel: Channel | None = None
    """None: nobody is written to or called, so the messaging policy has no say."""
    recipient: str | None = None
    expires_at: datetime | None = None
    once: Once | None = None
    consent: Truth | None = None
    """What `messaging.consent` gives for the event; None where there is no such condition."""
    updates: bool = False
    """A later event updates what the effect key holds (`IdempotencyScope.updates`)."""
    shadow: bool = False
    alert: bool = False
    """It tells the team what is wrong (`alerts`)."""
    force: bool = False
    """A person asked for a replay with `--force`: what is already done is done once more."""


@dataclass(slots=True)
class Facts:
    """What the service remembers that bears on one delivery."""

    cancelled_by: EventRef | None = None
    """What `cancelling` finds among the accepted events."""
    once_at: datetime | None = None
    """When the same rule and action last went out, or may have, to the same contact or conversation."""
    opted_out_at: datetime | None = None
    zone: str | None = None
    """The time zone that a CRM knows of the recipient; counts where the event says none."""
    sent: Sequence[datetime] = ()
    """Messages on this channel to this address that went out or may have, whichever rule sent them; any order."""
    held: Held | None = None


@dataclass(frozen=True)
class Go:
    """It may be attempted now."""

    updates: bool = False
    """The effect is there already and is updated."""
    quiet_hours_start: datetime | None = field(default=None, compare=False)
    """For a message: when the person's quiet hours begin, by which it must have arrived."""


@dataclass(frozen=True)
class Wait:
    """Not now; ask again at `until`."""

    until: datetime
    why: str


@dataclass(frozen=True)
class Suppress:
    """It is not done. `until` is when the line that stopped it would let a new one pass; None: never by itself."""

    reason: SuppressReason
    why: str
    until: datetime | None = None


@dataclass(frozen=True)
class Cancel:
    """A later event made it pointless."""

    by: EventRef
    why: str


Decision = Go | Wait | Suppress | Cancel


def decide(
    due: Due, facts: Facts, messaging: Messaging, now: datetime, allowlist: Collection[str] = ()
) -> Decision:
    """Whether a due delivery goes, waits, is suppressed or cancelled; every `why` names the line that decided.

    `only_to` is BRIDGE_RECIPIENT_ALLOWLIST. Caps are judged when the quiet hours are over, for by then they may have room
    again. The texts never hold an address.
    """
    if facts.cancelled_by is not None:
        event = facts.cancelled_by
        return Cancel(event, f"cancel_on: {event.type} of {_utc(event.at)} makes it pointless")
    if due.expires_at is not None and now >= due.expires_at:
        return Suppress("expired", f"expires: it was only worth sending until {_utc(due.expires_at)}")
    if due.once is not None and facts.once_at is not None and now - facts.once_at < due.once.within:
        until = facts.once_at + due.once.within
        return Suppress(
            "cooldown",
            f"once per {due.once.per} within {_span(due.once.within)}: the last one was at {_utc(facts.once_at)}; "
            f"the next may go at {_utc(until)}",
            until,
        )
    if due.channel is not None:
        stopped = _messaging(due, due.channel, facts, messaging, now, allowlist)
        if stopped is not None:
            return stopped
    decision = _effect(due, facts.held, now)
    if due.channel is not None and isinstance(decision, Go) and not _for_the_team(due):
        zones = zones_of(due.contact, due.recipient, messaging.time_zone, facts.zone)
        return replace(
            decision, quiet_hours_start=quiet_hours_start(now, zones, _windows(due, messaging).values())
        )
    return decision


def _for_the_team(due: Due) -> bool:
    """An alert that cannot wait for the morning; one to the event's own person is a message like all others."""
    return due.alert and not is_own(due.contact, due.recipient)


def _windows(due: Due, messaging: Messaging) -> dict[str, QuietHours]:
    """The windows by the line of the rules file that sets them."""
    lines = {"messaging.quiet_hours": messaging.quiet_hours}
    if messaging.regions:
        regions = regions_of(due.contact, due.recipient)
        lines |= {
            f"messaging.regions.{name}": hours for name, hours in messaging.regions.items() if name in regions
        }
    return lines


def _messaging(
    due: Due,
    channel: Channel,
    facts: Facts,
    messaging: Messaging,
    now: datetime,
    allowlist: Collection[str],
) -> Wait | Suppress | None:
    if allowlist and (due.recipient or "").casefold() not in {address.casefold() for address in allowlist}:
        return Suppress("not_allowlisted", "BRIDGE_RECIPIENT_ALLOWLIST does not contain this address")
    if facts.opted_out_at is not None:
        return Suppress(
            "opted_out",
            f"opt-out: the person asked on {_utc(facts.opted_out_at)} for no more {_NOUN[channel]}s; "
            "holds until the person takes it back",
        )
    if _for_the_team(due):
        return None
    if due.consent in ("false", "unknown"):
        return Suppress(
            "no_consent",
            f"messaging.consent: `{messaging.consent}` is {due.consent} for this event: no consent",
        )
    return _quiet(due, facts, messaging, now) or _capped(channel, facts, messaging, now)


def _capped(channel: Channel, facts: Facts, messaging: Messaging, now: datetime) -> Suppress | None:
    cap = messaging.caps.get(channel)
    if cap is None:
        return None
    counted = sorted(instant for instant in facts.sent if now - instant < cap.per)
    if len(counted) < cap.count:
        return None
    line = f"messaging.caps.{channel}: at most {_counted(cap.count, channel)} per {_span(cap.per)}"
    if cap.count == 0:
        return Suppress("frequency_capped", f"{line}: none may go")
    until = counted[-cap.count] + cap.per
    return Suppress(
        "frequency_capped",
        f"{line}, and {len(counted)} went or may have gone; the next may go at {_utc(until)}",
        until,
    )


def _quiet(due: Due, facts: Facts, messaging: Messaging, now: datetime) -> Wait | Suppress | None:
    zones = zones_of(due.contact, due.recipient, messaging.time_zone, facts.zone)
    lines = _windows(due, messaging)
    until = quiet_until(now, zones, lines.values())
    if until is None:
        return None
    why = _quiet_line(lines, zones, now)
    if zones == (facts.zone,) and due.contact.time_zone is None:
        why += ", as the CRM says"
    if until is NEVER:
        return Suppress(
            "expired",
            f"{why}; no hour of the day is outside the quiet hours of all the zones that the number allows: "
            "tell the person's time zone in the event, or shorten the quiet hours",
        )
    ends = (
        f"they end {_local(until, zones[0])}" if len(zones) == 1 else f"all zones allow it at {_utc(until)}"
    )
    if due.expires_at is not None and until >= due.expires_at:
        return Suppress("expired", f"{why}; {ends}, but it expires at {_utc(due.expires_at)}", until)
    return Wait(until, f"{why}; {ends}")


def _quiet_line(lines: dict[str, QuietHours], zones: Sequence[str], now: datetime) -> str:
    for name, hours in lines.items():
        for zone in zones:
            wall = now.astimezone(ZoneInfo(zone))
            if is_quiet(hours, wall.time()):
                others = f", one of {len(zones)} zones that the number allows" if len(zones) > 1 else ""
                return f"{name} {hours.start:%H:%M}-{hours.end:%H:%M}: it is {wall:%H:%M} in {zone}{others}"
    raise AssertionError("asked for the quiet clock when none was quiet")


def _effect(due: Due, held: Held | None, now: datetime) -> Decision:
    updates = False
    if held is not None and held.holder != due.id and not due.force:
        if not held.done:
            return Wait(
                now + ASK_AGAIN,
                f"delivery {held.holder} holds the same effect, and its outcome is not known yet",
            )
        if not due.updates:
            return Suppress("duplicate", f"effect: delivery {held.holder} has brought it about")
    if held is not None and held.done and due.updates:
        if held.is_newer_than(due.precedence, due.occurred_at):
            return Suppress(
                "superseded",
                f"effect: delivery {held.holder} wrote what a later or more final event of {_utc(held.at)} says",
            )
        updates = True
    if due.shadow:
        return Suppress("shadow", "shadow: true: the rule only shows what it would do")
    return Go(updates)


def _counted(count: int, channel: Channel) -> str:
    return f"{count} {_NOUN[channel]}{'' if count == 1 else 's'}"


def _utc(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def _local(instant: datetime, zone: str) -> str:
    return f"on {instant.astimezone(ZoneInfo(zone)):%Y-%m-%d at %H:%M} there ({instant:%H:%M} UTC)"


def _span(duration: timedelta) -> str:
    """As a rule writes it: `24h`, `7d`, `1h30m`."""
    seconds = int(duration.total_seconds())
    days, rest = divmod(seconds, 86400)
    if days > 1 and rest == 0:
        return f"{days}d"
    parts = ((seconds // 3600, "h"), (seconds % 3600 // 60, "m"), (seconds % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"
