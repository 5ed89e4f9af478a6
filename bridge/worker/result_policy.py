"""What an attempt's end means for its delivery: pure, one table.

                    repeatable action        any other action
Success                sent                     sent
TransientError           retry on schedule        retry on schedule (it proves that nothing happened)
RateLimited, quota, credentials
                    the connection waits; no attempt is used up
PermanentError            dead                     dead
LookupInconclusive          review                   review (nothing happened; a person has to choose)
OutcomeUnknown,     retry on schedule        look it up after the settle time; without a lookup: review
or a bug

not begun           put back at once         put back at once (nobody was asked, so it says nothing about the partner)
not known here      put back for a minute    put back for a minute; after an hour dead, a lookup: review

a lookup says       Success: sent               None: attempt again at once
                    LookupInconclusive: review       it fails itself: look again, for at most two minutes in which the
                                             partner is not away as a whole, then review
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

from tenacity import RetryCallState, wait_chain, wait_random

from bridge.connector import Action, Success
from bridge.errors import (
    AuthenticationError,
    ConfigError,
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    TransientError,
)
from bridge.events import speakable
from bridge.store.claim import Claimed
from bridge.store.results import AttemptOutcome, Finished
from bridge.telemetry import mask

SCHEDULE_SECONDS = (10, 60, 300, 900, 3600, 3 * 3600, 6 * 3600)
"""Waits between attempts; the last one repeats. Each is spread by a fifth, so a backlog does not return at once."""
RETRY_LIMIT = timedelta(days=3)
"""How long a failing delivery is tried in all, unless its rule says otherwise."""
CUT_SHORT_LIMIT = 10
"""How often a delivery may be cut short before that counts as an attempt: then it may be what ends us."""
LOOKUP_EVERY = timedelta(seconds=10)
LOOKUP_LIMIT = timedelta(minutes=2)
"""How long a failing lookup is tried before a person is asked; no time counts in which the connection is paused."""

LEFT_TO_NEWER, LEFT_FOR = timedelta(minutes=1), timedelta(hours=1)
"""What this version does not know is left to a newer one that runs beside it: for how long at a time, and in all."""

_waits = wait_chain(*(wait_random(0.8 * seconds, 1.2 * seconds) for seconds in SCHEDULE_SECONDS))


class NotBegun(TransientError):
    """Nothing was asked of the partner, as when the attempt waited too long for its thread; it uses up nothing."""

    def __init__(
        self,
        detail: str = "the attempt ran out of time before it began",
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(detail, reason="timeout", retry_after=retry_after)


class Unfamiliar(PermanentError):
    """This version has no such action, or the action does not take such params; during an upgrade another one may."""


def wait_after(attempts: int) -> timedelta:
    """How long to wait after this many attempts that failed."""
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
    state.attempt_number = attempts
    return timedelta(seconds=_waits(state))


def failure_of(
    error: Exception, classify: Callable[[Exception], DeliveryError | None] | None
) -> DeliveryError:
    """What an exception out of an action means; what nobody knows is a bug, and its outcome unknown."""
    if isinstance(error, DeliveryError):
        return error
    if isinstance(error, ConfigError):
        return PermanentError(str(error), code="settings")
    try:
        known = classify(error) if classify else None
    except Exception as second:  # a connector's own classification may not lose the outcome
        known = OutcomeUnknown(
            f"{type(second).__name__} while reading {type(error).__name__}", reason="internal_error"
        )
    return known or OutcomeUnknown(f"{type(error).__name__}: {error}", reason="internal_error")


def conclude(
    claimed: Claimed, action: Action | None, result: Success | Exception | None, now: datetime
) -> Finished:
    """The end of one attempt: `result` is what the action or its lookup returned, or its failure.

    `action` is None when the connector is no longer there; then nobody can look an unknown outcome up.
    """
    ended = _concluded(claimed, action, result, now)
    # A partner's words may hold what no database takes, and an end has to be written whatever they are.
    ended.detail = speakable(str(ended.detail))
    if ended.external_id is not None:
        ended.external_id = speakable(str(ended.external_id))  # some partners number what they make
    if ended.failure is not None:
        ended.failure.detail = speakable(str(ended.failure.detail))
    return ended


def _concluded(
    claimed: Claimed, action: Action | None, result: Success | Exception | None, now: datetime
) -> Finished:
    if isinstance(result, NotBegun | Unfamiliar):
        return _not_begun(claimed, result, now)
    if claimed.kind == "lookup":
        return _after_lookup(claimed, result, now)
    if isinstance(result, Success):
        return _sent(claimed, result, AttemptOutcome.SUCCEEDED)
    if isinstance(result, LookupInconclusive):
        return Finished(
            claimed,
            AttemptOutcome.INCONCLUSIVE,
            "needs_review",
            "keep",
            None,
            mask(str(result))[:500],
            consumed=0,
        )
    failure = (
        result
        if isinstance(result, DeliveryError)
        else OutcomeUnknown(_words(result) or "the action returned nothing", reason="internal_error")
    )
    detail = mask(failure.detail)[:500]
    if isinstance(failure, PermanentError):
        return Finished(
            claimed, AttemptOutcome.REJECTED, "failed", "release", failure, detail,
            opt_out=failure.opted_out and claimed.channel is not None,
        )  # fmt: skip
    if isinstance(failure, OutcomeUnknown) and not (action and action.idempotent):
        # The attempt is counted by what its lookup finds.
        if action is None or action.finder is None:
            words = f"{detail}; it may have gone out, and this partner cannot be asked"
            return Finished(claimed, AttemptOutcome.OUTCOME_UNKNOWN, "needs_review", "keep", failure, words)
        return Finished(
            claimed, AttemptOutcome.OUTCOME_UNKNOWN, "retrying", "keep", failure, detail,
            wait=action.lookup_delay, consumed=0, outcome_unknown_since=now,
        )  # fmt: skip
    return _again(claimed, failure, detail, now)


def cut_short(claimed: Claimed, action: Action | None, now: datetime) -> Finished:
    """The end of an attempt whose process was killed, or frozen past its lease: nobody knows what became of it.

    It says nothing about the partner or the delivery, so what may simply be repeated, an attempt or a lookup, is, and
    uses up nothing.
    """
    failure = OutcomeUnknown("the process stopped during the attempt", reason="timeout")
    ended = conclude(claimed, action, failure, now)
    wait = (
        timedelta(0)
        if claimed.kind == "lookup"
        else action.lookup_delay
        if action and action.idempotent
        else None
    )
    if wait is None or claimed.fencing_token - claimed.attempts > CUT_SHORT_LIMIT:
        return replace(ended, speaks_of_partner=False)
    return Finished(
        claimed, AttemptOutcome.OUTCOME_UNKNOWN, "retrying", "keep", failure, failure.detail,
        wait=wait, consumed=0, outcome_unknown_since=claimed.outcome_unknown_since, speaks_of_partner=False,
    )  # fmt: skip


def _not_begun(claimed: Claimed, failure: NotBegun | Unfamiliar, now: datetime) -> Finished:
    """Nothing was asked of the partner. A lookup's time does not count either."""
    unfamiliar, lookup = isinstance(failure, Unfamiliar), claimed.kind == "lookup"
    long = (
        now >= claimed.first_attempt_at + LEFT_FOR
        and claimed.fencing_token - claimed.attempts > CUT_SHORT_LIMIT
    )
    if unfamiliar and long:
        # What a newer version attempted long ago is put back a few times, too, before it is given up on.
        state: Literal["needs_review", "failed"] = "needs_review" if lookup else "failed"
        key_action: Literal["keep", "release"] = "keep" if lookup else "release"
        return Finished(
            claimed,
            AttemptOutcome.REJECTED,
            state,
            key_action,
            failure,
            failure.detail,
            consumed=0,
            speaks_of_partner=False,
        )
    return Finished(
        claimed, AttemptOutcome.NOT_STARTED, "retrying", "keep", failure, failure.detail,
        wait=LEFT_TO_NEWER if unfamiliar else failure.retry_after or timedelta(0),
        consumed=0, outcome_unknown_since=now if lookup else None, speaks_of_partner=False,
    )  # fmt: skip


