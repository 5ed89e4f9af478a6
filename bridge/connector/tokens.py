"""Tokens of a connection: obtained by the connector, stored sealed, and refreshed by one process for all of them.

A provider may count logins, and one that exchanges the refresh token accepts the earlier one only once. So one thread
of one process refreshes at a time; the others wait for its result, or use the token that is still valid.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pydantic import SecretStr

from bridge.clock import uptime
from bridge.connector.deadline import attempt_deadline, remaining_seconds
from bridge.errors import (
    AccountError,
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    StoreUnavailable,
    TransientError,
)

EXPIRY_MARGIN = timedelta(minutes=2)
"""How long before its expiry a token is refreshed, because a request takes time; at most a tenth of its lifetime."""
CLAIM_SECONDS = 60.0
"""How long a process may take to refresh; longer than an attempt. After a crash, others wait this long."""
_WAIT_SECONDS = 20.0
_POLL_SECONDS = 0.1
_REPLACE_SECONDS = 10.0
"""How long after a refused token was replaced the next one is not."""
_RETRY_SECONDS = 10.0
"""Wait after a failed early refresh, while the token is still valid."""


@dataclass(frozen=True)
class Token:
    """What a connection authenticates with for some time."""

    access: SecretStr
    """The token that requests carry."""
    expires_at: datetime | None = None
    """None: not known. The token is used until the provider refuses it."""
    refresh: SecretStr | None = None
    """The refresh token that replaces the one in the settings."""
    url: str | None = None
    """Base URL of the API, if the provider tells it with the token."""

    def __post_init__(self) -> None:
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise TypeError("Token.expires_at needs a time zone: write datetime.now(UTC) + timedelta(...)")


@dataclass(frozen=True)
class StoredToken:
    """A token, and when it was obtained."""

    token: Token
    issued_at: datetime

    def is_fresh(self, now: datetime) -> bool:
        """Return whether the token does not have to be refreshed yet."""
        expires_at = self.token.expires_at
        if expires_at is None:
            return True
        return now < expires_at - min(EXPIRY_MARGIN, (expires_at - self.issued_at) / 10)

    def is_valid(self, now: datetime) -> bool:
        """Return whether the token has not expired."""
        return self.token.expires_at is None or now < self.token.expires_at


class TokenStore(Protocol):
    """Where the processes share the token of one connection."""

    def read(self) -> StoredToken | None:
        """Return the last token that was saved; None if there is none for the current settings."""
        ...

    def claim(self, seconds: float) -> bool:
        """Return whether this process may refresh. No other may until `save` or `release`, or for `seconds`."""
        ...

    def save(self, stored: StoredToken) -> None:
        """Replace the token, and end the claim. Raise StoreUnavailable."""
        ...

    def release(self) -> None:
        """End the claim without a new token."""
        ...


class MemoryTokenStore:
    """The token of one process: for tests, for commands, and without a key to seal it with."""

    def __init__(self) -> None:
        self._stored: StoredToken | None = None

    def read(self) -> StoredToken | None:
        """Return the last token."""
        return self._stored

    def claim(self, seconds: float) -> bool:
        """Return True, because there are no other processes."""
        del seconds
        return True

    def save(self, stored: StoredToken) -> None:
        """Keep the token."""
        self._stored = stored

    def release(self) -> None:
        """Do nothing."""


class TokenSource:
    """The current token of one connection, shared by its threads. A client gets it if its connector has a token."""

    def __init__(
        self,
        obtain: Callable[[Token | None], Token],
        store: TokenStore | None = None,
        classify: Callable[[Exception], DeliveryError | None] = lambda _: None,
    ) -> None:
        """`obtain` is the connector's function without its settings, `classify` maps its exceptions."""
        self._obtain = obtain
        self._store = store or MemoryTokenStore()
        self._classify = classify
        self._lock = threading.Lock()
        self._held: StoredToken | None = None
        self._unsaved = False
        self._early_refresh_at = 0.0
        self._replaced_at = float("-inf")
        """When a refused token was last replaced (`uptime`)."""

    def current(self, refused: Token | None = None) -> Token:
        """Return a valid token, and another one than the token that the provider `refused`.

        A refused token that itself has just replaced one is returned again, so that the provider's next refusal is
        reported: however many tokens it issues, it does not let this account in.
        Raise TransientError if the provider does not answer, AuthenticationError if it refuses the credentials.
        """
        held, now = self._held, datetime.now(UTC)
        spare = held if held is not None and held.is_valid(now) and not _same(held, refused) else None
        is_early = uptime() < self._early_refresh_at
        if spare is not None and not self._unsaved and (spare.is_fresh(now) or is_early):
            return spare.token
        if not self._lock.acquire(timeout=0 if spare else remaining_seconds(_WAIT_SECONDS)):
            if spare is not None:
                return spare.token
            raise TransientError("another attempt is still obtaining a token", reason="timeout")
        try:
            if self._unsaved:
                self._save()
            self._held = self._renewed(refused, spare)
            return self._held.token
        except StoreUnavailable as error:
            if spare is not None:
                return spare.token
            raise TransientError(f"no token can be obtained: {error}", reason="internal_error") from error
        finally:
            self._lock.release()

    def _renewed(self, refused: Token | None, spare: StoredToken | None) -> StoredToken:
        """Return a fresh token: that of this process, that which another process stored, or a new one."""
        until = uptime() + remaining_seconds(_WAIT_SECONDS)
        while True:
            for stored in (self._held, None if self._unsaved else self._store.read()):
                if stored is not None and not _same(stored, refused) and stored.is_fresh(datetime.now(UTC)):
                    return stored
            if self._held is not None and refused and uptime() - self._replaced_at < _REPLACE_SECONDS:
                return self._held
            if self._store.claim(CLAIM_SECONDS):
                return self._refreshed(refused, spare)
            if spare is not None:
                return spare
            if uptime() >= until:
                raise TransientError("another process is still obtaining a token", reason="timeout")
            time.sleep(_POLL_SECONDS)

    def _refreshed(self, refused: Token | None, spare: StoredToken | None) -> StoredToken:
        """Obtain a token under the claim, unless another process has done so right before it."""
        stored: StoredToken | None = None
        try:
            stored = None if self._unsaved else self._store.read()
            if stored is not None and not _same(stored, refused) and stored.is_fresh(datetime.now(UTC)):
                self._store.release()
                return stored
            previous = stored or self._held
            # With a deadline of its own: obtaining a token is not what the attempt is to write.
            with attempt_deadline(uptime() + remaining_seconds(_WAIT_SECONDS)):
                token = self._obtain(previous.token if previous else None)
            if not isinstance(token, Token):
                raise TypeError(
                    f"the function of @connector.token returned {type(token).__name__}, not Token"
                )
        except Exception as error:
            self._store.release()
            failure = _failure_of(error, self._classify)
            if isinstance(failure, AuthenticationError) and (saved := self._saved_meanwhile(stored, refused)):
                return saved
            if spare is not None and isinstance(failure, TransientError):
                self._early_refresh_at = uptime() + _RETRY_SECONDS
                return spare
            raise failure from error
        self._held = StoredToken(token, datetime.now(UTC))
        if refused is not None:
            self._replaced_at = uptime()
        self._save()
        return self._held

    def _saved_meanwhile(self, known: StoredToken | None, refused: Token | None) -> StoredToken | None:
        """Return the token that another process has stored during the refresh: it used the refresh token first."""
        try:
            latest = self._store.read()
        except (StoreUnavailable, AccountError):
            return None
        is_new = latest is not None and latest != known and not _same(latest, refused)
        return latest if is_new else None

    def _save(self) -> None:
        """Store the token of this process. If the database is not available, try again when it is next used."""
        if self._held is None:
            return
        try:
            self._store.save(self._held)
            self._unsaved = False
        except StoreUnavailable:
            self._unsaved = True


def _same(stored: StoredToken, refused: Token | None) -> bool:
    return refused is not None and stored.token.access == refused.access


def _failure_of(error: Exception, classify: Callable[[Exception], DeliveryError | None]) -> Exception:
    """Return what a failure to obtain a token means: nothing was written, and a refusal is one of the credentials."""
    failure = error if isinstance(error, DeliveryError) else classify(error)
    if isinstance(failure, OutcomeUnknown):
        return TransientError(failure.detail, reason=failure.reason, retry_after=failure.retry_after)
    if isinstance(failure, PermanentError):
        return AuthenticationError(failure.detail, fix="check the credentials of the connection")
    return failure or error
