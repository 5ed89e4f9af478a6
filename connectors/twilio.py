"""Twilio connector: sends text messages and handles status callbacks and replies."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.request_validator import RequestValidator, get_signature_algorithm
from twilio.rest import Client

from bridge.connector import (
    CallbackReply,
    CallbackRequest,
    Connector,
    ConnectorSettings,
    Context,
    DeadlineAdapter,
    InboundMessage,
    Limits,
    MessageStatus,
    OptOut,
    Params,
    PhoneNumber,
    ProviderUrl,
    StatusUpdate,
    Success,
    failure_from_exception,
    failure_from_status,
    param,
    parse_retry_after,
    per_message,
    segments,
)
from bridge.errors import (
    AuthenticationError,
    ConfigError,
    DeliveryError,
    LookupInconclusive,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    Refused,
)

CLOCK_SKEW = timedelta(minutes=2)
"""Allowed difference between Twilio's clock and the bridge's, when a lookup skips messages older than the first
attempt."""
LOOKUP_PAGE_SIZE = 100
"""Number of Twilio's newest messages to the recipient that a lookup reads, in one request."""
MAX_VALIDITY_SECONDS = 36_000
"""How long Twilio keeps trying to deliver a message: its default and its maximum."""
MAX_MEDIA = 10
"""Files of one message, by Twilio's limit."""
MIN_VALIDITY_SECONDS = 60
"""Validity of a message sent just before the recipient's quiet hours start. With less, a busy carrier would drop it."""

_TRIAL_PREFIX = "Sent from your Twilio trial account - "
_EMPTY_TWIML = CallbackReply(body='<?xml version="1.0" encoding="UTF-8"?><Response/>', media_type="text/xml")


# ---------------------------------------------------------------- Twilio's error codes

_INVALID_NUMBER = "the number cannot receive text messages"
_INVALID_SENDER = "the sender cannot text this number: check TWILIO_FROM or the messaging service's senders"
_UNREGISTERED_SENDER = (
    "US carriers block unregistered senders: register for A2P 10DLC or verify the toll-free number"
)

ERRORS: Mapping[int, tuple[Callable[[str], DeliveryError], str]] = {
    20003: (AuthenticationError, "Twilio does not accept the account SID and auth token"),
    20005: (AuthenticationError, "the Twilio account is not active"),
    20008: (AuthenticationError, "these are Twilio's test credentials: use the live ones"),
    20429: (RateLimited, "Twilio asks for fewer concurrent requests"),
    21211: (PermanentError, _INVALID_NUMBER),
    21217: (PermanentError, _INVALID_NUMBER),
    21265: (PermanentError, _INVALID_NUMBER),
    21212: (PermanentError, _INVALID_SENDER),
    21408: (PermanentError, "text messages to this country are disabled in Twilio's geo permissions"),
    21602: (PermanentError, "the message body is empty"),
    21603: (PermanentError, _INVALID_SENDER),
    21606: (PermanentError, _INVALID_SENDER),
    21608: (PermanentError, "a trial account can text verified numbers only"),
    21609: (
        PermanentError,
        "Twilio cannot reach BRIDGE_PUBLIC_URL for callbacks: set it to a public address",
    ),
    21610: (PermanentError, "the recipient has replied STOP"),
    21612: (PermanentError, "Twilio has no route from the sender to this number"),
    21614: (PermanentError, "the number is not a mobile number"),
    21617: (PermanentError, "the message body is longer than 1600 characters"),
    21635: (PermanentError, "the number is a landline"),
    21659: (PermanentError, _INVALID_SENDER),
    21701: (PermanentError, "the messaging service does not exist: check TWILIO_MESSAGING_SERVICE_SID"),
    21703: (PermanentError, "the messaging service has no sender: add one to its sender pool in Twilio"),
    21704: (PermanentError, "the messaging service has no sender: add one to its sender pool in Twilio"),
    21712: (PermanentError, _INVALID_SENDER),
    30001: (PermanentError, "Twilio's queue was full"),
    30002: (PermanentError, "the Twilio account is suspended"),
    30003: (PermanentError, "the phone was off or out of reach"),
    30004: (PermanentError, "the recipient or the carrier blocks the sender"),
    30005: (PermanentError, "the number is unknown to its carrier"),
    30006: (PermanentError, "the number is a landline, or its carrier does not accept text messages"),
    30007: (PermanentError, "the carrier filtered the message"),
    30008: (PermanentError, "the carrier gave no reason"),
    30032: (PermanentError, _UNREGISTERED_SENDER),
    30034: (PermanentError, _UNREGISTERED_SENDER),
    30035: (PermanentError, _UNREGISTERED_SENDER),
    30036: (PermanentError, "the message could not be delivered within its validity period"),
    30410: (OutcomeUnknown, "the carrier did not answer Twilio in time"),
}
"""Error code -> exception and advice. Twilio adds and splits codes: an unlisted code is mapped by its range and the
HTTP status."""

