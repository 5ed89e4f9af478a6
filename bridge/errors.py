"""Errors, by who must act on them.

    BridgeError
    ├── ConfigError              the operator: a setting, a file, a connector folder
    ├── Refused                  nobody: a request from outside that is turned away
    ├── StoreUnavailable         the operator: the database cannot be written
    ├── LookupInconclusive               a person: a lookup cannot say whether an attempt took effect
    └── DeliveryError                  what became of an attempt that did not succeed
        ├── TransientError            wait: nothing happened, and it will pass
        │   ├── RateLimited      wait as long as the partner says
        │   └── QuotaExhausted   wait until the quota is filled again
        ├── AuthenticationError       the operator: nothing happened, and nothing will until it is mended
        ├── PermanentError             the rule's author: nothing happened, and trying again cannot help
        └── OutcomeUnknown       look: it may have happened

Texts are advice to that reader. They never hold secrets, and never a person's address: what a partner
answers goes through `bridge.telemetry.mask` before it is kept.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

Reason = Literal[
    "rejected",
    "auth",
    "rate_limited",
    "quota",
    "server_error",
    "timeout",
    "network",
    "render_error",
    "internal_error",
]
"""Why an attempt failed; also the label of the metric."""


LONGEST_WAIT = timedelta(days=30)
"""A partner's wish for when to come back is honoured up to here; what is beyond is a mistake of its."""


class BridgeError(Exception):
    """Anything the bridge itself raises on purpose."""


class ConfigError(BridgeError):
    """A setting, a file or a folder is not as it must be; the text says what to change."""


class Refused(BridgeError):
    """A request from outside is turned away. `status` is the HTTP answer, `kind` a word for log and metric."""

    def __init__(self, kind: str, detail: str, status: int) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.status = status


class StoreUnavailable(BridgeError):
    """The database cannot be reached or written now; what was not answered 2xx must be sent again."""


class LookupInconclusive(BridgeError):
    """A lookup cannot say whether an attempt took effect; a person has to decide."""


class DeliveryError(BridgeError):
    """An attempt that did not succeed. `reason` says why, the class says what to do next.

    `retry_after` is the partner's own wish for when to come back; it is honoured exactly.
    """

    reason: Reason

    def __init__(self, detail: str, *, reason: Reason, retry_after: timedelta | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason
        self.retry_after = min(retry_after, LONGEST_WAIT) if retry_after is not None else None


class TransientError(DeliveryError):
    """It is proven that nothing happened, and trying later will help."""

    def __init__(
        self, detail: str, *, reason: Reason = "server_error", retry_after: timedelta | None = None
    ) -> None:
        super().__init__(detail, reason=reason, retry_after=retry_after)


class RateLimited(TransientError):
    """The partner asks for a slower pace (HTTP 429); the whole connection waits for `retry_after`."""

    def __init__(self, detail: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(detail, reason="rate_limited", retry_after=retry_after)


class QuotaExhausted(TransientError):
    """The account's quota is used up; the whole connection waits `until` (an hour when unknown)."""

    def __init__(self, detail: str, *, until: datetime | None = None) -> None:
        super().__init__(detail, reason="quota")
        self.until = until


class AuthenticationError(DeliveryError):
    """The partner does not accept our credentials; the connection is paused until they change."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, reason="auth")


class PermanentError(DeliveryError):
    """The partner says no for good: a wrong number, an unknown property, a closed record."""

    def __init__(self, detail: str, *, code: str = "", opted_out: bool = False) -> None:
        super().__init__(detail, reason="rejected")
        self.code = code
        self.opted_out = opted_out
        """The person does not want messages on this channel: remembered as an opt-out."""


class OutcomeUnknown(DeliveryError):
    """The request left, and no answer proves what became of it: a timeout, a reset, a 5xx."""

    def __init__(
        self, detail: str, *, reason: Reason = "timeout", retry_after: timedelta | None = None
    ) -> None:
        super().__init__(detail, reason=reason, retry_after=retry_after)
