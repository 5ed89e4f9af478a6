"""Mock Zendesk account: authentication, limits, and changes made by its agents."""

from __future__ import annotations

import base64
import secrets
from collections import deque
from datetime import datetime, timedelta
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import Handler, ProviderError, ProviderRequest, spend
from bridge.sandbox.zendesk.errors import error_response, too_many
from bridge.sandbox.zendesk.setup import AGENT_ID, Record, default_agents, default_setup, new_user
from bridge.sandbox.zendesk.tickets import TicketApi
from bridge.sandbox.zendesk.users import UserApi

EMAIL = "bridge@harbourlight.example"
API_TOKEN = "sandboxZendeskApiToken0123456789abcdefgh"  # noqa: S105 - valid only in this sandbox
CLIENT_ID = "heppu_bridge"
CLIENT_SECRET = "sandbox-zendesk-client-secret"  # noqa: S105
_MINUTE = timedelta(minutes=1)
_AUDIT_PATH = "/audits"


class Zendesk(TicketApi, UserApi):
    """An account with two agents, three groups and some custom fields.

    `scopes` are those that the OAuth client may have, `token_lifetime` how long its access tokens last. With
    `accepts_api_tokens` false, the account is one after April 30, 2027. If `requests_per_minute` is set, the limit of
    the plan is enforced; with `limits_user_writes`, the limit of `create_or_update`. Lists have `page_size` records.
    """

    name = "zendesk"

    def reset(self) -> None:
        """Restore a new account: its agents and setup, no end users, no tickets."""
        with self.lock:
            self.setup = default_setup()
            self.users = default_agents(self.timestamp())
            self.accepts_api_tokens = True
            self.scopes = {"read", "write"}
            self.token_lifetime = timedelta(minutes=30)
            self.requests_per_minute: int | None = None
            self.limits_user_writes = False
            self.page_size = 100
            self._access_tokens: dict[str, tuple[datetime, set[str]]] = {}
            self._requests: deque[datetime] = deque()
            self.reset_tickets()
            self.reset_users()

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Return the routes of the Support API, and of the token endpoint."""
        return [
            ("POST", "/oauth/tokens", self._issue_token),
            *self.user_routes(),
            *self.ticket_routes(),
            *((("GET", f"/api/v2/{name}", self._list_setup)) for name in default_setup()),
        ]

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Return the end users and the tickets."""
        with self.lock:
            end_users = [user for user in self.users.values() if user["role"] == "end-user"]
            return {"users": end_users, "tickets": list(self.tickets.values())}

    def error_response(self, status: int, message: str | None = None) -> Response:
        """Return Zendesk's error object for a status."""
        return error_response(status, message)

    def quota_error_response(self) -> Response:
        """Return the response to requests over the plan's limit."""
        return too_many(15, 0, "API rate limit exceeded").response

    def authorize(self, request: ProviderRequest) -> None:
        """Raise ProviderError without valid credentials, without the scope, and over the plan's limit."""
        if request.path == "/oauth/tokens":
            return
        if not spend(self._requests, self.requests_per_minute, _MINUTE, self.now()):
            raise too_many(15, 0, "API rate limit exceeded")
        token = request.bearer_token()
        if token is None:
            login = base64.b64encode(f"{EMAIL}/token:{API_TOKEN}".encode()).decode()
            if not self.accepts_api_tokens or request.headers.get("authorization") != f"Basic {login}":
                raise ProviderError(JSONResponse({"error": "Couldn't authenticate you"}, 401))
            return
        expires_at, scopes = self._access_tokens.get(token, (self.now(), set()))
        if self.now() >= expires_at:
            raise ProviderError(
                JSONResponse(
                    {"error": "invalid_token", "error_description": "The access token provided is expired"},
                    401,
                )
            )
        if not scopes & _sufficient_scopes(request):
            raise ProviderError(error_response(403, "You are missing the following required scopes"))

    def add_user(self, **values: Any) -> Record:
        """Create an existing user for a test."""
        with self.lock:
            user = new_user(self.next_id(), self.timestamp(), **values)
            self.users[user["id"]] = user
            return user

    def revoke_tokens(self) -> None:
        """Make every access token invalid before its time."""
        with self.lock:
            self._access_tokens.clear()

    def _issue_token(self, request: ProviderRequest) -> Response:
        try:
            body = request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or body.get("grant_type") != "client_credentials":
            return _oauth_error(400, "unsupported_grant_type")
        if (body.get("client_id"), body.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return _oauth_error(401, "invalid_client")
        scopes = set(str(body.get("scope", "")).split())
        if not scopes or not scopes <= self.scopes:
            return _oauth_error(400, "invalid_scope")
        token = secrets.token_hex(32)
        self._access_tokens[token] = (self.now() + self.token_lifetime, scopes)
        return JSONResponse(
            {
                "access_token": token,
                "token_type": "bearer",
                "scope": " ".join(sorted(scopes)),
                "expires_in": int(self.token_lifetime.total_seconds()),
            }
        )

    def _list_setup(self, request: ProviderRequest) -> Response:
        name = request.path.rpartition("/")[2]
        if name == "custom_statuses":
            return JSONResponse({name: self.setup[name]})
        return self.page(request, name, self.setup[name])

    def acting_user(self) -> Record:
        """Return the agent as whom the bridge acts."""
        return self.users[AGENT_ID]


def _sufficient_scopes(request: ProviderRequest) -> set[str]:
    """Return the scopes of which one is needed. Audits need the global scope."""
    access = "read" if request.method == "GET" else "write"
    if request.path.endswith(_AUDIT_PATH):
        return {access}
    resource = request.path.removeprefix("/api/v2/").split("/")[0]
    return {access, f"{resource}:{access}"}


def _oauth_error(status: int, error: str) -> Response:
    return JSONResponse({"error": error, "error_description": f"{error}: see the documentation"}, status)
