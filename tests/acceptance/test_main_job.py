"""The main job, seen from outside: a real process, events signed by somebody else's HMAC, and what reached whom."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bridge.events import EVENT_NAMES
from bridge.samples import sample, stamped
from bridge.sandbox import RunningSandbox, start_sandbox
from tests.acceptance.service_process import BRIDGE, Running, clean_environment, eventually, serving

SHIPPED = Path(__file__).parents[2] / "rules.yaml"


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(SHIPPED.read_text("utf-8"), "utf-8")
    return tmp_path


def noon_zone(now: datetime) -> str:
    """A time zone in which it is about noon."""
    offset = (12 - now.hour + 12) % 24 - 12
    return f"Etc/GMT{'-' if offset >= 0 else '+'}{abs(offset)}" if offset else "Etc/GMT"


def events(now: datetime) -> list[dict[str, Any]]:
    """The seven documented events and an abandoned chat that has an e-mail; old enough that no delay is left."""
    made = []
    for name in (*EVENT_NAMES, "chat.abandoned"):
        body = stamped(sample(name), now - timedelta(minutes=45))
        body["metadata"]["timezone"] = noon_zone(now)
        made.append(body)
    made[-1]["metadata"] |= {"contactEmail": "lou.marsh@example.com", "contactName": "Lou Marsh"}
    return made


def final(running: Running) -> list[dict[str, Any]]:
    """All deliveries, once none of them is unfinished."""
    items = running.asked("deliveries?limit=200")
    unfinished = [item for item in items if item["state"] in ("pending", "running", "retrying")]
    unrouted = [item for item in running.asked("events?limit=200") if item["routed_at"] is None]
    return [] if unfinished or unrouted else items


def test_the_seven_events_reach_the_partners_once(folder: Path, sandbox: RunningSandbox) -> None:
    with serving(folder, sandbox.environment) as running:
        for body in events(datetime.now(UTC)):
            assert running.post(body).json() == {"received": True}
        deliveries = eventually(lambda: final(running), 40)
        assert {item["state"] for item in deliveries} == {"succeeded"}, deliveries
        assert running.stop() == 0
    assert sorted(text.to for text in sandbox.twilio.messages) == ["+12125550167", "+14155550188"]
    assert [mail.recipients for mail in sandbox.email.messages] == [("lou.marsh@example.com",)]
    assert len(sandbox.hubspot.calls) == 4
    assert len(sandbox.salesforce.tasks) == 6  # four calls, and the two chats that say who it was
    assert len(sandbox.slack.messages) == 1


def test_what_came_before_a_kill_is_done_after_it(folder: Path, sandbox: RunningSandbox) -> None:
    sandbox.fault("twilio", path="*Messages.json", method="POST", times=100, status=503)
    now = datetime.now(UTC)
    with serving(folder, sandbox.environment) as running:
        body = stamped(sample("call.busy"), now - timedelta(minutes=45))
        body["metadata"]["timezone"] = noon_zone(now)
        assert running.post(body).status_code == 200
        running.process.kill()
    sandbox.clear_faults()
    with serving(folder, sandbox.environment) as running:
        assert running.post(body).json() == {"received": True, "duplicate": True}
        deliveries = eventually(lambda: final(running), 60)
        assert {item["state"] for item in deliveries} == {"succeeded"}, deliveries
    assert [text.to for text in sandbox.twilio.messages] == ["+12125550167"]


def test_without_a_secret_it_refuses_to_start_and_says_what_to_do(folder: Path) -> None:
    found = subprocess.run(
        [BRIDGE, "serve"], cwd=folder, env=clean_environment(), capture_output=True, text=True, timeout=30
    )
    assert found.returncode == 1
    assert "HEPPU_WEBHOOK_SECRET is not set" in found.stderr
    assert "Traceback" not in found.stderr


def test_missing_settings_are_all_named(folder: Path) -> None:
    environ = clean_environment(HEPPU_WEBHOOK_SECRET="whsec_x")
    found = subprocess.run(
        [BRIDGE, "serve"], cwd=folder, env=environ, capture_output=True, text=True, timeout=30
    )
    assert found.returncode == 1
    for name in ("HUBSPOT_ACCESS_TOKEN", "TWILIO_ACCOUNT_SID", "EMAIL_SMTP_URL", "SLACK_WEBHOOK_URL"):
        assert name in found.stderr


def test_no_secret_and_no_whole_address_is_in_the_log(folder: Path, sandbox: RunningSandbox) -> None:
    with serving(folder, sandbox.environment, BRIDGE_LOG_FORMAT="json") as running:
        for body in events(datetime.now(UTC)):
            running.post(body)
        running.post(b"not an event")
        assert eventually(lambda: final(running), 40)
        assert running.stop() == 0
        log = running.log.read_text()
    for secret in ("whsec_acceptance", "acceptance-admin-token", sandbox.environment["TWILIO_AUTH_TOKEN"]):
        assert secret not in log
    for address in ("+12125550167", "lou.marsh@example.com", "maya.lindqvist@example.com", "+12125550123"):
        assert address not in log
