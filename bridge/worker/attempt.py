"""Attempts: one call to a provider, and the context that the connector gets for it."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

from pydantic import ValidationError

from bridge.clock import uptime
from bridge.connector import Action, BatchItem, Connector, Context, Success
from bridge.connector.deadline import attempt_deadline
from bridge.connector.discovery import name_variables_of
from bridge.connector.params import truncation_notes
from bridge.connector.steps import Steps
from bridge.errors import (
    AccountError,
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    TransientError,
)
from bridge.store.action_steps import StoredSteps
from bridge.store.claimed_delivery import ClaimedDelivery
from bridge.store.contact_cache import StoredContactCache
from bridge.store.database import Database
from bridge.store.earlier_results import StoredResults
from bridge.store.inbound_messages import last_inbound_at
from bridge.store.possible_duplicates import save_possible_duplicate
from bridge.store.queries import external_ids_in_use
from bridge.worker.account import Account
from bridge.worker.attempt_traces import traceparent_of
from bridge.worker.provider_links import ProviderLinks
from bridge.worker.result_policy import (
    LOOKUP_INTERVAL,
    ActionRun,
    NotStarted,
    UnsupportedByThisVersion,
    can_resume,
    gives_up,
    may_repeat,
    to_delivery_error,
)

CallResult = Success | Exception | ActionRun | None
"""Return value or exception of a call for one delivery; None from a lookup: the provider does not have it."""


@dataclass(frozen=True)
class AttemptRunner:
    """Runs calls, with what every attempt needs from the service."""

    database: Database
    public_url: str | None = None
    unsubscribe_url: Callable[[str, str], str | None] = lambda _channel, _address: None
    """Return a signed link that opts an address out of a channel."""
    links: ProviderLinks = field(default_factory=ProviderLinks)

    def run(self, account: Account, call: Sequence[ClaimedDelivery], deadline: float) -> list[CallResult]:
        """Make one call before `deadline` (an `uptime()`); return one result per delivery, in order.

        Never raise: every error is a result.
        """
        delivery = call[0].delivery
        action = account.connector.find_action(delivery.action)
        if action is None:
            message = f"this version has no action `{delivery.action}`; left for a worker of a newer version"
            return [UnsupportedByThisVersion(message)] * len(call)
        steps = [self._steps_of(claimed, action) for claimed in call]
        repeats = delivery.kind == "lookup" and _is_repeated(call[0], action)
        try:
            looks_up = delivery.kind == "lookup" and not repeats and not _resumes(call[0], steps[0])
        except TransientError as error:
            # The action's own lookup would find its first step, and take the others for done.
            return [NotStarted(error.detail, LOOKUP_INTERVAL)] * len(call)
        results = self._run(account, action, call, steps, deadline, looks_up=looks_up)
        for result in results:
            if isinstance(result, AccountError):
                name_variables_of(result, account.connector, account.name)
        if looks_up:
            return results
        return [
            _as_run(claimed, action, result, taken, repeats=repeats)
            for claimed, result, taken in zip(call, results, steps, strict=True)
        ]

    def _steps_of(self, claimed: ClaimedDelivery, action: Action) -> Steps:
        resumes = claimed.delivery.kind == "lookup" and not _is_repeated(claimed, action)
        return Steps(StoredSteps(self.database, claimed), resumes=resumes)

    def _run(
        self,
        account: Account,
        action: Action,
        call: Sequence[ClaimedDelivery],
        steps: Sequence[Steps],
        deadline: float,
        *,
        looks_up: bool,
    ) -> list[CallResult]:
        try:
            with attempt_deadline(deadline):
                if uptime() >= deadline:
                    return [NotStarted()] * len(call)
                return self._call(account, action, call, steps, looks_up=looks_up)
        except LookupInconclusive as error:
            return [error]
        except Exception as error:
            return [to_delivery_error(error, account.connector.classify)] * len(call)
        except BaseException as error:
            # A connector that exits or is cancelled must not end its thread.
            return [OutcomeUnknown(f"{type(error).__name__}: {error}", reason="internal_error")] * len(call)

    def _call(
        self,
        account: Account,
        action: Action,
        call: Sequence[ClaimedDelivery],
        steps: Sequence[Steps],
        *,
        looks_up: bool,
    ) -> list[CallResult]:
        prepared = [
            self._batch_item(action, claimed, taken) for claimed, taken in zip(call, steps, strict=True)
        ]
        items = [item for item in prepared if isinstance(item, BatchItem)]
        if not items:
            return [item if isinstance(item, Exception) else None for item in prepared]
        client = _open_client(account)
        if looks_up:
            return [run_lookup(action, client, items[0])]
        results = iter(run_action(account.connector, action, client, items))
        return [next(results) if isinstance(item, BatchItem) else item for item in prepared]

    def _batch_item(
        self, action: Action, claimed: ClaimedDelivery, steps: Steps
    ) -> BatchItem[Any] | UnsupportedByThisVersion:
        """Build the params and the context of one delivery."""
        delivery = claimed.delivery
        try:
            params = action.params.model_validate(json.loads(delivery.params))
        except ValidationError as error:
            invalid = ", ".join(
                ".".join(map(str, detail["loc"])) for detail in error.errors(include_input=False)
            )
            return UnsupportedByThisVersion(
                f"this version of {delivery.action} does not accept the stored params ({invalid}); "
                "left for a worker of a newer version"
            )
        channel, recipient = delivery.channel, delivery.recipient
        internal = delivery.options.internal
        link = self.unsubscribe_url(channel, recipient) if channel and recipient and not internal else None
        return BatchItem(
            params,
            Context(
                delivery=delivery.id,
                connection=delivery.connection,
                event=claimed.event,
                idempotency_key=delivery.idempotency_key,
                now=claimed.started_at,
                first_attempt_at=claimed.first_attempt_at,
                attempt=delivery.attempts + 1,
                expires_at=delivery.expires_at,
                quiet_hours_start=claimed.quiet_hours_start,
                existing_id=claimed.existing_id,
                contact_cache=StoredContactCache(self.database, delivery.connection),
                report_duplicate=partial(
                    save_possible_duplicate, self.database, delivery.connection, delivery.id
                ),
                public_url=self.public_url,
                unsubscribe_url=link,
                internal=internal,
                traceparent=traceparent_of(claimed),
                steps=steps,
                results=StoredResults(self.database, delivery),
                find_crm_record=lambda: self.links.crm_record(self.database, claimed.event.contact),
                ids_used_by_others=lambda ids: external_ids_in_use(
                    self.database, delivery.connection, delivery.id, ids
                ).union(delivery.options.undelivered_ids),
                last_inbound_at=lambda phone, to: last_inbound_at(
                    self.database, delivery.connection, channel or "", phone, to, claimed.started_at
                ),
            ),
        )


def _open_client(account: Account) -> Any:
    """Return the account's client. An error proves that nothing was sent: the client's libraries may not be loadable.

    Raise DeliveryError.
    """
    try:
        return account.client()
    except Exception as error:
        failure = to_delivery_error(error, account.connector.classify)
        if not isinstance(failure, OutcomeUnknown):
            raise failure from error
        detail = f"the client cannot be opened: {failure.detail}"
        raise TransientError(detail, reason=failure.reason, retry_after=failure.retry_after) from error


def _resumes(claimed: ClaimedDelivery, steps: Steps) -> bool:
    """Return True if a delivery with an unknown outcome has taken steps: its action runs again.

    Raise TransientError if the steps cannot be read.
    """
    return can_resume(claimed) and steps.is_used


def _is_repeated(claimed: ClaimedDelivery, action: Action) -> bool:
    """Return True if the action may simply run again: the provider remembers the token of the first attempt."""
    now = claimed.started_at
    return may_repeat(claimed, action, now) and not gives_up(claimed, claimed.delivery.attempts, now)


def _as_run(
    claimed: ClaimedDelivery, action: Action, result: CallResult, steps: Steps, *, repeats: bool
) -> CallResult:
    """Return the result with what it says about earlier attempts, and whether the action can run again."""
    if isinstance(result, NotStarted | UnsupportedByThisVersion | ActionRun):
        return result
    if isinstance(result, DeliveryError) and steps.was_used and steps.done:
        result.detail = f"{result.detail}; done before: {', '.join(steps.done)}"
    if repeats:
        return ActionRun(result, resolved=isinstance(result, PermanentError))
    if action.idempotent is True or not (steps.was_used and can_resume(claimed)):
        return result
    return ActionRun(result, steps.is_resolved, has_steps=True)


def run_lookup(action: Action, client: Any, item: BatchItem[Any]) -> CallResult:
    """Return what the action's lookup found. Exceptions of the connector propagate."""
    return _with_notes(_checked(_await(_lookup_of(action)(client, item.params, item.context))), item)


