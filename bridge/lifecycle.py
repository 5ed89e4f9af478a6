"""The lifecycle of a delivery: its states, the only transitions between them, and the fixed words for their reasons.

`ALLOWED` lists which state may follow which. A `Transition` decides everything that a change of state implies; the
store only applies it (`bridge.store.transitions`). Each member of an enum carries the sentence that the dashboard and
the reference pages show for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol, Self


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

    PENDING = "pending", "Waits for a delay, quiet hours or a pause to end, or for a free worker."
    RUNNING = "running", "An attempt or a lookup is running."
    SUCCEEDED = "succeeded", "The provider confirmed the action."
    RETRYING = "retrying", "An attempt failed; the next attempt or lookup is scheduled."
    NEEDS_REVIEW = (
        "needs_review",
        "The outcome is unknown and the provider cannot tell: an operator has to decide.",
    )
    FAILED = "failed", "No more automatic attempts. An operator can retry it once the cause is fixed."
    CANCELLED = "cancelled", "A later event, an operator or an erasure cancelled it before it was sent."
    SUPPRESSED = "suppressed", "The policy decided not to send it; the reason says why."


class StopScope(StrEnum):
    """What an operator stops by pausing all connections."""

    MESSAGES = "messages"
    DELIVERIES = "deliveries"
    EVERYTHING = "everything"

    @property
    def description(self) -> str:
        """A sentence that says what waits and what is still sent."""
        match self:
            case StopScope.MESSAGES:
                return "Messages to people wait; CRM records and alerts are still sent."
            case StopScope.DELIVERIES:
                return "All deliveries wait, also CRM records; alerts to your team are still sent."
            case StopScope.EVERYTHING:
                return "Everything waits, also alerts to your team."


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
    FREQUENCY_CAPPED = (
        "frequency_capped",
        "`messaging.caps` does not allow another message to this address yet.",
    )
    COOLDOWN = (
        "cooldown",
        "The step's `once` does not allow another delivery for this contact or conversation yet.",
    )
    EXPIRED = "expired", "The delivery could not be sent before it expired."
    DUPLICATE = "duplicate", "Another delivery with the same idempotency key already succeeded."
    SUPERSEDED = (
        "superseded",
        "The record already has a later event of the conversation, or one that takes precedence.",
    )
    COUNTRY_NOT_ALLOWED = (
        "country_not_allowed",
        "`messaging.countries` does not list the country of the phone number.",
    )
    SHADOW = "shadow", "The rule is in shadow mode: its deliveries are created but not sent."
    NO_RESULT = "no_result", "An earlier action whose result it uses was not carried out."
    NOT_ALLOWLISTED = "not_allowlisted", "`BRIDGE_RECIPIENT_ALLOWLIST` does not contain the address."


class FailureReason(DescribedEnum):
    """The reason of a failed attempt; also the label `reason` of the metric `bridge_attempts_total`."""

    REJECTED = "rejected", "The provider rejected the action permanently."
    AUTH = "auth", "The provider rejected the account's credentials."
    ACCOUNT = (
        "account",
        "Something else is wrong with the account: its sender, plan, storage, permissions or owner.",
    )
    RATE_LIMITED = "rate_limited", "The provider reported too many requests."
    QUOTA = "quota", "The account's quota is exhausted."
    SERVER_ERROR = (
        "server_error",
        "The provider reported an internal error, or its response was unusable.",
    )
    TIMEOUT = "timeout", "The provider did not respond in time, or the process stopped during the attempt."
    NETWORK = "network", "The network connection could not be established, or broke."
    RENDER_ERROR = "render_error", "A template of the rule could not be rendered for the event."
    INTERNAL_ERROR = "internal_error", "The bridge or a connector raised an unexpected error."


class AttemptOutcome(DescribedEnum):
    """The outcome of an attempt, as stored in `attempts.outcome`."""

    SUCCEEDED = "succeeded", "The provider confirmed the action."
    FAILED = "failed", "The action certainly did not take effect; a retry may succeed."
    REJECTED = "rejected", "The provider rejected the action permanently."
    OUTCOME_UNKNOWN = (
        "outcome_unknown",
        "The request was sent, but it is unknown whether the action took effect.",
    )
    INCONCLUSIVE = (
        "inconclusive",
        "The provider cannot tell what happened, or which record is meant: an operator has to decide.",
    )
    NOT_STARTED = "not_started", "The provider was not contacted; the delivery went back to the queue."
    LOOKUP_FOUND = "lookup_found", "The provider confirmed that an earlier attempt took effect."
    LOOKUP_NOT_FOUND = "lookup_not_found", "The provider confirmed that no earlier attempt took effect."
    LOOKUP_FAILED = "lookup_failed", "The lookup itself failed; it is repeated."


class PauseCause(DescribedEnum):
    """Why a connection is paused."""

    OPERATOR = "operator", "An operator paused it; `bridge resume` ends the pause."
    RATE_LIMIT = "rate_limit", "The provider reported too many requests; the pause ends automatically."
    QUOTA = "quota", "The account's quota is exhausted; the pause ends when the provider resets it."
    AUTH = (
        "auth",
        "The provider rejected the credentials; the pause ends when the settings change, or with `bridge resume`.",
    )
    ACCOUNT = (
        "account",
        "Something else is wrong with the account; the pause ends when its settings change, or with `bridge resume`.",
    )
    CIRCUIT_OPEN = (
        "circuit_open",
        "Too many attempts failed; a probe every 10 s closes the circuit once it succeeds.",
    )
    TOTAL_CAP = (
        "total_cap",
        "It sent as many messages as `messaging.caps.total` allows; only alerts leave until `bridge resume`.",
    )


_S = DeliveryState
ALLOWED: Final[Mapping[DeliveryState | None, frozenset[DeliveryState]]] = {
    None: frozenset({_S.PENDING, _S.FAILED}),
    _S.PENDING: frozenset({_S.PENDING, _S.RUNNING, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.SUPPRESSED}),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.RETRYING, _S.NEEDS_REVIEW, _S.FAILED}),
    _S.RETRYING: frozenset({_S.RETRYING, _S.RUNNING, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.SUPPRESSED}),
    _S.NEEDS_REVIEW: frozenset({_S.PENDING, _S.SUCCEEDED, _S.CANCELLED}),
    _S.SUCCEEDED: frozenset({_S.SUCCEEDED, _S.FAILED}),
    _S.FAILED: frozenset({_S.PENDING, _S.SUCCEEDED}),
    _S.CANCELLED: frozenset({_S.SUCCEEDED}),
    _S.SUPPRESSED: frozenset({_S.SUCCEEDED}),
}
"""The states that may follow each state; None: before the delivery exists. Tested against the diagram in design.md."""

_FINISHED: Final = frozenset(FINAL_STATES) - {DeliveryState.NEEDS_REVIEW}
_FAILURES: Final = frozenset({DeliveryState.FAILED, DeliveryState.NEEDS_REVIEW})


class KeyEffect(StrEnum):
    """Effect of a transition on the delivery's idempotency key."""

    KEEP = "keep"
    """Leave it as it is: reserved, while it is or may become unknown whether the action took effect."""
    RELEASE = "release"
    """Release it: the action certainly did not take effect, and is not attempted again."""
    COMPLETE = "complete"
    """Complete it, if it is still reserved for this delivery: the attempt took effect."""
    COMPLETE_LATE = "complete_late"
    """Complete it even if it was released in the meantime: the action took effect, or may have, as learned later."""
    UNDO = "undo"
    """Release it although it was completed: the provider had accepted the message, and delivered nothing."""


