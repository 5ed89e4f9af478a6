"""HubSpot's daily limit: the connection waits until midnight in the account's time zone."""

from __future__ import annotations

import importlib
import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import QuotaExhausted
from bridge.sandbox import RunningSandbox
from bridge.sandbox.hubspot.settings_api import DAILY_LIMIT
from bridge.testing import event, load_connector
from tests.integration.crm import CrmConnection

load_connector("hubspot")
daily_limit = importlib.import_module("bridge_connectors.hubspot.daily_limit")
HEADERS = {"X-HubSpot-RateLimit-Daily": "100", "X-HubSpot-RateLimit-Daily-Remaining": "1"}


def test_connection_waits_until_midnight_of_the_account(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    sandbox.hubspot.requests_today = DAILY_LIMIT - 50
    hubspot.deliver("log_call")
    assert hubspot.requests().count("GET /account-info/v3/details") == 1
    hubspot.deliver("log_call", event("call.completed", {"conversationId": "conv_2"}))
    assert "GET /account-info/v3/details" not in hubspot.requests()
    sandbox.fault("hubspot", status=429, body={"policyName": "DAILY", "category": "RATE_LIMITS"}, times=None)
    with pytest.raises(QuotaExhausted) as caught:
        hubspot.deliver("log_call", event("call.completed", {"conversationId": "conv_3"}))
    until = caught.value.until
    assert until is not None
    local = until.astimezone(ZoneInfo("US/Eastern"))
    assert (local.hour, local.minute) == (0, 0)
    assert timedelta(0) < until - datetime.now(UTC) <= timedelta(hours=25)


def test_time_zone_is_not_read_while_requests_are_left(
    hubspot: CrmConnection, sandbox: RunningSandbox
) -> None:
    hubspot.deliver("log_call")
    assert "GET /account-info/v3/details" not in hubspot.requests()
    sandbox.fault("hubspot", status=429, body={"policyName": "DAILY", "category": "RATE_LIMITS"}, times=None)
    with pytest.raises(QuotaExhausted) as caught:
        hubspot.deliver("log_call")
    assert caught.value.until is None


@given(
    now=st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),  # noqa: DTZ001 - the zone is added below
    zone=st.sampled_from(["US/Eastern", "Asia/Kolkata", "Pacific/Auckland", "America/Santiago", "UTC"]),
)
def test_reset_is_the_next_midnight_in_every_zone(now: datetime, zone: str) -> None:
    limit = daily_limit.DailyLimit()
    limit.observe(HEADERS, lambda: json.dumps({"timeZone": zone}).encode())
    instant = now.replace(tzinfo=UTC)
    until = limit.exhausted(instant).until
    assert timedelta(0) < until - instant <= timedelta(hours=25)
    before, after = (moment.astimezone(ZoneInfo(zone)).date() for moment in (instant, until))
    assert after == before + timedelta(days=1)


@pytest.mark.parametrize(
    "account", [b"", b"[]", b'{"timeZone": "Mars/Olympus"}', b'{"timeZone": 5}', b"<html>"]
)
def test_unreadable_account_leaves_the_reset_unknown(account: bytes) -> None:
    limit = daily_limit.DailyLimit()
    limit.observe(HEADERS, lambda: account)
    assert limit.exhausted(datetime.now(UTC)).until is None
