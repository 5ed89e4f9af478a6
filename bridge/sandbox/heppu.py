"""Mock Heppu API: calls and chats with their transcripts, webhooks and agents."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.heppu_requests import HeppuRequests
from bridge.sandbox.heppu_samples import SAMPLE_DETAILS, VOICE_AGENT, sample_agents
from bridge.sandbox.provider import MAX_RECORDS, Handler, ProviderError, ProviderRequest

CALL_STATUSES = {
    "initiated",
    "scheduled",
    "queued",
    "connecting",
    "ringing",
    "active",
    "completed",
    "failed",
    "cancelled",
    "no_answer",
    "busy",
}
_SENT_SAMPLE = re.compile(r"conv_[0-9a-f]{12}")
"""The conversation of an event that `bridge send` has sent."""
_FINAL_CALL_STATUSES = {"completed", "failed", "cancelled", "no_answer", "busy"}
_E164 = re.compile(r"\+[1-9]\d{1,14}")
_SCHEDULE_FIELDS = {
    "agentId",
    "contactPhone",
    "contactName",
    "contactEmail",
    "callerId",
    "scheduledAt",
    "priority",
    "maxRetries",
    "retrySchedule",
    "retryIntervals",
    "callMetadata",
    "metadata",
}


@dataclass
class ScheduledCall:
    """A call that Heppu will make. `request` is the body of the schedule request, unchanged."""

    id: str
    agent_id: str
    contact_phone: str
    request: dict[str, Any]
    created_at: datetime
    scheduled_at: datetime | None
    status: str = "scheduled"
    twilio_call_sid: str | None = None
    direction: str = "outbound"
    duration: int | None = None
    ended_at: datetime | None = None
    details: dict[str, Any] = field(default_factory=dict)
    """Further fields of the call, such as its transcript."""
    updated_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.updated_at = self.created_at


class Heppu(HeppuRequests):
    """An organization with a voice agent and a chat agent."""

    @property
    def calls(self) -> list[ScheduledCall]:
        """The scheduled calls, oldest first."""
        with self.lock:
            return list(self._calls.values())

    @property
    def webhooks(self) -> list[dict[str, Any]]:
        """The configured webhooks."""
        with self.lock:
            return [dict(webhook) for webhook in self._webhooks.values()]

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the endpoints that the bridge uses, and related ones."""
        return [
            ("POST", "/api/v1/calls/schedule", self._schedule),
            ("GET", "/api/v1/calls", self._list_calls),
            ("GET", "/api/v1/calls/{id}", self._get_call),
            ("DELETE", "/api/v1/calls/{id}", self._cancel_call),
            ("GET", "/api/v1/chats/{id}", self._get_chat),
            ("GET", "/api/v1/webhooks", self._list_webhooks),
            ("POST", "/api/v1/webhooks", self._create_webhook),
            ("PATCH", "/api/v1/webhooks/{id}", self._update_webhook),
            ("DELETE", "/api/v1/webhooks/{id}", self._delete_webhook),
            ("GET", "/api/v1/agents", self._list_agents),
            ("GET", "/api/v1/agents/{id}", self._get_agent),
        ]

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Return the scheduled calls and the webhooks."""
        return {
            "calls": [self._call_json(call) for call in self.calls],
            "webhooks": [_without_secret(webhook) for webhook in self.webhooks],
        }

    def reset(self) -> None:
        """Remove all calls and webhooks."""
        with self.lock:
            self._calls: dict[str, ScheduledCall] = {}
            self._chats: dict[str, dict[str, Any]] = {}
            self._webhooks: dict[str, dict[str, Any]] = {}
            self._agents = {agent["id"]: agent for agent in sample_agents(self.now())}

    def add_call(
        self,
        call_id: str,
        phone: str,
        *,
        agent_id: str = VOICE_AGENT,
        sid: str | None = None,
        status: str = "completed",
        direction: str = "outbound",
        duration: int | None = None,
        ended_at: datetime | None = None,
        contact_name: str | None = None,
        **details: Any,
    ) -> None:
        """Add a finished call with further fields, such as `transcript` and `recordingUrl`; replace it if it exists.

        It was created when it began: `duration` seconds before `ended_at`, by default now.
        """
        ended_at = ended_at or self.now()
        call = ScheduledCall(
            call_id,
            agent_id,
            phone,
            {"contactName": contact_name},
            ended_at - timedelta(seconds=duration or 0),
            None,
            status,
            sid,
            direction,
            duration,
            ended_at,
            details,
        )
        with self.lock:
            self._calls[call_id] = call

    def add_chat(self, chat_id: str, **details: Any) -> None:
        """Add a chat with these fields; replace it if it exists."""
        with self.lock:
            self._chats[chat_id] = {
                "id": chat_id,
                "status": "completed",
                "createdAt": self.now().isoformat(),
                **details,
            }

    def _schedule(self, request: ProviderRequest) -> Response:
        body = self._json_object(request)
        for name in sorted(set(body) - _SCHEDULE_FIELDS):
            raise self._invalid_field(name, "unknown field")
        agent = self._parse_agent_id(body.get("agentId"))
        phone = body.get("contactPhone")
        if not isinstance(phone, str) or not _E164.fullmatch(phone):
            raise self._invalid_field("contactPhone", "must be a phone number in E.164 format")
        for name in ("contactName", "contactEmail", "callerId"):
            if body.get(name) is not None and not isinstance(body[name], str):
                raise self._invalid_field(name, "must be a string")
        self._check_whole_number(body.get("priority"), "priority", 10)
        self._check_whole_number(body.get("maxRetries"), "maxRetries", None)
        for name in ("callMetadata", "metadata"):
            if body.get(name) is not None and not isinstance(body[name], dict):
                raise self._invalid_field(name, "must be an object")
        for name in ("retrySchedule", "retryIntervals"):
            if body.get(name) is not None and not isinstance(body[name], list):
                raise self._invalid_field(name, "must be an array")
        scheduled_at = self._parse_timestamp(body.get("scheduledAt"), "scheduledAt")
        if len(self._calls) >= MAX_RECORDS:
            raise self.storage_full_error()
        call = ScheduledCall(
            f"call_{secrets.token_hex(8)}", agent, phone, body, self.now(), scheduled_at or self.now()
        )
        self._calls[call.id] = call
        return JSONResponse({"data": self._call_json(call), "message": "Call scheduled"}, 201)

    def _list_calls(self, request: ProviderRequest) -> Response:
        query = request.query
        limit, offset = self._limit_and_offset(request)
        agent_id = self._parse_agent_id(query["agentId"]) if query.get("agentId") else None
        status, direction, phone = (
            query.get(name) or None for name in ("status", "direction", "phoneNumber")
        )
        if status is not None and status not in CALL_STATUSES:
            raise self._invalid_field("status", "unknown status", 400)
        if direction not in (None, "inbound", "outbound"):
            raise self._invalid_field("direction", "must be inbound or outbound", 400)
        start = self._parse_timestamp(query.get("startDate"), "startDate")
        end = self._parse_timestamp(query.get("endDate"), "endDate")
        sort_by = query.get("sortBy", "createdAt")
        sort_order = query.get("sortOrder", "desc")
        if sort_by not in ("createdAt", "scheduledAt") or sort_order not in ("asc", "desc"):
            raise self._invalid_field("sortBy", "unknown order", 400)
        latest = self.now() - timedelta(seconds=self.faults.lag(self.name))
        calls = [
            call
            for call in self.calls
            if agent_id in (None, call.agent_id)
            and status in (None, call.status)
            and direction in (None, call.direction)
            and phone in (None, call.contact_phone, call.request.get("callerId"))
            and (start or call.created_at) <= call.created_at <= (end or call.created_at)
            and call.created_at <= latest
        ]
        calls.sort(
            key=lambda call: (
                call.created_at if sort_by == "createdAt" else call.scheduled_at or call.created_at
            ),
            reverse=sort_order == "desc",
        )
        return JSONResponse(
            {
                "data": {
                    "calls": [self._call_json(call) for call in calls[offset : offset + limit]],
                    "pagination": {
                        "total": len(calls),
                        "limit": limit,
                        "offset": offset,
                        "hasMore": offset + limit < len(calls),
                    },
                }
            }
        )

    def _get_call(self, request: ProviderRequest) -> Response:
        call_id = request.path_params["id"]
        if call_id not in self._calls and _SENT_SAMPLE.fullmatch(call_id):
            self.add_call(call_id, "+14155550123", **SAMPLE_DETAILS)
        call = self._require(self._calls, request)
        data = (
            self._call_json(call)
            | {
                "startedAt": call.created_at.isoformat() if call.ended_at else None,
                "endedAt": call.ended_at.isoformat() if call.ended_at else None,
                "failureReason": None,
                "summary": None,
                "transcript": None,
                "metadata": call.request.get("metadata") or {},
                "roomId": None,
                "jobId": None,
                "sipParticipantId": None,
                "updatedAt": call.updated_at.isoformat(),
            }
            | self._come_later(call.details, call.created_at)
        )
        del data["outcome"], data["scheduledAt"]
        return JSONResponse({"data": data})

    def _get_chat(self, request: ProviderRequest) -> Response:
        chat_id = request.path_params["id"]
        if chat_id not in self._chats and _SENT_SAMPLE.fullmatch(chat_id):
            self.add_chat(chat_id, transcript=SAMPLE_DETAILS["transcript"])
        chat = self._require(self._chats, request)
        return JSONResponse({"data": self._come_later(chat, datetime.fromisoformat(chat["createdAt"]))})

    def _come_later(self, details: dict[str, Any], since: datetime) -> dict[str, Any]:
        """Return the details without transcript and recording until the lag that a fault sets is over."""
        if (self.now() - since).total_seconds() >= self.faults.lag(self.name):
            return details
        return {**details, "transcript": None, "recordingUrl": None}

    def _cancel_call(self, request: ProviderRequest) -> Response:
        call = self._require(self._calls, request)
        if call.status in _FINAL_CALL_STATUSES:
            raise ProviderError(self.error_response(409, f"A call that is {call.status} cannot be cancelled"))
        call.status = "cancelled"
        call.updated_at = self.now()
        return JSONResponse({"data": {"id": call.id, "status": "cancelled"}, "message": "Call cancelled"})

    def _list_webhooks(self, _request: ProviderRequest) -> Response:
        return self._data_response([_without_secret(webhook) for webhook in self._webhooks.values()])

    def _create_webhook(self, request: ProviderRequest) -> Response:
        body = self._json_object(request)
        for name in sorted(set(body) - {"url", "events", "description", "secret"}):
            raise self._invalid_field(name, "unknown field")
        webhook = {
            "id": f"webhook_{secrets.token_hex(8)}",
            "url": self._parse_webhook_url(body.get("url")),
            "events": self._parse_event_types(body.get("events")),
            "description": self._optional_string(body.get("description"), "description"),
            "status": "active",
            "createdAt": self.now().isoformat(),
            "lastDeliveredAt": None,
            "secret": self._optional_string(body.get("secret"), "secret"),
        }
        self._webhooks[str(webhook["id"])] = webhook
        return self._data_response(_without_secret(webhook), 201, "Webhook created")

    def _update_webhook(self, request: ProviderRequest) -> Response:
        webhook = self._require(self._webhooks, request)
        body = self._json_object(request)
        for name in sorted(set(body) - {"url", "events", "description", "secret", "status"}):
            raise self._invalid_field(name, "unknown field")
        if "url" in body:
            webhook["url"] = self._parse_webhook_url(body["url"])
        if "events" in body:
            webhook["events"] = self._parse_event_types(body["events"])
        for name in ("description", "secret"):
            if name in body:
                webhook[name] = self._optional_string(body[name], name)
        if "status" in body:
            if body["status"] not in ("active", "inactive"):
                raise self._invalid_field("status", "must be active or inactive")
            webhook["status"] = body["status"]
        return self._data_response(_without_secret(webhook))

    def _delete_webhook(self, request: ProviderRequest) -> Response:
        del self._webhooks[self._require(self._webhooks, request)["id"]]
        return Response(status_code=204)

    def _list_agents(self, request: ProviderRequest) -> Response:
        limit, offset = self._limit_and_offset(request)
        agents = [
            agent
            for agent in self._agents.values()
            if request.query.get("type") in (None, agent["type"])
            and request.query.get("status") in (None, agent["status"])
        ]
        pagination = {"limit": limit, "offset": offset, "total": len(agents)}
        return JSONResponse(
            {"success": True, "data": {"agents": agents[offset : offset + limit], "pagination": pagination}}
        )

    def _get_agent(self, request: ProviderRequest) -> Response:
        return JSONResponse({"success": True, "data": self._require(self._agents, request)})

    def _call_json(self, call: ScheduledCall) -> dict[str, Any]:
        agent = self._agents.get(call.agent_id, {"id": call.agent_id, "name": "Agent"})
        return {
            "id": call.id,
            "status": call.status,
            "direction": call.direction,
            "scheduledAt": call.scheduled_at.isoformat() if call.scheduled_at else None,
            "duration": call.duration,
            "outcome": None,
            "twilioCallSid": call.twilio_call_sid,
            "agent": {"id": agent["id"], "name": agent["name"]},
            "contact": {
                "phone": call.contact_phone,
                "name": call.request.get("contactName"),
                "email": call.request.get("contactEmail"),
            },
            "phoneNumber": call.contact_phone,
            "createdAt": call.created_at.isoformat(),
        }


def _without_secret(webhook: dict[str, Any]) -> dict[str, Any]:
    """Return a webhook with only the first characters of its secret, as the API shows it."""
    secret = webhook["secret"]
    public_fields = {name: value for name, value in webhook.items() if name != "secret"}
    return public_fields | {"secretPrefix": secret[:9] if secret else None}
