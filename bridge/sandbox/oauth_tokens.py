"""Mock token endpoints of Microsoft Entra and Google, whose access tokens log in to the mock SMTP server."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import jwt
from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import ProviderRequest

TENANT = "0f0e0d0c-1a1b-4c2d-8e3f-5a6b7c8d9e0f"
CLIENT_ID = "7c6b5a49-3827-4615-9403-f2e1d0c9b8a7"
CLIENT_SECRET = "Zm9~sandboxClientSecret"  # noqa: S105 - valid only in this sandbox
REFRESH_TOKEN = "1//sandbox-refresh-token"  # noqa: S105
MAILBOX = "hello@harbourlight.example"
EXCHANGE_SCOPE = "https://outlook.office365.com/.default"
GMAIL_SCOPE = "https://mail.google.com/"
_CLAIMS = ["iss", "aud", "exp", "iat", "scope", "sub"]
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class TokenServer:
    """Issues access tokens for mailboxes.

    `mailboxes` are those that the application may send as. `service_accounts` maps the email address of a Google
    service account with domain-wide delegation to its public key (PEM). A token lasts `lifetime`.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.mailboxes = {MAILBOX}
        self.service_accounts: dict[str, str] = {}
        self.lifetime = timedelta(hours=1)
        self._tokens: dict[str, tuple[datetime, str | None]] = {}

    def accepts(self, user: str, token: str) -> bool:
        """Return whether the SMTP server lets `user` log in with `token`."""
        issued = self._tokens.get(token)
        if issued is None or self._now() >= issued[0] or user not in self.mailboxes:
            return False
        return issued[1] in (None, user)

    def revoke_all(self) -> None:
        """Make every token issued so far invalid before its time."""
        self._tokens.clear()

    def entra_token(self, request: ProviderRequest) -> Response:
        """Answer `POST /{tenant}/oauth2/v2.0/token`: client credentials for Exchange Online."""
        form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
        if request.path_params["tenant"] != TENANT:
            return _error(400, "invalid_request", "AADSTS90002: Tenant not found.")
        if form.get("client_id") != CLIENT_ID:
            return _error(
                400, "unauthorized_client", "AADSTS700016: Application was not found in the directory."
            )
        if form.get("client_secret") != CLIENT_SECRET:
            return _error(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
        if form.get("grant_type") != "client_credentials":
            return _error(400, "unsupported_grant_type", "AADSTS70003: The grant type is not supported.")
        if not form.get("scope", "").endswith("/.default"):
            return _error(400, "invalid_scope", "AADSTS1002012: The scope is not valid.")
        # Any resource gets a token, but Exchange accepts only those that were issued for it.
        return self._issue(None if form["scope"] == EXCHANGE_SCOPE else "")

    def google_token(self, request: ProviderRequest) -> Response:
        """Answer `POST /token`: a refresh token, or the assertion of a service account, for Gmail."""
        form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
        if form.get("grant_type") == _JWT_GRANT:
            return self._token_for_assertion(
                form, f"{request.headers.get('host', '')}{request.prefix}{request.path}"
            )
        if form.get("grant_type") != "refresh_token":
            return _error(400, "unsupported_grant_type", "Invalid grant_type")
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return _error(401, "invalid_client", "The OAuth client was not found.")
        if form.get("refresh_token") != REFRESH_TOKEN:
            return _error(400, "invalid_grant", "Token has been expired or revoked.")
        return self._issue(MAILBOX)

    def _token_for_assertion(self, form: Mapping[str, str], address: str) -> Response:
        assertion = form.get("assertion", "")
        try:
            issuer = str(jwt.decode(assertion, options={"verify_signature": False}).get("iss"))
            claims = jwt.decode(
                assertion,
                self.service_accounts.get(issuer, ""),
                algorithms=["RS256"],
                audience=f"http://{address}",
                options={"require": _CLAIMS, "verify_exp": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError):
            return _error(400, "invalid_grant", "Invalid JWT Signature.")
        now = self._now().timestamp()
        if not claims["iat"] - 300 <= now < claims["exp"] <= claims["iat"] + 3600:
            return _error(400, "invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes)")
        if claims["scope"] != GMAIL_SCOPE or claims["sub"] not in self.mailboxes:
            return _error(401, "unauthorized_client", "Client is unauthorized to retrieve access tokens.")
        return self._issue(claims["sub"])

    def _issue(self, subject: str | None) -> Response:
        token = f"ya29.{secrets.token_urlsafe(900)}"  # real ones have over a thousand characters as well
        self._tokens[token] = (self._now() + self.lifetime, subject)
        return JSONResponse(
            {"token_type": "Bearer", "expires_in": int(self.lifetime.total_seconds()), "access_token": token}
        )


def _error(status: int, error: str, description: str) -> Response:
    body: dict[str, Any] = {"error": error, "error_description": description}
    return JSONResponse(body, status)
