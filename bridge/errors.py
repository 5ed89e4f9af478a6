"""Exceptions, by who has to act on them.

    BridgeError
    ├── ConfigError                   operator: fix a setting, a file or a connector folder
    ├── Refused                       sender: the incoming request was rejected
    ├── StoreUnavailable              operator: make the database reachable and writable
    ├── DamagedBody                   operator: restore the event's body, or delete it
    ├── LookupInconclusive            operator: review whether the attempt took effect
    └── DeliveryError                 an attempt did not succeed
        ├── TransientError            retried automatically: nothing happened
        │   ├── RateLimited           ... after the wait that the provider asked for
        │   └── QuotaExhausted        ... after the quota has been reset
        ├── AccountError              operator: fix the account; nothing happened
        │   └── AuthenticationError   operator: fix the credentials; nothing happened
        ├── PermanentError            rule author: fix the rule or the data; nothing happened
        └── OutcomeUnknown            looked up automatically: the action may have taken effect

Messages say what to do next. They never contain secrets or a contact's address: text from a provider goes
through `bridge.telemetry.mask` before it is stored.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

Reason = Literal[
    "rejected",
    "auth",
    "account",
    "rate_limited",
    "quota",
    "server_error",
    "timeout",
    "network",
    "render_error",
    "internal_error",
]
"""Why an attempt failed; also the label of the metric. A connector sets that of TransientError and OutcomeUnknown."""


MAX_RETRY_AFTER = timedelta(days=30)
"""Upper limit for a provider's `retry_after`; a longer wait is taken for an error of the provider."""


class BridgeError(Exception):
    """Base class of every exception that the bridge raises on purpose."""


class ConfigError(BridgeError):
    """A setting, a file or a folder is invalid. The message says what to change."""


class Refused(BridgeError):
    """An incoming request was rejected.

    `status` is the HTTP status of the response, `kind` the reason as one word for logs and metrics.
    """

    def __init__(self, kind: str, detail: str, status: int) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.status = status


class StoreUnavailable(BridgeError):
    """The database cannot be reached or written. Requests that were not answered with 2xx must be sent again.

    `kind` is the cause as one word for logs and metrics, `code` the driver's error code (SQLSTATE, SQLite's name).
    `connection_dropped` is True if a pooled connection failed: the next one may work.
    """

    def __init__(
        self, detail: str, *, kind: str = "unreachable", code: str = "", connection_dropped: bool = False
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.code = code
        self.connection_dropped = connection_dropped


class DamagedBody(BridgeError):
    """The stored body of an event cannot be read."""

    def __init__(self, event_id: str) -> None:
        delete = f"UPDATE events SET body = NULL WHERE id = '{event_id}'"  # noqa: S608 - for the operator
        super().__init__(
            f"the stored body of {event_id} is damaged: restore a backup, or delete the body with {delete}"
        )


class LookupInconclusive(BridgeError):
    """A lookup could not establish whether an attempt took effect. The operator has to decide.

    Raise it in a lookup only. If the lookup itself fails, let it raise that DeliveryError: it is repeated for a while.
    """


class DeliveryError(BridgeError):
    """An attempt did not succeed. The class decides what happens next; raise one of its subclasses.

    `detail` is one line for the operator: what went wrong, without the provider's own words, addresses or secrets.
    `retry_after` is the wait that the provider asked for. It is honored exactly.
    """

    reason: Reason
    """Why the attempt failed, for logs, metrics and the dashboard."""

    def __init__(self, detail: str, *, reason: Reason, retry_after: timedelta | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason
        self.retry_after = min(retry_after, MAX_RETRY_AFTER) if retry_after is not None else None


class TransientError(DeliveryError):
    """Provably nothing happened, and a later attempt can succeed: the record is locked, a read failed.

    The delivery is attempted again on its schedule, or after `retry_after`.
    """

    def __init__(
        self, detail: str, *, reason: Reason = "server_error", retry_after: timedelta | None = None
    ) -> None:
        super().__init__(detail, reason=reason, retry_after=retry_after)


class RateLimited(TransientError):
    """The provider asked for a slower pace (HTTP 429). The whole connection waits for `retry_after`.

    If it is `per_object`, the limit is that of one record, such as a ticket: only deliveries with the same concurrency
    key wait.
    """

    def __init__(
        self, detail: str, *, retry_after: timedelta | None = None, per_object: bool = False
    ) -> None:
        super().__init__(detail, reason="rate_limited", retry_after=retry_after)
        self.per_object = per_object


class QuotaExhausted(TransientError):
    """The account's quota is used up. The whole connection waits, and the operator is alerted.

    `until` is the time at which the quota is reset, with its time zone. None: unknown, so it waits an hour.
    """

    def __init__(self, detail: str, *, until: datetime | None = None) -> None:
        super().__init__(detail, reason="quota")
        self.until = until


class AccountError(DeliveryError):
    """Something is wrong with the account: its credentials, sender, scope, plan. Nothing happened.

    The connection is paused until its settings change or an operator resumes it. `fix` says in one sentence what the
    operator does about it; it is shown with the pause and in the alert.
    """

    def __init__(self, detail: str, *, fix: str = "") -> None:
        super().__init__(detail, reason="account")
        self.fix = fix

    @property
    def pause_reason(self) -> str:
        """What is wrong, and what the operator does about it."""
        return f"{self.detail}; {self.fix}" if self.fix else self.detail


class AuthenticationError(AccountError):
    """The provider did not accept the credentials of the connection, which is paused as by any AccountError."""

    def __init__(self, detail: str, *, fix: str = "") -> None:
        super().__init__(detail, fix=fix)
        self.reason = "auth"


class PermanentError(DeliveryError):
    """The provider rejected the request, and would reject it again: a wrong number, an unknown property.

    Nothing happened, and the delivery is a dead letter. `code` is the provider's error code or the HTTP status, for a
    connector that catches the error. With `opted_out`, the recipient wants no messages on this channel: the bridge
    stores the opt-out. With `undeliverable`, the address cannot get messages on this channel (a dead mailbox, a
    landline): the bridge sends it none for 90 days.
    """

    def __init__(
        self, detail: str, *, code: str = "", opted_out: bool = False, undeliverable: bool = False
    ) -> None:
        super().__init__(detail, reason="rejected")
        self.code = code
        self.opted_out = opted_out
        self.undeliverable = undeliverable


class OutcomeUnknown(DeliveryError):
    """The request was sent, and no response proves whether it took effect: a timeout, a reset, a 5xx.

    The bridge asks the action's lookup, which decides whether it is attempted again.
    """

    def __init__(
        self, detail: str, *, reason: Reason = "timeout", retry_after: timedelta | None = None
    ) -> None:
        super().__init__(detail, reason=reason, retry_after=retry_after)