_OPTED_OUT_CODE = 21610
_UNDELIVERABLE_CODES = frozenset({21211, 21217, 21265, 21614, 21635, 30006})
"""The number can never receive a text: it is invalid, a short code or a landline."""


def error_from_code(code: int, status: int = 400) -> DeliveryError:
    """Map a Twilio error code to an exception with advice of our own: Twilio's messages repeat the phone number."""
    if code < 10_000:  # the SDK substitutes the HTTP status if the response has no code
        return failure_from_status(status, f"Twilio answered {status}")
    error_type, advice = ERRORS.get(code, (None, f"see https://www.twilio.com/docs/errors/{code}"))
    message = f"Twilio error {code}: {advice}"
    if status >= 500 or (error_type is None and code < 21_000):
        return failure_from_status(status, message)
    if error_type is None or error_type is PermanentError:
        return PermanentError(
            message,
            code=str(code),
            opted_out=code == _OPTED_OUT_CODE,
            undeliverable=code in _UNDELIVERABLE_CODES,
        )
    return error_type(message)


# ---------------------------------------------------------------- account


class Settings(ConnectorSettings):
    """Settings: `TWILIO_ACCOUNT_SID`, `TWILIO_AUTH_TOKEN`, and a sender: a number or a messaging service."""

    account_sid: str = Field(pattern=r"^AC[0-9a-f]{32}$")
    """Account SID (`AC...`)."""
    auth_token: SecretStr
    """Auth token. It also verifies the signature of callbacks."""
    sender: str | None = Field(
        None, alias="from", pattern=r"^(\+[1-9]\d{1,14}|\d{3,8}|[A-Za-z0-9 &_+-]{1,11})$"
    )
    """Sender: a phone number, short code or alphanumeric sender ID. Required without a messaging service."""
    messaging_service_sid: str | None = Field(None, pattern=r"^MG[0-9a-f]{32}$")
    """Messaging service (`MG...`) that chooses the sender from its sender pool."""
    shared_key: SecretStr | None = None
    """Secret of the shared key, for accounts whose callbacks Twilio signs with one."""
    region: str | None = Field(None, pattern=r"^[a-z0-9]+$")
    """Twilio region, such as `ie1`."""
    edge: str | None = Field(None, pattern=r"^[a-z0-9-]+$")
    """Twilio edge location, such as `dublin`."""
    url: ProviderUrl | None = None
    """Base URL that replaces every `https://....twilio.com`."""

    @model_validator(mode="after")
    def _require_sender(self) -> Self:
        if self.sender is None and self.messaging_service_sid is None:
            raise ValueError("set TWILIO_FROM or TWILIO_MESSAGING_SERVICE_SID: a text message needs a sender")
        return self


connector = Connector(
    "twilio",
    settings=Settings,
    limits=Limits(per_second=10, concurrency=8),
    description="Sends text messages; status and STOP replies arrive through callbacks.",
)


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


# ---------------------------------------------------------------- sending


class SmsParams(Params):
    """One text message."""

    to: PhoneNumber = param("{{ contact.phone }}", "Recipient, in E.164 format.", example="+14155550123")
    body: str = param(
        ...,
        "Message text. Each segment is billed: up to 160 GSM-7 characters, or 70 if the text has "
        "any other character.",
        example="Hi {{ contact.first_name | default('there') }}, we tried to reach you. Reply STOP to opt out.",
        min_length=1,
        max_length=1600,
    )
    sender: str | None = param(
        None, "Number to send from, instead of the account's default sender.", example="+12125550100"
    )
    validity: int = param(
        3600,
        "How long Twilio keeps trying if the phone is off, in seconds. "
        "Shortened if the delivery expires or quiet hours start earlier.",
        example=3600,
        ge=1,
        le=MAX_VALIDITY_SECONDS,
    )


