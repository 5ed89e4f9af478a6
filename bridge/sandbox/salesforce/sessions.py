"""OAuth logins to an org: client credentials and the JWT bearer flow."""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import jwt
from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import ProviderError, ProviderRequest

CONSUMER_KEY = "3MVG9sandboxConsumerKey.0123456789abcdefghijklmnopqrstuvwxyz"
CONSUMER_SECRET = "5A0B1C2D3E4F5A6B7C8D9E0F1A2B3C4D5E6F7A8B9C0D1E2F3A4B5C6D7E8F9A0B"  # noqa: S105
USERNAME = "integration@harbourlight.example"
INSTANCE_URL = "https://harbourlight.my.salesforce.com"
AUDIENCES = ("https://login.salesforce.com", "https://test.salesforce.com", INSTANCE_URL)
MAX_ASSERTION_AGE = timedelta(minutes=3)
_CLOCK_SKEW = timedelta(seconds=30)
_MAX_SESSIONS = 1000


class Sessions:
    """The valid access tokens, and the settings of the external client app and its user."""

    def __init__(self) -> None:
        self.public_key: str | None = None
        """If set (PEM), a JWT must be signed with the matching private key."""
        self.client_credentials_enabled = True
        """Whether the app allows the client credentials flow."""
        self.run_as: str | None = USERNAME
        """The user of the client credentials flow."""
        self.user_approved = True
        """Whether the app's policies admit a profile or permission set of the user."""
        self.user_active = True
        self.org_active = True
        self.ip_restricted = False
        """Whether the user's profile has login IP ranges without this host."""
        self._tokens: dict[str, None] = {}

    def expire(self) -> None:
        """End all sessions. The next request of each gets INVALID_SESSION_ID."""
        self._tokens.clear()

    def is_valid(self, token: str | None) -> bool:
        """Return whether the token is valid."""
        return token in self._tokens

    def log_in(self, request: ProviderRequest) -> Response:
        """Handle the token endpoint. Raise ProviderError with an OAuth error."""
        form = dict(parse_qsl(request.body.decode("utf-8", "replace")))
        if form.get("grant_type") == "client_credentials":
            self._check_client(request, form)
        elif form.get("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            self._check_assertion(form.get("assertion", ""))
        else:
            raise _oauth_error("unsupported_grant_type", "grant type not supported")
        self._check_user()
        token = f"00D5g000004XyZa!{secrets.token_urlsafe(48)}"
        self._tokens[token] = None
        while len(self._tokens) > _MAX_SESSIONS:
            del self._tokens[next(iter(self._tokens))]
        return JSONResponse(
            {
                "access_token": token,
                "instance_url": INSTANCE_URL,
                "id": f"https://login.salesforce.com/id/00D5g000004XyZa/{USERNAME}",
                "token_type": "Bearer",
                "scope": "api",
                "issued_at": str(int(datetime.now(UTC).timestamp() * 1000)),
            }
        )

    def _check_client(self, request: ProviderRequest, form: dict[str, str]) -> None:
        credentials = (form.get("client_id"), form.get("client_secret"))
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                key, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
            except ValueError:
                key = secret = ""
            credentials = (key, secret)
        if credentials[0] != CONSUMER_KEY:
            raise _oauth_error("invalid_client_id", "client identifier invalid")
        if credentials[1] != CONSUMER_SECRET:
            raise _oauth_error("invalid_client", "invalid client credentials")
        if not self.client_credentials_enabled:
            raise _oauth_error("invalid_grant", "client credentials flow not enabled")
        if self.run_as is None:
            raise _oauth_error("invalid_grant", "no client credentials user enabled")

    def _check_user(self) -> None:
        """Check that the user may log in. Raise ProviderError with an OAuth error."""
        if not self.org_active:
            raise _oauth_error("inactive_org", "organization is inactive")
        if not self.user_active:
            raise _oauth_error("inactive_user", "user is inactive")
        if not self.user_approved:
            raise _oauth_error("invalid_app_access", "user is not admin approved to access this app")
        if self.ip_restricted:
            raise _oauth_error("invalid_grant", "ip restricted")

    def _check_assertion(self, assertion: str) -> None:
        """Check a JWT. Its times are compared with the system clock, because the SDK that signs it also uses that."""
        try:
            if jwt.get_unverified_header(assertion).get("alg") != "RS256":
                raise _oauth_error("invalid_grant", "invalid assertion: RS256 is needed")
            claims = jwt.decode(
                assertion,
                self.public_key or "",
                algorithms=["RS256"],
                options={
                    "verify_signature": self.public_key is not None,
                    "verify_aud": False,
                    "verify_exp": False,
                    "verify_sub": False,
                },
            )
        except jwt.PyJWTError:
            raise _oauth_error("invalid_grant", "invalid assertion") from None
        if claims.get("iss") != CONSUMER_KEY:
            raise _oauth_error("invalid_client_id", "client identifier invalid")
        if claims.get("aud") not in AUDIENCES:
            raise _oauth_error("invalid_grant", "audience is invalid")
        try:
            expires = datetime.fromtimestamp(float(claims.get("exp", "")), UTC)
        except (ValueError, TypeError, OverflowError):
            raise _oauth_error("invalid_grant", "invalid assertion: exp") from None
        now = datetime.now(UTC)
        if not now - _CLOCK_SKEW <= expires <= now + MAX_ASSERTION_AGE + _CLOCK_SKEW:
            raise _oauth_error("invalid_grant", "expired authorization code")
        if claims.get("sub") != USERNAME:
            raise _oauth_error("invalid_grant", "user hasn't approved this consumer")


def _oauth_error(error: str, description: str) -> ProviderError:
    return ProviderError(JSONResponse({"error": error, "error_description": description}, 400))
