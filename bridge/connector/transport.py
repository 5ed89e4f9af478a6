"""HTTP for connectors: requests that respect the attempt's deadline, responses within limits, and their errors.

Every SDK here reports a broken connection with exceptions of its HTTP library (requests, urllib3 or httpx), and
none of them sets a timeout. Errors are classified by what they prove: if no connection was established, nothing was
sent and a retry is safe; after that, the outcome is unknown.
"""

from __future__ import annotations

import http.client
import logging
import re
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpcore
import httpx
import requests
import urllib3
import urllib3.exceptions as pool
from pydantic import AfterValidator, SecretStr
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from bridge.connector.deadline import check_deadline, count_request, remaining_seconds
from bridge.connector.egress import Proxy, is_loopback, proxy_for, tls_context
from bridge.connector.response_limits import (
    MAX_RESPONSE_BYTES,
    READ_SECONDS,
    IncompleteResponse,
    LimitedBackend,
    LimitedHttpResponse,
    ResponseOverdue,
    parts_to_send,
)
from bridge.errors import (
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    TransientError,
)
from bridge.setting_types import check_no_user_info

CONNECT_SECONDS = 3.0
_MAX_RETRY_AFTER = timedelta(days=7)
_POOL_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)


class TunnelFailed(OSError):
    """The proxy opened no connection to the provider, so nothing was sent."""


