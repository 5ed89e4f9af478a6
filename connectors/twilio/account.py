"""A Twilio account: its client, and its errors."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response

from bridge.connector import (
    DeadlineAdapter,
    failure_from_exception,
    failure_from_status,
    parse_retry_after,
)
from bridge.errors import DeliveryError, OutcomeUnknown, QuotaExhausted, RateLimited

from .errors import DAILY_LIMIT_CODE, ERRORS, RATE_LIMIT_CODE, error_from_code
from .settings import Settings, connector
from .templates import TemplateReader

if TYPE_CHECKING:
    from twilio.rest import Client
    from twilio.rest.api.v2010.account import AccountInstance


class DeadlineHttpClient(TwilioHttpClient):  # type: ignore[misc]  # the SDK has no types
    """The SDK's HTTP client with the attempt's deadline and with error details that the SDK's exceptions omit."""

    def __init__(self, url: str | None) -> None:
        super().__init__()
        self.session.trust_env = False
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, DeadlineAdapter(redirect_to=url))

    def request(self, *args: Any, **kwargs: Any) -> Response:
        """Send one request. Raises RateLimited with Twilio's Retry-After, and OutcomeUnknown for a proxy's response."""
        response = super().request(*args, **kwargs)
        if response.status_code == 429:
            if _error_code(response.text) == DAILY_LIMIT_CODE:
                raise QuotaExhausted(ERRORS[DAILY_LIMIT_CODE].text)
            raise RateLimited(
                ERRORS[RATE_LIMIT_CODE].text, retry_after=parse_retry_after(_header(response, "Retry-After"))
            )
        if response.status_code < 400 and not _is_json_object(response.text):
            raise OutcomeUnknown(
                f"the response ({response.status_code}) is not Twilio's: check for a proxy in between",
                reason="server_error",
            )
        return response


def _header(response: Response, name: str) -> str | None:
    value = (response.headers or {}).get(name)
    return str(value) if value is not None else None


def _is_json_object(text: str) -> bool:
    return _json_object(text) is not None


def _error_code(text: str) -> int:
    code = (_json_object(text) or {}).get("code")
    return code if isinstance(code, int) else 0


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class Account:
    """One Twilio account with its senders and templates."""

    def __init__(self, settings: Settings) -> None:
        # At INFO the SDK logs the URL of every lookup, which contains the recipient's number.
        logging.getLogger("twilio.http_client").setLevel(logging.WARNING)
        self.settings = settings
        self._http = DeadlineHttpClient(settings.url)
        self.api = self._client(*settings.login)
        self.templates = TemplateReader(self.api, classify_error)

    def _client(self, user: str, password: str) -> Client:
        from twilio.rest import Client  # 7 MB, for processes that send

        settings = self.settings
        return Client(
            user,
            password,
            settings.account_sid,
            http_client=self._http,
            region=settings.region,
            edge=settings.edge,
            environment={"": ""},  # otherwise the SDK falls back to the variables of another connection
        )

    def details(self) -> AccountInstance:
        """Read the account with the auth token, which also proves the token.

        A Standard API key may not read the account, and nothing but a request shows that the token is right: with a
        wrong one, Twilio's callbacks would be rejected.
        """
        sid, token = self.settings.account_sid, self.settings.auth_token.get_secret_value()
        return self._client(sid, token).api.v2010.accounts(sid).fetch()

    def close(self) -> None:
        """Close the HTTP connections."""
        self._http.session.close()


@connector.client
def client(settings: Settings) -> Account:
    """Return the account's client, whose requests end within the attempt's deadline."""
    return Account(settings)


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Map Twilio's error code first, then the HTTP status, then network errors."""
    if isinstance(error, TwilioRestException | TwilioServiceException):
        return error_from_code(error.code if isinstance(error.code, int) else 0, error.status)
    if isinstance(error, TwilioException):  # a failed list request: its response is in args
        response = next((arg for arg in error.args if isinstance(arg, Response)), None)
        if response is None:
            return failure_from_status(502, "Twilio's response to a list request cannot be read")
        return error_from_code(_error_code(response.text), response.status_code)
    return failure_from_exception(error)
