"""The policy: decides whether a due delivery is sent, deferred, suppressed or cancelled. Pure: no SQL, no clock.

The worker calls `decide` inside the transaction before every attempt, with inputs from the database. Dry runs call it
with inputs from memory, so a dry run cannot promise anything that the service would not do.
"""

from bridge.policy.cancellation import EventRef, find_cancelling_event
from bridge.policy.decision import (
    RECHECK_INTERVAL,
    Allow,
    Cancel,
    Decision,
    Defer,
    DueDelivery,
    Hold,
    PolicyInputs,
    Suppress,
    decide,
)
from bridge.policy.idempotency import IdempotencyRecord, event_precedence
from bridge.policy.opt_outs import (
    CHANNELS,
    ActiveOptOut,
    CrmFlag,
    OptOutEntry,
    UndeliverableAddress,
    channels_of,
    covered_channels,
    find_opt_out,
)
from bridge.policy.quiet_hours import NEVER, quiet_hours_end
from bridge.policy.total_cap import MessageCounts
from bridge.policy.zones import regions_of, zones_of

__all__ = [
    "CHANNELS",
    "NEVER",
    "RECHECK_INTERVAL",
    "ActiveOptOut",
    "Allow",
    "Cancel",
    "CrmFlag",
    "Decision",
    "Defer",
    "DueDelivery",
    "EventRef",
    "Hold",
    "IdempotencyRecord",
    "MessageCounts",
    "OptOutEntry",
    "PolicyInputs",
    "Suppress",
    "UndeliverableAddress",
    "channels_of",
    "covered_channels",
    "decide",
    "event_precedence",
    "find_cancelling_event",
    "find_opt_out",
    "quiet_hours_end",
    "regions_of",
    "zones_of",
]
