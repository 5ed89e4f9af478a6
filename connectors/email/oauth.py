"""OAuth access tokens for SMTP: Microsoft 365 by client credentials, Gmail by a service account or a refresh token."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from pydantic import SecretStr

from bridge.connector import Token, request_token
from bridge.errors import AuthenticationError

from .settings import Settings, connector

ENTRA_URL = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"
GOOGLE_URL = "https://oauth2.googleapis.com/token"
EXCHANGE_SCOPE = "https://outlook.office365.com/.default"
"""Scope of the resource Exchange Online. A token for Microsoft Graph is refused by its SMTP server."""
GMAIL_SCOPE = "https://mail.google.com/"
"""The only scope that Gmail's SMTP server accepts."""
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


@connector.token
def token(settings: Settings, previous: Token | None) -> Token:
    """Log in to the token endpoint of Microsoft Entra or Google. Neither exchanges the refresh token."""
    del previous
    url, form = _request(settings)
    return request_token(url, form, fixes=_FIXES, fix="check the EMAIL_OAUTH_... settings")


def _request(settings: Settings) -> tuple[str, dict[str, str | SecretStr]]:
    """Return the URL of the token endpoint and the form to post."""
    own_url = settings.oauth_token_url
    if settings.oauth_service_account_file is not None:
        return _service_account_request(settings, own_url or GOOGLE_URL)
    form: dict[str, str | SecretStr] = {
        "client_id": settings.oauth_client_id or "",
        "client_secret": settings.oauth_client_secret or "",
    }
    if settings.oauth_refresh_token is not None:
        return own_url or GOOGLE_URL, form | {
            "grant_type": "refresh_token",
            "refresh_token": settings.oauth_refresh_token,
        }
    url = own_url or ENTRA_URL.format(tenant=settings.oauth_tenant)
    return url, form | {"grant_type": "client_credentials", "scope": EXCHANGE_SCOPE}


def _service_account_request(settings: Settings, url: str) -> tuple[str, dict[str, str | SecretStr]]:
    import jwt  # and with it cryptography: only service accounts need them

    path = settings.oauth_service_account_file
    try:
        key = json.loads(path.read_bytes() if path else b"")
        now = int(time.time())
        claims = {
            "iss": str(key["client_email"]),
            "sub": settings.oauth_mailbox,
            "scope": GMAIL_SCOPE,
            "aud": url,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        }
        headers = {"kid": str(key.get("private_key_id", ""))}
        assertion = jwt.encode(claims, key["private_key"], "RS256", headers)
    except (OSError, ValueError, LookupError, TypeError, jwt.PyJWTError):  # their messages repeat the key
        raise AuthenticationError(
            "the file of EMAIL_OAUTH_SERVICE_ACCOUNT_FILE is not the key of a service account",
            fix="create a key of type JSON in Google Cloud's console and set the path of that file",
        ) from None
    return url, {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
