"""The sandbox's hostile responses, and what the shipped connectors make of them: an outcome that a lookup finds out."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from bridge.connector import Success
from bridge.errors import DeliveryError, OutcomeUnknown, TransientError
from bridge.sandbox import RunningSandbox
from bridge.sandbox.faults import Fault, HostileResponse
from bridge.testing import Connected, connect, event, load_connector

RESPONSES = get_args(HostileResponse)
CONTACT = {
    "metadata.contactPhone": "+12125550193",
    "metadata.contactEmail": "wilhelmina.q@quistgaard.example",
}
OVERDUE = "no complete response within 1 s"
"""The reason if a response drips. It would drip without end, so an attempt that ends proves its limit."""
TOO_LONG = "the response exceeds 64 KiB"
SECONDS = {"drips": 1.0, "drips_headers": 1.0}
"""Seconds that an attempt may take, by response. The others reach the size limit."""
PLENTY = 60.0


def connected(sandbox: RunningSandbox, name: str) -> Connected:
    return connect(load_connector(name), sandbox.environment)


def send_email(sandbox: RunningSandbox, response: HostileResponse) -> Success | DeliveryError:
    """Return the result of an attempt to send an email to a server with this response."""
    params = {"to": "maya@example.com", "subject": "Hello", "text": "Hello"}
    with connected(sandbox, "email") as connection:
        try:
            seconds = SECONDS.get(response, PLENTY)
            return connection.run("send", params, event=event("call.completed", CONTACT), seconds=seconds)
        except DeliveryError as failure:
            return failure


@pytest.mark.parametrize("response", RESPONSES)
def test_message_was_posted_but_its_outcome_is_unknown(
    sandbox: RunningSandbox, response: HostileResponse
) -> None:
    with connected(sandbox, "slack") as slack:
        sandbox.fault("slack", response=response)
        with pytest.raises(OutcomeUnknown) as raised:
            slack.run("post", {"text": "Hello"}, seconds=SECONDS.get(response, PLENTY))
        slack.run("post", {"text": "Hello again"})
    assert len(sandbox.slack.messages) == 2
    if response.startswith("drips"):
        assert (raised.value.reason, raised.value.detail) == ("timeout", OVERDUE)


def test_status_of_a_hostile_response_means_that_the_request_had_no_effect(sandbox: RunningSandbox) -> None:
    sandbox.fault("slack", response="drips", status=500)
    with connected(sandbox, "slack") as slack, pytest.raises(OutcomeUnknown):
        slack.run("post", {"text": "Hello"}, seconds=0.3)
    assert sandbox.slack.messages == []


@pytest.mark.parametrize("response", ["drips", "endless"])
@pytest.mark.parametrize("verb", ["CONNECT", "MAIL", "RCPT"])
def test_smtp_reply_without_end_before_the_message_proves_that_nothing_was_sent(
    sandbox: RunningSandbox, verb: str, response: HostileResponse
) -> None:
    sandbox.fault("email", method=verb, response=response)
    failure = send_email(sandbox, response)
    assert isinstance(failure, TransientError)
    assert (OVERDUE if response == "drips" else TOO_LONG) in failure.detail
    assert sandbox.email.messages == []


@pytest.mark.parametrize("response", ["drips", "endless"])
def test_smtp_reply_without_end_after_the_message_leaves_the_outcome_unknown(
    sandbox: RunningSandbox, response: HostileResponse
) -> None:
    sandbox.fault("email", method="DATA", response=response)
    failure = send_email(sandbox, response)
    assert isinstance(failure, OutcomeUnknown)
    expected = OVERDUE if response == "drips" else TOO_LONG
    assert failure.detail.endswith(f"did not confirm it: {expected}")
    assert len(sandbox.email.messages) == 1


def test_reused_smtp_connection_has_new_limits_for_every_reply(sandbox: RunningSandbox) -> None:
    params = {"to": "maya@example.com", "subject": "Hello", "text": "Hello"}
    with connected(sandbox, "email") as connection:
        connection.run("send", params, event=event("call.completed", CONTACT))
        [(smtp, _)] = connection.client._idle
        smtp.file.raw.limits._until = 0.0  # as if the attempt were long over
        connection.run("send", params, event=event("call.completed", CONTACT))
        assert connection.client._idle[0][0] is smtp
    assert len(sandbox.email.messages) == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"provider": "email", "response": "huge"},
        {"provider": "slack", "response": "drips", "hang": True},
        {"provider": "slack", "response": "drips", "drop": "after"},
    ],
)
def test_fault_that_cannot_be_is_rejected(fault: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="response"):
        Fault(**fault)
