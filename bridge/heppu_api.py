"""Heppu's own API: the webhooks that send events here, and calls to be made.

The documentation shows four envelopes for answers and four for errors, so what happened is decided on the HTTP
status alone, and the body is read as far as it can be.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from bridge.errors import BridgeError

URL = "https://v2.heppu.ai/api/v1"
PAGE = 100
"""The most calls that Heppu lists at once."""


class HeppuError(BridgeError):
    """Heppu answered with something else than a success that can be read.

    The text names what was asked for and the status; `message` is Heppu's own explanation, which may repeat a
    person's data and is for the eyes of whoever asked only.
    """

    def __init__(self, asked: str, response: httpx.Response) -> None:
        self.status = response.status_code
        self.retry_after = response.headers.get("Retry-After")
        error = _mapping(_mapping(_json(response)).get("error"))
        code, message = error.get("code"), error.get("message")
        self.code = code if isinstance(code, str) and re.fullmatch(r"[a-z_]{1,60}", code) else ""
        self.message = message if isinstance(message, str) else ""
        super().__init__(
            f"Heppu answered {self.status} to {asked}" + (f" ({self.code})" if self.code else "")
        )


class HeppuApi:
    """One organisation at Heppu. Every method raises HeppuError for an answer that is no success, and what httpx
    raises when there is none.

    `http` replaces the client that makes the requests, for callers with deadlines of their own.
    """

    def __init__(self, api_key: str, url: str = URL, http: httpx.Client | None = None) -> None:
        self._http = http or httpx.Client(timeout=10, follow_redirects=False, trust_env=False)
        self._url = url.rstrip("/")
        self._headers = {"x-api-key": api_key}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def list_webhooks(self) -> list[dict[str, Any]]:
        """The webhooks that are set up."""
        data = self._ask("GET", "/webhooks")
        # Whether the list stands in `data` or in an object there is not documented.
        found = data if isinstance(data, list) else _first_list(data)
        return [item for item in found if isinstance(item, dict)]

    def create_webhook(
        self, url: str, events: Sequence[str], secret: str, description: str = ""
    ) -> dict[str, Any]:
        """Have `events` sent to `url`, signed with `secret`.

        What Heppu does without a secret is not documented, so one is always sent; `new_secret` makes it. Keep it
        before calling: it is not shown again.
        """
        wanted = {"url": url, "events": list(events), "secret": secret}
        return _mapping(
            self._ask(
                "POST", "/webhooks", body=wanted | ({"description": description} if description else {})
            )
        )

    def update_webhook(self, webhook: str, **changes: Any) -> dict[str, Any]:
        """Change `events` or `status`; nothing else is documented to be changeable."""
        return _mapping(self._ask("PATCH", f"/webhooks/{quote(webhook, safe='')}", body=changes))

    def delete_webhook(self, webhook: str) -> None:
        """Stop sending."""
        self._ask("DELETE", f"/webhooks/{quote(webhook, safe='')}")

    def schedule_call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Have an agent call somebody; the fields are those of `POST /calls/schedule`."""
        return _mapping(self._ask("POST", "/calls/schedule", body=call))

    def list_calls(self, **query: str | int) -> Iterator[dict[str, Any]]:
        """The calls that fit `query` (`phoneNumber`, `agentId`, `startDate` ...), newest first, page by page."""
        offset = 0
        while True:
            data = self._ask(
                "GET", "/calls", query={**query, "limit": PAGE, "offset": offset}, wanted="calls"
            )
            yield from data["calls"]
            offset += len(data["calls"])
            if not data["calls"] or _mapping(data.get("pagination")).get("hasMore") is not True:
                return

    def get_call(self, call: str) -> dict[str, Any]:
        """One call with its `metadata`, which the list leaves out."""
        return _mapping(self._ask("GET", f"/calls/{quote(call, safe='')}"))

    def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
        wanted: str | None = None,
    ) -> Any:
        """The answer's data. `wanted` names the list of objects without which it is none: a proxy's page is no list."""
        response = self._http.request(
            method, self._url + path, headers=self._headers, json=body, params=query
        )
        found = _json(response)
        data = found.get("data", found) if isinstance(found, dict) else found
        items = _mapping(data).get(wanted) if wanted else []
        readable = isinstance(items, list) and all(isinstance(item, dict) for item in items)
        if not response.is_success or not readable or (found is None and response.content):
            raise HeppuError(f"{method} /{path.split('/')[1]}", response)
        return data


def new_secret() -> str:
    """A fresh webhook secret in the form that Heppu's own samples have."""
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
