"""Running commands, beside a service and without one, and waiting for what they set off."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bridge.store.connections import all_connections
from bridge.store.database import Database
from bridge.store.queries import list_deliveries, list_events
from tests.acceptance.service_process import BRIDGE, Running, clean_environment, eventually

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
        with: {body: "Hi {{ contact.first_name }}"}
  - name: later
    when: call.no-answer
    do:
      - use: slack.post
        delay: 1h
        with: {text: later}
"""
"""Three rules over three accounts, without limits that tests would run into."""

NOTHING: Final = """
version: 1
rules:
  - {name: off, enabled: false, when: call.busy, do: [{use: slack.post, with: {text: hi}}]}
"""
"""Rules that need no account."""


def alone(folder: Path, *arguments: str, **own: str) -> subprocess.CompletedProcess[str]:
    """A command where no service runs."""
    return subprocess.run(
        [BRIDGE, *arguments],
        cwd=folder,
        env=clean_environment(**own),
        capture_output=True,
        text=True,
        timeout=60,
    )


def send(running: Running, name: str, *options: str) -> dict[str, Any]:
    """Send a sample by the command line; the stored event, once it is routed and what is due of it is done."""
    found = running.run("send", name, "--json", *options)
    assert found.returncode == 0, found.stderr
    conversation = json.loads(found.stdout)["conversation"]
    database = Database(f"sqlite:///{running.folder}/bridge.db", pool_size=1)

    def settled() -> Any:
        items = list_events(database, limit=100).items
        event = next((item for item in items if item["conversation"] == conversation), None)
        if event is None or event["routed_at"] is None:
            return None
        now = datetime.now(UTC)
        paused = {row["name"] for row in all_connections(database) if row["pause_cause"]}
        unfinished = [
            item
            for item in list_deliveries(database, event=event["id"]).items
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


def states(running: Running) -> list[str]:
    """The states of all deliveries, read beside the service, faster than by a command."""
    database = Database(f"sqlite:///{running.folder}/bridge.db", pool_size=1)
    try:
        return [item["state"] for item in list_deliveries(database, limit=500).items]
    finally:
        database.close()


def deliveries_of(running: Running, event: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["action"]: item for item in running.items("deliveries", "--event", event["id"])}
