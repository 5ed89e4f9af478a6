"""Result policy: what the result of an attempt means for its delivery. Pure, one table.

                    idempotent action              any other action
Success             succeeded                      succeeded
TransientError      retry on schedule              retry on schedule (confirmed: nothing happened)
RateLimited, QuotaExhausted, AccountError
                    the connection is paused; no attempt is used up
RateLimited(per_object)
                    deliveries with the same concurrency key wait; no attempt is used up
PermanentError      failed                         failed
LookupInconclusive  needs_review                   needs_review (nothing happened; an operator has to choose)
OutcomeUnknown or an unexpected error
                    retry on schedule              lookup after the lookup delay; without a lookup: needs_review

An action that takes steps (`Context.step`) is run again on schedule after an unknown outcome, and looks up the step
that was not finished. While the provider remembers the idempotency token (`idempotent=timedelta(...)`), an action is
run again as well, and its outcome stays unknown until it succeeds or is rejected. Then the right column applies.

not started         requeued immediately           requeued immediately (the provider was not contacted)
unsupported here    requeued for a minute          requeued for a minute; after an hour failed, a lookup: needs_review

a lookup returns    Success: succeeded             None: retry immediately
                    LookupInconclusive:            it fails itself: repeat it for at most two minutes, in which the
                    needs_review                   connection is not paused, then needs_review
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

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
from bridge.json_values import replace_unstorable
from bridge.lifecycle import AttemptOutcome, Transition
from bridge.store.claim import LEASE
from bridge.store.claimed_delivery import ClaimedDelivery
from bridge.store.connections import limits_object
from bridge.store.results import UNDELIVERED_STATUSES, AttemptResult
from bridge.telemetry import mask

SCHEDULE_SECONDS = (10, 60, 300, 900, 3600, 3 * 3600, 6 * 3600)
"""Seconds between attempts; the last one repeats. Each varies by up to a fifth, so that a backlog spreads out."""
RETRY_LIMIT = timedelta(days=3)
"""How long a failing delivery is retried in total, unless its rule sets `retry`."""
MAX_INTERRUPTIONS = 10
"""Interruptions that use up no attempt. Beyond that, the delivery itself may be what kills the process."""
MIN_OBJECT_WAIT, MAX_OBJECT_WAIT = timedelta(seconds=10), timedelta(minutes=5)
"""How long a delivery waits for the limit of its record, if the provider does not say: a quarter of the time since the
first attempt, within these limits."""
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


@dataclass(frozen=True)
class ActionRun:
    """The result of an action that can run again if its outcome is unknown, or did although that was unknown."""

    result: Success | Exception | None
    resolved: bool = True
    """False if it is unknown whether an earlier attempt took effect."""
    has_steps: bool = False
    """Its writes are steps, each of which is looked up by itself."""


def retry_delay(attempts: int) -> timedelta:
    """Return how long to wait after this many failed attempts (at least one)."""
    seconds = SCHEDULE_SECONDS[min(attempts, len(SCHEDULE_SECONDS)) - 1]
    return timedelta(seconds=seconds * random.uniform(0.8, 1.2))


def to_delivery_error(
    error: Exception, classify: Callable[[Exception], DeliveryError | None]
) -> DeliveryError:
    """Convert an exception raised by an action. An unclassified one is a bug, and its outcome is unknown."""
    if isinstance(error, DeliveryError):
        return error
    if isinstance(error, ConfigError):
        return PermanentError(str(error), code="settings")
    try:
        classified = classify(error)
    except Exception as classify_error:  # a bug in the connector's `classify_error` must not lose the outcome
        classified = OutcomeUnknown(
            f"{type(classify_error).__name__} while classifying {type(error).__name__}",
            reason="internal_error",
        )
    return classified or OutcomeUnknown(f"{type(error).__name__}: {error}", reason="internal_error")


def may_repeat(claimed: ClaimedDelivery, action: Action | None, at: datetime) -> bool:
    """Return True if the provider still remembers the token of the first attempt throughout an attempt at `at`."""
    life = action.idempotent if action else False
    return isinstance(life, timedelta) and at + LEASE <= claimed.first_attempt_at + life


def can_resume(claimed: ClaimedDelivery) -> bool:
    """Return True if an action with steps may run again after an unknown outcome.

    A message may not: the policy decides about it before each attempt, but not before a lookup.
    """
    return claimed.delivery.channel is None


def classify_result(
    claimed: ClaimedDelivery,
    action: Action | None,
    result: Success | Exception | ActionRun | None,
    now: datetime,
) -> AttemptResult:
    """Return the result of one attempt; `result` is what the action or its lookup returned or raised.

    `action` is None if the connector is no longer installed; then an unknown outcome cannot be looked up.
    """
    classified = _classify(claimed, action, result, now)
    # A provider's message may contain characters that the database rejects, and the result has to be stored.
    detail = replace_unstorable(str(classified.transition.detail))
    if detail != classified.transition.detail:
        classified.transition = replace(classified.transition, detail=detail)
    if classified.external_id is not None:
        classified.external_id = replace_unstorable(classified.external_id)
    if classified.failure is not None:
        classified.failure.detail = replace_unstorable(str(classified.failure.detail))
    return classified


def _classify(
    claimed: ClaimedDelivery,
    action: Action | None,
    result: Success | Exception | ActionRun | None,
    now: datetime,
) -> AttemptResult:
    if isinstance(result, NotStarted | UnsupportedByThisVersion):
        return _not_started(claimed, result, now)
    if isinstance(result, ActionRun):
        classified = _after_run(claimed, action, result, now)
        return replace(classified, is_rerun=claimed.delivery.kind == "lookup")
    if claimed.delivery.kind == "lookup":
        return _after_lookup(claimed, action, result, now)
    return _after_run(claimed, action, ActionRun(result), now)


def _after_run(
    claimed: ClaimedDelivery,
    action: Action | None,
    run: ActionRun,
    now: datetime,
) -> AttemptResult:
    result, resolved = run.result, run.resolved
    if isinstance(result, Success):
        return _succeeded(claimed, result, AttemptOutcome.SUCCEEDED)
    if isinstance(result, LookupInconclusive):
        transition = Transition.needs_review(None, mask(str(result))[:500])
        return AttemptResult(claimed, AttemptOutcome.INCONCLUSIVE, transition, consumed=0)
    failure = (
        result
        if isinstance(result, DeliveryError)
        else OutcomeUnknown(_describe(result) or "the action returned nothing", reason="internal_error")
    )
    detail = mask(failure.detail)[:500]
    if isinstance(failure, PermanentError) and not resolved:
        message = f"not known whether an earlier attempt took effect: {detail}"
        transition = Transition.needs_review(failure.reason, message)
        return AttemptResult(claimed, AttemptOutcome.REJECTED, transition, failure)
    if isinstance(failure, PermanentError):
        return AttemptResult(
            claimed, AttemptOutcome.REJECTED, Transition.failed(failure.reason, detail), failure,
            opt_out=failure.opted_out and claimed.delivery.channel is not None,
            undeliverable=failure.undeliverable and claimed.delivery.channel is not None,
        )  # fmt: skip
    if limits_object(failure):
        wait = failure.retry_after or _object_wait(claimed, now)
        if not gives_up(claimed, claimed.delivery.attempts, now + wait):
            waits = Transition.retry_in(wait, failure.reason, detail, None if resolved else now)
            return AttemptResult(claimed, AttemptOutcome.FAILED, waits, failure, consumed=0)
    elif isinstance(failure, AccountError | RateLimited | QuotaExhausted):
        # The connection itself is paused; the delivery is due again as soon as the pause ends.
        waits = Transition.retry_in(timedelta(0), failure.reason, detail, None if resolved else now)
        return AttemptResult(claimed, AttemptOutcome.FAILED, waits, failure, consumed=0)
    unknown = isinstance(failure, OutcomeUnknown) or not resolved
    if action and unknown and (run.has_steps or isinstance(action.idempotent, timedelta)):
        return _run_again(claimed, action, failure, detail, now, has_steps=run.has_steps)
    if isinstance(failure, OutcomeUnknown) and not (action and action.idempotent):
        # The attempt is counted once its lookup has a result.
        if action is None or action.run_lookup is None:
            message = f"{detail}; it may have taken effect, and this provider has no lookup"
            return AttemptResult(
                claimed, AttemptOutcome.OUTCOME_UNKNOWN, Transition.needs_review(failure.reason, message),
                failure,
            )  # fmt: skip
        lookup = Transition.retry_in(action.lookup_delay, failure.reason, detail, outcome_unknown_since=now)
        return AttemptResult(claimed, AttemptOutcome.OUTCOME_UNKNOWN, lookup, failure, consumed=0)
    return _retry_or_give_up(claimed, failure, detail, now)


def classify_interrupted(claimed: ClaimedDelivery, action: Action | None, now: datetime) -> AttemptResult:
    """Return the result of an attempt whose process was killed, or suspended past its lease; its outcome is unknown.

    The interruption says nothing about the provider or the delivery. An idempotent action or a lookup is therefore
    simply repeated, and uses up no attempt.
    """
    failure = OutcomeUnknown("the process stopped during the attempt", reason="timeout")
    resumes = claimed.has_steps and can_resume(claimed)
    run = ActionRun(failure, has_steps=True) if resumes and claimed.delivery.kind == "send" else failure
    classified = classify_result(claimed, action, run, now)
    wait, since = None, claimed.outcome_unknown_since
    if claimed.delivery.kind == "lookup":
        wait = timedelta(0)
    elif action and (action.idempotent is True or resumes or may_repeat(claimed, action, now)):
        wait, since = action.lookup_delay, None if action.idempotent is True else now
    if wait is None or _is_often_interrupted(claimed):
        return replace(classified, affects_connection=False)
    again = Transition.retry_in(wait, failure.reason, failure.detail, since)
    return AttemptResult(
        claimed, AttemptOutcome.OUTCOME_UNKNOWN, again, failure, consumed=0, affects_connection=False
    )


def _is_often_interrupted(claimed: ClaimedDelivery) -> bool:
    return claimed.fencing_token - claimed.delivery.attempts > MAX_INTERRUPTIONS


def _not_started(
    claimed: ClaimedDelivery, failure: NotStarted | UnsupportedByThisVersion, now: datetime
) -> AttemptResult:
    """Requeue the delivery: the provider was not contacted. The time limit of a lookup does not run either."""
    reason, detail = failure.reason, failure.detail
    unsupported, lookup = isinstance(failure, UnsupportedByThisVersion), claimed.delivery.kind == "lookup"
    # A delivery of a newer version that was first attempted long ago is also requeued a few times first.
    grace_is_over = now >= claimed.first_attempt_at + UNSUPPORTED_GRACE and _is_often_interrupted(claimed)
    if unsupported and grace_is_over:
        outcome = AttemptOutcome.REJECTED
        give_up = Transition.needs_review if lookup else Transition.failed
        transition = give_up(reason, detail)
    else:
        outcome = AttemptOutcome.NOT_STARTED
        wait = UNSUPPORTED_RETRY_INTERVAL if unsupported else failure.retry_after or timedelta(0)
        transition = Transition.retry_in(wait, reason, detail, now if lookup else None)
    return AttemptResult(claimed, outcome, transition, failure, consumed=0, affects_connection=False)


def _retry_or_give_up(
    claimed: ClaimedDelivery, failure: DeliveryError, detail: str, now: datetime
) -> AttemptResult:
    """Retry when the provider or the schedule says so, or give up."""
    outcome = _outcome_of(failure)
    consumed = 0 if claimed.probe else 1
    attempts = claimed.delivery.attempts + consumed
    wait = failure.retry_after or retry_delay(max(attempts, 1))
    if gives_up(claimed, attempts, now + wait):
        # An unknown outcome gets here only if the action is idempotent: repeating it has no second side effect.
        message = f"gave up after {_count_attempts(attempts)}: {detail}"
        return AttemptResult(claimed, outcome, Transition.failed(failure.reason, message), failure)
    retry = Transition.retry_in(wait, failure.reason, detail)
    return AttemptResult(claimed, outcome, retry, failure, consumed=consumed)


def _object_wait(claimed: ClaimedDelivery, now: datetime) -> timedelta:
    return min(max((now - claimed.first_attempt_at) / 4, MIN_OBJECT_WAIT), MAX_OBJECT_WAIT)


def _run_again(
    claimed: ClaimedDelivery,
    action: Action,
    failure: DeliveryError,
    detail: str,
    now: datetime,
    *,
    has_steps: bool,
) -> AttemptResult:
    """Run the action again on schedule although its outcome is unknown; if that is too late, look it up."""
    consumed = 0 if claimed.probe else 1
    attempts = claimed.delivery.attempts + consumed
    wait = failure.retry_after or max(action.lookup_delay, retry_delay(max(attempts, 1)))
    transition = Transition.retry_in(wait, failure.reason, detail, now)
    is_safe = has_steps or may_repeat(claimed, action, now + wait)
    if gives_up(claimed, attempts, now + wait) or not is_safe:
        if action.run_lookup is not None and not has_steps:
            transition = Transition.retry_in(action.lookup_delay, failure.reason, detail, now)
        else:
            message = f"{detail}; it may have taken effect, and it is too late to repeat it"
            transition = Transition.needs_review(failure.reason, message)
    return AttemptResult(claimed, _outcome_of(failure), transition, failure, consumed=consumed)


def _outcome_of(failure: DeliveryError) -> AttemptOutcome:
    unknown = isinstance(failure, OutcomeUnknown)
    return AttemptOutcome.OUTCOME_UNKNOWN if unknown else AttemptOutcome.FAILED


def gives_up(claimed: ClaimedDelivery, attempts: int, run_at: datetime) -> bool:
    """Return True if an attempt at `run_at` is past the rule's `retry`, its `expires` or the default limit."""
    delivery = claimed.delivery
    retry = delivery.options.retry
    limit = RETRY_LIMIT if retry.limit is None else retry.limit
    expired = delivery.expires_at is not None and run_at >= delivery.expires_at
    return (
        expired
        or run_at > claimed.first_attempt_at + limit
        or (retry.attempts is not None and attempts >= retry.attempts)
    )


