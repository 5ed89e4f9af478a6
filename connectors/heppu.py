"""Heppu connector: schedules another call from the voice agent to a contact, and reads details of conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from pydantic import Field, SecretStr

from bridge.connector import (
    Connector,
    ConnectorGroup,
    ConnectorSettings,
    Context,
    Email,
    Event,
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
    quote_id,
)
from bridge.errors import DeliveryError, LookupInconclusive, OutcomeUnknown
from bridge.heppu_api import URL, HeppuApi, HeppuError

METADATA_KEY = "bridgeIdempotencyToken"
"""Key in a call's `metadata` that holds the idempotency token, by which the lookup recognizes the call."""
LEAD_TIME = timedelta(seconds=30)
"""How far ahead a call is scheduled. Heppu does not document how it treats a time in the past."""
CLOCK_SKEW = timedelta(minutes=2)
"""Assumed maximum difference between Heppu's clock and the bridge's, for lookups by start date."""
MAX_CALL_LENGTH = timedelta(hours=4)
"""How long before its event a call may have started, if its ID has to be found."""
MAX_CALLS = 100
"""Calls with one number that are compared, at most."""


class Settings(ConnectorSettings):
    """Settings: `HEPPU_API_KEY`."""

    api_key: SecretStr
    """API key of your Heppu organization."""
    api_url: ProviderUrl = URL
    """Base URL of Heppu's API."""
    chat_path: str = Field("/chats/{id}", pattern=r"^/\S*\{id\}\S*$")
    """Path at which Heppu's API returns a chat. Heppu does not document one: ask Heppu for yours if `details` of chats
    are missing."""


connector = Connector(
    "heppu",
    settings=Settings,
    limits=Limits(per_second=5, concurrency=4),
    description="Schedules calls from Heppu's voice agents to contacts, and reads the details of conversations.",
    group=ConnectorGroup.CUSTOMER_MESSAGES,
)


@connector.client
class Client:
    """Heppu's API, with requests that end within the attempt's deadline, and the settings of the connection."""

    def __init__(self, settings: Settings) -> None:
        self.api = HeppuApi(settings.api_key.get_secret_value(), settings.api_url, http_client())
        self.settings = settings

    def close(self) -> None:
        """Close the HTTP connections."""
        self.api.close()


@connector.check
def check(client: Client) -> str:
    """Authenticate by reading the newest call. Changes nothing."""
    next(client.api.list_calls(), None)
    return "authenticated"


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Map the HTTP status. Heppu documents no finer error codes."""
    if isinstance(error, HeppuError):
        return failure_from_status(error.status, str(error), parse_retry_after(error.retry_after))
    return failure_from_exception(error)


@connector.conversation_details
def details(client: Client, event: Event) -> dict[str, Any] | None:
    """Return the details of a phone call or chat, with its transcript as text."""
    conversation = quote_id(event.conversation.id, "/calls/{}")
    if event.type.startswith("chat."):
        found = client.api.find(client.settings.chat_path.format(id=conversation))
    else:
        found = client.api.find(f"/calls/{conversation}") or _find_call(client.api, event)
    return None if found is None else with_readable_fields(found)


def _find_call(api: HeppuApi, event: Event) -> dict[str, Any] | None:
    """Return the call of an event by its Twilio SID, or the only call of the agent with the contact at that time.

    Heppu does not document how the ID of a conversation leads to the ID of its call.
    """
    phone, sid = event.contact.phone, event.fields.get("twilioCallSid")
    if phone is None:
        return None
    until = (event.occurred_at + CLOCK_SKEW).isoformat(timespec="seconds")
    calls = list(islice(api.list_calls(phoneNumber=phone, endDate=until), MAX_CALLS))
    matching = [call for call in calls if sid is not None and call.get("twilioCallSid") == sid]
    matching = matching or [call for call in calls if _may_be_call_of(event, call)]
    call_id = _call_id(matching[0]) if len(matching) == 1 else None
    return api.find(f"/calls/{quote_id(call_id, '/calls/{}')}") if call_id else None


def _may_be_call_of(event: Event, call: Mapping[str, Any]) -> bool:
    """Return whether a call without a common SID has the event's agent, and was created shortly before the event."""
    agent = call.get("agent")
    agent_id = agent.get("id") if isinstance(agent, Mapping) else None
    try:
        age = event.occurred_at - datetime.fromisoformat(str(call.get("createdAt")))
    except (ValueError, TypeError):  # not a timestamp, or one without its offset
        return False
    return (
        None in (event.fields.get("twilioCallSid"), call.get("twilioCallSid"))
        and event.fields.get("agentId") in (None, agent_id)
        and age <= MAX_CALL_LENGTH
    )


def with_readable_fields(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the details with `transcript` as one text, and `recordingUrl` wherever Heppu puts it."""
    details = {name: value for name, value in found.items() if value is not None}
    transcript = _transcript(found.get("transcript"))
    recording = next((url for url in map(_url, _recordings(found)) if url), None)
    return details | {"transcript": transcript, "recordingUrl": recording}


def _transcript(value: Any) -> str | None:
    """Return a transcript as text, one line per turn: `Agent: Hello`. Heppu does not document the form of a turn."""
    if isinstance(value, Mapping):
        value = next((item for item in value.values() if isinstance(item, list)), value.get("text"))
    if isinstance(value, list):
        value = "\n".join(filter(None, map(_turn, value)))
    return value.strip() or None if isinstance(value, str) else None


def _turn(turn: Any) -> str:
    if not isinstance(turn, Mapping):
        return turn.strip() if isinstance(turn, str) else ""
    text = _first_text(turn, ("text", "content", "message", "transcript"))
    speaker = _first_text(turn, ("role", "speaker", "sender", "name"))
    speaker = _SPEAKERS.get(speaker.lower(), speaker)
    return f"{speaker}: {text}" if speaker and text else text


_SPEAKERS = {"assistant": "Agent", "agent": "Agent", "bot": "Agent", "user": "Contact", "customer": "Contact"}


def _first_text(turn: Mapping[str, Any], names: Sequence[str]) -> str:
    texts = (turn.get(name) for name in names)
    return next((text.strip() for text in texts if isinstance(text, str) and text.strip()), "")


def _recordings(found: Mapping[str, Any]) -> list[Any]:
    recordings = found.get("recordings")
    several = recordings if isinstance(recordings, list) else []
    return [found.get("recordingUrl"), found.get("recording_url"), found.get("recording"), *several]


def _url(recording: Any) -> str | None:
    url = recording.get("url") if isinstance(recording, Mapping) else recording
    return url if isinstance(url, str) and url.startswith("https://") else None


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
def schedule_call(client: Client, params: ScheduleCallParams, context: Context) -> Success:
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
    response = client.api.schedule_call(_without_none(request))
    call_id = _call_id(response)
    if call_id is None:
        raise OutcomeUnknown("Heppu's response has no call ID", reason="server_error")
    return Success(id=call_id, detail=f"attempt {attempts + 1} of {params.max_attempts} scheduled")


@schedule_call.lookup
def find_call(client: Client, params: ScheduleCallParams, context: Context) -> Success | None:
    """Return the call to this recipient since the first attempt whose metadata holds the idempotency token."""
    api = client.api
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
