"""Twilio: text messages, what became of them, and STOP."""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Self

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
    Limits,
    MessageStatus,
    OptIn,
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
"""How far Twilio's clock and ours may be apart when a lookup asks what is older than our first attempt."""
LOOKUP_PAGE = 100
"""Twilio's newest texts to a person that a lookup reads; one request."""
LONGEST_VALIDITY = 36_000
"""Seconds that Twilio keeps a text it cannot deliver, unless told otherwise; also the most it allows."""

LEAST_VALIDITY = 60
"""Seconds that a text gets when the person's quiet hours are about to begin: fewer would drop it at a busy carrier."""

_TRIAL_PREFIX = "Sent from your Twilio trial account - "
_NO_REPLY = CallbackReply(body='<?xml version="1.0" encoding="UTF-8"?><Response/>', media_type="text/xml")


# ---------------------------------------------------------------- what Twilio's error codes mean

_WRONG_NUMBER = "the number cannot be texted"
_SENDER = "the sender cannot text this number; check TWILIO_FROM or the messaging service's senders"
_UNREGISTERED = (
    "US carriers block an unregistered sender; register it for A2P 10DLC or verify the toll-free number"
)

ERRORS: Mapping[int, tuple[Callable[[str], DeliveryError], str]] = {
    20003: (AuthenticationError, "Twilio does not accept the account SID and auth token"),
    20005: (AuthenticationError, "the Twilio account is not active"),
    20008: (AuthenticationError, "these are Twilio's test credentials; use the live ones"),
    20429: (RateLimited, "Twilio asks for fewer requests at once"),
    21211: (PermanentError, _WRONG_NUMBER),
    21217: (PermanentError, _WRONG_NUMBER),
    21265: (PermanentError, _WRONG_NUMBER),
    21212: (PermanentError, _SENDER),
    21408: (PermanentError, "texts to this country are switched off in Twilio's geo permissions"),
    21602: (PermanentError, "the text is empty"),
    21603: (PermanentError, _SENDER),
    21606: (PermanentError, _SENDER),
    21608: (PermanentError, "a trial account may text verified numbers only"),
    21609: (PermanentError, "Twilio cannot call BRIDGE_PUBLIC_URL back; set it to a public address"),
    21610: (PermanentError, "the person has replied STOP"),
    21612: (PermanentError, "Twilio has no route from the sender to this number"),
    21614: (PermanentError, "the number is not a mobile one"),
    21617: (PermanentError, "the text is longer than 1600 characters"),
    21635: (PermanentError, "the number is a landline"),
    21659: (PermanentError, _SENDER),
    21701: (PermanentError, "the messaging service does not exist; check TWILIO_MESSAGING_SERVICE_SID"),
    21703: (PermanentError, "the messaging service has no sender"),
    21704: (PermanentError, "the messaging service has no sender"),
    21712: (PermanentError, _SENDER),
    30001: (PermanentError, "Twilio's queue was full"),
    30002: (PermanentError, "the Twilio account is suspended"),
    30003: (PermanentError, "the phone was off or out of reach"),
    30004: (PermanentError, "the person or the carrier blocks the sender"),
    30005: (PermanentError, "the number is unknown to its carrier"),
    30006: (PermanentError, "the number is a landline, or its carrier takes no texts"),
    30007: (PermanentError, "the carrier filtered the text out"),
    30008: (PermanentError, "the carrier gives no reason"),
    30032: (PermanentError, _UNREGISTERED),
    30034: (PermanentError, _UNREGISTERED),
    30035: (PermanentError, _UNREGISTERED),
    30036: (PermanentError, "the text could not be delivered within its validity"),
    30410: (OutcomeUnknown, "the carrier did not answer Twilio in time"),
}
"""Twilio adds and splits codes; what is not here is judged by its range, and by the HTTP status."""

_OPTED_OUT = 21610


def meaning(code: int, status: int = 400) -> DeliveryError:
    """The failure that an error code of Twilio stands for, in our words: Twilio's own repeat the phone number."""
    if code < 10_000:  # the SDK puts the HTTP status where the answer has no code
        return failure_from_status(status, f"Twilio answered {status}")
    kind, advice = ERRORS.get(code, (None, f"see https://www.twilio.com/docs/errors/{code}"))
    text = f"Twilio error {code}: {advice}"
    if status >= 500 or (kind is None and code < 21_000):
        return failure_from_status(status, text)
    if kind is None or kind is PermanentError:
        return PermanentError(text, code=str(code), opted_out=code == _OPTED_OUT)
    return kind(text)


