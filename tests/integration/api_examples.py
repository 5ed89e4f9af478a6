"""An example of a request to every endpoint of the API. A test sends each, and fails for an endpoint without one.

A new endpoint gets an example here: a function that returns the request, on a site filled by `populated_site.fill`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

PHONE = "+12125550167"
RULE = "text-when-not-reached"


@dataclass(frozen=True)
class Example:
    """A request, which succeeds."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """The variable parts of the path."""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    """409 if the site has nothing to do it with."""


class TrialOfTests:
    """Says of every trial that the rules have no errors."""

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the result of a trial."""
        key = {"plan": "plan", "explain": "forecast"}.get(request["mode"])
        return {"ok": True, "diagnostics": [], "rules": 1, "hash": "0" * 64} | ({key: {}} if key else {})


@dataclass(frozen=True)
class Stored:
    """What is stored on the site, found through the API itself."""

    api: httpx.Client

    def _first(self, path: str, **query: str) -> str:
        items = self.api.get(f"/api/{path}", params=query).json()["items"]
        return str(items[0]["id"])

    def event(self) -> str:
        """Return an event that was routed."""
        return self._first("events", type="chat.resolved")

    def delivery(self, state: str) -> str:
        """Return a delivery in this state."""
        return self._first("deliveries", state=state)

    def acceptable_request(self) -> str:
        """Return a rejected request that can be accepted: its signature is valid."""
        items = self.api.get("/api/rejected-requests").json()["items"]
        return next(str(item["id"]) for item in reversed(items) if item["signature_valid"])

    def duplicate(self) -> str:
        """Return a pair of CRM records."""
        return self._first("contacts/duplicates")

    def version(self) -> str:
        """Return the hash of a version of the rules."""
        return str(self.api.get("/api/rules/versions").json()["items"][0]["hash"])


_DESK = Example({"name": "desk"})
EXAMPLES: Mapping[str, Callable[[Stored], Example]] = {
    "GET /api/overview": lambda _: Example(query={"span": "7d"}),
    "GET /api/search": lambda _: Example(query={"q": PHONE}),
    "POST /api/search": lambda _: Example(body={"q": "0167"}),
    "GET /api/status": lambda _: Example(),
    "GET /api/stats": lambda _: Example(),
    "GET /api/audit": lambda _: Example(query={"limit": "5"}),
    "GET /api/events": lambda _: Example(query={"since": "7d", "limit": "3"}),
    "GET /api/events/{id}": lambda stored: Example({"id": stored.event()}),
    "GET /api/events/{id}/forecast": lambda stored: Example({"id": stored.event()}),
    "POST /api/events/{id}/replay": lambda stored: Example({"id": stored.event()}, body={"rule": RULE}),
    "POST /api/events/replay": lambda _: Example(body={"since": "7d", "dry_run": True}),
    "GET /api/deliveries": lambda _: Example(query={"state": "failed,succeeded"}),
    "GET /api/deliveries/{id}": lambda stored: Example({"id": stored.delivery("needs_review")}),
    "POST /api/deliveries/{id}/retry": lambda stored: Example({"id": stored.delivery("failed")}),
    "POST /api/deliveries/{id}/cancel": lambda stored: Example({"id": stored.delivery("pending")}),
    "POST /api/deliveries/{id}/resolve": lambda stored: Example(
        {"id": stored.delivery("needs_review")}, body={"resolution": "delivered", "external_id": "SM1"}
    ),
    "POST /api/deliveries/{id}/dismiss": lambda stored: Example({"id": stored.delivery("failed")}),
    "GET /api/deliveries/counts": lambda _: Example(query={"connection": "desk"}),
    "POST /api/deliveries/retry": lambda _: Example(body={"state": ["failed"], "dry_run": True}),
    "POST /api/deliveries/cancel": lambda _: Example(body={"connection": "desk", "dry_run": True}),
    "POST /api/deliveries/dismiss": lambda _: Example(body={"connection": "desk", "dry_run": True}),
    "POST /api/deliveries/resolve": lambda stored: Example(
        body={"ids": [stored.delivery("failed")], "resolution": "discard"}
    ),
    "POST /api/why": lambda _: Example(body={"contact": PHONE, "since": "30d"}),
    "POST /api/contacts": lambda _: Example(body={"contact": PHONE}),
    "POST /api/contacts/export": lambda _: Example(body={"contact": PHONE}),
    "POST /api/contacts/erase": lambda _: Example(
        body={"contact": "nobody@example.com", "confirm": "erase permanently"}
    ),
    "GET /api/contacts/duplicates": lambda _: Example(query={"connection": "hubspot"}),
    "POST /api/contacts/duplicates/{id}/dismiss": lambda stored: Example({"id": stored.duplicate()}),
    "GET /api/opt-outs": lambda _: Example(query={"channel": "sms"}),
    "POST /api/opt-outs": lambda _: Example(body={"items": [{"address": PHONE}, {"address": "nobody"}]}),
    "POST /api/opt-outs/import": lambda _: Example(
        body={"text": "address\n+13105550177\nx\n", "dry_run": True}
    ),
    "DELETE /api/opt-outs": lambda _: Example(body={"address": PHONE, "channel": "sms"}),
    "POST /api/rules/check": lambda _: Example(body={"text": "version: 1\nrules: []\n"}),
    "POST /api/rules/plan": lambda _: Example(body={"text": "version: 1\nrules: []\n"}),
    "POST /api/rules/explain": lambda _: Example(body={"event": "call.busy"}),
    "GET /api/rules": lambda _: Example(),
    "GET /api/rules/versions": lambda _: Example(),
    "GET /api/rules/versions/{hash}": lambda stored: Example({"hash": stored.version()}),
    "GET /api/rules/{name}": lambda _: Example({"name": RULE}),
    "POST /api/rules/{name}/cancel": lambda _: Example({"name": RULE}, body={"rerender": True}),
    "GET /api/connections": lambda _: Example(),
    "GET /api/connections/{name}": lambda _: _DESK,
    "POST /api/connections/{name}/pause": lambda _: Example(
        {"name": "desk"}, body={"reason": "a wrong text"}
    ),
    "POST /api/connections/{name}/check": lambda _: Example({"name": "desk"}, status=409),
    "POST /api/connections/{name}/probe": lambda _: Example({"name": "desk"}, status=409),
    "POST /api/connections/{name}/resume": lambda _: _DESK,
    "GET /api/pause": lambda _: Example(),
    "POST /api/pause": lambda _: Example(body={"reason": "a wrong text"}),
    "POST /api/resume": lambda _: Example(),
    "GET /api/rejected-requests/groups": lambda _: Example(),
    "GET /api/rejected-requests": lambda _: Example(query={"limit": "2"}),
    "GET /api/rejected-requests/{id}": lambda stored: Example({"id": stored.acceptable_request()}),
    "POST /api/rejected-requests/{id}/accept": lambda stored: Example({"id": stored.acceptable_request()}),
    "GET /api/openapi.json": lambda _: Example(),
}
"""Method and path -> a request that succeeds."""
