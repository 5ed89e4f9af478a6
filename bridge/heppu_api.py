"""Heppu's API: a client for webhooks and outbound calls.

Heppu's documentation shows four envelopes for responses and four for errors. Success is therefore decided by the HTTP
status alone, and the body is parsed leniently.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bridge.errors import BridgeError
from bridge.lazy import LazyModule

if TYPE_CHECKING:
    import httpx
else:
    httpx = LazyModule("httpx")

URL = "https://v2.heppu.ai/api/v1"
PAGE_SIZE = 100
"""Maximum number of calls per page that Heppu allows."""


class HeppuError(BridgeError):
    """A response from Heppu that is not a readable success.

    The error text names the request and the status. `message` is Heppu's explanation; it may contain personal data, so
    show it only to the operator who made the request.
    """

    def __init__(self, request: str, response: httpx.Response) -> None:
        self.status = response.status_code
        self.retry_after = response.headers.get("Retry-After")
        error = _mapping(_mapping(_json(response)).get("error"))
        code, message = error.get("code"), error.get("message")
        self.code = code if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,60}", code) else ""
        self.message = message if isinstance(message, str) else ""
        super().__init__(
            f"Heppu answered {self.status} to {request}" + (f" ({self.code})" if self.code else "")
        )


@dataclass(frozen=True)
class CallsPage:
    """Calls, and whether there are more after them."""

    calls: Sequence[dict[str, Any]]
    has_more: bool


class HeppuApi:
    """Client for one organization at Heppu.

    Every method raises HeppuError if the response is not a success, and an httpx error if there is no response. `http`
    replaces the HTTP client, for callers that enforce their own deadlines.
    """

    def __init__(self, api_key: str, url: str = URL, http: httpx.Client | None = None) -> None:
        self._http = http or httpx.Client(timeout=10, follow_redirects=False, trust_env=False)
        self._url = url.rstrip("/")
        self._headers = {"x-api-key": api_key}

    def close(self) -> None:
        """Close the HTTP connections."""
        self._http.close()

    def list_webhooks(self) -> list[dict[str, Any]]:
        """Return the webhooks."""
        data = self._request("GET", "/webhooks")
        # Heppu does not document whether `data` is the list or an object that contains it.
        items = data if isinstance(data, list) else _first_list(data)
        return [item for item in items if isinstance(item, dict)]

    def create_webhook(
        self, url: str, events: Sequence[str], secret: str, description: str = ""
    ) -> dict[str, Any]:
        """Create a webhook that sends `events` to `url`, signed with `secret`, and return it.

        A secret is always sent, because Heppu does not document its behavior without one. Generate it with
        `new_secret` and save it before this call: Heppu does not show it again.
        """
        webhook = {"url": url, "events": list(events), "secret": secret}
        return _mapping(
            self._request(
                "POST", "/webhooks", body=webhook | ({"description": description} if description else {})
            )
        )

    def update_webhook(self, webhook_id: str, **changes: Any) -> dict[str, Any]:
        """Change `events` or `status`, the only documented changes, and return the webhook."""
        return _mapping(self._request("PATCH", f"/webhooks/{quote(webhook_id, safe='')}", body=changes))

    def delete_webhook(self, webhook_id: str) -> None:
        """Delete a webhook."""
        self._request("DELETE", f"/webhooks/{quote(webhook_id, safe='')}")

    def schedule_call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Schedule an outbound call by an agent, with the fields of `POST /calls/schedule`, and return it."""
        return _mapping(self._request("POST", "/calls/schedule", body=call))

    def list_calls(self, **query: str | int) -> Iterator[dict[str, Any]]:
        """Yield the calls that match `query` (`phoneNumber`, `agentId`, `startDate` ...), newest first."""
        offset = 0
        while True:
            page = self.calls_page(offset, **query)
            yield from page.calls
            offset += len(page.calls)
            if not page.has_more:
                return

    def calls_page(self, offset: int = 0, **query: str | int) -> CallsPage:
        """Return one page of the calls that match `query`."""
        data = self._request(
            "GET", "/calls", query={**query, "limit": PAGE_SIZE, "offset": offset}, list_key="calls"
        )
        calls = data["calls"]
        return CallsPage(calls, bool(calls) and _mapping(data.get("pagination")).get("hasMore") is True)

    def get_call(self, call_id: str) -> dict[str, Any]:
        """Return one call with its `metadata`, which `list_calls` does not include."""
        return _mapping(self._request("GET", f"/calls/{quote(call_id, safe='')}"))

    def find(self, path: str) -> dict[str, Any] | None:
        """Return the record at a path; None if Heppu does not have it."""
        try:
            return _mapping(self._request("GET", path)) or None
        except HeppuError as error:
            if error.status == 404:
                return None
            raise

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
        list_key: str | None = None,
    ) -> Any:
        """Return the data of the response.

        `list_key` names a list of objects that the data must contain; the error page of a proxy does not.
        """
        response = self._http.request(
            method, self._url + path, headers=self._headers, json=body, params=query
        )
        body_json = _json(response)
        data = body_json.get("data", body_json) if isinstance(body_json, dict) else body_json
        items = _mapping(data).get(list_key) if list_key else []
        readable = isinstance(items, list) and all(isinstance(item, dict) for item in items)
        if not response.is_success or not readable or (body_json is None and response.content):
            raise HeppuError(f"{method} /{path.split('/')[1]}", response)
        return data


def new_secret() -> str:
    """Return a new random webhook secret in the format of Heppu's samples."""
    return "whsec_" + secrets.token_urlsafe(32)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _first_list(value: Any) -> list[Any]:
    return next((item for item in _mapping(value).values() if isinstance(item, list)), [])