# ---------------------------------------------------------------- the account


class Settings(ConnectorSettings):
    """`TWILIO_ACCOUNT_SID`, `TWILIO_AUTH_TOKEN`, and a sender: a number or a messaging service."""

    account_sid: str = Field(pattern=r"^AC[0-9a-f]{32}$")
    auth_token: SecretStr
    sender: str | None = Field(
        None, alias="from", pattern=r"^(\+[1-9]\d{1,14}|\d{3,8}|[A-Za-z0-9 &_+-]{1,11})$"
    )
    """A number, a short code or an alphanumeric sender (`TWILIO_FROM`)."""
    messaging_service_sid: str | None = Field(None, pattern=r"^MG[0-9a-f]{32}$")
    shared_key: SecretStr | None = None
    """The secret of the shared key, for accounts that let Twilio sign its callbacks with one."""
    region: str | None = Field(None, pattern=r"^[a-z0-9]+$")
    edge: str | None = Field(None, pattern=r"^[a-z0-9-]+$")
    url: ProviderUrl | None = None
    """Instead of every `https://....twilio.com`."""

    @model_validator(mode="after")
    def _has_sender(self) -> Self:
        if self.sender is None and self.messaging_service_sid is None:
            raise ValueError("set TWILIO_FROM or TWILIO_MESSAGING_SERVICE_SID: a text needs a sender")
        return self


connector = Connector(
    "twilio",
    settings=Settings,
    limits=Limits(per_second=10, concurrency=8),
    description="Texts people; receipts and STOP come back through callbacks.",
)


class GuardedHttpClient(TwilioHttpClient):  # type: ignore[misc]  # the SDK has no types
    """Twilio's HTTP client with a deadline, and with what its exceptions drop."""

    def __init__(self, url: str | None) -> None:
        super().__init__()
        self.session.trust_env = False
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, DeadlineAdapter(redirect_to=url))

    def request(self, *args: Any, **kwargs: Any) -> Response:
        """Send one request; raises RateLimited with Twilio's wait, and OutcomeUnknown when a proxy answered."""
        response = super().request(*args, **kwargs)
        if response.status_code == 429:
            raise RateLimited(
                ERRORS[20429][1], retry_after=parse_retry_after(_header(response, "Retry-After"))
            )
        if response.status_code < 400 and not _is_record(response.text):
            raise OutcomeUnknown(f"the answer {response.status_code} is not Twilio's", reason="server_error")
        return response


def _header(response: Response, name: str) -> str | None:
    found = (response.headers or {}).get(name)
    return str(found) if found is not None else None