def _again(claimed: Claimed, failure: DeliveryError, detail: str, now: datetime) -> Finished:
    """Retry, as soon as the partner wishes or the schedule says; or give up."""
    unknown = isinstance(failure, OutcomeUnknown)
    outcome = AttemptOutcome.OUTCOME_UNKNOWN if unknown else AttemptOutcome.FAILED
    if isinstance(failure, AuthenticationError | RateLimited | QuotaExhausted):
        # The connection itself is paused; the delivery is due again as soon as that ends.
        return Finished(claimed, outcome, "retrying", "keep", failure, detail, consumed=0)
    consumed = 0 if claimed.probe else 1
    attempts = claimed.attempts + consumed
    wait = failure.retry_after or wait_after(max(attempts, 1))
    if gives_up(claimed, attempts, now + wait):
        words = f"given up after {_counted(attempts)}: {detail}"
        # An unknown outcome gets here only when the action is repeatable: whoever repeats it doubles nothing.
        return Finished(claimed, outcome, "failed", "release", failure, words)
    return Finished(claimed, outcome, "retrying", "keep", failure, detail, wait=wait, consumed=consumed)


def gives_up(claimed: Claimed, attempts: int, run_at: datetime) -> bool:
    """Whether the next attempt would come too late, by the rule's `retry`, its `expires` or the standard limit."""
    retry: dict[str, Any] = claimed.options.get("retry") or {}
    limit = RETRY_LIMIT if retry.get("limit") is None else timedelta(seconds=retry["limit"])
    most = retry.get("attempts")
    expired = claimed.expires_at is not None and run_at >= claimed.expires_at
    return expired or run_at > claimed.first_attempt_at + limit or (most is not None and attempts >= most)


