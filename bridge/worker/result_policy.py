"""Result policy: what the result of an attempt means for its delivery. Pure, one table.

                    idempotent action              any other action
Success             succeeded                      succeeded
TransientError      retry on schedule              retry on schedule (confirmed: nothing happened)
RateLimited, QuotaExhausted, AccountError
                    the connection is paused; no attempt is used up
PermanentError      failed                         failed
LookupInconclusive  needs_review                   needs_review (nothing happened; an operator has to choose)
OutcomeUnknown or an unexpected error
                    retry on schedule              lookup after the lookup delay; without a lookup: needs_review

not started         requeued immediately           requeued immediately (the provider was not contacted)
unsupported here    requeued for a minute          requeued for a minute; after an hour failed, a lookup: needs_review

a lookup returns    Success: succeeded             None: retry immediately
                    LookupInconclusive:            it fails itself: repeat it for at most two minutes, in which the
                    needs_review                   connection is not paused, then needs_review
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

from bridge.connector import Action, Success
from bridge.errors import (
    AccountError,
    ConfigError,
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.events import replace_unstorable
from bridge.lifecycle import AttemptOutcome
from bridge.store.claim import ClaimedDelivery
from bridge.store.results import AttemptResult
from bridge.telemetry import mask

SCHEDULE_SECONDS = (10, 60, 300, 900, 3600, 3 * 3600, 6 * 3600)
"""Seconds between attempts; the last one repeats. Each varies by up to a fifth, so that a backlog spreads out."""
RETRY_LIMIT = timedelta(days=3)
"""How long a failing delivery is retried in total, unless its rule sets `retry`."""
MAX_INTERRUPTIONS = 10
"""Interruptions that use up no attempt. Beyond that, the delivery itself may be what kills the process."""
LOOKUP_INTERVAL = timedelta(seconds=10)
LOOKUP_LIMIT = timedelta(minutes=2)
"""How long a failing lookup is repeated before the delivery needs review. Time while the connection is paused does
not count."""

UNSUPPORTED_RETRY_INTERVAL, UNSUPPORTED_GRACE = timedelta(minutes=1), timedelta(hours=1)
"""During an upgrade, deliveries that this version does not support are left to workers of a newer version: for how
long at a time, and in total."""


class NotStarted(TransientError):
    """The provider was not contacted, for example because the attempt waited too long for a thread.

    It uses up no attempt.
    """

    def __init__(
        self,
        detail: str = "the attempt ran out of time before it started",
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(detail, reason="timeout", retry_after=retry_after)


class UnsupportedByThisVersion(PermanentError):
    """This version does not have the action, or the action does not accept the params.

    During an upgrade, a worker of another version may.
    """


def retry_delay(attempts: int) -> timedelta:
    """Return how long to wait after this many failed attempts (at least one)."""
    seconds = SCHEDULE_SECONDS[min(attempts, len(SCHEDULE_SECONDS)) - 1]
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))


def to_delivery_error(
    error: Exception, classify: Callable[[Exception], DeliveryError | None] | None
) -> DeliveryError:
    """Convert an exception raised by an action. An unclassified one is a bug, and its outcome is unknown."""
    if isinstance(error, DeliveryError):
        return error
    if isinstance(error, ConfigError):
        return PermanentError(str(error), code="settings")
    try:
        classified = classify(error) if classify else None
    except Exception as classify_error:  # a bug in the connector's `classify_error` must not lose the outcome
        classified = OutcomeUnknown(
            f"{type(classify_error).__name__} while classifying {type(error).__name__}",
            reason="internal_error",
        )
    return classified or OutcomeUnknown(f"{type(error).__name__}: {error}", reason="internal_error")


def classify_result(
    delivery: ClaimedDelivery, action: Action | None, result: Success | Exception | None, now: datetime
) -> AttemptResult:
    """Return the result of one attempt; `result` is what the action or its lookup returned or raised.

    `action` is None if the connector is no longer installed; then an unknown outcome cannot be looked up.
    """
    classified = _classify(delivery, action, result, now)
    # A provider's message may contain characters that the database rejects, and the result has to be stored.
    classified.detail = replace_unstorable(str(classified.detail))
    if classified.external_id is not None:
        # Some providers use numbers as IDs.
        classified.external_id = replace_unstorable(str(classified.external_id))
    if classified.failure is not None:
        classified.failure.detail = replace_unstorable(str(classified.failure.detail))
    return classified


def _classify(
    delivery: ClaimedDelivery, action: Action | None, result: Success | Exception | None, now: datetime
) -> AttemptResult:
    if isinstance(result, NotStarted | UnsupportedByThisVersion):
        return _not_started(delivery, result, now)
    if delivery.kind == "lookup":
        return _after_lookup(delivery, result, now)
    if isinstance(result, Success):
        return _succeeded(delivery, result, AttemptOutcome.SUCCEEDED)
    if isinstance(result, LookupInconclusive):
        return AttemptResult(
            delivery, AttemptOutcome.INCONCLUSIVE, "needs_review", "keep", None, mask(str(result))[:500],
            consumed=0,
        )  # fmt: skip
    failure = (
        result
        if isinstance(result, DeliveryError)
        else OutcomeUnknown(_describe(result) or "the action returned nothing", reason="internal_error")
    )
    detail = mask(failure.detail)[:500]
    if isinstance(failure, PermanentError):
        return AttemptResult(
            delivery, AttemptOutcome.REJECTED, "failed", "release", failure, detail,
            opt_out=failure.opted_out and delivery.channel is not None,
        )  # fmt: skip
    if isinstance(failure, OutcomeUnknown) and not (action and action.idempotent):
        # The attempt is counted once its lookup has a result.
        if action is None or action.run_lookup is None:
            message = f"{detail}; it may have taken effect, and this provider has no lookup"
            return AttemptResult(
                delivery, AttemptOutcome.OUTCOME_UNKNOWN, "needs_review", "keep", failure, message
            )
        return AttemptResult(
            delivery, AttemptOutcome.OUTCOME_UNKNOWN, "retrying", "keep", failure, detail,
            wait=action.lookup_delay, consumed=0, outcome_unknown_since=now,
        )  # fmt: skip
    return _retry_or_give_up(delivery, failure, detail, now)


def classify_interrupted(delivery: ClaimedDelivery, action: Action | None, now: datetime) -> AttemptResult:
    """Return the result of an attempt whose process was killed, or suspended past its lease; its outcome is unknown.

    The interruption says nothing about the provider or the delivery. An idempotent action or a lookup is therefore
    simply repeated, and uses up no attempt.
    """
    failure = OutcomeUnknown("the process stopped during the attempt", reason="timeout")
    classified = classify_result(delivery, action, failure, now)
    wait = (
        timedelta(0)
        if delivery.kind == "lookup"
        else action.lookup_delay
        if action and action.idempotent
        else None
    )
    if wait is None or delivery.fencing_token - delivery.attempts > MAX_INTERRUPTIONS:
        return replace(classified, affects_connection=False)
    return AttemptResult(
        delivery, AttemptOutcome.OUTCOME_UNKNOWN, "retrying", "keep", failure, failure.detail,
        wait=wait, consumed=0, outcome_unknown_since=delivery.outcome_unknown_since, affects_connection=False,
    )  # fmt: skip


def _not_started(
    delivery: ClaimedDelivery, failure: NotStarted | UnsupportedByThisVersion, now: datetime
) -> AttemptResult:
    """Requeue the delivery: the provider was not contacted. The time limit of a lookup does not run either."""
    unsupported, lookup = isinstance(failure, UnsupportedByThisVersion), delivery.kind == "lookup"
    # A delivery of a newer version that was first attempted long ago is also requeued a few times first.
    grace_is_over = (
        now >= delivery.first_attempt_at + UNSUPPORTED_GRACE
        and delivery.fencing_token - delivery.attempts > MAX_INTERRUPTIONS
    )
    if unsupported and grace_is_over:
        state: Literal["needs_review", "failed"] = "needs_review" if lookup else "failed"
        key_action: Literal["keep", "release"] = "keep" if lookup else "release"
        return AttemptResult(
            delivery, AttemptOutcome.REJECTED, state, key_action, failure, failure.detail,
            consumed=0, affects_connection=False,
        )  # fmt: skip
    return AttemptResult(
        delivery, AttemptOutcome.NOT_STARTED, "retrying", "keep", failure, failure.detail,
        wait=UNSUPPORTED_RETRY_INTERVAL if unsupported else failure.retry_after or timedelta(0),
        consumed=0, outcome_unknown_since=now if lookup else None, affects_connection=False,
    )  # fmt: skip


def _retry_or_give_up(
    delivery: ClaimedDelivery, failure: DeliveryError, detail: str, now: datetime
) -> AttemptResult:
    """Retry when the provider or the schedule says so, or give up."""
    unknown = isinstance(failure, OutcomeUnknown)
    outcome = AttemptOutcome.OUTCOME_UNKNOWN if unknown else AttemptOutcome.FAILED
    if isinstance(failure, AccountError | RateLimited | QuotaExhausted):
        # The connection itself is paused; the delivery is due again as soon as the pause ends.
        return AttemptResult(delivery, outcome, "retrying", "keep", failure, detail, consumed=0)
    consumed = 0 if delivery.probe else 1
    attempts = delivery.attempts + consumed
    wait = failure.retry_after or retry_delay(max(attempts, 1))
    if gives_up(delivery, attempts, now + wait):
        message = f"gave up after {_count_attempts(attempts)}: {detail}"
        # An unknown outcome gets here only if the action is idempotent: repeating it has no second side effect.
        return AttemptResult(delivery, outcome, "failed", "release", failure, message)
    return AttemptResult(delivery, outcome, "retrying", "keep", failure, detail, wait=wait, consumed=consumed)


def gives_up(delivery: ClaimedDelivery, attempts: int, run_at: datetime) -> bool:
    """Return True if an attempt at `run_at` is past the rule's `retry`, its `expires` or the default limit."""
    retry: dict[str, Any] = delivery.options.get("retry") or {}
    limit = RETRY_LIMIT if retry.get("limit") is None else timedelta(seconds=retry["limit"])
    max_attempts = retry.get("attempts")
    expired = delivery.expires_at is not None and run_at >= delivery.expires_at
    return (
        expired
        or run_at > delivery.first_attempt_at + limit
        or (max_attempts is not None and attempts >= max_attempts)
    )