class IllegalTransition(Exception):
    """A transition was applied to a delivery in a state that does not allow it, which is a bug."""


class CurrentDelivery(Protocol):
    """The fields of a delivery that some transitions keep or depend on."""

    @property
    def state(self) -> DeliveryState:
        """Its current state."""

    @property
    def reason(self) -> str | None:
        """Why the last attempt failed."""

    @property
    def detail(self) -> str | None:
        """The explanation of its state."""

    @property
    def run_at(self) -> datetime:
        """When its next attempt or lookup is due."""

    @property
    def outcome_unknown_since(self) -> datetime | None:
        """Since when it is unknown whether an attempt took effect."""


@dataclass(frozen=True, slots=True)
class Transition:
    """The next state of a delivery, and everything that it implies. Use the named constructors."""

    state: DeliveryState
    reason: str | None = None
    detail: str | None = None
    run_at: datetime | timedelta = timedelta(0)
    """When the next attempt or lookup is due; a timedelta counts from when the transition is applied."""
    outcome_unknown_since: datetime | None = None
    """Set while it is unknown whether an attempt took effect; the next attempt is then a lookup."""
    key: KeyEffect = KeyEffect.KEEP
    undelivered: bool = False
    """The provider took the message and reports that it did not reach the recipient."""

    @classmethod
    def planned(cls, run_at: datetime) -> Self:
        """A new delivery waits for its first attempt."""
        return cls(DeliveryState.PENDING, run_at=run_at)

    @classmethod
    def not_rendered(cls, detail: str) -> Self:
        """A delivery that was never attempted fails because its params could not be rendered."""
        return cls(DeliveryState.FAILED, FailureReason.RENDER_ERROR, detail)

    @classmethod
    def rescheduled(cls, delivery: CurrentDelivery, run_at: datetime | timedelta, detail: str | None) -> Self:
        """A waiting delivery waits for another instant."""
        return cls(delivery.state, delivery.reason, detail, run_at, delivery.outcome_unknown_since)

    @classmethod
    def succeeded(cls, detail: str, *, undelivered: bool = False) -> Self:
        """The attempt took effect, or the lookup found that an earlier one did."""
        return cls(DeliveryState.SUCCEEDED, None, detail, key=KeyEffect.COMPLETE, undelivered=undelivered)

    @classmethod
    def retry_in(
        cls, wait: timedelta, reason: str | None, detail: str, outcome_unknown_since: datetime | None = None
    ) -> Self:
        """The next attempt follows after `wait`, or a lookup if `outcome_unknown_since` is set."""
        return cls(DeliveryState.RETRYING, reason, detail, wait, outcome_unknown_since)

    @classmethod
    def needs_review(cls, reason: str | None, detail: str) -> Self:
        """An operator has to find out at the provider whether the action took effect."""
        return cls(DeliveryState.NEEDS_REVIEW, reason, detail)

    @classmethod
    def failed(cls, reason: str | None, detail: str) -> Self:
        """The action certainly did not take effect, and is not attempted again automatically."""
        return cls(DeliveryState.FAILED, reason, detail, key=KeyEffect.RELEASE)

    @classmethod
    def suppressed(cls, reason: str, detail: str) -> Self:
        """The policy decided not to send the delivery."""
        return cls(DeliveryState.SUPPRESSED, reason, detail, key=KeyEffect.RELEASE)

    @classmethod
    def cancelled(cls, delivery: CurrentDelivery, detail: str) -> Self:
        """The delivery is not attempted again. If it may have taken effect, no other delivery repeats it either."""
        key = KeyEffect.COMPLETE_LATE if is_unresolved(delivery) else KeyEffect.RELEASE
        return cls(DeliveryState.CANCELLED, None, detail, key=key)

    @classmethod
    def confirmed(cls, delivery: CurrentDelivery, detail: str | None, *, undelivered: bool = False) -> Self:
        """A status callback or an operator confirms that the action took effect, whatever was known before."""
        is_known = delivery.state is DeliveryState.SUCCEEDED
        key = KeyEffect.KEEP if is_known else KeyEffect.COMPLETE_LATE
        return cls(DeliveryState.SUCCEEDED, None, detail, key=key, undelivered=undelivered)

    @classmethod
    def not_delivered(cls, reason: str, detail: str | None) -> Self:
        """A status callback proves that an accepted message was not delivered, because of the account.

        Unlike a message that did not reach its recipient, it can be sent again once the account is in order.
        """
        return cls(DeliveryState.FAILED, reason, detail, key=KeyEffect.UNDO)

    @classmethod
    def requeued(cls, delivery: CurrentDelivery, detail: str | None) -> Self:
        """An operator starts the retry schedule of a delivery again that did not take effect."""
        return cls(DeliveryState.PENDING, delivery.reason, detail, key=KeyEffect.RELEASE)

    @property
    def may_have_taken_effect(self) -> bool:
        """True if caps and `once` have to count the delivery."""
        return (
            self.state in (DeliveryState.SUCCEEDED, DeliveryState.NEEDS_REVIEW)
            or self.outcome_unknown_since is not None
        )

    @property
    def is_failure(self) -> bool:
        """True if `on_failure` or an alert reports it."""
        return self.undelivered or self.state in _FAILURES

    def _is_first_success(self, current: DeliveryState | None) -> bool:
        return self.state is DeliveryState.SUCCEEDED and current is not DeliveryState.SUCCEEDED

    def columns(
        self,
        current: DeliveryState | None,
        now: datetime,
        trigger: str,
        finished_at: datetime | None = None,
        *,
        on_success: bool = False,
    ) -> dict[str, Any]:
        """Return the columns of `deliveries` after the transition from state `current` at `now`.

        `finished_at` is when the delivery reached its current state, if that is a final one; `on_success`, whether its
        rule follows up on a success. Raise IllegalTransition if the current state does not allow the transition.
        """
        require_allowed(current, self.state)
        if self.state not in _FINISHED:
            finished_at = None
        elif self.state != current:
            finished_at = now
        return {
            "state": self.state.value,
            "reason": None if self.reason is None else str(self.reason),
            "detail": self.detail or None,
            "run_at": now + self.run_at if isinstance(self.run_at, timedelta) else self.run_at,
            "outcome_unknown_since": self.outcome_unknown_since,
            "finished_at": finished_at,
            # Follow-ups have no follow-ups of their own, but one that fails is alerted. An alert that fails is not.
            "needs_follow_up": (self.is_failure and trigger != "alert")
            or (trigger == "rule" and on_success and self._is_first_success(current)),
        }


def require_allowed(current: DeliveryState | None, state: DeliveryState) -> None:
    """Raise IllegalTransition if `state` may not follow the current state."""
    if state not in ALLOWED[current]:
        raise IllegalTransition(f"{current} -> {state}")


def is_unresolved(delivery: CurrentDelivery) -> bool:
    """Return True if it is unknown whether an attempt of this delivery took effect."""
    return delivery.state is DeliveryState.NEEDS_REVIEW or delivery.outcome_unknown_since is not None