def run_action(
    connector: Connector, action: Action, client: Any, items: Sequence[BatchItem[Any]]
) -> list[CallResult]:
    """Return one result per item. Exceptions propagate, unless the action takes batches.

    If the provider rejects a batch, split it until the rejected items are alone.
    """
    if action.batch == 1:
        return [
            _with_notes(_checked(_await(action.run(client, item.params, item.context))), item)
            for item in items
        ]
    try:
        results = list(_await(action.run(client, items)))
        if len(results) != len(items):
            raise OutcomeUnknown(
                f"{len(results)} results for {len(items)} deliveries", reason="internal_error"
            )
        return [_with_notes(_checked(result), item) for result, item in zip(results, items, strict=True)]
    except LookupInconclusive as error:
        return [error] * len(items)
    except Exception as error:
        failure = to_delivery_error(error, connector.classify)
        if not isinstance(failure, PermanentError) or len(items) == 1:
            return [failure] * len(items)
    half = len(items) // 2
    return [
        result
        for part in (items[:half], items[half:])
        for result in run_action(connector, action, client, part)
    ]


def _lookup_of(action: Action) -> Callable[..., Any]:
    if action.run_lookup is None and isinstance(action.idempotent, timedelta):
        raise LookupInconclusive("the provider no longer knows the token of the earlier attempt")
    if action.run_lookup is None:
        raise OutcomeUnknown("this action no longer has a lookup", reason="internal_error")
    return action.run_lookup


def _checked(returned: object) -> CallResult:
    """Return the action's result, or an unknown outcome if it has the wrong type."""
    if returned is None or isinstance(returned, Success | DeliveryError | LookupInconclusive):
        return returned
    return OutcomeUnknown(
        f"the action returned {type(returned).__name__}, not Success", reason="internal_error"
    )


def _with_notes(result: CallResult, item: BatchItem[Any]) -> CallResult:
    """Say in a success which texts were cut (`param(..., truncate=N)`)."""
    notes = truncation_notes(item.params) if isinstance(result, Success) else []
    if not isinstance(result, Success) or not notes:
        return result
    return replace(result, detail="; ".join(filter(None, [result.detail, *notes])))


def _await(value: Any) -> Any:
    """Return the value; run a coroutine to completion in a new event loop."""
    return asyncio.run(value) if inspect.iscoroutine(value) else value
