"""A rule that texts everybody, against a real service: it stops at `messaging.caps.total`, and the team hears of it."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from bridge.samples import refresh_sample, sample
from bridge.sandbox import start_sandbox
from tests.acceptance.service_process import ServiceProcess, eventually, running_service

RULES = """
version: 1
messaging:
  quiet_hours: none
  caps: {total: {sms: 3 per 1h}}
  countries: [US]
alerts:
  - use: slack.post
    with: {text: "{{ delivery.message }}"}
  - use: twilio.send_sms
    with: {to: "+12125550199", body: "{{ delivery.message | truncate(100) }}"}
rules:
  - name: text
    when: call.busy
    do:
      - use: twilio.send_sms
        with: {body: "Hi, we tried to reach you."}
"""


def call(service: ServiceProcess, phone: str) -> None:
    body = refresh_sample(sample("call.busy"), datetime.now(UTC))
    body["metadata"]["contactPhone"] = phone
    assert service.post(body).status_code == 200


def states(service: ServiceProcess) -> Counter[str]:
    """Count the texts to customers by state. Sent ones are recorded a moment after the provider has them."""
    with closing(sqlite3.connect(service.folder / "bridge.db")) as database:
        rows = database.execute("SELECT reason, state FROM deliveries WHERE rule = 'text'")
        return Counter(reason or state for reason, state in rows)


def test_connection_stops_at_the_total_cap_until_it_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES, "utf-8")
    with start_sandbox() as sandbox, running_service(tmp_path, sandbox.environment) as service:
        call(service, "+18765550123")
        for number in range(5):
            call(service, f"+1212555017{number}")
        assert eventually(lambda: len(sandbox.slack.messages) == 1 and len(sandbox.twilio.messages) == 4)
        at_the_cap = {"country_not_allowed": 1, "pending": 2, "succeeded": 3}
        assert eventually(lambda: states(service) == at_the_cap), states(service)

        [alert] = sandbox.slack.messages
        assert "connection twilio is paused (total_cap): messaging.caps.total.sms" in alert.text
        assert "`bridge resume twilio`" in alert.text
        assert [message.to for message in sandbox.twilio.messages].count("+12125550199") == 1
        assert "messaging.caps.total" in service.run("connections").stdout

        assert service.run("resume", "twilio", "--yes").returncode == 0
        assert eventually(lambda: len(sandbox.twilio.messages) == 6)
        resumed = {"country_not_allowed": 1, "succeeded": 5}
        assert eventually(lambda: states(service) == resumed), states(service)
        assert len(sandbox.slack.messages) == 1
