"""Opt-out reader: asks CRMs for the opt-out flags that messages wait for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bridge.connector.callbacks import OptOutFlag
from bridge.connector.deadline import attempt_deadline
from bridge.errors import OutcomeUnknown, PermanentError
from bridge.store.database import Database
from bridge.store.opt_out_queries import (
    ClaimedQuery,
    OptOutQuery,
    claim_query,
    record_answer,
    record_failure,
)
from bridge.telemetry import log, mask
from bridge.worker.account import Account, Accounts
from bridge.worker.provider_reader import ProviderReader, retry_in
from bridge.worker.result_policy import to_delivery_error


class OptOutReader(ProviderReader[OptOutQuery]):
    """Makes the queries of CRM connections."""

    what = "opt-out flags"
    max_running = 1
    """One query asks several times, and CRMs limit searches per second."""

    def __init__(self, database: Database, accounts: Accounts, crms: Callable[[], Mapping[str, str]]) -> None:
        """Read the connections of `messaging.crm_opt_outs` from `crms` whenever an account is polled."""
        super().__init__(database, accounts)
        self._crms = crms

    def asks(self, account: Account) -> bool:
        """Return whether messages wait for this CRM."""
        return account.name in self._crms() and account.connector.read_opt_out_flags is not None

    def claim(self, account: Account) -> ClaimedQuery:
        """Claim the query of a CRM that is due."""
        return claim_query(self._database, account.name, account.limits.per_second)

    def answer(self, account: Account, query: OptOutQuery, deadline: float) -> None:
        """Ask for the addresses of a query, and record the answer or the failure.

        If the CRM rejects the request, ask for each half, so that one address does not hold up the others.
        """
        try:
            flags = _read_flags(account, query, deadline)
        except Exception as error:
            failure = to_delivery_error(error, account.connector.classify)
            if isinstance(failure, PermanentError) and len(query.deliveries) > 1:
                for half in query.halves():
                    self.answer(account, half, deadline)
                return
            failure.detail = mask(failure.detail)[:400]
            log.warning("CRM did not return opt-out flags", connection=account.name, error=failure.detail)
            record_failure(self._database, query, failure, retry_in(failure), lambda _: account.fingerprint)
        else:
            record_answer(self._database, query, flags, lambda _: account.fingerprint)


def _read_flags(account: Account, query: OptOutQuery, deadline: float) -> Mapping[str, Sequence[OptOutFlag]]:
    read, emails, phones = account.connector.read_opt_out_flags, query.emails, query.phones
    if not emails and not phones:
        return {}  # answered in the meantime, for other messages
    with attempt_deadline(deadline):
        flags = read(account.client(), emails, phones) if read is not None else None
    if not isinstance(flags, Mapping):
        raise OutcomeUnknown("the connector did not return opt-out flags", reason="internal_error")
    return flags