_NEVER_CONNECTED = (
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
# urllib3 reports a failed handshake and a TLS error much later as the same exception; only these are handshakes.
_HANDSHAKE_FAILURES = (
    "WRONG_VERSION_NUMBER",
    "HANDSHAKE_FAILURE",
    "PROTOCOL_VERSION",
    "UNSUPPORTED_PROTOCOL",
)
_ID = re.compile(r"\d+|(?=.*\d)[\w-]{8,}")
"""A segment of a path that is an ID: digits alone, or a long word with digits, unlike `v2` and `api`."""
_TIMED_OUT = (httpx.TimeoutException, requests.Timeout, pool.TimeoutError, TimeoutError)
_CONNECTION_LOST = (httpx.HTTPError, requests.RequestException, pool.HTTPError, OSError)


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


class _DeadlineMixin:
    """A connection that checks the deadline after its handshake, as the process may have been suspended meanwhile.

    It also counts requests and limits responses.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        connection: Any = self
        connection.response_class = LimitedHttpResponse

    def request(self, *args: Any, **kwargs: Any) -> None:
        count_request()
        super().request(*args, **kwargs)  # type: ignore[misc]

    def _tunnel(self) -> None:
        try:
            super()._tunnel()  # type: ignore[misc]
        except (OSError, http.client.HTTPException) as error:
            raise TunnelFailed("the proxy did not open a connection") from error

    def send(self, data: Any) -> None:
        connection: Any = self
        if connection.sock is None:
            connection.connect()
        check_deadline()
        parts = parts_to_send(connection.sock, data) if isinstance(data, bytes) else [data]
        for part in parts:
            super().send(part)  # type: ignore[misc]


class _HttpConnection(_DeadlineMixin, HTTPConnection):
    pass


class _HttpsConnection(_DeadlineMixin, HTTPSConnection):
    pass


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


def enforce_deadline(manager: urllib3.PoolManager) -> None:
    """Make the manager check the deadline before each request, and limit the time and size of each response."""
    manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


class DeadlineAdapter(HTTPAdapter):
    """A requests adapter for SDKs that cannot set timeouts. It respects the attempt's deadline and never retries.

    `redirect_to` replaces scheme and host of every request, for SDKs that insist on https and their own hosts
    (simple-salesforce), so that tests can use a mock provider on loopback. `read_seconds` limits the wait for a
    response; some providers need longer for a batch.
    """

    def __init__(
        self, *, redirect_to: str | None = None, pool_size: int = 10, read_seconds: float = READ_SECONDS
    ) -> None:
        self.redirect_to = redirect_to.rstrip("/") if redirect_to else None
        self.read_seconds = read_seconds
        super().__init__(max_retries=0, pool_maxsize=pool_size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create a pool whose connections check the deadline."""
        super().init_poolmanager(*args, ssl_context=tls_context(), **kwargs)
        enforce_deadline(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> urllib3.ProxyManager:
        """Return a pool for a proxy, whose connections check the deadline as well."""
        context = tls_context()
        manager: urllib3.ProxyManager = super().proxy_manager_for(
            proxy, ssl_context=context, proxy_ssl_context=context, **kwargs
        )
        enforce_deadline(manager)
        return manager

    def cert_verify(self, conn: Any, *args: Any) -> None:  # noqa: ARG002
        """Leave the certificates to the TLS context, instead of reading those of certifi at every connection."""
        conn.cert_reqs = "CERT_REQUIRED"

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send within the remaining time. Raise TransientError if none remains."""
        check_deadline()
        request.headers["Accept-Encoding"] = "identity"
        if self.redirect_to and request.url:
            request.url = self.redirect_to + "/" + request.url.split("/", 3)[3]
        proxy = proxy_for(urlsplit(request.url or "").hostname or "")
        kwargs["proxies"] = {"https": proxy.url} if proxy else {}
        # Never 0, which requests rejects: the deadline may have passed since it was checked.
        kwargs["timeout"] = (
            max(0.01, remaining_seconds(CONNECT_SECONDS)),
            max(0.01, remaining_seconds(self.read_seconds)),
        )
        return super().send(request, *args, **kwargs)


def http_client(*, max_response_bytes: int = MAX_RESPONSE_BYTES, **options: Any) -> httpx.Client:
    """Return an httpx client for connectors without an SDK. It respects the deadline and follows no redirects.

    It trusts BRIDGE_CA_FILE and uses BRIDGE_HTTPS_PROXY. A response ends within the attempt's deadline and has at most
    `max_response_bytes`, with its headers. It is not decompressed.
    """

    def apply_deadline(request: httpx.Request) -> None:
        check_deadline()
        count_request()
        request.headers["Accept-Encoding"] = "identity"
        request.extensions["trace"] = _RequestTrace()
        request.extensions["timeout"] = httpx.Timeout(
            remaining_seconds(READ_SECONDS), connect=remaining_seconds(CONNECT_SECONDS)
        ).as_dict()

    def keep_compressed(response: httpx.Response) -> None:
        response.headers.pop("Content-Encoding", None)

    # At INFO, httpx logs every URL, including phone numbers and the secret of a Slack webhook.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return httpx.Client(
        event_hooks={"request": [apply_deadline], "response": [keep_compressed]},
        follow_redirects=False,
        trust_env=False,
        transport=_Transport(options.pop("limits", _POOL_LIMITS), max_response_bytes),
        **options,
    )


class _Transport(httpx.BaseTransport):
    """Sends each request directly or through the proxy, over connections that limit responses."""

    def __init__(self, limits: httpx.Limits, max_bytes: int) -> None:
        self._limits = limits
        self._max_bytes = max_bytes
        self._transports: dict[Proxy | None, httpx.BaseTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        proxy = proxy_for(request.url.host)
        transport = self._transports.get(proxy)
        if transport is None:
            # Of two threads that are the first at the same time, both use the one that is stored.
            transport = self._transports.setdefault(
                proxy, _LimitedTransport(self._limits, proxy, self._max_bytes)
            )
        return transport.handle_request(request)

    def close(self) -> None:
        """Close the connections."""
        for transport in self._transports.values():
            transport.close()


class _LimitedTransport(httpx.HTTPTransport):
    """The transport of httpx, with connections that limit responses: httpx itself has no parameter for them."""

    def __init__(self, limits: httpx.Limits, proxy: Proxy | None, max_bytes: int) -> None:
        context = tls_context()
        options: dict[str, Any] = {
            "ssl_context": context,
            "max_connections": limits.max_connections,
            "max_keepalive_connections": limits.max_keepalive_connections,
            "keepalive_expiry": limits.keepalive_expiry,
            "network_backend": LimitedBackend(max_bytes),
        }
        if proxy is None:
            self._pool = httpcore.ConnectionPool(**options)
            return
        proxy_context = context if proxy.address.startswith("https:") else None
        self._pool = httpcore.HTTPProxy(
            proxy.address, proxy_auth=proxy.login, proxy_ssl_context=proxy_context, **options
        )


class _RequestTrace:
    """Follows one request of httpx. It checks the deadline after the handshake, and knows what a proxy has not sent."""

    def __init__(self) -> None:
        self._opens_tunnel = False

    def __call__(self, step: str, details: Mapping[str, Any]) -> None:
        if step == "http11.send_request_headers.started":
            self._opens_tunnel = details["request"].method == b"CONNECT"
            check_deadline()  # the process may have been suspended meanwhile
        elif step == "http11.receive_response_headers.failed" and self._opens_tunnel:
            raise TransientError("the proxy did not open a connection", reason="network")


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
        if isinstance(cause, _NEVER_CONNECTED) or _is_handshake_failure(cause):
            return TransientError(f"no connection: {_type_name(cause)}", reason="network")
        if isinstance(cause, httpx.HTTPStatusError | requests.HTTPError) and cause.response is not None:
            response = cause.response
            status, wait = response.status_code, response.headers.get("Retry-After")
            return failure_from_status(
                status, f"the provider returned {status}", parse_retry_after(wait),
                about_record=_names_record(str(response.url)),
            )  # fmt: skip
    for cause in chain:
        if isinstance(cause, _TIMED_OUT):
            return OutcomeUnknown("no response in time", reason="timeout")
    for cause in chain:
        if isinstance(cause, _CONNECTION_LOST):
            return OutcomeUnknown(f"connection lost: {_type_name(cause)}", reason="network")
    return None


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
