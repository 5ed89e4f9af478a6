"""Details reader: fetches the details of conversations that deliveries wait for."""

from __future__ import annotations

import json
from collections.abc import Callable

from bridge.connector.deadline import attempt_deadline
from bridge.errors import PermanentError
from bridge.events import Event
from bridge.rules.counting import History
from bridge.rules.late import DETAILS_CONNECTION, Details, has_params, render_late
from bridge.rules.model import Rules
from bridge.rules.render import RenderedParams
from bridge.store.database import Database
from bridge.store.deliveries import Delivery
from bridge.store.details import (
    MAX_SIZE,
    ClaimedDetails,
    DetailsQuery,
    claim_details,
    record_details,
    record_failure,
)
from bridge.telemetry import log, mask
from bridge.worker.account import Account, Accounts
from bridge.worker.provider_reader import ProviderReader, retry_in
from bridge.worker.result_policy import to_delivery_error


class DetailsReader(ProviderReader[DetailsQuery]):
    """Reads the details of conversations over the connection of Heppu's API."""

    what = "details of a conversation"
    max_running = 4

    def __init__(self, database: Database, accounts: Accounts, rules: Callable[[], Rules]) -> None:
        super().__init__(database, accounts)
        self._rules = rules

    def asks(self, account: Account) -> bool:
        """Return whether this is the connection of Heppu's API."""
        return account.name == DETAILS_CONNECTION and account.connector.read_details is not None

    def claim(self, account: Account) -> ClaimedDetails:
        """Claim the conversation that is due."""
        return claim_details(self._database, account.name, account.limits.per_second)

    def answer(self, account: Account, query: DetailsQuery, deadline: float) -> None:
        """Read the details of a conversation, and record them or the failure.

        A request that Heppu keeps rejecting must not hold up a delivery forever, so it goes without details.
        """
        details, problem = query.kept, ""
        if details is None:
            try:
                details = _read(account, query.event, deadline)
            except Exception as error:
                failure = to_delivery_error(error, account.connector.classify)
                failure.detail = mask(failure.detail)[:400]
                log.warning("Heppu did not return details", connection=account.name, error=failure.detail)
                if not isinstance(failure, PermanentError):
                    record_failure(
                        self._database, query, failure, retry_in(failure), lambda _: account.fingerprint
                    )
                    return
                problem = failure.detail
        record_details(self._database, query, details, self._render, lambda _: account.fingerprint, problem)

    def _render(
        self, delivery: Delivery, event: Event, details: Details, history: History
    ) -> RenderedParams | None:
        action = self._accounts.action_of(delivery)
        if action is None or not has_params(action, delivery.options.late):
            return None
        return render_late(
            action,
            json.loads(delivery.params),
            delivery.options.late,
            event,
            details,
            self._rules(),
            self._database.clock.now(),
            internal=delivery.options.internal,
            history=history,
            results=delivery.options.results,
        )


def _read(account: Account, event: Event, deadline: float) -> Details | None:
    read = account.connector.read_details
    with attempt_deadline(deadline):
        details: Details | None = read(account.client(), event) if read is not None else None
    if details is not None and len(json.dumps(dict(details))) > MAX_SIZE:
        raise PermanentError(f"the details are larger than {MAX_SIZE // 1024} KiB", code="size")
    return details
