"""Heppu's own API: calls to make again, the webhooks that send events, the agents."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.clock import Clock
from bridge.sandbox.faults import Faults
from bridge.sandbox.provider import RECORDS_KEPT, Call, Handler, Partner, Refusal, whole_number

API_KEY = "heppu_sandbox_key"
EVENTS = {
    "call.completed",
    "call.failed",
    "call.busy",
    "call.no-answer",
    "chat.completed",
    "chat.resolved",
    "chat.abandoned",
    "chat.message.received",
}
STATUSES = {
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
_FINAL = {"completed", "failed", "cancelled", "no_answer", "busy"}
_PHONE = re.compile(r"\+[1-9]\d{1,14}")
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
_SLUGS = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "insufficient_permissions",
    404: "not_found",
    409: "conflict",
    422: "validation_failed",
    429: "rate_limited",
}


@dataclass
class ScheduledCall:
    """One call that Heppu will make; `request` is what was asked for, word for word."""

    id: str
    agent_id: str
    contact_phone: str
    request: dict[str, Any]
    created_at: datetime
    scheduled_at: datetime | None
    status: str = "scheduled"
    updated_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.updated_at = self.created_at


class Heppu(Partner):
    """One organisation with a voice agent and a chat agent."""

    name = "heppu"

    def __init__(self, clock: Clock, faults: Faults) -> None:
        super().__init__(clock, faults)
        self.reset()

    @property
    def calls(self) -> list[ScheduledCall]:
        """The calls asked for, oldest first."""
        with self.lock:
            return list(self._calls.values())

    @property
    def webhooks(self) -> list[dict[str, Any]]:
        """The webhooks that are set up."""
        with self.lock:
            return [dict(webhook) for webhook in self._webhooks.values()]

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """The endpoints that the bridge uses, and their neighbours."""
        return [
            ("POST", "/api/v1/calls/schedule", self._schedule),
            ("GET", "/api/v1/calls", self._list_calls),
            ("GET", "/api/v1/calls/{id}", self._get_call),
            ("DELETE", "/api/v1/calls/{id}", self._cancel_call),
            ("GET", "/api/v1/webhooks", self._list_webhooks),
            ("POST", "/api/v1/webhooks", self._create_webhook),
            ("PATCH", "/api/v1/webhooks/{id}", self._update_webhook),
            ("DELETE", "/api/v1/webhooks/{id}", self._delete_webhook),
            ("GET", "/api/v1/agents", self._list_agents),
            ("GET", "/api/v1/agents/{id}", self._get_agent),
        ]

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Calls and webhooks."""
        return {
            "calls": [self._call_json(call) for call in self.calls],
            "webhooks": [_shown(webhook) for webhook in self.webhooks],
        }

    def reset(self) -> None:
        """No calls, no webhooks."""
        with self.lock:
            self._calls: dict[str, ScheduledCall] = {}
            self._webhooks: dict[str, dict[str, Any]] = {}
            self._agents = {agent["id"]: agent for agent in _agents(self.now())}

    def failure(self, status: int, message: str | None = None, details: Any = None) -> Response:
        """Heppu's error body, in its fullest documented form."""
        error: dict[str, Any] = {
            "message": message or _SLUGS.get(status, "internal_error").replace("_", " "),
            "status": status,
            "code": _SLUGS.get(status, "internal_error"),
            "timestamp": self.now().isoformat(),
        }
        if details is not None:
            error["details"] = details
        return JSONResponse({"error": error}, status)

    def quota_exhausted(self) -> Response:
        """Too many requests."""
        return self.failure(429)

    def authorize(self, call: Call) -> None:
        """The key stands in `x-api-key`, or is a bearer token."""
        if API_KEY not in (call.headers.get("x-api-key"), call.bearer()):
            raise Refusal(self.failure(401, "Invalid or missing API key"))

    def _schedule(self, call: Call) -> Response:
        body = self._object(call)
        for name in sorted(set(body) - _SCHEDULE_FIELDS):
            raise self._invalid(name, "unknown field")
        agent = self._uuid(body.get("agentId"), "agentId")
        phone = body.get("contactPhone")
        if not isinstance(phone, str) or not _PHONE.fullmatch(phone):
            raise self._invalid("contactPhone", "must be a phone number in E.164 format")
        for name in ("contactName", "contactEmail", "callerId"):
            if body.get(name) is not None and not isinstance(body[name], str):
                raise self._invalid(name, "must be a string")
        self._whole_number(body.get("priority"), "priority", 10)
        self._whole_number(body.get("maxRetries"), "maxRetries", None)
        for name in ("callMetadata", "metadata"):
            if body.get(name) is not None and not isinstance(body[name], dict):
                raise self._invalid(name, "must be an object")
        for name in ("retrySchedule", "retryIntervals"):
            if body.get(name) is not None and not isinstance(body[name], list):
                raise self._invalid(name, "must be an array")
        scheduled_at = self._instant(body.get("scheduledAt"), "scheduledAt")
        if len(self._calls) >= RECORDS_KEPT:
            raise self.full()
        new = ScheduledCall(
            f"call_{secrets.token_hex(8)}", agent, phone, body, self.now(), scheduled_at or self.now()
        )
        self._calls[new.id] = new
        return JSONResponse({"data": self._call_json(new), "message": "Call scheduled"}, 201)

    def _list_calls(self, call: Call) -> Response:
        query = call.query
        limit, offset = self._page(call)
        found = self.calls
        if query.get("agentId"):
            found = [c for c in found if c.agent_id == self._uuid(query["agentId"], "agentId")]
        if query.get("status"):
            if query["status"] not in STATUSES:
                raise self._invalid("status", "unknown status", 400)
            found = [c for c in found if c.status == query["status"]]
        if query.get("direction"):
            if query["direction"] not in ("inbound", "outbound"):
                raise self._invalid("direction", "must be inbound or outbound", 400)
            found = [c for c in found if query["direction"] == "outbound"]
        if query.get("phoneNumber"):
            found = [c for c in found if query["phoneNumber"] in (c.contact_phone, c.request.get("callerId"))]
        start = self._instant(query.get("startDate"), "startDate")
        end = self._instant(query.get("endDate"), "endDate")
        found = [
            c for c in found if (not start or c.created_at >= start) and (not end or c.created_at <= end)
        ]
        by = query.get("sortBy", "createdAt")
        order = query.get("sortOrder", "desc")
        if by not in ("createdAt", "scheduledAt") or order not in ("asc", "desc"):
            raise self._invalid("sortBy", "unknown order", 400)
        lag = self.faults.lag(self.name)
        found = [c for c in found if (self.now() - c.created_at).total_seconds() >= lag]
        found.sort(
            key=lambda c: c.created_at if by == "createdAt" else c.scheduled_at or c.created_at,
            reverse=order == "desc",
        )
        return JSONResponse(
            {
                "data": {
                    "calls": [self._call_json(c) for c in found[offset : offset + limit]],
                    "pagination": {
                        "total": len(found),
                        "limit": limit,
                        "offset": offset,
                        "hasMore": offset + limit < len(found),
                    },
                }
            }
        )

    def _get_call(self, call: Call) -> Response:
        found = self._find(self._calls, call)
        data = self._call_json(found) | {
            "startedAt": None,
            "endedAt": None,
            "failureReason": None,
            "summary": None,
            "transcript": None,
            "metadata": found.request.get("metadata") or {},
            "roomId": None,
            "jobId": None,
            "sipParticipantId": None,
            "updatedAt": found.updated_at.isoformat(),
        }
        del data["outcome"], data["scheduledAt"]
        return JSONResponse({"data": data})

    def _cancel_call(self, call: Call) -> Response:
        found = self._find(self._calls, call)
        if found.status in _FINAL:
            raise Refusal(self.failure(409, f"A call that is {found.status} cannot be cancelled"))
        found.status = "cancelled"
        found.updated_at = self.now()
        return JSONResponse({"data": {"id": found.id, "status": "cancelled"}, "message": "Call cancelled"})

    def _list_webhooks(self, _call: Call) -> Response:
        return self._data([_shown(webhook) for webhook in self._webhooks.values()])

    def _create_webhook(self, call: Call) -> Response:
        body = self._object(call)
        for name in sorted(set(body) - {"url", "events", "description", "secret"}):
            raise self._invalid(name, "unknown field")
        webhook = {
            "id": f"webhook_{secrets.token_hex(8)}",
            "url": self._webhook_url(body.get("url")),
            "events": self._events(body.get("events")),
            "description": self._text(body.get("description"), "description"),
            "status": "active",
            "createdAt": self.now().isoformat(),
            "lastDeliveredAt": None,
            "secret": self._text(body.get("secret"), "secret"),
        }
        self._webhooks[str(webhook["id"])] = webhook
        return self._data(_shown(webhook), 201, "Webhook created")

    def _update_webhook(self, call: Call) -> Response:
        webhook = self._find(self._webhooks, call)
        body = self._object(call)
        for name in sorted(set(body) - {"url", "events", "description", "secret", "status"}):
            raise self._invalid(name, "unknown field")
        if "url" in body:
            webhook["url"] = self._webhook_url(body["url"])
        if "events" in body:
            webhook["events"] = self._events(body["events"])
        for name in ("description", "secret"):
            if name in body:
                webhook[name] = self._text(body[name], name)
        if "status" in body:
            if body["status"] not in ("active", "inactive"):
                raise self._invalid("status", "must be active or inactive")
            webhook["status"] = body["status"]
        return self._data(_shown(webhook))

    def _delete_webhook(self, call: Call) -> Response:
        del self._webhooks[self._find(self._webhooks, call)["id"]]
        return Response(status_code=204)

    def _list_agents(self, call: Call) -> Response:
        limit, offset = self._page(call)
        found = [
            agent
            for agent in self._agents.values()
            if call.query.get("type") in (None, agent["type"])
            and call.query.get("status") in (None, agent["status"])
        ]
        page = {"limit": limit, "offset": offset, "total": len(found)}
        return JSONResponse(
            {"success": True, "data": {"agents": found[offset : offset + limit], "pagination": page}}
        )

    def _get_agent(self, call: Call) -> Response:
        return JSONResponse({"success": True, "data": self._find(self._agents, call)})

    def _call_json(self, call: ScheduledCall) -> dict[str, Any]:
        agent = self._agents.get(call.agent_id, {"id": call.agent_id, "name": "Agent"})
        return {
            "id": call.id,
            "status": call.status,
            "direction": "outbound",
            "scheduledAt": call.scheduled_at.isoformat() if call.scheduled_at else None,
            "duration": None,
            "outcome": None,
            "twilioCallSid": None,
            "agent": {"id": agent["id"], "name": agent["name"]},
            "contact": {
                "phone": call.contact_phone,
                "name": call.request.get("contactName"),
                "email": call.request.get("contactEmail"),
            },
            "phoneNumber": call.contact_phone,
            "createdAt": call.created_at.isoformat(),
        }

    def _data(self, data: Any, status: int = 200, message: str | None = None) -> Response:
        meta = {"timestamp": self.now().isoformat()}
        if message:
            meta["message"] = message
        return JSONResponse({"data": data, "meta": meta}, status)

    def _find(self, table: dict[str, Any], call: Call) -> Any:
        found = table.get(call.args["id"])
        if found is None:
            raise Refusal(self.failure(404))
        return found

    def _object(self, call: Call) -> dict[str, Any]:
        try:
            body = call.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Refusal(self.failure(400, "The request body must be a JSON object"))
        return body

    def _page(self, call: Call) -> tuple[int, int]:
        numbers = []
        for name, default, most in (("limit", "50", 100), ("offset", "0", 10**9)):
            number = whole_number(call.query.get(name, default), 0, most)
            if number is None:
                raise self._invalid(name, f"must be a number of at most {most}", 400)
            numbers.append(number)
        return numbers[0], numbers[1]

    def _invalid(self, name: str, reason: str, status: int = 422) -> Refusal:
        return Refusal(self.failure(status, f"{name}: {reason}", {"field": name, "reason": reason}))

    def _uuid(self, value: Any, name: str) -> str:
        try:
            return str(uuid.UUID(value))
        except (ValueError, AttributeError, TypeError):
            raise self._invalid(name, "Invalid agent ID format") from None

    def _text(self, value: Any, name: str) -> str | None:
        if value is not None and (not isinstance(value, str) or not value):
            raise self._invalid(name, "must be a string")
        return value

    def _whole_number(self, value: Any, name: str, most: int | None) -> None:
        if value is None:
            return
        if type(value) is not int or value < 0 or (most is not None and value > most):
            raise self._invalid(name, f"must be a whole number from 0 to {most}" if most else "must be >= 0")

    def _instant(self, value: Any, name: str) -> datetime | None:
        if value is None:
            return None
        try:
            found = datetime.fromisoformat(value)
        except (ValueError, TypeError):
            raise self._invalid(name, "must be an ISO 8601 date") from None
        if found.tzinfo is None:
            raise self._invalid(name, "must have an offset")
        return found

    def _webhook_url(self, value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"https://[^/\s@]+(/\S*)?", value):
            raise self._invalid("url", "must be a public HTTPS URL")
        return value

    def _events(self, value: Any) -> list[str]:
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise self._invalid("events", "must be a list of event names")
        for unknown in sorted(set(value) - EVENTS):
            raise self._invalid("events", f"unknown event {unknown}")
        return value


def _shown(webhook: dict[str, Any]) -> dict[str, Any]:
    """A webhook without its secret, of which only the beginning is ever shown again."""
    secret = webhook["secret"]
    shown = {name: value for name, value in webhook.items() if name != "secret"}
    return shown | {"secretPrefix": secret[:9] if secret else None}


def _agents(now: datetime) -> list[dict[str, Any]]:
    """The two agents of the documented samples."""
    common: dict[str, Any] = {
        "status": "active",
        "model": None,
        "instructions": None,
        "tools": [],
        "createdAt": now.isoformat(),
        "updatedAt": now.isoformat(),
    }
    return [
        common
        | {
            "id": "3f0c6f0e-8a57-4a53-9c7e-5b2b7c1f6a10",
            "name": "Nora at the front desk",
            "type": "voice",
            "config": {"timeout": 30},
            "phoneNumbers": ["+12125550100"],
        },
        common
        | {
            "id": "b7d1a1f4-52c0-4a0c-8a3e-0d1f2c3b4a59",
            "name": "Harbour help desk",
            "type": "chat",
            "config": {},
            "phoneNumbers": [],
        },
    ]