def _after_lookup(
    delivery: ClaimedDelivery, result: Success | Exception | None, now: datetime
) -> AttemptResult:
    if isinstance(result, Success):
        return _succeeded(delivery, result, AttemptOutcome.LOOKUP_FOUND)
    if result is None:
        return _not_found(delivery, now)
    failure = (
        result if isinstance(result, DeliveryError) else OutcomeUnknown(str(result), reason="internal_error")
    )
    detail = f"not known whether it took effect: {mask(failure.detail)[:400]}"
    # While the provider is unavailable, no lookup is made: the time limit starts when it is available again.
    unavailable = delivery.probe or isinstance(failure, AccountError | RateLimited | QuotaExhausted)
    since = now if unavailable else delivery.outcome_unknown_since or now
    limit_reached = (
        now + LOOKUP_INTERVAL > since + LOOKUP_LIMIT or now > delivery.first_attempt_at + RETRY_LIMIT
    )
    if isinstance(result, LookupInconclusive) or limit_reached:
        return AttemptResult(
            delivery, AttemptOutcome.INCONCLUSIVE, "needs_review", "keep", failure, detail, consumed=0
        )
    return AttemptResult(
        delivery, AttemptOutcome.LOOKUP_FAILED, "retrying", "keep", failure, detail,
        wait=LOOKUP_INTERVAL, consumed=0, outcome_unknown_since=since,
    )  # fmt: skip


def _not_found(delivery: ClaimedDelivery, now: datetime) -> AttemptResult:
    """Retry, because it is confirmed that nothing happened: immediately the first time, then on schedule."""
    attempts = delivery.attempts + 1
    wait = timedelta(0) if delivery.attempts == 0 else retry_delay(attempts)
    detail = "the provider does not have it"
    if gives_up(delivery, attempts, now + wait):
        return AttemptResult(
            delivery, AttemptOutcome.LOOKUP_NOT_FOUND, "failed", "release",
            TransientError(detail, reason="timeout"), f"gave up after {_count_attempts(attempts)}: {detail}",
        )  # fmt: skip
    return AttemptResult(
        delivery, AttemptOutcome.LOOKUP_NOT_FOUND, "retrying", "keep", None, f"{detail}; retrying", wait=wait
    )


def _succeeded(delivery: ClaimedDelivery, success: Success, outcome: AttemptOutcome) -> AttemptResult:
    return AttemptResult(
        delivery, outcome, "succeeded", "complete", None, mask(success.detail)[:500],
        external_id=success.id or delivery.existing_id, message_status=success.message_status,
    )  # fmt: skip


def _describe(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}" if error is not None else ""


def _count_attempts(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"
