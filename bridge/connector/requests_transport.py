"""Transport of requests and urllib3, for SDKs that use them: the attempt's deadline, response limits and the proxy.

Imported by the connectors that need it when they open their client, because both libraries take 4 MB and a process
that only receives events has no use for them.
"""

from __future__ import annotations

import http.client
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from bridge.connector.deadline import check_deadline, count_request, remaining_seconds
from bridge.connector.egress import proxy_for, tls_context
from bridge.connector.response_limits import READ_SECONDS, LimitedHttpResponse, parts_to_send
from bridge.connector.transport import CONNECT_SECONDS, TunnelFailed


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
