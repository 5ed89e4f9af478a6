"""Session of one Salesforce org: login, daily quota and deadlines."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from pydantic import SecretStr

from bridge.connector import DeadlineAdapter, Token, TokenSource, parse_retry_after, report_quota
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


class Transport:
    """HTTP connections to an org, over which the SDK logs in and sends its requests.

    The SDK supports https and salesforce.com only; the adapter redirects to any other address.
    """

    def __init__(self, settings: Settings) -> None:
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


class Session:
    """Session shared by all threads, with a token that all processes share.

    The SDK's own renewal loops if a session is rejected repeatedly, and each thread renews for itself. The SDK
    therefore gets a session that it cannot renew.
    """

    def __init__(self, settings: Settings, tokens: TokenSource) -> None:
        self._api_version = settings.api_version
        self._tokens = tokens
        self._transport = Transport(settings)
        self._current: tuple[Token, Salesforce] | None = None
        self.close = self._transport.http.close

    @property
    def usage(self) -> str:
        """`18/5000`: requests of the whole org in the last 24 hours, as last reported by Salesforce."""
        return self._transport.adapter.usage

    def run(self, call: Callable[[Salesforce], T]) -> T:
        """Return the result of an SDK call. If the session has expired, log in and call once more."""
        token = self._tokens.current()
        try:
            return call(self._api(token))
        except SalesforceError as error:
            if error.status != 401:
                raise
        return call(self._api(self._tokens.current(refused=token)))

    def _api(self, token: Token) -> Salesforce:
        current = self._current
        if current is not None and current[0] == token:
            return current[1]
        domain = f"{self._transport.domain}.salesforce.com"
        api = Salesforce(
            session_id=token.access.get_secret_value(),
            instance=domain if self._transport.adapter.redirect_to else token.url or domain,
            session=self._transport.http,
            version=self._api_version,
        )
        self._current = (token, api)
        return api


@connector.token
def token(settings: Settings, previous: Token | None) -> Token:
    """Log in. Salesforce does not tell when a session expires, so it is used until it is refused."""
    del previous
    transport = Transport(settings)
    credentials: dict[str, Any] = {
        "consumer_key": settings.consumer_key.get_secret_value(),
        "session": transport.http,
    }
    if settings.consumer_secret is not None:
        credentials |= {
            "consumer_secret": settings.consumer_secret.get_secret_value(),
            "domain": transport.domain,
        }
    else:
        is_test_org = transport.domain.endswith((".sandbox.my", ".scratch.my"))
        credentials |= {
            "username": settings.username,
            "privatekey_file": settings.private_key_file,
            "domain": "test" if is_test_org else "login",
            "instance_url": transport.domain,
        }
    try:
        with transport.http, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the SDK's warnings contain the consumer key
            access, instance = SalesforceLogin(**credentials)
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
    return Token(SecretStr(str(access)), url=str(instance))
