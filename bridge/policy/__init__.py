"""The policy: what may be done now, what has to wait, and what is not done at all. Pure: no SQL, no clock.

`decide` is asked inside the transaction before every attempt, by the worker with facts from the database and by
rehearsals with facts from memory, so a rehearsal cannot promise what the service would not do.
"""

from bridge.policy.cancellation import EventRef, find_cancelling_event
from bridge.policy.decision import (
    Cancel,
    Decision,
    Due,
    Facts,
    Go,
    Suppress,
    SuppressReason,
    Wait,
    decide,
)
from bridge.policy.idempotency import Held, event_precedence
from bridge.policy.quiet_hours import NEVER, quiet_until
from bridge.policy.zones import regions_of, zones_of

__all__ = [
    "NEVER",
    "Cancel",
    "Decision",
    "Due",
    "EventRef",
    "Facts",
    "Go",
    "Held",
    "Suppress",
    "SuppressReason",
    "Wait",
    "decide",
    "event_precedence",
    "find_cancelling_event",
    "quiet_until",
    "regions_of",
    "zones_of",
]
