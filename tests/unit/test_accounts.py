"""Accounts: slots of calls and times of polls, shared by the dispatcher and the threads of the accounts."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from bridge.clock import uptime
from bridge.connector import Connector, ConnectorSettings, Limits
from bridge.connector.discovery import name_variables_of
from bridge.errors import AccountError
from bridge.store.database import ALL_TOPICS
from bridge.testing import load_connector
from bridge.worker.account import POLL_INTERVAL, Account, Accounts, DueAccounts

CALLS = 3000


@pytest.fixture
def account() -> Iterator[Account]:
    connector = Connector("desk", settings=ConnectorSettings, limits=Limits(concurrency=4))
    account = Account("desk", connector, ConnectorSettings())
    yield account
    account.close()


@pytest.fixture
def accounts(account: Account) -> Accounts:
    return Accounts({"desk": account})


def test_new_account_is_due_immediately_and_then_after_the_poll_interval(
    accounts: Accounts, account: Account
) -> None:
    assert accounts.wait_due().called == [account]
    accounts.poll_at(account, uptime() + 0.05)
    waited_since = uptime()
    assert accounts.wait_due().called == [account]
    assert 0.04 < uptime() - waited_since < POLL_INTERVAL


@pytest.mark.parametrize("topic", ["desk", ALL_TOPICS])
def test_notification_makes_account_due(accounts: Accounts, account: Account, topic: str) -> None:
    accounts.wait_due()
    threading.Timer(0.05, accounts.poll_now, [["events", topic]]).start()
    waited_since = uptime()
    assert accounts.wait_due().called == [account]
    assert uptime() - waited_since < POLL_INTERVAL - 1


def test_account_without_free_slots_is_not_due_until_calls_return(
    accounts: Accounts, account: Account
) -> None:
    account.occupy(account.free_slots)
    threading.Timer(0.05, accounts.release, [account, 4, 0.1]).start()
    assert accounts.wait_due().called == [account]
    assert account.free_slots


def test_stop_ends_the_wait(accounts: Accounts) -> None:
    accounts.wait_due()
    threading.Timer(0.05, accounts.stop).start()
    assert accounts.wait_due() == DueAccounts()
    assert accounts.wait_due() == DueAccounts()


def test_concurrent_calls_lose_neither_slots_nor_wake_ups(accounts: Accounts, account: Account) -> None:
    """The dispatcher would wait for a whole poll interval after a lost wake-up."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    made = threading.Semaphore(0)

    def make_call() -> None:
        accounts.release(account, 1, 0.001)
        made.release()

    try:
        remaining, started_at = CALLS, time.monotonic()
        while remaining:
            [due] = accounts.wait_due().called
            calls = min(remaining, due.free_slots)
            due.occupy(calls)
            remaining -= calls
            accounts.poll_at(due, 0.0)
            for _ in range(calls):
                due.submit(make_call)
        for _ in range(CALLS):
            assert made.acquire(timeout=30)
        assert time.monotonic() - started_at < 30
    finally:
        sys.setswitchinterval(interval)
    assert account.free_slots == account.capacity


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        ("twilio", "check TWILIO_FROM and TWILIO_REGION"),
        ("twilio_eu", "check TWILIO_EU_FROM and TWILIO_EU_REGION"),
        ("texts", "check TEXTS_FROM and TEXTS_REGION"),
    ],
)
def test_account_error_names_the_variables_of_its_connection(connection: str, expected: str) -> None:
    error = AccountError("TWILIO_FROM is wrong", fix="check TWILIO_FROM and TWILIO_REGION")
    for _ in range(2):  # the error of a batch is that of each of its deliveries
        name_variables_of(error, load_connector("twilio"), connection)
    assert error.fix == expected
    assert error.detail == f"{expected.split()[1]} is wrong"