def _is_record(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


class Account:
    """One Twilio account and who its texts come from."""

    def __init__(self, settings: Settings) -> None:
        # At INFO the SDK writes the URL of every lookup, and with it the person's number.
        logging.getLogger("twilio.http_client").setLevel(logging.WARNING)
        self.settings = settings
        self._http = GuardedHttpClient(settings.url)
        self.api = Client(
            settings.account_sid,
            settings.auth_token.get_secret_value(),
            http_client=self._http,
            region=settings.region,
            edge=settings.edge,
            environment={"": ""},  # or the SDK falls back to the variables of another connection
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.session.close()


@connector.client
def client(settings: Settings) -> Account:
    """The account over the SDK; every request ends within the attempt's deadline."""
    return Account(settings)


@connector.check
def check(account: Account) -> str:
    """Read the account and its sender; sends nothing."""
    found = account.api.api.v2010.accounts(account.settings.account_sid).fetch()
    if found.status != "active":
        raise AuthenticationError(f"the Twilio account is {found.status}")
    notes = ["account active"]
    if found.type == "Trial":
        notes.append("trial: only verified numbers can be texted")
    service, sender = account.settings.messaging_service_sid, account.settings.sender
    if service:
        notes += _check_service(account.api, service)
    elif sender and sender.startswith("+"):
        notes += _check_number(account.api, sender)
    return ", ".join(notes)


_REPLIES = (
    "but replies are not passed on: to learn of STOP at once, set its webhook for incoming messages to "
    "BRIDGE_PUBLIC_URL/webhooks/twilio/inbound"
)


def _check_service(api: Client, sid: str) -> list[str]:
    service = api.messaging.v1.services(sid)
    try:
        found = service.fetch()
    except TwilioRestException as error:
        if error.status != 404:
            raise
        raise ConfigError(
            "TWILIO_MESSAGING_SERVICE_SID is no messaging service of this account; set another"
        ) from error
    pool = (service.phone_numbers, service.short_codes, service.alpha_senders)
    if not any(senders.list(limit=1) for senders in pool):
        raise ConfigError("the messaging service has no sender: add one to its sender pool in Twilio")
    passed_on = found.inbound_request_url or found.use_inbound_webhook_on_number
    return ["messaging service with a sender found", *([] if passed_on else [_REPLIES])]


def _check_number(api: Client, number: str) -> list[str]:
    owned = api.incoming_phone_numbers.list(phone_number=number, limit=1)
    if not owned:
        raise ConfigError("TWILIO_FROM is no number of this account; buy it or set another")
    if not (owned[0].capabilities or {}).get("sms", True):
        raise ConfigError("TWILIO_FROM is a number that cannot text; set one that can")
    return ["sender found", *([] if owned[0].sms_url else [_REPLIES])]


@connector.classify_error
def classify_error(error: Exception) -> DeliveryError | None:
    """Twilio's codes first, then the HTTP status, then the network."""
    if isinstance(error, TwilioRestException | TwilioServiceException):
        return meaning(error.code if isinstance(error.code, int) else 0, error.status)
    if isinstance(error, TwilioException):  # a list that failed: the answer is an argument, without a code
        status = next((part.status_code for part in error.args if isinstance(part, Response)), 502)
        return failure_from_status(status, f"Twilio answered {status} to a list")
    return failure_from_exception(error)


# ---------------------------------------------------------------- sending


class Sms(Params):
    """One text message."""

    to: PhoneNumber = param("{{ contact.phone }}", "Who gets it, E.164.", example="+14155550123")
    body: str = param(
        ...,
        "The text. 160 plain characters are one segment, 70 as soon as one is special; each segment is billed.",
        example="Hi {{ contact.first_name | default('there') }}, we tried to reach you. Reply STOP to opt out.",
        min_length=1,
        max_length=1600,
    )
    sender: str | None = param(
        None, "A number to send from instead of the account's own.", example="+12125550100"
    )
    validity: int = param(
        3600,
        "How many seconds Twilio may keep trying when the phone is off. Short, or the text arrives at night.",
        example=3600,
        ge=1,
        le=LONGEST_VALIDITY,
    )


@connector.action(channel="sms", idempotency=per_message, lookup_delay=timedelta(seconds=10))
def send_sms(account: Account, sms: Sms, context: Context) -> Success:
    """Text a person."""
    validity = sms.validity
    if context.expires_at:
        validity = min(validity, int((context.expires_at - context.now).total_seconds()))
    if validity < 1:
        raise PermanentError("the text expired before it could be sent", code="expired")
    if context.quiet_hours_start:
        before_night = int((context.quiet_hours_start - context.now).total_seconds())
        validity = min(validity, max(before_night, LEAST_VALIDITY))
    settings = account.settings
    wanted: dict[str, Any] = {
        "from_": sms.sender or settings.sender,
        "messaging_service_sid": settings.messaging_service_sid if sms.sender is None else None,
        "status_callback": context.callback_url("status"),
    }
    message = account.api.messages.create(
        to=sms.to,
        body=sms.body,
        validity_period=validity,
        **{name: value for name, value in wanted.items() if value is not None},
    )
    if not message.sid:
        raise OutcomeUnknown("Twilio's answer names no message", reason="server_error")
    return _sent(message, sms.body)


@send_sms.lookup
def find_sms(account: Account, sms: Sms, context: Context) -> Success | None:
    """The text among Twilio's newest to this person.

    Two deliveries may send one person the same words, so what another delivery holds is left alone; of two alike
    texts that nobody holds either may be ours, and taking one leaves the count right. Twilio cannot filter by the
    date of creation, and its filter by date of sending hides what is still queued.
    """
    if context.ids_used_by_others is None:
        raise LookupInconclusive("which texts belong to other deliveries is not known here")
    since = context.first_attempt_at - CLOCK_SKEW
    listed = account.api.messages.list(to=sms.to, limit=LOOKUP_PAGE, page_size=LOOKUP_PAGE)
    recent = [message for message in listed if message.date_created is None or message.date_created >= since]
    ours = [message for message in recent if message.direction == "outbound-api" and message.sid]
    taken = context.ids_used_by_others([message.sid for message in ours])
    free = [message for message in ours if message.sid not in taken]
    for message in reversed(free):
        if _same_words(message.body or "", sms.body):
            return _sent(message, sms.body)
    if any(not message.body for message in free):
        raise LookupInconclusive("Twilio no longer shows the words of a text to this person")
    if len(recent) >= LOOKUP_PAGE:
        raise LookupInconclusive("more texts went to this person than one lookup reads")
    return None


def _sent(message: Any, body: str) -> Success:
    return Success(
        id=message.sid, detail=_cost(body), message_status=_STATES.get(str(message.status), "queued")
    )


def _same_words(found: str, wanted: str) -> bool:
    """Twilio's smart encoding replaces quotes and dashes, and a trial account adds a prefix."""
    return found == wanted or (
        bool(_words(wanted)) and _words(found.removeprefix(_TRIAL_PREFIX)) == _words(wanted)
    )


def _words(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", text) if char.isalnum())


def _cost(body: str) -> str:
    """`2 segments`, and why a text that looks short is not."""
    size = segments(body)
    why = "" if size.encoding == "GSM-7" else " in UCS-2: 70 characters each, because one is special"
    return f"{size.count} segment{'' if size.count == 1 else 's'}{why}"


# ---------------------------------------------------------------- what comes back

_STATES: Mapping[str, MessageStatus] = {
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

# Besides Twilio's own words, what people write who mean them. YES is left out of the second set: it also answers
# a question, and only Twilio knows which (OptOutType).
_STOP = frozenset(["STOP", "STOPALL", "UNSUBSCRIBE", "END", "QUIT", "CANCEL", "REVOKE", "OPTOUT"])
_START = frozenset(["START", "UNSTOP"])


@connector.callback("status")
def status(settings: Settings, request: CallbackRequest) -> CallbackReply:
    """What became of a text. Twilio reports out of order and more than once; the store keeps the furthest state."""
    form = _verified(settings, request)
    state = _STATES.get(form.get("MessageStatus", ""))
    learned: list[StatusUpdate | OptOut] = []
    code = form.get("ErrorCode", "")
    if state:
        detail = meaning(int(code)).detail if re.fullmatch(r"\d{1,6}", code) and int(code) else ""
        learned.append(StatusUpdate(state, form.get("MessageSid"), request.query.get("delivery"), detail))
    if code == str(_OPTED_OUT) and (number := _number(form.get("To"))):
        learned.append(OptOut("sms", number))
    return CallbackReply(learned, _NO_REPLY.body, _NO_REPLY.media_type)


@connector.callback("inbound")
def inbound(settings: Settings, request: CallbackRequest) -> CallbackReply:
    """A text from a person: STOP and START are remembered; Twilio itself answers them."""
    form = _verified(settings, request)
    number = _number(form.get("From"))
    word = form.get("OptOutType", "").upper() or re.sub(r"[\W_]", "", form.get("Body", "")).upper()
    learned: list[OptOut | OptIn] = []
    if number and word in _STOP:
        learned.append(OptOut("sms", number))
    elif number and word in _START:
        learned.append(OptIn("sms", number))
    return CallbackReply(learned, _NO_REPLY.body, _NO_REPLY.media_type)


def _number(value: str | None) -> str | None:
    return value if value and re.fullmatch(r"\+[1-9]\d{1,14}", value) else None


class _Form(dict[str, list[str]]):
    """A form as Twilio's validator reads it: every value of every field, none of them stripped."""

    def getlist(self, name: str) -> list[str]:
        """All values of a field."""
        return self[name]


def _verified(settings: Settings, request: CallbackRequest) -> Mapping[str, str]:
    """The form of a request that Twilio signed; raises Refused."""
    signature = request.headers.get("x-twilio-signature")
    if not signature:
        raise Refused("signature", "no X-Twilio-Signature", status=403)
    form = _Form()
    for name, value in request.form:
        form.setdefault(name, []).append(value)
    algorithm = get_signature_algorithm(request.headers.get("x-twilio-webhooks-signature-settings"))
    secret = settings.auth_token if algorithm == "HMAC_SHA1" else settings.shared_key or settings.auth_token
    validator = RequestValidator(secret.get_secret_value())
    # Behind a proxy that ends TLS we may be told the other scheme than the one that Twilio called and signed.
    rest = request.url.partition("://")[2]
    try:
        valid = any(
            validator.validate(f"{scheme}://{rest}", form, signature, algorithm)
            for scheme in ("https", "http")
        )
    except ValueError:  # a URL or text that no signature can be computed for
        valid = False
    if not valid:
        raise Refused("signature", "X-Twilio-Signature does not fit", status=403)
    return {name: values[-1] for name, values in form.items()}
