"""Transport of httpx, for connectors without an SDK: the attempt's deadline, response limits and the proxy.

`bridge.connector.transport.http_client` imports it with the first client, because httpx takes 2 MB and a process that
only receives events has no use for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import httpcore
import httpx

from bridge.connector.deadline import check_deadline, count_request, remaining_seconds
from bridge.connector.egress import Proxy, proxy_for, tls_context
from bridge.connector.response_limits import (
    MIN_TIMEOUT,
    READ_SECONDS,
    ResponseLimits,
    ResponseOverdue,
    ResponseTooLarge,
    in_parts,
)
from bridge.connector.transport import CONNECT_SECONDS
from bridge.errors import TransientError

_POOL_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)


def open_client(max_response_bytes: int, **options: Any) -> httpx.Client:
    """See `bridge.connector.transport.http_client`."""

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


class LimitedStream(httpcore.NetworkStream):
    """A connection of httpx. A response starts whenever something has been sent."""

    def __init__(self, stream: httpcore.NetworkStream, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self._limits = ResponseLimits(READ_SECONDS, max_bytes)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read within the limits of the response."""
        try:
            try:
                received = self._stream.read(max_bytes, self._limits.timeout(timeout))
            except httpcore.ReadTimeout as error:
                raise self._limits.overdue() from error
            self._limits.count(len(received))
        except ResponseOverdue as error:
            raise httpcore.ReadTimeout(error) from error  # as its argument, because httpcore drops the cause
        except ResponseTooLarge as error:
            raise httpcore.ReadError(error) from error
        return received

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send within the deadline. Raise TransientError if it passes before the last part."""
        limit = READ_SECONDS if timeout is None else timeout
        for part in in_parts(buffer):
            check_deadline()
            self._stream.write(part, max(MIN_TIMEOUT, remaining_seconds(limit)))
        self._limits = ResponseLimits(limit, self._max_bytes)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        """Encrypt the connection."""
        return LimitedStream(self._stream.start_tls(*args, **kwargs), self._max_bytes)

    def get_extra_info(self, info: str) -> Any:
        """Return what the connection knows about itself."""
        return self._stream.get_extra_info(info)


class LimitedBackend(httpcore.SyncBackend):
    """Opens the connections of httpx."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        """Open a connection whose responses are limited."""
        return LimitedStream(super().connect_tcp(*args, **kwargs), self._max_bytes)
