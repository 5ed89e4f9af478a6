"""Opt-out reader: asks CRMs for the opt-out flags that messages wait for, in the threads of the CRM's account."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from bridge.clock import uptime
from bridge.connector.callbacks import OptOutFlag
from bridge.connector.deadline import attempt_deadline
from bridge.errors import (
    AccountError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
    StoreUnavailable,
)
from bridge.store.database import Database
from bridge.store.opt_out_queries import OptOutQuery, claim_query, record_answer, record_failure
from bridge.telemetry import log, mask
from bridge.worker.account import Account, Accounts
from bridge.worker.result_policy import to_delivery_error

RETRY_INTERVAL = timedelta(seconds=10)
"""How soon a CRM is asked again that did not answer."""
REJECTED_RETRY_INTERVAL = timedelta(minutes=5)
"""How soon a CRM is asked again that rejected the request."""


class OptOutReader:
    """Makes the queries of CRM connections. Its methods are thread-safe."""

    def __init__(self, database: Database, accounts: Accounts, crms: Callable[[], Mapping[str, str]]) -> None:
        """Read the connections of `messaging.crm_opt_outs` from `crms` whenever an account is polled."""
        self._database = database
        self._accounts = accounts
        self._crms = crms
        self._busy: set[str] = set()
        """The accounts with a running query: one query asks several times, and CRMs limit searches per second."""

    def poll(self, account: Account) -> None:
        """Start the query of an account that is due, unless another one of it is running."""
        is_crm = account.name in self._crms() and account.connector.read_opt_out_flags is not None
        if not is_crm or account.name in self._busy or not account.free_slots:
            return
        started_at = uptime()
        claimed = claim_query(self._database, account.name, account.connector.limits.per_second)
        if claimed.query is not None:
            self._submit(account, claimed.query, started_at)
        elif claimed.next_poll_in is not None:
            self._accounts.poll_at(account, started_at + claimed.next_poll_in.total_seconds())

    def _submit(self, account: Account, query: OptOutQuery, claimed_at: float) -> None:
        account.occupy(1)
        self._busy.add(account.name)
        try:
            account.submit(lambda: self._run(account, query, claimed_at))
        except RuntimeError as error:  # the machine cannot start another thread
            self._release(account, account.average_call_seconds)
            log.error("failed to start thread for opt-out flags", connection=account.name, error=str(error))

    def _release(self, account: Account, seconds: float) -> None:
        self._busy.discard(account.name)
        self._accounts.release(account, 1, seconds)
        self._accounts.poll_now([account.name])

    def _run(self, account: Account, query: OptOutQuery, claimed_at: float) -> None:
        started_at = uptime()
        try:
            self._ask(account, query, claimed_at + account.connector.limits.timeout)
        except StoreUnavailable:
            # The rows are claimed again once their lease is over.
            log.warning("failed to record opt-out flags", connection=account.name)
        except Exception as error:
            log.error("failed to read opt-out flags", connection=account.name, exc_info=error)
        finally:
            self._release(account, uptime() - started_at)

    def _ask(self, account: Account, query: OptOutQuery, deadline: float) -> None:
        """Ask for the addresses of a query, and record the answer or the failure.

        If the CRM rejects the request, ask for each half, so that one address does not hold up the others.
        """
        try:
            flags = _read_flags(account, query, deadline)
        except Exception as error:
            failure = to_delivery_error(error, account.connector.classify)
            if isinstance(failure, PermanentError) and len(query.deliveries) > 1:
                for half in query.halves():
                    self._ask(account, half, deadline)
                return
            failure.detail = mask(failure.detail)[:400]
            log.warning("CRM did not return opt-out flags", connection=account.name, error=failure.detail)
            record_failure(self._database, query, failure, _retry_in(failure), lambda _: account.fingerprint)
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


def _retry_in(failure: DeliveryError) -> timedelta:
    """Return when to ask again. A pause of the connection decides by itself."""
    if isinstance(failure, AccountError | RateLimited | QuotaExhausted):
        return timedelta(0)
    if isinstance(failure, PermanentError):
        return REJECTED_RETRY_INTERVAL
    return failure.retry_after or RETRY_INTERVAL
