"""Session of one Salesforce org: login, daily quota and deadlines."""

from __future__ import annotations

import re
import threading
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests

from bridge.connector import DeadlineAdapter, parse_retry_after, report_quota
from bridge.errors import AuthenticationError, DeliveryError, QuotaExhausted, RateLimited, TransientError

from .login_errors import redirect_failure
from .sdk import Salesforce, SalesforceError, SalesforceLogin
from .settings import Settings, connector

_QUOTA_RECHECK_INTERVAL = timedelta(minutes=10)
T = TypeVar("T")
Record = dict[str, Any]


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
            self._exhausted_until = now + _QUOTA_RECHECK_INTERVAL if exhausted else None
        return response


class Session:
    """Session shared by all threads. Logs in on first use, and once more when the session has expired.

    The SDK's own renewal loops if a session is rejected repeatedly, and each thread renews for itself. The SDK
    therefore gets a session that it cannot renew.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        host = urlsplit(settings.url).hostname or ""
        direct = settings.url.startswith("https://") and host.endswith(".salesforce.com")
        # The SDK supports https and salesforce.com only; the adapter redirects to any other address.
        self._adapter = QuotaAdapter(
            settings.max_quota_fraction,
            None if direct else settings.url,
            connector.limits_of(settings).concurrency,
        )
        self._domain = host.removesuffix(".salesforce.com") if direct else "redirected.my"
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.mount("https://", self._adapter)
        self._lock = threading.Lock()
        self._api: Salesforce | None = None
        self._logged_in_at = 0.0
        self.close = self._http.close

    @property
    def usage(self) -> str:
        """`18/5000`: requests of the whole org in the last 24 hours, as last reported by Salesforce."""
        return self._adapter.usage

    def run(self, call: Callable[[Salesforce], T]) -> T:
        """Return the result of an SDK call. If the session has expired, log in and call once more."""
        api = self._current(rejected=None)
        try:
            return call(api)
        except SalesforceError as error:
            if error.status != 401:
                raise
        return call(self._current(rejected=api))

    def _current(self, rejected: Salesforce | None) -> Salesforce:
        """Return the current session. `rejected` is replaced by a single login for all threads."""
        with self._lock:
            if self._api is not None and self._api is not rejected:
                return self._api
            if rejected is not None and time.monotonic() - self._logged_in_at < 10:
                raise AuthenticationError(
                    "Salesforce rejects a session that it issued a moment ago",
                    fix="check the session and IP settings of the integration user, and that its permission set has "
                    "API Enabled",
                )
            self._api = None
            token, instance = self._log_in()
            self._logged_in_at = time.monotonic()
            self._api = Salesforce(
                session_id=token,
                instance=f"{self._domain}.salesforce.com" if self._adapter.redirect_to else instance,
                session=self._http,
                version=self._settings.api_version,
            )
            return self._api

    def _log_in(self) -> tuple[str, str]:
        settings = self._settings
        credentials: dict[str, Any] = {
            "consumer_key": settings.consumer_key.get_secret_value(),
            "session": self._http,
        }
        if settings.consumer_secret is not None:
            credentials |= {
                "consumer_secret": settings.consumer_secret.get_secret_value(),
                "domain": self._domain,
            }
        else:
            is_test_org = self._domain.endswith((".sandbox.my", ".scratch.my"))
            credentials |= {
                "username": settings.username,
                "privatekey_file": settings.private_key_file,
                "domain": "test" if is_test_org else "login",
                "instance_url": self._domain,
            }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the SDK's warnings contain the consumer key
                token, instance = SalesforceLogin(**credentials)
        except requests.RequestException as error:
            # No record was sent yet, whatever the outcome of the login.
            raise TransientError(f"no login: {type(error).__name__}", reason="network") from error
        except (AttributeError, TypeError) as error:
            raise TransientError(
                "the response to the login is not Salesforce's: check for a proxy in between"
            ) from error
        except (SalesforceError, DeliveryError):
            raise
        except Exception as error:
            raise AuthenticationError(
                f"SALESFORCE_PRIVATE_KEY_FILE cannot sign the login ({type(error).__name__})",
                fix="set it to an RSA private key in PEM format",
            ) from error
        return str(token), str(instance)
