"""A Twilio account: its client, and its errors."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException

from bridge.connector import failure_from_exception, failure_from_status
from bridge.errors import DeliveryError

from .errors import error_code, error_from_code
from .settings import Settings, connector
from .templates import TemplateReader

if TYPE_CHECKING:
    from twilio.rest import Client
    from twilio.rest.api.v2010.account import AccountInstance


class Account:
    """One Twilio account with its senders and templates."""

    def __init__(self, settings: Settings) -> None:
        # At INFO the SDK logs the URL of every lookup, which contains the recipient's number.
        logging.getLogger("twilio.http_client").setLevel(logging.WARNING)
        self.settings = settings
        from .http_client import DeadlineHttpClient

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
    if isinstance(error, TwilioException):
        from twilio.http.response import Response

        # a failed list request: its response is in args
        response = next((arg for arg in error.args if isinstance(arg, Response)), None)
        if response is None:
            return failure_from_status(502, "Twilio's response to a list request cannot be read")
        return error_from_code(error_code(response.text), response.status_code)
    return failure_from_exception(error)
