"""Connections of one HubSpot account. Imported with the first client, because of urllib3."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.util.retry import Retry

from bridge.connector import (
    Proxy,
    check_deadline,
    enforce_deadline,
    proxy_for,
    remaining_seconds,
    tls_context,
)

from .daily_limit import DailyLimit, is_daily_limit
from .errors import not_from_hubspot
from .settings import Settings, connector


class DeadlinePool(urllib3.PoolManager):
    """Connection pool for all requests of the account, which end within the attempt's deadline without retries."""

    def __init__(self, version: str, size: int, **options: Any) -> None:
        super().__init__(num_pools=2, maxsize=size, retries=Retry(0), ssl_context=tls_context(), **options)
        enforce_deadline(self)
        self._version = version
        self._daily_limit = DailyLimit()

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send one request. Redirects are not followed: they would send the token to another host."""
        del redirect
        # The SDK has the numbered versions, which HubSpot supports until 2027.
        url = re.sub(r"/crm/v\d/(\w+)(/(?=\?|$))?", rf"/crm/\1/{self._version}", url, count=1)
        check_deadline()
        options["timeout"] = urllib3.Timeout(
            connect=max(0.05, remaining_seconds(3)), read=max(0.05, remaining_seconds(20))
        )
        response = super().urlopen(method, url, redirect=False, **options)
        if 200 <= response.status < 300 and response.data.lstrip()[:1] not in (b"{", b"["):
            raise not_from_hubspot()  # an HTML page with status 200, which the SDK reads as an empty record
        if is_daily_limit(response.status, response.data):
            raise self._daily_limit.exhausted(datetime.now(UTC))
        self._daily_limit.observe(response.headers, lambda: self._read_account(url, options))
        return response

    def _read_account(self, url: str, options: Mapping[str, Any]) -> bytes:
        """Return the details of the account, empty if HubSpot does not give them."""
        details = f"{url.partition('/crm/')[0]}/account-info/v3/details"
        headers = {"Authorization": options.get("headers", {}).get("Authorization", "")}
        response = super().urlopen(
            "GET", details, redirect=False, headers=headers, timeout=options["timeout"]
        )
        return bytes(response.data) if response.status == 200 else b""


class DeadlineProxyPool(DeadlinePool, urllib3.ProxyManager):
    """The same through BRIDGE_HTTPS_PROXY."""

    def __init__(self, version: str, size: int, proxy: Proxy) -> None:
        login = ":".join(proxy.login) if proxy.login else None
        super().__init__(
            version,
            size,
            proxy_url=proxy.address,
            proxy_headers=urllib3.make_headers(proxy_basic_auth=login),
            proxy_ssl_context=tls_context(),
        )


def open_pool(settings: Settings) -> DeadlinePool:
    """Return the pool of an account, through the proxy if there is one."""
    proxy = proxy_for(urlsplit(settings.url).hostname or "")
    size = connector.limits_of(settings).concurrency
    if proxy is None:
        return DeadlinePool(settings.api_version, size)
    return DeadlineProxyPool(settings.api_version, size, proxy)
