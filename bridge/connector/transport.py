"""HTTP for connectors: requests that end in time, and what their errors prove.

Every SDK here reports a broken connection in exceptions of its HTTP library (requests, urllib3 or httpx), and
none of them sets a timeout. What matters is what an error proves: a connection that was never made sent
nothing, so repeating is safe; anything after that is unknown.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import requests
import urllib3
import urllib3.exceptions as pool
from pydantic import AfterValidator, SecretStr
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from bridge.connector.deadline import check_deadline, remaining_seconds
from bridge.errors import (
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    TransientError,
)

CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
_LONGEST_WAIT = timedelta(days=7)

_NEVER_CONNECTED = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    requests.ConnectTimeout,
    pool.NewConnectionError,
    pool.ConnectTimeoutError,
    ssl.SSLCertVerificationError,
    ConnectionRefusedError,
)
# urllib3 reports a failed handshake and a record that broke much later in one exception; only these are handshakes.
_NO_HANDSHAKE = ("WRONG_VERSION_NUMBER", "HANDSHAKE_FAILURE", "PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")
_TIMED_OUT = (httpx.TimeoutException, requests.Timeout, pool.TimeoutError, TimeoutError)
_BROKE_OFF = (httpx.HTTPError, requests.RequestException, pool.HTTPError, OSError)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself, without asking DNS."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _partner_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("https", "http"):
        raise ValueError("is no URL: write https:// and a host")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("must be https://; plain http:// is for loopback only")
    return value.rstrip("/")


def _secret_url(value: SecretStr) -> SecretStr:
    return SecretStr(_partner_url(value.get_secret_value()))


ProviderUrl = Annotated[str, AfterValidator(_partner_url)]
"""Where a partner is reached: https, or http on loopback; without a slash at the end."""
SecretUrl = Annotated[SecretStr, AfterValidator(_secret_url)]
"""The same for an address that is a secret itself, such as an incoming webhook."""


class _Checked:
    """A connection that looks at the deadline between its handshake, in which a process may freeze, and its request."""

    def send(self, data: Any) -> None:
        connection: Any = self
        if connection.sock is None:
            connection.connect()
        check_deadline()
        super().send(data)  # type: ignore[misc]


class _HttpConnection(_Checked, HTTPConnection):
    pass


class _HttpsConnection(_Checked, HTTPSConnection):
    pass


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


def enforce_deadline(manager: urllib3.PoolManager) -> None:
    """From now on, no request of this manager leaves after its attempt's deadline, however long connecting took."""
    manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


class DeadlineAdapter(HTTPAdapter):
    """A requests adapter for SDKs that cannot set timeouts: bounded by the attempt's deadline, never retrying.

    `redirect_to` rewrites scheme and host of every request, for SDKs that insist on https and on their own
    hosts (simple-salesforce): a stand-in on loopback can then be reached. `read_seconds` is how long an answer
    may take, for partners that need longer for a batch.
    """

    def __init__(
        self, *, redirect_to: str | None = None, pool_size: int = 10, read_seconds: float = READ_SECONDS
    ) -> None:
        self.redirect_to = redirect_to.rstrip("/") if redirect_to else None
        self.read_seconds = read_seconds
        super().__init__(max_retries=0, pool_maxsize=pool_size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the connections, all of which look at the deadline."""
        super().init_poolmanager(*args, **kwargs)
        enforce_deadline(self.poolmanager)

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send within the time that is left; raises TransientError when none is."""
        check_deadline()
        if self.redirect_to and request.url:
            request.url = self.redirect_to + "/" + request.url.split("/", 3)[3]
        # Never 0, which requests refuses: the deadline may pass since it was checked.
        kwargs["timeout"] = (
            max(0.01, remaining_seconds(CONNECT_SECONDS)),
            max(0.01, remaining_seconds(self.read_seconds)),
        )
        return super().send(request, *args, **kwargs)


def http_client(**options: Any) -> httpx.Client:
    """An httpx client for connectors without an SDK: bounded by the attempt's deadline, no redirects, no proxies."""

    def guard(request: httpx.Request) -> None:
        check_deadline()
        request.extensions["trace"] = _check_before_headers
        request.extensions["timeout"] = httpx.Timeout(
            remaining_seconds(READ_SECONDS), connect=remaining_seconds(CONNECT_SECONDS)
        ).as_dict()

    # At INFO httpx writes every URL, and with it phone numbers and the secret of a Slack webhook.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return httpx.Client(
        event_hooks={"request": [guard]}, follow_redirects=False, trust_env=False, verify=_tls(), **options
    )


def _check_before_headers(step: str, _: object) -> None:
    """Look at the deadline again between the handshake, in which a process may freeze, and the request."""
    if step == "http11.send_request_headers.started":
        check_deadline()


@cache
def _tls() -> ssl.SSLContext:
    """The certificates that are trusted; reading them takes longer than a request."""
    return httpx.create_ssl_context()


def failure_from_status(status: int, detail: str, retry_after: timedelta | None = None) -> DeliveryError:
    """What an HTTP status means where the partner has no finer word for it."""
    if status in (401, 403):
        return AuthenticationError(detail)
    if status == 429:
        return RateLimited(detail, retry_after=retry_after)
    if status >= 500 or status in (408, 425):
        return OutcomeUnknown(detail, reason="server_error", retry_after=retry_after)
    if 200 <= status < 400:
        return OutcomeUnknown(f"unexpected answer {status}: {detail}", reason="server_error")
    return PermanentError(detail, code=str(status))


def failure_from_exception(error: BaseException) -> DeliveryError | None:
    """What a network error proves; None when `error` is not one."""
    chain = list(_chain(error))
    for found in chain:
        if isinstance(found, DeliveryError):
            return found
        if isinstance(found, _NEVER_CONNECTED) or _no_handshake(found):
            return TransientError(f"no connection: {_name(found)}", reason="network")
    for found in chain:
        if isinstance(found, _TIMED_OUT):
            return OutcomeUnknown("no answer in time", reason="timeout")
    for found in chain:
        if isinstance(found, _BROKE_OFF):
            return OutcomeUnknown(f"the connection broke off: {_name(found)}", reason="network")
    return None


def _no_handshake(error: BaseException) -> bool:
    return isinstance(error, ssl.SSLError) and (error.reason or "").endswith(_NO_HANDSHAKE)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps: urllib3 keeps it in `reason`, requests in its first argument."""
    current: Any = error
    for _ in range(8):
        if not isinstance(current, BaseException):
            return
        yield current
        current = (
            getattr(current, "reason", None)
            or (current.args[0] if current.args and isinstance(current.args[0], BaseException) else None)
            or current.__cause__
        )


def _name(error: BaseException) -> str:
    """The kind of error only: texts of network errors hold addresses and query strings."""
    return type(error).__name__


def parse_retry_after(value: str | None, now: datetime | None = None) -> timedelta | None:
    """The `Retry-After` header, seconds or a date, as a wait of at most a week; None when absent or unreadable."""
    if not value:
        return None
    try:
        return min(timedelta(seconds=max(0.0, float(value))), _LONGEST_WAIT)
    except (ValueError, OverflowError):
        pass
    try:
        wait = parsedate_to_datetime(value).astimezone(UTC) - (now or datetime.now(UTC))
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, timedelta(0)), _LONGEST_WAIT)
