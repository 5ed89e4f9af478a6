"""Texts, from event to receipt and reply: a real service, the real SDK, and Twilio's own signed callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.samples import sample, stamped
from bridge.sandbox import RunningSandbox, start_sandbox
from tests.acceptance.service_process import Running, eventually, free_port, serving

RULES = """
version: 1
messaging: {quiet_hours: none, caps: {sms: 100 per 24h}}
rules:
  - name: text
    when: call.busy
    do:
      - use: twilio.send_sms
        with: {body: "Hi, we tried to reach you."}
    on_failure:
      - use: slack.post
        with: {text: "{{ delivery.action }}: {{ delivery.reason }}"}
"""
PERSON, OTHER = "+12125550167", "+12125550168"


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    with start_sandbox() as running:
        yield running


@pytest.fixture
def service(tmp_path: Path, sandbox: RunningSandbox) -> Iterator[Running]:
    (tmp_path / "rules.yaml").write_text(RULES, "utf-8")
    port = free_port()
    own = {"BRIDGE_PORT": str(port), "BRIDGE_PUBLIC_URL": f"http://127.0.0.1:{port}"}
    with serving(tmp_path, sandbox.environment, **own) as running:
        yield running


def texts(service: Running) -> dict[str, dict[str, Any]]:
    """The deliveries of texts by their ids."""
    items = service.asked("deliveries?limit=200")
    return {item["id"]: item for item in items if item["action"] == "twilio.send_sms"}


def busy(service: Running, person: str = PERSON) -> dict[str, Any]:
    """A busy line; the delivery of its text, once it has ended."""
    body = stamped(sample("call.busy"), datetime.now(UTC))
    body["metadata"]["contactPhone"] = person
    before = texts(service).keys()
    assert service.post(body).json() == {"received": True}

    def ended() -> Any:
        own = [item for ident, item in texts(service).items() if ident not in before]
        return own[0] if own and own[0]["state"] not in ("pending", "running", "retrying") else None

    found = eventually(ended)
    assert found, service.log.read_text()[-2000:]
    return dict(found)


def receipt(service: Running, delivery: dict[str, Any]) -> str:
    return str(texts(service)[delivery["id"]]["message_status"])


def opted_out(service: Running) -> set[str]:
    return {item["address"] for item in service.items("opt-outs")}


def inbound(service: Running, sandbox: RunningSandbox, words: str, person: str = PERSON) -> None:
    answer = sandbox.twilio.receive(person, words, f"{service.url}/webhooks/twilio/inbound")
    assert answer["http"] == 200


def test_a_text_is_followed_until_it_is_delivered_in_whatever_order_twilio_tells(
    service: Running, sandbox: RunningSandbox
) -> None:
    sent = busy(service)
    assert (sent["state"], sent["message_status"]) == ("succeeded", "queued")
    [text] = sandbox.twilio.messages
    assert text.status_callback == f"{service.url}/webhooks/twilio/status?delivery={sent['id']}"

    told = sandbox.twilio.send_receipts(statuses=["sent", "delivered", "delivered", "sent"])
    assert {one["http"] for one in told} == {200}
    assert receipt(service, sent) == "delivered"


def test_a_text_that_is_not_delivered_says_why_and_is_followed_up(
    service: Running, sandbox: RunningSandbox
) -> None:
    sent = busy(service)
    sandbox.twilio.send_receipts(statuses=["undelivered"], error_code=30003)
    assert receipt(service, sent) == "undelivered"
    assert eventually(lambda: sandbox.slack.messages), service.log.read_text()[-2000:]
    assert "off or out of reach" in service.run("show", sent["id"]).stdout


def test_stop_ends_texts_and_start_lets_them_come_again(service: Running, sandbox: RunningSandbox) -> None:
    assert busy(service)["state"] == "succeeded"
    inbound(service, sandbox, "Stop")
    assert opted_out(service) == {PERSON}
    held = busy(service)
    assert (held["state"], held["reason"]) == ("suppressed", "opted_out")
    assert busy(service, OTHER)["state"] == "succeeded"

    inbound(service, sandbox, "START")
    assert opted_out(service) == set()
    assert busy(service)["state"] == "succeeded"
    assert [text.to for text in sandbox.twilio.messages] == [PERSON, OTHER, PERSON]


def test_yes_answers_a_question_and_takes_no_stop_back(service: Running, sandbox: RunningSandbox) -> None:
    """Twilio would text again; the bridge does when Twilio says that START was meant, or a person does."""
    inbound(service, sandbox, "STOP")
    inbound(service, sandbox, "Yes")
    assert PERSON not in sandbox.twilio.opted_out
    assert busy(service)["reason"] == "opted_out"
    assert service.run("opt-outs", "remove", PERSON).returncode == 0
    assert busy(service)["state"] == "succeeded"


def test_a_stop_that_only_twilio_knows_is_learned_from_its_refusal(
    service: Running, sandbox: RunningSandbox
) -> None:
    sandbox.twilio.opt_out(PERSON)
    refused = busy(service)
    assert (refused["state"], refused["reason"]) == ("failed", "rejected")
    assert opted_out(service) == {PERSON}
    asked = len(sandbox.requests_to("twilio"))
    assert busy(service)["reason"] == "opted_out"
    assert len(sandbox.requests_to("twilio")) == asked


def test_a_stranger_signs_nobody_off(service: Running) -> None:
    answer = httpx.post(
        f"{service.url}/webhooks/twilio/inbound",
        data={"From": PERSON, "Body": "STOP"},
        headers={"X-Twilio-Signature": "bm90IGEgc2lnbmF0dXJl"},
    )
    assert answer.status_code == 403
    assert opted_out(service) == set()


def test_twilio_may_not_keep_a_text_into_the_persons_night(tmp_path: Path, sandbox: RunningSandbox) -> None:
    now = datetime.now(UTC)
    night = f"{now + timedelta(minutes=20):%H:%M}-{now + timedelta(hours=10):%H:%M}"
    quiet = f'quiet_hours: "{night}", time_zone: Etc/UTC'
    (tmp_path / "rules.yaml").write_text(RULES.replace("quiet_hours: none", quiet), "utf-8")
    body = stamped(sample("call.busy"), now)
    body["metadata"] |= {"timezone": "Etc/UTC", "contactPhone": PERSON}
    with serving(tmp_path, sandbox.environment) as running:
        assert running.post(body).status_code == 200
        assert eventually(lambda: sandbox.twilio.messages), running.log.read_text()[-2000:]
    [text] = sandbox.twilio.messages
    assert 1000 < int(text.parameters["ValidityPeriod"]) <= 1200
