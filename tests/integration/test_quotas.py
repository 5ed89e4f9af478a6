"""Quotas: what providers say about the requests that are left is recorded and shown."""

from __future__ import annotations

import pytest

from bridge.clock import Clock
from bridge.connector import report_quota
from bridge.connector.deadline import Quota, count_requests
from bridge.store.connection_history import read_connections
from bridge.store.hourly_counts import HOUR
from bridge.store.results import record_results
from bridge.worker import account as account_module
from connectors.hubspot.daily_limit import DailyLimit
from tests.integration.engine import Engine


def test_quota_is_recorded_with_the_result(engine: Engine, clock: Clock) -> None:
    engine.deliver("post")
    [call] = engine.claim()
    results = engine.attempt(call)
    results[0].quota = Quota(410, 1000)
    record_results(engine.database, results)
    [found] = read_connections(engine.database, [clock.now() - HOUR], HOUR, [])
    assert found.quota is not None
    assert (found.quota.used, found.quota.limit, found.quota.share) == (410, 1000, 0.41)


def test_quota_of_a_response_is_recorded_once_a_minute(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(account_module, "uptime", lambda: now)
    quota = Quota(1, 2)
    assert engine.connection.quota_to_record(None) is None
    assert engine.connection.quota_to_record(quota) == quota
    assert engine.connection.quota_to_record(quota) is None
    now += 61
    assert engine.connection.quota_to_record(quota) == quota


def test_hubspot_reports_its_daily_limit() -> None:
    headers = {"X-HubSpot-RateLimit-Daily": "250000", "X-HubSpot-RateLimit-Daily-Remaining": "249000"}
    with count_requests() as count:
        DailyLimit().observe(headers, lambda: b"{}")
        assert count.quota == Quota(1000, 250000)
        report_quota(1, 0)
        assert count.quota == Quota(1000, 250000), "a limit of 0 says nothing"
