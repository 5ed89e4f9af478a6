"""A Twilio account: its client, and the check of the account and its sender."""

from __future__ import annotations

import json
import logging
import re
from typing import Any
from urllib.parse import urlsplit

from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from bridge.connector import (
    DeadlineAdapter,
    failure_from_exception,
    failure_from_status,
    parse_retry_after,
)
from bridge.errors import (
    AuthenticationError,
    ConfigError,
    DeliveryError,
    OutcomeUnknown,
    RateLimited,
)

from .errors import ERRORS, error_from_code
from .settings import Settings, connector


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
            raise RateLimited(
                ERRORS[20429][1], retry_after=parse_retry_after(_header(response, "Retry-After"))
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
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


class Account:
    """One Twilio account with its sender."""

    def __init__(self, settings: Settings) -> None:
        # At INFO the SDK logs the URL of every lookup, which contains the recipient's number.
        logging.getLogger("twilio.http_client").setLevel(logging.WARNING)
        self.settings = settings
        self._http = DeadlineHttpClient(settings.url)
        self.api = Client(
            settings.account_sid,
            settings.auth_token.get_secret_value(),
            http_client=self._http,
            region=settings.region,
            edge=settings.edge,
            environment={"": ""},  # otherwise the SDK falls back to the variables of another connection
        )

    def close(self) -> None:
        """Close the HTTP connections."""
        self._http.session.close()


@connector.client
def client(settings: Settings) -> Account:
    """Return the account's client, whose requests end within the attempt's deadline."""
    return Account(settings)


@connector.check
def check(account: Account) -> str:
    """Read the account and its sender. Sends nothing."""
    details = account.api.api.v2010.accounts(account.settings.account_sid).fetch()
    if details.status != "active":
        raise AuthenticationError(
            f"the Twilio account is {details.status}: reactivate it in Twilio's console"
        )
    notes = ["account active"]
    if details.type == "Trial":
        notes.append("trial: only verified numbers can be texted")
    service, sender = account.settings.messaging_service_sid, account.settings.sender
    if service:
        notes += _check_service(account.api, service)
    elif sender and sender.startswith("+"):
        notes += _check_number(account.api, sender)
    return ", ".join(notes)


def _replies_note(url: str | None) -> list[str]:
    """Return the warning that replies do not reach the bridge. A new number sends them to a demo page of Twilio."""
    parts = urlsplit(url or "")
    if re.search(r"/webhooks/[^/]+/inbound$", parts.path):
        return []
    where = f"go to {parts.hostname}, not to the bridge" if parts.hostname else "are not forwarded"
    advice = "set the webhook for incoming messages to BRIDGE_PUBLIC_URL/webhooks/twilio/inbound"
    return [f"but replies {where}: {advice}, so that STOP works at once and the team sees every answer"]


def _check_service(api: Client, sid: str) -> list[str]:
    service = api.messaging.v1.services(sid)
    try:
        details = service.fetch()
    except TwilioRestException as error:
        if error.status != 404:
            raise
        raise ConfigError(
            "TWILIO_MESSAGING_SERVICE_SID is not a messaging service of this account: set another one"
        ) from error
    sender_pools = (service.phone_numbers, service.short_codes, service.alpha_senders)
    if not any(pool.list(limit=1) for pool in sender_pools):
        raise ConfigError("the messaging service has no sender: add one to its sender pool in Twilio")
    notes = [] if details.use_inbound_webhook_on_number else _replies_note(details.inbound_request_url)
    return ["messaging service with a sender found", *notes]


def _check_number(api: Client, number: str) -> list[str]:
    owned = api.incoming_phone_numbers.list(phone_number=number, limit=1)
    if not owned:
        raise ConfigError("TWILIO_FROM is not a number of this account: buy it or set another one")
    if not (owned[0].capabilities or {}).get("sms", True):
        raise ConfigError("TWILIO_FROM is a number that cannot send text messages: set one that can")
    return ["sender found", *_replies_note(owned[0].sms_url)]


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Map Twilio's error code first, then the HTTP status, then network errors."""
    if isinstance(error, TwilioRestException | TwilioServiceException):
        return error_from_code(error.code if isinstance(error.code, int) else 0, error.status)
    if isinstance(error, TwilioException):  # a failed list request: its response is in args, without a code
        status = next((arg.status_code for arg in error.args if isinstance(arg, Response)), 502)
        return failure_from_status(status, f"Twilio answered {status} to a list request")
    return failure_from_exception(error)