@connector.action(channel="sms", idempotency=per_message, lookup_delay=timedelta(seconds=10))
def send_sms(account: Account, params: SmsParams, context: Context) -> Success:
    """Send one text message."""
    validity = params.validity
    if context.expires_at:
        validity = min(validity, int((context.expires_at - context.now).total_seconds()))
    if validity < 1:
        raise PermanentError("the message expired before it could be sent", code="expired")
    if context.quiet_hours_start:
        until_quiet_hours = int((context.quiet_hours_start - context.now).total_seconds())
        validity = min(validity, max(until_quiet_hours, MIN_VALIDITY_SECONDS))
    settings = account.settings
    options: dict[str, Any] = {
        "from_": params.sender or settings.sender,
        "messaging_service_sid": settings.messaging_service_sid if params.sender is None else None,
        "status_callback": context.callback_url("status"),
    }
    message = account.api.messages.create(
        to=params.to,
        body=params.body,
        validity_period=validity,
        **{name: value for name, value in options.items() if value is not None},
    )
    if not message.sid:
        raise OutcomeUnknown("Twilio's response has no message SID", reason="server_error")
    return _success(message, params.body)


@send_sms.lookup
def find_sms(account: Account, params: SmsParams, context: Context) -> Success | None:
    """Return the delivery's message if it is among Twilio's newest messages to this recipient.

    Two deliveries may send the same text to one recipient, so a message used by another delivery is skipped. If two
    equal messages belong to no delivery, either may be this one's, and using one of them keeps the count right.
    Twilio cannot filter by creation date, and its filter by sending date hides messages that are still queued.
    """
    if context.ids_used_by_others is None:
        raise LookupInconclusive("the messages used by other deliveries are not known here")
    since = context.first_attempt_at - CLOCK_SKEW
    newest = account.api.messages.list(to=params.to, limit=LOOKUP_PAGE_SIZE, page_size=LOOKUP_PAGE_SIZE)
    recent = [message for message in newest if message.date_created is None or message.date_created >= since]
    outbound = [message for message in recent if message.direction == "outbound-api" and message.sid]
    used = context.ids_used_by_others([message.sid for message in outbound])
    candidates = [message for message in outbound if message.sid not in used]
    for message in reversed(candidates):
        if _is_same_text(message.body or "", params.body):
            return _success(message, params.body)
    if any(not message.body for message in candidates):
        raise LookupInconclusive("Twilio no longer shows the body of a message to this recipient")
    if len(recent) >= LOOKUP_PAGE_SIZE:
        raise LookupInconclusive("this recipient got more messages than one lookup reads")
    return None


def _success(message: Any, body: str) -> Success:
    status = _MESSAGE_STATUS.get(str(message.status), "queued")
    return Success(id=message.sid, detail=_segments_note(body), message_status=status)


def _is_same_text(stored: str, sent: str) -> bool:
    """Compare letters and digits only: smart encoding replaces quotes and dashes, trial accounts add a prefix."""
    return stored == sent or (
        bool(_alphanumerics(sent))
        and _alphanumerics(stored.removeprefix(_TRIAL_PREFIX)) == _alphanumerics(sent)
    )


