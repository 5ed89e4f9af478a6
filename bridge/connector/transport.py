"""HTTP for connectors: requests that respect the attempt's deadline, responses within limits, and their errors.

Every SDK here reports a broken connection with exceptions of its HTTP library (requests, urllib3 or httpx), and
none of them sets a timeout. Errors are classified by what they prove: if no connection was established, nothing was
sent and a retry is safe; after that, the outcome is unknown. Nothing is imported for that.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

from bridge.connector.egress import is_loopback
from bridge.connector.response_limits import MAX_RESPONSE_BYTES, IncompleteResponse, ResponseOverdue
from bridge.errors import (
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    TransientError,
)
from bridge.lazy import LoadedModule
from bridge.setting_types import check_no_user_info

if TYPE_CHECKING:
    import httpx
    import requests
    import urllib3.exceptions as pool
else:
    httpx, requests, pool = map(LoadedModule, ("httpx", "requests", "urllib3.exceptions"))

CONNECT_SECONDS = 3.0
_MAX_RETRY_AFTER = timedelta(days=7)


class TunnelFailed(OSError):
    """The proxy opened no connection to the provider, so nothing was sent."""


# urllib3 reports a failed handshake and a TLS error much later as the same exception; only these are handshakes.
_HANDSHAKE_FAILURES = (
    "WRONG_VERSION_NUMBER",
    "HANDSHAKE_FAILURE",
    "PROTOCOL_VERSION",
    "UNSUPPORTED_PROTOCOL",
)
_ID = re.compile(r"\d+|(?=.*\d)[\w-]{8,}")
"""A segment of a path that is an ID: digits alone, or a long word with digits, unlike `v2` and `api`."""


def _https_url(value: str) -> str:
    if not value.isprintable() or " " in value:  # `urlsplit` would remove a line break
        raise ValueError("contains a space or a line break: copy the URL again")
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http"):
        raise ValueError("is not a valid URL: write https:// and a host")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("must be https://; plain http:// is allowed for loopback only")
    return value.rstrip("/")


def _provider_url(value: str) -> str:
    check_no_user_info(value)
    return _https_url(value)


def _secret_url(value: SecretStr) -> SecretStr:
    return SecretStr(_https_url(value.get_secret_value()))


ProviderUrl = Annotated[str, AfterValidator(_provider_url)]
"""URL of a provider: https, or http on loopback; the trailing slash is removed."""
SecretUrl = Annotated[SecretStr, AfterValidator(_secret_url)]
"""The same for a URL that is itself a secret, such as an incoming webhook."""


def http_client(*, max_response_bytes: int = MAX_RESPONSE_BYTES, **options: Any) -> httpx.Client:
    """Return an httpx client for connectors without an SDK. It respects the deadline and follows no redirects.

    It trusts BRIDGE_CA_FILE and uses BRIDGE_HTTPS_PROXY. A response ends within the attempt's deadline and has at most
    `max_response_bytes`, with its headers. It is not decompressed.
    """
    from bridge.connector.httpx_transport import open_client

    return open_client(max_response_bytes, **options)


def failure_from_status(
    status: int, detail: str, retry_after: timedelta | None = None, *, about_record: bool = False
) -> DeliveryError:
    """Return the error for an HTTP status, for providers without a more specific error code.

    | Status | Error |
    |---|---|
    | 401 | AuthenticationError |
    | 403 | AuthenticationError; PermanentError if the request was `about_record`, one that the account may not change |
    | 429 | RateLimited |
    | 408, 425, 5xx | OutcomeUnknown |
    | 2xx, 3xx | OutcomeUnknown: not the response that the connector expects |
    | any other | PermanentError |
    """
    if status == 401 or (status == 403 and not about_record):
        return AuthenticationError(detail)
    if status == 429:
        return RateLimited(detail, retry_after=retry_after)
    if status >= 500 or status in (408, 425):
        return OutcomeUnknown(detail, reason="server_error", retry_after=retry_after)
    if 200 <= status < 400:
        return OutcomeUnknown(f"unexpected status {status}: {detail}", reason="server_error")
    return PermanentError(detail, code=str(status))


def _names_record(url: str) -> bool:
    """Return whether the path of a URL contains an ID, which JsonApi knows from its arguments."""
    return any(_ID.fullmatch(segment) for segment in urlsplit(url).path.split("/"))


def failure_from_exception(error: BaseException) -> DeliveryError | None:
    """Return the error that an exception of an HTTP library proves; None if `error` is not one."""
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, DeliveryError):
            return cause
        if isinstance(cause, IncompleteResponse):
            overdue = isinstance(cause, ResponseOverdue)
            return OutcomeUnknown(str(cause), reason="timeout" if overdue else "server_error")
        if isinstance(cause, _never_connected()) or _is_handshake_failure(cause):
            return TransientError(f"no connection: {_type_name(cause)}", reason="network")
        if isinstance(cause, (httpx.HTTPStatusError, requests.HTTPError)) and cause.response is not None:
            response = cause.response
            status, wait = response.status_code, response.headers.get("Retry-After")
            return failure_from_status(
                status, f"the provider returned {status}", parse_retry_after(wait),
                about_record=_names_record(str(response.url)),
            )  # fmt: skip
    for cause in chain:
        if isinstance(cause, _timed_out()):
            return OutcomeUnknown("no response in time", reason="timeout")
    for cause in chain:
        if isinstance(cause, _connection_lost()):
            return OutcomeUnknown(f"connection lost: {_type_name(cause)}", reason="network")
    return None


def _never_connected() -> tuple[type[BaseException], ...]:
    return (
        httpx.ConnectError,
        httpx.ConnectTimeout,
        httpx.PoolTimeout,
        requests.ConnectTimeout,
        pool.NewConnectionError,
        pool.ConnectTimeoutError,
        httpx.ProxyError,  # unlike urllib3's, which it also raises for a response that breaks off
        TunnelFailed,
        ssl.SSLCertVerificationError,
        ConnectionRefusedError,
    )


def _timed_out() -> tuple[type[BaseException], ...]:
    return (httpx.TimeoutException, requests.Timeout, pool.TimeoutError, TimeoutError)


def _connection_lost() -> tuple[type[BaseException], ...]:
    return (httpx.HTTPError, requests.RequestException, pool.HTTPError, OSError)


def _is_handshake_failure(error: BaseException) -> bool:
    return isinstance(error, ssl.SSLError) and (error.reason or "").endswith(_HANDSHAKE_FAILURES)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and those it wraps: urllib3 keeps them in `reason` or an argument, requests in an argument."""
    current: Any = error
    for _ in range(8):
        if not isinstance(current, BaseException):
            return
        yield current
        current = (
            getattr(current, "reason", None)
            or next((argument for argument in current.args if isinstance(argument, BaseException)), None)
            or current.__cause__
        )


def _type_name(error: BaseException) -> str:
    """Return the type only: messages of network errors contain addresses and query strings."""
    return type(error).__name__


def parse_retry_after(value: str | None, now: datetime | None = None) -> timedelta | None:
    """Return the `Retry-After` header (seconds or a date) as a wait of at most a week; None if absent or invalid."""
    if not value:
        return None
    try:
        return min(timedelta(seconds=max(0.0, float(value))), _MAX_RETRY_AFTER)
    except (ValueError, OverflowError):
        pass
    try:
        wait = parsedate_to_datetime(value).astimezone(UTC) - (now or datetime.now(UTC))
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), _MAX_RETRY_AFTER)
