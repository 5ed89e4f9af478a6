"""Opt-outs of a recipient: finds the one that covers a message, and describes who entered it and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, get_args

from bridge.connector.callbacks import Channel
from bridge.connector.opt_outs import PHONE_CHANNELS
from bridge.rules.model import OptOutScope
from bridge.telemetry import mask

CHANNELS: Final[tuple[Channel, ...]] = get_args(Channel)
NOUNS: Final[Mapping[Channel, str]] = {
    "sms": "text message",
    "whatsapp": "WhatsApp message",
    "call": "call",
    "email": "email",
}


@dataclass(frozen=True)
class OptOutEntry:
    """One stored opt-out or opt-in of an address."""

    channel: Channel
    opted_out_at: datetime | None
    """None for an opt-in."""
    changed_at: datetime
    source: str
    """`STOP to twilio`, `unsubscribe link`, `refused by twilio`, `command line`, `import` or `API`."""
    actor: str | None = None
    """The operator who entered it; None if it came from the recipient or a provider."""
    reason: str | None = None
    """The operator's words, such as `our DNC list 2026-11`."""


@dataclass(frozen=True)
class ActiveOptOut:
    """The opt-out that covers a message."""

    entry: OptOutEntry
    other_address: bool = False
    """It was made with another address of the same contact."""


@dataclass(frozen=True)
class CrmFlag:
    """A field of a CRM record that says that the contact wants no messages on the channel."""

    connection: str
    field: str
    """`DoNotCall`, or `Contact.DoNotCall`."""


@dataclass(frozen=True)
class UndeliverableAddress:
    """An address to which messages on one channel could not be delivered: a dead mailbox, a landline."""

    since: datetime
    until: datetime
    """When messages to it are tried again."""
    detail: str
    """What the provider reported."""


def channels_of(address: str) -> tuple[Channel, ...]:
    """Return the channels that reach an address."""
    return ("email",) if "@" in address else PHONE_CHANNELS


def covered_channels(channel: Channel, scope: OptOutScope) -> tuple[Channel, ...]:
    """Return the channels whose opt-outs cover a message on `channel`. The relation is symmetric."""
    if scope == "all":
        return CHANNELS
    if scope == "phone" and channel in PHONE_CHANNELS:
        return PHONE_CHANNELS
    return (channel,)


def find_opt_out(
    own: Sequence[OptOutEntry],
    others: Sequence[Sequence[OptOutEntry]],
    channel: Channel,
    scope: OptOutScope,
) -> ActiveOptOut | None:
    """Return the opt-out that covers a message on `channel`, or None.

    `own` are the entries of the recipient's address, `others` those of each other address of the same contact. An
    address may have two entries of one channel, because erasure keeps an older one as a hash; the newer one counts. An
    opt-in on the channel itself revokes every older opt-out that covers it.
    """
    covering = covered_channels(channel, scope)
    latest = _latest(own)
    own_entry = latest.get(channel)
    opted_in_at = own_entry.changed_at if own_entry is not None and own_entry.opted_out_at is None else None
    candidates = [
        ActiveOptOut(entry, other_address)
        for entries, other_address in ((latest, False), *((_latest(other), True) for other in others))
        for entry in entries.values()
        if entry.channel in covering
        and entry.opted_out_at is not None
        and (opted_in_at is None or entry.opted_out_at > opted_in_at)
    ]
    return min(
        candidates,
        key=lambda found: (found.other_address, found.entry.channel != channel, found.entry.changed_at),
        default=None,
    )


def _latest(entries: Sequence[OptOutEntry]) -> dict[Channel, OptOutEntry]:
    return {entry.channel: entry for entry in sorted(entries, key=lambda entry: entry.changed_at)}


def describe_opt_out(found: ActiveOptOut, channel: Channel, scope: OptOutScope) -> str:
    """Return who opted out of what, when and how, and what ends it. Contains no address."""
    entry = found.entry
    since = utc_minute(entry.opted_out_at or entry.changed_at)
    noun = f"{NOUNS[entry.channel]}s"
    if entry.actor is not None:
        reason = f": {mask(entry.reason)[:200]}" if entry.reason else ""
        text = f"opt-out of {noun}: added by operator {entry.actor} ({entry.source}) at {since}{reason}"
        end = "applies until `bridge opt-outs remove` or an opt-in of the recipient"
    else:
        text = f"opt-out: the recipient opted out of {noun} at {since} ({entry.source})"
        end = "applies until the recipient opts in again"
    if found.other_address:
        text += ", with another address of the same contact"
    if entry.channel != channel:
        text += f"; messaging.opt_out_scope `{scope}` extends it to {NOUNS[channel]}s"
    return f"{text}; {end}"


def utc_minute(instant: datetime) -> str:
    """Return an instant as details show it: `2026-03-02 16:00 UTC`."""
    return f"{instant:%Y-%m-%d %H:%M} UTC"