def _after_lookup(claimed: Claimed, result: Success | Exception | None, now: datetime) -> Finished:
    if isinstance(result, Success):
        return _sent(claimed, result, AttemptOutcome.LOOKUP_FOUND)
    if result is None:
        return _absent(claimed, now)
    failure = (
        result if isinstance(result, DeliveryError) else OutcomeUnknown(str(result), reason="internal_error")
    )
    detail = f"not known whether it took effect: {mask(failure.detail)[:400]}"
    # While the partner is away, nobody is asked anything: the time for looking begins when it is back.
    away = claimed.probe or isinstance(failure, AuthenticationError | RateLimited | QuotaExhausted)
    since = now if away else claimed.outcome_unknown_since or now
    in_vain = now + LOOKUP_EVERY > since + LOOKUP_LIMIT or now > claimed.first_attempt_at + RETRY_LIMIT
    if isinstance(result, LookupInconclusive) or in_vain:
        return Finished(
            claimed, AttemptOutcome.INCONCLUSIVE, "needs_review", "keep", failure, detail, consumed=0
        )
    return Finished(
        claimed, AttemptOutcome.LOOKUP_FAILED, "retrying", "keep", failure, detail,
        wait=LOOKUP_EVERY, consumed=0, outcome_unknown_since=since,
    )  # fmt: skip


def _absent(claimed: Claimed, now: datetime) -> Finished:
    """It is proven that nothing happened: the first time attempt again at once, then on schedule."""
    attempts = claimed.attempts + 1
    wait = timedelta(0) if claimed.attempts == 0 else wait_after(attempts)
    detail = "the partner does not have it"
    if gives_up(claimed, attempts, now + wait):
        failure = TransientError(detail, reason="timeout")
        return Finished(
            claimed,
            AttemptOutcome.LOOKUP_NOT_FOUND,
            "failed",
            "release",
            failure,
            f"given up after {_counted(attempts)}: {detail}",
        )
    return Finished(
        claimed,
        AttemptOutcome.LOOKUP_NOT_FOUND,
        "retrying",
        "keep",
        None,
        f"{detail}; attempted again",
        wait=wait,
    )


def _sent(claimed: Claimed, sent: Success, outcome: AttemptOutcome) -> Finished:
    return Finished(
        claimed, outcome, "succeeded", "complete", None, mask(sent.detail)[:500],
        external_id=sent.id or claimed.existing_id, message_status=sent.message_status,
    )  # fmt: skip


def _words(error: Exception | None) -> str:
    return f"{type(error).__name__}: {error}" if error is not None else ""


def _counted(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"
