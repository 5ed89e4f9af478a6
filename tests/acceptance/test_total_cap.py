"""A rule that texts everybody, against a real service: it stops at `messaging.caps.total`, and the team hears of it."""

from __future__ import annotations

import json
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


def states(service: ServiceProcess) -> list[str]:
    """Return the states of the texts to customers, oldest first."""
    listed = json.loads(service.run("deliveries", "--rule", "text", "--json").stdout)["items"]
    return [item["reason"] or item["state"] for item in reversed(listed)]


def test_connection_stops_at_the_total_cap_until_it_is_resumed(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(RULES, "utf-8")
    with start_sandbox() as sandbox, running_service(tmp_path, sandbox.environment) as service:
        call(service, "+18765550123")
        for number in range(5):
            call(service, f"+1212555017{number}")
        assert eventually(lambda: len(sandbox.slack.messages) == 1 and len(sandbox.twilio.messages) == 4)
        assert sorted(states(service)) == ["country_not_allowed", "pending", "pending"] + ["succeeded"] * 3

        [alert] = sandbox.slack.messages
        assert "connection twilio is paused (total_cap): messaging.caps.total.sms" in alert.text
        assert "`bridge resume twilio`" in alert.text
        assert [message.to for message in sandbox.twilio.messages].count("+12125550199") == 1
        assert "messaging.caps.total" in service.run("connections").stdout

        assert service.run("resume", "twilio", "--yes").returncode == 0
        assert eventually(lambda: len(sandbox.twilio.messages) == 6)
        assert "pending" not in states(service)
        assert len(sandbox.slack.messages) == 1
