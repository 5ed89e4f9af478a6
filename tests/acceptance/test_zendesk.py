"""Tickets from event to Zendesk: a real service, details from Heppu, an OAuth login, and a ticket that is solved."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bridge.samples import refresh_sample, sample
from bridge.sandbox import start_sandbox
from tests.acceptance.service_process import ServiceProcess, eventually, running_service

DOCS = Path(__file__).parents[2] / "docs" / "zendesk.md"
PHONE = "+12125550123"


def recipes() -> str:
    """Return the rules of docs/zendesk.md as one file, without their tests."""
    snippets = re.findall(r"```yaml\nversion: 1\nrules:\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    return "version: 1\nrules:\n" + "".join(snippet.partition("\ntests:")[0] + "\n" for snippet in snippets)


def post(service: ServiceProcess, event_type: str, conversation: str, **metadata: Any) -> None:
    body = refresh_sample(sample(event_type), datetime.now(UTC))
    body |= {"conversationId": conversation, "summary": "The bike rattles."}
    body["metadata"] = body["metadata"] | {"contactPhone": PHONE, "contactName": "Maya Lindqvist"} | metadata
    assert service.post(body).json() == {"received": True}


def test_failed_call_becomes_a_ticket_with_its_recording_and_a_resolved_chat_solves_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "rules.yaml").write_text(recipes(), "utf-8")
    with (
        start_sandbox() as sandbox,
        running_service(tmp_path, sandbox.environment, ZENDESK_PER_SECOND="100") as service,
    ):
        recording = "https://recordings.example.com/1.mp3"
        turns = [{"role": "assistant", "content": "Good morning."}]
        sandbox.heppu.add_call("conv_1", PHONE, transcript=turns, recordingUrl=recording)
        post(service, "call.failed", "conv_1")
        assert eventually(lambda: sandbox.zendesk.tickets and len(sandbox.zendesk.comments(1)) == 2), (
            service.log.read_text()[-2000:]
        )
        comment, voice = sandbox.zendesk.comments(1)
        assert "The bike rattles." in comment["body"]
        assert voice["data"]["transcription_text"] == "Agent: Good morning."
        assert sandbox.zendesk.tickets[1]["group_id"] == 301

        post(service, "chat.resolved", "chat_1", ticketId="1")
        assert eventually(lambda: sandbox.zendesk.tickets[1]["status"] == "solved"), service.log.read_text()[
            -2000:
        ]
        assert sandbox.zendesk.tickets[1]["tags"] == ["call_back", "heppu", "solved_by_chat"]
        assert eventually(
            lambda: all(item["state"] == "succeeded" for item in service.api_items("deliveries"))
        )
        [user] = sandbox.zendesk.records()["users"]
        assert user["phone"] == PHONE
