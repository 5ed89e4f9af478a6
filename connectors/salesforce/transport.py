"""HTTP transport of one Salesforce org: deadlines and the daily quota.

Imported with the first session, because it imports requests.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import requests

from bridge.connector import DeadlineAdapter, parse_retry_after, report_quota
from bridge.errors import QuotaExhausted, RateLimited, TransientError

from . import sdk
from .login_errors import redirect_failure
from .settings import Settings, connector

QUOTA_RECHECK_INTERVAL = timedelta(minutes=10)


class QuotaAdapter(DeadlineAdapter):
    """Transport adapter for all requests of the org: applies the attempt's deadline and guards the daily quota."""

    def __init__(self, max_fraction: float, redirect_to: str | None, pool_size: int) -> None:
        super().__init__(redirect_to=redirect_to, pool_size=pool_size, read_seconds=20)
        self._max_fraction = max_fraction
        self._exhausted_until: datetime | None = None
        self.usage = ""
        """`18/5000`: requests of the whole org in the last 24 hours, as last reported by Salesforce."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send the request unless the quota fraction is used up. Every ten minutes, one request checks again."""
        now, until = datetime.now(UTC), self._exhausted_until
        if until and now < until:
            raise QuotaExhausted(
                f"{self.usage} of the org's daily requests are used; SALESFORCE_MAX_QUOTA_FRACTION leaves the rest "
                "to other applications",
                until=until,
            )
        response = super().send(request, *args, **kwargs)
        status = response.status_code
        if status in (301, 302, 303, 307, 308):
            response.close()
            raise redirect_failure(response.headers.get("Location"))
        if status == 429:  # Salesforce itself does not send it, and the SDK would drop Retry-After
            response.close()
            wait = parse_retry_after(response.headers.get("Retry-After"))
            raise RateLimited("Salesforce answered 429", retry_after=wait)
        if str(request.url).endswith("/token") and (status >= 500 or status == 408):
            response.close()
            # No record was sent yet, so nothing can have happened.
            raise TransientError(f"Salesforce's login answered {status}")
        usage = re.match(r"\s*api-usage=(\d+)/(\d+)", response.headers.get("Sforce-Limit-Info", ""))
        if usage:
            used, limit = int(usage[1]), int(usage[2])
            self.usage = f"{used}/{limit}"
            report_quota(used, limit)
            exhausted = used >= self._max_fraction * limit
            self._exhausted_until = now + QUOTA_RECHECK_INTERVAL if exhausted else None
        return response


class Transport:
    """HTTP connections to an org, over which the SDK logs in and sends its requests.

    The SDK supports https and salesforce.com only; the adapter redirects to any other address.
    """

    def __init__(self, settings: Settings) -> None:
        sdk.load()  # before any request, because it fails if there are no more file descriptors
        host = urlsplit(settings.url).hostname or ""
        direct = settings.url.startswith("https://") and host.endswith(".salesforce.com")
        self.domain = host.removesuffix(".salesforce.com") if direct else "redirected.my"
        self.adapter = QuotaAdapter(
            settings.max_quota_fraction,
            None if direct else settings.url,
            connector.limits_of(settings).concurrency,
        )
        self.http = requests.Session()
        self.http.trust_env = False
        self.http.mount("https://", self.adapter)
