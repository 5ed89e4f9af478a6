"""The states of a delivery, and the fixed words for why something ended, waits or failed.

Each member carries the sentence that the dashboard and the reference pages show for it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class DescribedEnum(StrEnum):
    """A StrEnum whose members have a `description`."""

    description: str

    def __new__(cls, value: str, description: str) -> Self:
        """Make a member from its value and its description."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member


class DeliveryState(DescribedEnum):
    """A delivery's state."""

    PENDING = "pending", "Waits for its delay, for the end of quiet hours, or for a free worker."
    RUNNING = "running", "An attempt or a lookup is running."
    SUCCEEDED = "succeeded", "The provider confirmed the action."
    RETRYING = "retrying", "An attempt failed; the next attempt or lookup is scheduled."
    NEEDS_REVIEW = "needs_review", "The outcome is unknown and the provider cannot tell: an operator decides."
    FAILED = "failed", "Given up. An operator can retry it once the cause is fixed."
    CANCELLED = "cancelled", "A later event, an operator or an erasure cancelled it before it was sent."
    SUPPRESSED = "suppressed", "The policy decided not to send it; the reason says why."


FINAL_STATES = (
    DeliveryState.SUCCEEDED,
    DeliveryState.NEEDS_REVIEW,
    DeliveryState.FAILED,
    DeliveryState.CANCELLED,
    DeliveryState.SUPPRESSED,
)
"""States that only an operator, a status callback or an erasure changes."""


class SuppressReason(DescribedEnum):
    """The reason of a suppressed delivery."""

    OPTED_OUT = "opted_out", "The recipient opted out of this channel."
    NO_CONSENT = "no_consent", "`messaging.consent` is not true for the event."
    UNDELIVERABLE = "undeliverable", "Earlier messages to this address could not be delivered."
    FREQUENCY_CAPPED = "frequency_capped", "`messaging.caps` allows no further message to this address now."
    COOLDOWN = "cooldown", "The step's `once` allows no further delivery to this contact or conversation now."
    EXPIRED = "expired", "The delivery could not be sent before it expired."
    DUPLICATE = "duplicate", "Another delivery with the same idempotency key already succeeded."
    SUPERSEDED = "superseded", "A later or more final event of the conversation was already written."
    SHADOW = "shadow", "The rule is in shadow mode: it only shows what it would send."
    NOT_ALLOWLISTED = "not_allowlisted", "`BRIDGE_RECIPIENT_ALLOWLIST` does not contain the address."


class FailureReason(DescribedEnum):
    """The reason of a failed attempt; also the label `reason` of the metric `bridge_attempts_total`."""

    REJECTED = "rejected", "The provider refused the action permanently."
    AUTH = "auth", "The provider did not accept the account's credentials or permissions."
    RATE_LIMITED = "rate_limited", "The provider asked for fewer requests."
    QUOTA = "quota", "The account's quota is exhausted."
    SERVER_ERROR = (
        "server_error",
        "The provider answered with an error of its own, or with an unusable response.",
    )
    TIMEOUT = "timeout", "The provider did not answer in time, or the process stopped during the attempt."
    NETWORK = "network", "No connection, or the connection broke."
    RENDER_ERROR = "render_error", "A template of the rule could not be rendered for the event."
    INTERNAL_ERROR = "internal_error", "The bridge or a connector raised an unexpected error."


class AttemptOutcome(DescribedEnum):
    """The outcome of an attempt, as stored in `attempts.outcome`."""

    SUCCEEDED = "succeeded", "The provider confirmed the action."
    FAILED = "failed", "The action certainly did not happen; a retry may help."
    REJECTED = "rejected", "The provider refused the action permanently."
    OUTCOME_UNKNOWN = "outcome_unknown", "The request left, and nothing proves whether the action happened."
    INCONCLUSIVE = (
        "inconclusive",
        "An operator has to decide: the provider cannot tell what happened or what to act on.",
    )
    NOT_STARTED = "not_started", "The provider was not contacted; the delivery went back to the queue."
    LOOKUP_FOUND = "lookup_found", "The provider confirmed that an earlier attempt took effect."
    LOOKUP_NOT_FOUND = "lookup_not_found", "The provider confirmed that no earlier attempt took effect."
    LOOKUP_FAILED = "lookup_failed", "The provider could not be asked; the lookup is repeated."


class PauseCause(DescribedEnum):
    """Why a connection is paused."""

    OPERATOR = "operator", "An operator paused it; `bridge resume` ends the pause."
    RATE_LIMIT = "rate_limit", "The provider asked for fewer requests; the pause ends automatically."
    QUOTA = "quota", "The account's quota is exhausted; the pause ends when the provider resets it."
    AUTH = (
        "auth",
        "The provider refused the account; the pause ends when its settings change, or with `bridge resume`.",
    )
    CIRCUIT_OPEN = (
        "circuit_open",
        "Too many attempts failed; one probe every few seconds closes the circuit again.",
    )
