"""Helpers that run commands, with and without a service, and wait for their effects."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bridge.store.connection_status import connection_statuses
from bridge.store.database import Database
from bridge.store.delivery_list import DeliveryFilter, list_deliveries
from bridge.store.queries import list_events
from tests.acceptance.service_process import ServiceProcess, clean_environment, eventually, run_command

RULES: Final = """
version: 1
messaging: {quiet_hours: none, caps: {sms: 1000 per 24h, email: 1000 per 24h, call: 1000 per 24h}}
alerts:
  - use: slack.post
rules:
  - name: log
    when: call.*
    do:
      - use: hubspot.log_call
  - name: text
    when: [call.busy, call.no-answer]
    where: {event.direction: outbound}
    do:
      - use: twilio.send_sms
        with: {body: "Hi {{ contact.first_name | default('there') }}"}
  - name: later
    when: call.no-answer
    do:
      - use: slack.post
        delay: 1h
        with: {text: later}
"""
"""Three rules over three accounts, with limits that no test reaches."""

DISABLED_RULE: Final = """
version: 1
rules:
  - {name: off, enabled: false, when: call.busy, do: [{use: slack.post, with: {text: hi}}]}
"""
"""One disabled rule, which needs no account."""


def run_bridge(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command without a service."""
    return run_command(folder, clean_environment(**variables), *arguments)


def send_event(running: ServiceProcess, name: str, *options: str) -> dict[str, Any]:
    """Send a sample with `bridge send`, and return the stored event once its due deliveries are finished."""
    result = running.run("send", name, "--json", *options)
    assert result.returncode == 0, result.stderr
    conversation_id = json.loads(result.stdout)["conversation"]
    database = Database(f"sqlite:///{running.folder}/bridge.db", pool_size=1)

    def settled() -> Any:
        items = list_events(database, limit=100).items
        event = next((item for item in items if item["conversation_id"] == conversation_id), None)
        if event is None or event["routed_at"] is None:
            return None
        now = datetime.now(UTC)
        paused = {status.name for status in connection_statuses(database) if status.pause}
        unfinished = [
            item
            for item in list_deliveries(database, DeliveryFilter(event=event["id"])).items
            if item["state"] in ("pending", "running", "retrying")
            and item["run_at"] < now
            and item["connection"] not in paused
        ]
        return None if unfinished else event

    try:
        event = eventually(settled)
    finally:
        database.close()
    assert event, running.log.read_text()[-2000:]
    return dict(event)


def delivery_states(running: ServiceProcess) -> list[str]:
    """Return the states of all deliveries, newest first. Tests ask again and again, so it only reads the file."""
    with closing(sqlite3.connect(running.folder / "bridge.db")) as database:
        return [state for (state,) in database.execute("SELECT state FROM deliveries ORDER BY id DESC")]


def deliveries_by_action(running: ServiceProcess, event: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the deliveries of an event, by action."""
    return {item["action"]: item for item in running.items("deliveries", "--event", event["id"])}
