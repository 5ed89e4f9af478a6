"""Permission: whether a message to a person would be allowed now, channel by channel, decided by the policy itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from bridge.clock import format_duration
from bridge.connector import Channel
from bridge.dryrun.delivery import build_due_delivery
from bridge.events import Event
from bridge.policy import Allow, Decision, Defer, Suppress, channels_of, decide
from bridge.rules.model import PlannedDelivery, Rules
from bridge.store.database import Database
from bridge.store.opt_outs import AddressHasher
from bridge.store.policy_inputs import inputs_for_planned


@dataclass(frozen=True)
class Permission:
    """Whether a message on one channel to one address would be allowed now."""

    channel: Channel
    address: str
    answer: Literal["yes", "not_now", "no"]
    detail: str
    """What decided: the setting, and until when. Empty for `yes` without a limit."""
    until: datetime | None
    """When it is decided again, for `not_now`."""
    is_opted_out: bool
    sent: int
    """Messages that count toward the cap of the channel."""
    cap: int | None
    """Messages that the cap allows; None without a cap."""
    cap_period: str
    """The period of the cap, such as `24 h`."""


def permissions(
    database: Database,
    event: Event,
    addresses: Sequence[str],
    rules: Rules,
    now: datetime,
    *,
    allowlist: Collection[str] = (),
    hash_address: AddressHasher | None = None,
) -> list[Permission]:
    """Decide about a message to each of these addresses on each of its channels.

    `event` is the person's newest event: its time zone and the consent in it count, as they do for a rule. Nothing is
    stored, and no CRM is asked.
    """
    return [
        _permission(database, event, address, channel, rules, now, allowlist, hash_address)
        for address in addresses
        for channel in channels_of(address)
    ]


def _permission(
    database: Database,
    event: Event,
    address: str,
    channel: Channel,
    rules: Rules,
    now: datetime,
    allowlist: Collection[str],
    hash_address: AddressHasher | None,
) -> Permission:
    planned = PlannedDelivery(
        rule="", trigger="rule", step_index=0, action="", connection="", params={}, run_at=now,
        idempotency_key=f"permission {channel} {address}", updates_existing=False, concurrency_key=None,
        channel=channel, recipient=address,
    )  # fmt: skip
    inputs = inputs_for_planned(database, planned, event, rules.messaging, hash_address)
    due = build_due_delivery("", planned, event, rules, now)
    cap = rules.messaging.caps.get(channel)
    answer, detail, until = _answer(decide(due, inputs, rules.messaging, now, allowlist))
    return Permission(
        channel=channel,
        address=address,
        answer=answer,
        detail=detail,
        until=until,
        is_opted_out=inputs.opt_out is not None,
        sent=sum(now - sent_at < cap.per for sent_at in inputs.messages_sent_at) if cap else 0,
        cap=cap.count if cap else None,
        cap_period=format_duration(cap.per) if cap else "",
    )


def _answer(decision: Decision) -> tuple[Literal["yes", "not_now", "no"], str, datetime | None]:
    match decision:
        case Allow(note=note):
            return "yes", note, None
        case Defer(crms_to_ask=[*crms]) if crms:
            return (
                "yes",
                f"messaging.crm_opt_outs: {' and '.join(crms)} can still suppress it: asked when it is sent",
                None,
            )
        case Defer(until, detail):
            return "not_now", detail, until
        case Suppress(_, detail, until):
            return "no", detail, until
    return "no", decision.detail, None