def _after_lookup(
    claimed: ClaimedDelivery, action: Action | None, result: Success | Exception | None, now: datetime
) -> AttemptResult:
    if isinstance(result, Success):
        return _succeeded(claimed, result, AttemptOutcome.LOOKUP_FOUND)
    if result is None:
        # An attempt with an unknown outcome is counted once its lookup has a result, or when it may be repeated.
        is_counted = action is not None and isinstance(action.idempotent, timedelta)
        return _not_found(claimed, now, consumed=0 if is_counted else 1)
    failure = (
        result if isinstance(result, DeliveryError) else OutcomeUnknown(str(result), reason="internal_error")
    )
    detail = f"not known whether it took effect: {mask(failure.detail)[:400]}"
    # While the provider is unavailable, no lookup is made: the time limit starts when it is available again.
    unavailable = claimed.probe or isinstance(failure, AccountError | RateLimited | QuotaExhausted)
    since = claimed.outcome_unknown_since or now
    # Neither does it run before the first lookup, which may follow long after the attempt.
    if unavailable or claimed.delivery.run_at - since > LOOKUP_LIMIT:
        since = now
    limit_reached = (
        now + LOOKUP_INTERVAL > since + LOOKUP_LIMIT or now > claimed.first_attempt_at + RETRY_LIMIT
    )
    if isinstance(result, LookupInconclusive) or limit_reached:
        outcome, transition = AttemptOutcome.INCONCLUSIVE, Transition.needs_review(failure.reason, detail)
    else:
        outcome = AttemptOutcome.LOOKUP_FAILED
        wait = failure.retry_after if limits_object(failure) else None
        transition = Transition.retry_in(wait or LOOKUP_INTERVAL, failure.reason, detail, since)
    return AttemptResult(claimed, outcome, transition, failure, consumed=0)


