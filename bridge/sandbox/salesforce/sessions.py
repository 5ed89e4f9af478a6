"""Logging in to an org: client credentials and the JWT bearer flow."""

from __future__ import annotations

import base64
import secrets
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import jwt
from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import Call, Refusal

CONSUMER_KEY = "3MVG9sandboxConsumerKey.0123456789abcdefghijklmnopqrstuvwxyz"
CONSUMER_SECRET = "5A0B1C2D3E4F5A6B7C8D9E0F1A2B3C4D5E6F7A8B9C0D1E2F3A4B5C6D7E8F9A0B"  # noqa: S105
USERNAME = "integration@harbourlight.example"
INSTANCE_URL = "https://harbourlight.my.salesforce.com"
AUDIENCES = ("https://login.salesforce.com", "https://test.salesforce.com", INSTANCE_URL)
LONGEST_ASSERTION = timedelta(minutes=3)
_SKEW = timedelta(seconds=30)
_SESSIONS_KEPT = 1000


class Sessions:
    """The tokens that are valid now; with `public_key` (PEM) set, a JWT must be signed by its counterpart."""

    def __init__(self) -> None:
        self.public_key: str | None = None
        self._tokens: dict[str, None] = {}

    def expire(self) -> None:
        """All sessions end: the next request of each is answered INVALID_SESSION_ID."""
        self._tokens.clear()

    def valid(self, token: str | None) -> bool:
        """Whether a request with this token is let in."""
        return token in self._tokens

    def log_in(self, call: Call) -> Response:
        """The token endpoint; raises Refusal with OAuth's own error."""
        form = dict(parse_qsl(call.body.decode("utf-8", "replace")))
        if form.get("grant_type") == "client_credentials":
            self._check_client(call, form)
        elif form.get("grant_type") == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            self._check_assertion(form.get("assertion", ""))
        else:
            raise _refused("unsupported_grant_type", "grant type not supported")
        token = f"00D5g000004XyZa!{secrets.token_urlsafe(48)}"
        self._tokens[token] = None
        while len(self._tokens) > _SESSIONS_KEPT:
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

    def _check_client(self, call: Call, form: dict[str, str]) -> None:
        given = (form.get("client_id"), form.get("client_secret"))
        scheme, _, encoded = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                key, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
            except ValueError:
                key = secret = ""
            given = (key, secret)
        if given[0] != CONSUMER_KEY:
            raise _refused("invalid_client_id", "client identifier invalid")
        if given[1] != CONSUMER_SECRET:
            raise _refused("invalid_client", "invalid client credentials")

    def _check_assertion(self, assertion: str) -> None:
        """A JWT's times are measured by the machine's clock, as is the SDK that signs it."""
        try:
            if jwt.get_unverified_header(assertion).get("alg") != "RS256":
                raise _refused("invalid_grant", "invalid assertion: RS256 is needed")
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
            raise _refused("invalid_grant", "invalid assertion") from None
        if claims.get("iss") != CONSUMER_KEY:
            raise _refused("invalid_client_id", "client identifier invalid")
        if claims.get("aud") not in AUDIENCES:
            raise _refused("invalid_grant", "audience is invalid")
        try:
            expires = datetime.fromtimestamp(float(claims.get("exp", "")), UTC)
        except (ValueError, TypeError, OverflowError):
            raise _refused("invalid_grant", "invalid assertion: exp") from None
        now = datetime.now(UTC)
        if not now - _SKEW <= expires <= now + LONGEST_ASSERTION + _SKEW:
            raise _refused("invalid_grant", "expired authorization code")
        if claims.get("sub") != USERNAME:
            raise _refused("invalid_grant", "user hasn't approved this consumer")


def _refused(error: str, description: str) -> Refusal:
    return Refusal(JSONResponse({"error": error, "error_description": description}, 400))
