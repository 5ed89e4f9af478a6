"""Heppu connector: schedules another call from the voice agent to a contact."""

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

METADATA_KEY = "bridgeIdempotencyToken"
"""Key in a call's `metadata` that holds the idempotency token, by which the lookup recognizes the call."""
LEAD_TIME = timedelta(seconds=30)
"""How far ahead a call is scheduled. Heppu does not document how it treats a time in the past."""
CLOCK_SKEW = timedelta(minutes=2)
"""Assumed maximum difference between Heppu's clock and the bridge's, for lookups by start date."""


class Settings(ConnectorSettings):
    """Settings: `HEPPU_API_KEY`."""

    api_key: SecretStr
    """API key of your Heppu organization."""
    api_url: ProviderUrl = URL
    """Base URL of Heppu's API."""


connector = Connector(
    "heppu",
    settings=Settings,
    limits=Limits(per_second=5, concurrency=4),
    description="Schedules calls from Heppu's voice agents to contacts.",
)


@connector.client
def client(settings: Settings) -> HeppuApi:
    """Return a client of Heppu's API whose requests end within the attempt's deadline."""
    return HeppuApi(settings.api_key.get_secret_value(), settings.api_url, http_client())


@connector.check
def check(api: HeppuApi) -> str:
    """Authenticate by reading the newest call. Changes nothing."""
    next(api.list_calls(), None)
    return "authenticated"


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Map the HTTP status. Heppu documents no finer error codes."""
    if isinstance(error, HeppuError):
        return failure_from_status(error.status, str(error), parse_retry_after(error.retry_after))
    return failure_from_exception(error)


class ScheduleCallParams(Params):
    """One call to one recipient."""

    to: PhoneNumber = param("{{ contact.phone }}", "Recipient, in E.164 format.", example="+14155550123")
    agent: str = param(
        "{{ event.agentId }}",
        "ID of the voice agent that makes the call.",
        example="3f0c6f0e-8a57-4a53-9c7e-5b2b7c1f6a10",
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        must_be="an agent's ID",
    )
    name: str | None = param(
        "{{ contact.name }}", "The recipient's name, given to the agent.", example="Ines Okafor"
    )
    email: Email | None = param(
        "{{ contact.email }}",
        "The recipient's email address, given to the agent.",
        example="ines@okafor.example",
    )
    caller_id: PhoneNumber | None = param(
        None,
        "Number to call from, in E.164 format. Default: the agent's first number.",
        example="+12125550100",
    )
    previous_attempts: int = param(
        "{{ event.callMetadata.context.previousAttempts | default(0) }}",
        "Number of calls made before the call that this event is about.",
        example=1,
        ge=0,
    )
    max_attempts: int = param(
        "{{ event.callMetadata.context.maxAttempts | default(3) }}",
        "Maximum number of calls in total. No further call is scheduled after the last one.",
        example=3,
        ge=1,
    )
    priority: int = param(
        5, "Priority from 0 (most urgent) to 10. Heppu's own default is 0.", example=5, ge=0, le=10
    )


@connector.action(channel="call", idempotency=per_message)
def schedule_call(api: HeppuApi, params: ScheduleCallParams, context: Context) -> Success:
    """Schedule another call to the contact as soon as quiet hours allow, unless the last attempt was made."""
    attempts = params.previous_attempts + 1
    if attempts >= params.max_attempts:
        return Success(detail=f"not scheduled: attempt {attempts} of {params.max_attempts} was the last")
    request: dict[str, Any] = {
        "agentId": params.agent,
        "contactPhone": params.to,
        "contactName": params.name,
        "contactEmail": params.email,
        "callerId": params.caller_id,
        "scheduledAt": (context.now + LEAD_TIME).isoformat(timespec="seconds"),
        "priority": params.priority,
        "maxRetries": 0,  # the bridge repeats calls; if Heppu did too, the recipient would be called twice
        "callMetadata": _call_metadata(params, context, attempts),
        "metadata": {
            METADATA_KEY: context.idempotency_token,
            "bridgeConversation": context.event.conversation.id,
            "contactName": params.name,
            "contactPhone": params.to,
            "contactEmail": params.email,
        },
    }
    response = api.schedule_call(_without_none(request))
    call_id = _call_id(response)
    if call_id is None:
        raise OutcomeUnknown("Heppu's response has no call ID", reason="server_error")
    return Success(id=call_id, detail=f"attempt {attempts + 1} of {params.max_attempts} scheduled")


@schedule_call.lookup
def find_call(api: HeppuApi, params: ScheduleCallParams, context: Context) -> Success | None:
    """Return the call to this recipient since the first attempt whose metadata holds the idempotency token."""
    without_token = 0
    since = (context.first_attempt_at - CLOCK_SKEW).isoformat(timespec="seconds")
    for call in api.list_calls(phoneNumber=params.to, agentId=params.agent, startDate=since):
        if call.get("direction") == "inbound":
            continue
        call_id = _call_id(call)
        # The list does not include metadata.
        metadata = api.get_call(call_id).get("metadata") if call_id else None
        token = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
        if call_id and token == context.idempotency_token:
            return Success(id=call_id, detail="found at Heppu")
        without_token += token is None
    if without_token:
        raise LookupInconclusive(
            "a call to this number exists, but Heppu does not show whether the bridge scheduled it"
        )
    return None


def _call_id(call: Mapping[str, Any]) -> str | None:
    """Return the ID of a call, also if it is a number."""
    call_id = call.get("id")
    return str(call_id) if isinstance(call_id, str | int) and not isinstance(call_id, bool) else None


def _call_metadata(params: ScheduleCallParams, context: Context, attempts: int) -> dict[str, Any]:
    """Return the event's call metadata with the new attempt count, which the next event repeats."""
    metadata = context.event.fields.get("callMetadata")
    metadata = dict(metadata) if isinstance(metadata, Mapping) else {}
    call_context = metadata.get("context")
    contact = context.contact
    return (
        metadata
        | _without_none(
            {
                "firstName": contact.first_name,
                "lastName": contact.last_name,
                "company": contact.company,
                "timezone": contact.time_zone,
            }
        )
        | {
            "context": (dict(call_context) if isinstance(call_context, Mapping) else {})
            | {"previousAttempts": attempts, "maxAttempts": params.max_attempts}
        }
    )


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
