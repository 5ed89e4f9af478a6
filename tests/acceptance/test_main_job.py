"""End to end: a real process, independently signed events, and the data that the mock providers received."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bridge.events import HEPPU_EVENTS
from bridge.samples import refresh_sample, sample
from bridge.sandbox import RunningSandbox
from tests.acceptance.commands import run_bridge
from tests.acceptance.service_process import ServiceProcess, eventually, running_service

SHIPPED = Path(__file__).parents[2] / "rules.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(SHIPPED.read_text("utf-8"), "utf-8")
    return tmp_path


ZONES = (
    "Pacific/Honolulu", "America/Los_Angeles", "America/New_York", "Europe/London", "Europe/Istanbul",
    "Asia/Kolkata", "Asia/Tokyo", "Pacific/Auckland",
)  # fmt: skip


def noon_zone(now: datetime) -> str:
    """Return a place where it is about noon: `Etc/GMT+5` says where nobody lives."""
    return min(ZONES, key=lambda zone: abs(now.astimezone(ZoneInfo(zone)).hour - 12.5))


def events(now: datetime) -> list[dict[str, Any]]:
    """Return the seven documented events and an abandoned chat with an email address, older than every delay."""
    bodies = []
    for name in (*HEPPU_EVENTS, "chat.abandoned"):
        body = refresh_sample(sample(name), now - timedelta(minutes=45))
        body["metadata"]["timezone"] = noon_zone(now)
        bodies.append(body)
    bodies[-1]["metadata"] |= {"contactEmail": "lou.marsh@example.com", "contactName": "Lou Marsh"}
    return bodies


def finished_deliveries(running: ServiceProcess) -> list[dict[str, Any]]:
    """Return all deliveries if every one is finished, otherwise none."""
    items = running.api_items("deliveries?limit=200")
    unfinished = [item for item in items if item["state"] in ("pending", "running", "retrying")]
    unrouted = [item for item in running.api_items("events?limit=200") if item["routed_at"] is None]
    return [] if unfinished or unrouted else items


def test_seven_events_reach_the_providers_exactly_once(folder: Path, sandbox: RunningSandbox) -> None:
    with running_service(folder, sandbox.environment) as running:
        for body in events(datetime.now(UTC)):
            assert running.post(body).json() == {"received": True}
        deliveries = eventually(lambda: finished_deliveries(running))
        assert {item["state"] for item in deliveries} == {"succeeded"}, deliveries
        assert running.stop() == 0
    assert sorted(sms.to for sms in sandbox.twilio.messages) == ["+12125550167", "+14155550188"]
    assert [email.recipients for email in sandbox.email.messages] == [("lou.marsh@example.com",)]
    assert len(sandbox.hubspot.calls) == 4
    assert len(sandbox.salesforce.tasks) == 6  # four calls, and two chats with a contact
    assert len(sandbox.slack.messages) == 1


def test_deliveries_resume_after_kill(folder: Path, sandbox: RunningSandbox) -> None:
    sandbox.fault("twilio", path="*Messages.json", method="POST", times=100, status=503)
    now = datetime.now(UTC)
    with running_service(folder, sandbox.environment) as running:
        body = refresh_sample(sample("call.busy"), now - timedelta(minutes=45))
        body["metadata"]["timezone"] = noon_zone(now)
        assert running.post(body).status_code == 200
        running.kill()
    sandbox.clear_faults()
    with running_service(folder, sandbox.environment) as running:
        assert running.post(body).json() == {"received": True, "duplicate": True}
        deliveries = eventually(lambda: finished_deliveries(running))
        assert {item["state"] for item in deliveries} == {"succeeded"}, deliveries
    assert [sms.to for sms in sandbox.twilio.messages] == ["+12125550167"]


def test_serve_without_webhook_secret_exits_with_advice(folder: Path) -> None:
    result = run_bridge(folder, "serve")
    assert result.returncode == 1
    assert "HEPPU_WEBHOOK_SECRET is not set" in result.stderr
    assert "Traceback" not in result.stderr


def test_serve_names_all_missing_settings(folder: Path) -> None:
    result = run_bridge(folder, "serve", HEPPU_WEBHOOK_SECRET="whsec_of_at_least_16")
    assert result.returncode == 1
    for name in ("HUBSPOT_ACCESS_TOKEN", "TWILIO_ACCOUNT_SID", "EMAIL_SMTP_URL", "SLACK_WEBHOOK_URL"):
        assert name in result.stderr


def test_log_and_database_contain_no_secrets_and_the_log_no_full_addresses(
    folder: Path, sandbox: RunningSandbox
) -> None:
    with running_service(folder, sandbox.environment, BRIDGE_LOG_FORMAT="json") as running:
        for body in events(datetime.now(UTC)):
            running.post(body)
        running.post(b"not an event")
        assert eventually(lambda: finished_deliveries(running))
        assert running.stop() == 0
        log = running.log.read_text()
    database = b"".join(path.read_bytes() for path in folder.glob("bridge.db*")).decode("latin-1")
    secrets = [
        value
        for name, value in sandbox.environment.items()
        if re.search("TOKEN|SECRET|_KEY$|_WEBHOOK_URL", name)
    ]
    assert len(secrets) >= 6
    for secret in ("whsec_acceptance", "acceptance-admin-token", *secrets):
        assert secret not in log
        assert secret not in database
    for address in ("+12125550167", "lou.marsh@example.com", "maya.lindqvist@example.com", "+12125550123"):
        assert address not in log
