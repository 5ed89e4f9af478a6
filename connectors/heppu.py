"""Heppu: have the agent call a person again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import SecretStr

from bridge.connector import (
    Connector,
    ConnectorSettings,
    Context,
    Email,
    Limits,
    Params,
    PhoneNumber,
    ProviderUrl,
    Success,
    failure_from_exception,
    failure_from_status,
    http_client,
    param,
    parse_retry_after,
    per_message,
)
from bridge.errors import DeliveryError, LookupInconclusive, OutcomeUnknown
from bridge.heppu_api import URL, HeppuApi, HeppuError

MARK = "bridgeEffect"
"""The key of a call's `metadata` by which a call of ours is known again."""
LEAD = timedelta(seconds=30)
"""How far ahead a call is scheduled: what Heppu does with an instant that has passed is not documented."""
CLOCK_SKEW = timedelta(minutes=2)


class Settings(ConnectorSettings):
    """`HEPPU_API_KEY`."""

    api_key: SecretStr
    api_url: ProviderUrl = URL


connector = Connector(
    "heppu",
    settings=Settings,
    limits=Limits(per_second=5, concurrency=4),
    description="Has Heppu's agent call a person again.",
)


@connector.client
def client(settings: Settings) -> HeppuApi:
    """Heppu's API; every request ends within the attempt's deadline."""
    return HeppuApi(settings.api_key.get_secret_value(), settings.api_url, http_client())


@connector.check
def check(api: HeppuApi) -> str:
    """Log in by reading the newest call; changes nothing."""
    next(api.list_calls(), None)
    return "logged in"


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Heppu's documentation defines no finer words than the HTTP status."""
    if isinstance(error, HeppuError):
        return failure_from_status(error.status, str(error), parse_retry_after(error.retry_after))
    return failure_from_exception(error)


class Call(Params):
    """One call to one person."""

    to: PhoneNumber = param("{{ contact.phone }}", "Who is called, E.164.", example="+14155550123")
    agent: str = param(
        "{{ event.agentId }}",
        "The voice agent that calls, by its id.",
        example="3f0c6f0e-8a57-4a53-9c7e-5b2b7c1f6a10",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
    )
    name: str | None = param("{{ contact.name }}", "The person's name, for the agent.", example="Ines Okafor")
    email: Email | None = param(
        "{{ contact.email }}", "The person's e-mail, for the agent.", example="ines@okafor.example"
    )
    caller_id: PhoneNumber | None = param(
        None, "The number to call from instead of the agent's first one.", example="+12125550100"
    )
    previous_attempts: int = param(
        "{{ event.callMetadata.context.previousAttempts | default(0) }}",
        "How many calls went before the one that this event is about.",
        example=1,
        ge=0,
    )
    max_attempts: int = param(
        "{{ event.callMetadata.context.maxAttempts | default(3) }}",
        "How many calls there may be in all; after the last one no other is scheduled.",
        example=3,
        ge=1,
    )
    priority: int = param(
        5, "From 0, the most urgent, to 10. Heppu's own default would be 0.", example=5, ge=0, le=10
    )


@connector.action(channel="call", idempotency=per_message)
def schedule_call(api: HeppuApi, call: Call, context: Context) -> Success:
    """Call a person again, as soon as the hours allow, unless this was the last attempt."""
    made = call.previous_attempts + 1
    if made >= call.max_attempts:
        return Success(detail=f"not scheduled: attempt {made} of {call.max_attempts} was the last")
    wanted: dict[str, Any] = {
        "agentId": call.agent,
        "contactPhone": call.to,
        "contactName": call.name,
        "contactEmail": call.email,
        "callerId": call.caller_id,
        "scheduledAt": (context.now + LEAD).isoformat(timespec="seconds"),
        "priority": call.priority,
        "maxRetries": 0,  # the bridge calls again; if Heppu did too, the person would be called twice
        "callMetadata": _call_metadata(call, context, made),
        "metadata": {
            MARK: context.idempotency_token,
            "bridgeConversation": context.event.conversation.id,
            "contactName": call.name,
            "contactPhone": call.to,
            "contactEmail": call.email,
        },
    }
    answer = api.schedule_call(_present(wanted))
    if not isinstance(answer.get("id"), str):
        raise OutcomeUnknown("Heppu's answer names no call", reason="server_error")
    return Success(id=answer["id"], detail=f"attempt {made + 1} of {call.max_attempts}")


@schedule_call.lookup
def find_call(api: HeppuApi, call: Call, context: Context) -> Success | None:
    """The call among those to this person since the first attempt, known by the mark in its metadata."""
    unmarked = 0
    since = (context.first_attempt_at - CLOCK_SKEW).isoformat(timespec="seconds")
    for listed in api.list_calls(phoneNumber=call.to, agentId=call.agent, startDate=since):
        if listed.get("direction") == "inbound" or not isinstance(listed.get("id"), str):
            continue
        # The list leaves the metadata out.
        metadata = api.get_call(listed["id"]).get("metadata")
        found = metadata.get(MARK) if isinstance(metadata, dict) else None
        if found == context.idempotency_token:
            return Success(id=listed["id"], detail="found at Heppu")
        unmarked += found is None
    if unmarked:
        raise LookupInconclusive("the person was called, and Heppu does not show whether on our behalf")
    return None


def _call_metadata(call: Call, context: Context, made: int) -> dict[str, Any]:
    """What the event said about its call, with the attempt counted, so that the next event tells where we are."""
    before = context.event.body.get("callMetadata")
    before = dict(before) if isinstance(before, Mapping) else {}
    known = before.get("context")
    contact = context.contact
    return (
        before
        | _present(
            {
                "firstName": contact.first_name,
                "lastName": contact.last_name,
                "company": contact.company,
                "timezone": contact.time_zone,
            }
        )
        | {
            "context": (dict(known) if isinstance(known, Mapping) else {})
            | {"previousAttempts": made, "maxAttempts": call.max_attempts}
        }
    )


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
