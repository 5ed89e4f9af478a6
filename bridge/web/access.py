"""Access: which tokens exist, what each one opens, and who sent a request."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

from bridge.secret_settings import AccessToken

DASHBOARD: Final = "dashboard"
API: Final = "api"
"""Actors of audit entries if the token has no name: on the dashboard, and through the API."""
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_METRICS_PATHS: Final = frozenset(("/metrics", "/metrics/webhooks"))
_READING_POSTS: Final = frozenset(
    (
        "/search",
        "/contacts",
        "/api/search",
        "/api/contacts",
        "/api/contacts/export",
        "/api/why",
        "/settings",
        "/rules/try",
        "/api/rules/check",
        "/api/rules/plan",
        "/api/rules/explain",
    )
)
"""Paths whose POST changes nothing that is stored: it keeps an address out of the URL, or sets a cookie."""


class Access(IntEnum):
    """What a token opens. Each kind includes those before it."""

    METRICS = 1
    """`/metrics`."""
    READ = 2
    """The dashboard and the API, without changes."""
    ADMIN = 3
    """Everything."""


@dataclass(frozen=True)
class Principal:
    """Sender of a request: the name of its token, if it has one, and what the token opens."""

    access: Access
    name: str | None = None


def required_access(scope: Scope) -> Access:
    """Return the access that a request needs. What is not known to be harmless needs a token for everything."""
    path, method = scope["path"], scope["method"]
    if method in SAFE_METHODS:
        return Access.METRICS if path in _METRICS_PATHS else Access.READ
    return Access.READ if path in _READING_POSTS else Access.ADMIN


def set_principal(scope: Scope, principal: Principal) -> None:
    """Remember who sent a request, for `actor_of`."""
    scope["bridge.principal"] = principal


def actor_of(request: Request) -> str:
    """Return the actor for the audit log: the name of the token, or where the request came in if it has none."""
    principal: Principal = request.scope["bridge.principal"]
    return principal.name or (API if request.url.path.startswith("/api/") else DASHBOARD)


class TokenTable:
    """The valid tokens. The time that a look-up takes depends neither on the token nor on which one it is."""

    def __init__(self, tokens: Mapping[Access, Sequence[AccessToken]]) -> None:
        self._tokens = [
            (_digest(token.token.get_secret_value()), Principal(access, token.name))
            for access, of_kind in tokens.items()
            for token in of_kind
        ]

    def find(self, token: str) -> tuple[Principal, bytes] | None:
        """Return who has this token, and the key of its sessions."""
        digest = _digest(token)
        matches = [item for item in self._tokens if hmac.compare_digest(digest, item[0])]
        return (matches[0][1], matches[0][0]) if matches else None

    def sessions(self, secret: str) -> Iterator[tuple[str, Principal]]:
        """Yield the ID that a session with this secret has under each token, and whose it is."""
        for key, principal in self._tokens:
            yield session_id(key, secret), principal


def session_id(key: bytes, secret: str) -> str:
    """Return the ID of a session: a hash under the token that opened it, so that a changed token ends the session."""
    return hmac.new(key, b"session:" + secret.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