def _not_found(claimed: ClaimedDelivery, now: datetime, *, consumed: int) -> AttemptResult:
    """Retry, because it is confirmed that nothing happened: immediately the first time, then on schedule."""
    outcome = AttemptOutcome.LOOKUP_NOT_FOUND
    attempts = claimed.delivery.attempts + consumed
    wait = timedelta(0) if attempts <= 1 else retry_delay(attempts)
    detail = "the provider does not have it"
    if gives_up(claimed, attempts, now + wait):
        failure = TransientError(detail, reason="timeout")
        message = f"gave up after {_count_attempts(attempts)}: {detail}"
        give_up = Transition.failed(failure.reason, message)
        return AttemptResult(claimed, outcome, give_up, failure, consumed=consumed)
    retry = Transition.retry_in(wait, None, f"{detail}; retrying")
    return AttemptResult(claimed, outcome, retry, consumed=consumed)


def _succeeded(claimed: ClaimedDelivery, success: Success, outcome: AttemptOutcome) -> AttemptResult:
    undelivered = success.message_status in UNDELIVERED_STATUSES
    return AttemptResult(
        claimed, outcome, Transition.succeeded(mask(success.detail)[:500], undelivered=undelivered),
        external_id=success.id or claimed.existing_id, message_status=success.message_status,
    )  # fmt: skip


def _describe(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}" if error is not None else ""


def _count_attempts(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"