def _alphanumerics(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", text) if char.isalnum())


def _segments_note(body: str) -> str:
    """Return `2 segments`, with the reason if the message needs more segments than its length suggests."""
    size = segments(body)
    reason = "" if size.encoding == "GSM-7" else " (UCS-2: 70 characters each, because one is special)"
    return f"{size.count} segment{'' if size.count == 1 else 's'}{reason}"


# ---------------------------------------------------------------- callbacks

_MESSAGE_STATUS: Mapping[str, MessageStatus] = {
    "accepted": "queued",
    "scheduled": "queued",
    "queued": "queued",
    "sending": "queued",
    "sent": "sent",
    "delivered": "delivered",
    "read": "delivered",
    "partially_delivered": "undelivered",
    "undelivered": "undelivered",
    "failed": "failed",
    "canceled": "failed",
}

_KEYWORDS: Mapping[str, Literal["stop", "start", "help"]] = {"STOP": "stop", "START": "start", "HELP": "help"}
"""Values of `OptOutType`: with Advanced Opt-Out, Twilio names the kind of keyword, in whatever language it is."""
_CHANNEL_PREFIX = re.compile(r"(whatsapp|rcs):", re.IGNORECASE)


@connector.callback("status")
def status(settings: Settings, request: CallbackRequest) -> CallbackReply:
    """Report a message's status. Twilio repeats and reorders callbacks; the store keeps the furthest status."""
    form = _verified_form(settings, request)
    state = _MESSAGE_STATUS.get(form.get("MessageStatus", ""))
    updates: list[StatusUpdate | OptOut] = []
    code = form.get("ErrorCode", "")
    problem = "" if state else f"unknown MessageStatus `{form.get('MessageStatus', '')[:40]}`"
    if state:
        error = error_from_code(int(code)) if re.fullmatch(r"\d{1,6}", code) and int(code) else None
        updates.append(
            StatusUpdate(
                state,
                form.get("MessageSid"),
                request.query.get("delivery"),
                error.detail if error else "",
                undeliverable=isinstance(error, PermanentError) and error.undeliverable,
            )
        )
    if code == str(_OPTED_OUT_CODE):
        channel, number = _address(form.get("To", ""))
        if re.fullmatch(r"\+[1-9]\d{1,14}", number):
            updates.append(OptOut(channel, number))
        else:
            problem = "the recipient opted out, but `To` is not a phone number"
    return CallbackReply(updates, _EMPTY_TWIML.body, _EMPTY_TWIML.media_type, problem)


@connector.callback("inbound")
def inbound(settings: Settings, request: CallbackRequest) -> CallbackReply:
    """Report a text that a person sent. Twilio itself answers STOP, START and HELP."""
    form = _verified_form(settings, request)
    channel, sender = _address(form.get("From", ""))
    message = InboundMessage(
        id=form.get("MessageSid") or hashlib.sha256(request.body).hexdigest(),
        channel=channel,
        sender=sender,
        to=_address(form.get("To", ""))[1],
        text=form.get("Body", ""),
        media=_media_urls(form),
        sender_name=form.get("ProfileName"),
        keyword=_KEYWORDS.get(form.get("OptOutType", "").upper()),
    )
    return CallbackReply([message], _EMPTY_TWIML.body, _EMPTY_TWIML.media_type)


def _media_urls(form: Mapping[str, str]) -> tuple[str, ...]:
    """Return the URLs of the pictures and files of a message: `MediaUrl0`, `MediaUrl1`, ..."""
    urls = (form.get(f"MediaUrl{number}", "") for number in range(MAX_MEDIA))
    return tuple(url for url in urls if url)


def _address(value: str) -> tuple[Literal["sms", "whatsapp"], str]:
    """Return the channel and the number of an address: Twilio writes `whatsapp:+14155550123`.

    RCS (`rcs:+14155550123`) is the successor of SMS: a messaging service chooses between them for each phone.
    """
    prefix = _CHANNEL_PREFIX.match(value)
    if prefix is None:
        return "sms", value
    return ("whatsapp" if prefix[1].lower() == "whatsapp" else "sms"), value[prefix.end() :]


class _Form(dict[str, list[str]]):
    """A form as Twilio's validator expects it: every value of every field, without stripping."""

    def getlist(self, name: str) -> list[str]:
        """Return all values of a field."""
        return self[name]


def _verified_form(settings: Settings, request: CallbackRequest) -> Mapping[str, str]:
    """Return the form of a request signed by Twilio. Raises Refused if the signature is missing or invalid."""
    signature = request.headers.get("x-twilio-signature")
    if not signature:
        raise Refused("signature", "missing X-Twilio-Signature header", status=403)
    form = _Form()
    for name, value in request.form:
        form.setdefault(name, []).append(value)
    algorithm = get_signature_algorithm(request.headers.get("x-twilio-webhooks-signature-settings"))
    secret = settings.auth_token if algorithm == "HMAC_SHA1" else settings.shared_key or settings.auth_token
    validator = RequestValidator(secret.get_secret_value())
    # Behind a proxy that terminates TLS, the bridge may see another scheme than the one Twilio requested and signed.
    rest = request.url.partition("://")[2]
    try:
        valid = any(
            validator.validate(f"{scheme}://{rest}", form, signature, algorithm)
            for scheme in ("https", "http")
        )
    except ValueError:  # no signature can be computed for this URL or text
        valid = False
    if not valid:
        raise Refused("signature", "X-Twilio-Signature does not match the request", status=403)
    return {name: values[-1] for name, values in form.items()}
