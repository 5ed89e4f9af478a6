"""OAuth access tokens for SMTP: Microsoft 365 by client credentials, Gmail by a service account or a refresh token."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx

from bridge.connector import http_client, parse_retry_after
from bridge.errors import AuthenticationError, DeliveryError, RateLimited, TransientError

from .settings import Settings

ENTRA_URL = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"
GOOGLE_URL = "https://oauth2.googleapis.com/token"
EXCHANGE_SCOPE = "https://outlook.office365.com/.default"
"""Scope of the resource Exchange Online. A token for Microsoft Graph is refused by its SMTP server."""
GMAIL_SCOPE = "https://mail.google.com/"
"""The only scope that Gmail's SMTP server accepts."""
EXPIRY_MARGIN = 300.0
"""Seconds. A token is renewed this long before it expires, because a message needs some time."""
ASSERTION_SECONDS = 3600
"""Google accepts assertions that are valid for at most an hour."""

_FIXES: Mapping[str, str] = {
    "AADSTS7000215": "EMAIL_OAUTH_CLIENT_SECRET is wrong: copy the secret's value, not its ID",
    "AADSTS7000222": "the client secret has expired: create a new one under Certificates & secrets of the app",
    "AADSTS700016": "EMAIL_OAUTH_CLIENT_ID is not an app of this tenant: copy the application (client) ID",
    "AADSTS90002": "EMAIL_OAUTH_TENANT is not a tenant: copy the directory (tenant) ID of the app",
    "AADSTS50034": "EMAIL_OAUTH_TENANT is not a tenant: copy the directory (tenant) ID of the app",
    "invalid_client": "check EMAIL_OAUTH_CLIENT_ID and EMAIL_OAUTH_CLIENT_SECRET",
    "invalid_grant": "the refresh token was revoked or has expired, or the service account's key was deleted: grant "
    "access again, or create a new key",
    "unauthorized_client": "allow the service account's client ID the scope https://mail.google.com/ under domain-wide "
    "delegation in Google's admin console, and set EMAIL_OAUTH_USER to a mailbox of the domain",
}
"""Error code of the token endpoint -> what to do. The first one in the answer counts; Microsoft's are more exact."""


class TokenSource:
    """Access tokens of one mailbox: fetched when needed, shared by all threads, renewed before they expire."""

    def __init__(self, settings: Settings) -> None:
        self.user = settings.oauth_mailbox
        self._settings = settings
        self._http = http_client()
        self._lock = threading.Lock()
        self._token = ""
        self._expires_at = 0.0

    def close(self) -> None:
        """Close the HTTP connections."""
        self._http.close()

    def token(self, refused: str = "") -> str:
        """Return a valid token, and a new one if the current one is the token that the server `refused`.

        Raises AuthenticationError if the token endpoint does not accept the app, TransientError if it does not answer.
        """
        with self._lock:
            if not self._token or self._token == refused or time.monotonic() >= self._expires_at:
                self._token, lifetime = self._fetch()
                self._expires_at = time.monotonic() + max(lifetime - EXPIRY_MARGIN, lifetime / 2)
            return self._token

    def _fetch(self) -> tuple[str, float]:
        """Return a new token and its lifetime in seconds."""
        url, form = self._request()
        try:
            response = self._http.post(url, data=form)
        except httpx.HTTPError as error:
            raise TransientError(
                f"no connection to the OAuth token endpoint: {type(error).__name__}", reason="network"
            ) from error
        answer = _json_object(response)
        token, lifetime = answer.get("access_token"), answer.get("expires_in", 3600)
        if response.status_code != 200 or not isinstance(token, str) or not token:
            raise _token_error(response, answer)
        return token, float(lifetime) if isinstance(lifetime, int | float | str) and str(
            lifetime
        ).isdigit() else 3600.0

    def _request(self) -> tuple[str, dict[str, str]]:
        """Return the URL of the token endpoint and the form to post."""
        settings = self._settings
        own_url = settings.oauth_token_url
        if settings.oauth_service_account_file is not None:
            return self._service_account_request(own_url or GOOGLE_URL)
        secret = settings.oauth_client_secret
        form = {
            "client_id": settings.oauth_client_id or "",
            "client_secret": secret.get_secret_value() if secret else "",
        }
        if settings.oauth_refresh_token is not None:
            refresh_token = settings.oauth_refresh_token.get_secret_value()
            return own_url or GOOGLE_URL, form | {
                "grant_type": "refresh_token",
                "refresh_token": refresh_token,
            }
        url = own_url or ENTRA_URL.format(tenant=settings.oauth_tenant)
        return url, form | {"grant_type": "client_credentials", "scope": EXCHANGE_SCOPE}

    def _service_account_request(self, url: str) -> tuple[str, dict[str, str]]:
        import jwt  # and with it cryptography: only service accounts need them

        path = self._settings.oauth_service_account_file
        try:
            key = json.loads(path.read_bytes() if path else b"")
            now = int(time.time())
            claims = {
                "iss": str(key["client_email"]),
                "sub": self.user,
                "scope": GMAIL_SCOPE,
                "aud": url,
                "iat": now,
                "exp": now + ASSERTION_SECONDS,
            }
            assertion = jwt.encode(
                claims, key["private_key"], "RS256", {"kid": str(key.get("private_key_id", ""))}
            )
        except (OSError, ValueError, LookupError, TypeError, jwt.PyJWTError):  # their messages repeat the key
            raise AuthenticationError(
                "the file of EMAIL_OAUTH_SERVICE_ACCOUNT_FILE is not the key of a service account",
                fix="create a key of type JSON in Google Cloud's console and set the path of that file",
            ) from None
        return url, {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _token_error(response: httpx.Response, answer: Mapping[str, Any]) -> DeliveryError:
    """Map the answer of the token endpoint. Only known codes are kept: its descriptions name users and apps."""
    status = response.status_code
    if status == 429:
        return RateLimited(
            "the OAuth token endpoint answered 429",
            retry_after=parse_retry_after(response.headers.get("Retry-After")),
        )
    words = f"{answer.get('error_description', '')} {answer.get('error', '')}"
    code = next((code for code in _FIXES if _contains(words, code)), "")
    if status >= 500 or status < 400 or status in (408, 425):
        return TransientError(f"the OAuth token endpoint answered {status} without a token")
    return AuthenticationError(
        f"the OAuth token endpoint answered {' '.join(filter(None, (str(status), code)))}",
        fix=_FIXES.get(code, "check the EMAIL_OAUTH_... settings"),
    )


def _contains(words: str, code: str) -> bool:
    """Return whether a code is one of the words: AADSTS700016 begins like AADSTS7000215."""
    return any(word.strip(":.,") == code for word in words.split())
