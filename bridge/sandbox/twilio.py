"""Twilio's message API: texts, opt-outs, receipts and replies."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import httpx
from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse, Response
from twilio.request_validator import RequestValidator

from bridge.clock import Clock
from bridge.sandbox.faults import Faults
from bridge.sandbox.partner import RECORDS_KEPT, Call, Handler, Partner, Refusal
from bridge.sandbox.segments import segments

ACCOUNT_SID = "AC5a6d1f0c3b2e49788d7c6b5a4f3e2d1c"
AUTH_TOKEN = "3f2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d"  # noqa: S105 - opens nothing but this sandbox
NUMBER = "+12125550100"
SERVICE_SID = "MG0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e"
LONGEST_BODY = 1600
LONGEST_VALIDITY = 36_000
_EARLIEST_SCHEDULE = timedelta(minutes=15)
_LATEST_SCHEDULE = timedelta(days=35)
_ROOT = "/2010-04-01/Accounts/{account}"
_NUMBER = re.compile(r"\+[1-9]\d{1,14}")
_STOP_WORDS = {"STOP", "STOPALL", "UNSUBSCRIBE", "END", "QUIT", "CANCEL", "REVOKE", "OPTOUT"}
_START_WORDS = {"START", "YES", "UNSTOP"}
_PARAMETERS = {
    "To",
    "StatusCallback",
    "ApplicationSid",
    "MaxPrice",
    "ProvideFeedback",
    "Attempt",
    "ValidityPeriod",
    "ForceDelivery",
    "ContentRetention",
    "AddressRetention",
    "SmartEncoded",
    "PersistentAction",
    "TrafficType",
    "ShortenUrls",
    "ScheduleType",
    "SendAt",
    "SendAsMms",
    "ContentVariables",
    "MessageIntent",
    "RiskCheck",
    "From",
    "FallbackFrom",
    "MessagingServiceSid",
    "Body",
    "MediaUrl",
    "ContentSid",
}
_REPEATABLE = {"PersistentAction", "MediaUrl"}
_FINAL = {"delivered", "undelivered", "failed", "canceled", "received"}


@dataclass
class Message:
    """One text, going out or come in; `parameters` is what the request that made it said."""

    sid: str
    to: str
    from_: str | None
    body: str
    status: str
    direction: str
    messaging_service_sid: str | None
    num_segments: int
    created_at: datetime
    parameters: dict[str, str]
    send_at: datetime | None = None
    sent_at: datetime | None = None
    error_code: int | None = None
    status_callback: str | None = None
    updated_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.updated_at = self.created_at


class Twilio(Partner):
    """One account with one number and one messaging service that sends from it."""

    name = "twilio"

    def __init__(self, clock: Clock, faults: Faults) -> None:
        super().__init__(clock, faults)
        self.reset()

    @property
    def messages(self) -> list[Message]:
        """The texts that went out, oldest first."""
        with self.lock:
            return [message for message in self._messages.values() if message.direction != "inbound"]

    @property
    def inbound(self) -> list[Message]:
        """The texts that came in, oldest first."""
        with self.lock:
            return [message for message in self._messages.values() if message.direction == "inbound"]

    def opt_out(self, number: str) -> None:
        """From now on, texts to `number` are refused with 21610, as after a STOP."""
        with self.lock:
            self.opted_out.add(number)

    def opt_in(self, number: str) -> None:
        """Undo `opt_out`, as after a START."""
        with self.lock:
            self.opted_out.discard(number)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """The endpoints of the 2010 API and of messaging services."""
        return [
            ("GET", _ROOT + ".json", self._account),
            ("GET", _ROOT + "/IncomingPhoneNumbers.json", self._numbers),
            ("POST", _ROOT + "/Messages.json", self._create),
            ("GET", _ROOT + "/Messages.json", self._list),
            ("GET", _ROOT + "/Messages/{sid}.json", self._fetch),
            ("POST", _ROOT + "/Messages/{sid}.json", self._update),
            ("DELETE", _ROOT + "/Messages/{sid}.json", self._delete),
            ("GET", "/v1/Services/{service}", self._service),
            ("GET", "/v1/Services/{service}/PhoneNumbers", self._service_numbers),
        ]

    def controls(self) -> Iterable[tuple[str, Callable[[Any], Any]]]:
        """Receipts and replies, which the partner sends by itself."""
        return [
            ("callbacks", lambda body: self.send_receipts(**body)),
            ("inbound", lambda body: self.receive(body["from"], body["body"], body["url"])),
        ]

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Texts in both directions, and the numbers that opted out."""
        with self.lock:
            return {
                "messages": [self._json(message) for message in self._messages.values()],
                "opted_out": [{"number": number} for number in sorted(self.opted_out)],
            }

    def reset(self) -> None:
        """No texts, nobody opted out, one number in the service's pool."""
        with self.lock:
            self._messages: dict[str, Message] = {}
            self.opted_out: set[str] = set()
            self.numbers = [NUMBER]
            self.pool = [NUMBER]

    def failure(self, status: int, message: str | None = None) -> Response:
        """Twilio's error body; its code is 20000 + the status where no finer one exists."""
        code = {401: 20003, 403: 20003, 404: 20404, 429: 20429, 503: 20503}.get(status, 20000 + status)
        words = {401: "Authenticate", 404: "The requested resource was not found", 429: "Too Many Requests"}
        return _error(status, code, message or words.get(status, "Internal Server Error"))

    def quota_exhausted(self) -> Response:
        """Too many requests at once: this one was not processed."""
        return self.failure(429)

    def authorize(self, call: Call) -> None:
        """Basic authentication with the account's SID and token; other accounts do not exist."""
        scheme, _, encoded = call.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            user = password = ""
        if scheme.lower() != "basic" or (user, password) != (ACCOUNT_SID, AUTH_TOKEN):
            raise Refusal(self.failure(401))
        if call.args.get("account", ACCOUNT_SID) != ACCOUNT_SID:
            raise self._not_found(call)

    def send_receipts(
        self,
        sid: str | None = None,
        statuses: Iterable[str] = ("sent", "delivered"),
        error_code: int | None = None,
    ) -> list[dict[str, Any]]:
        """Move texts on to `statuses` and send the signed callbacks that they asked for.

        Without `sid`, every text that is not final moves. Answers which callback got which HTTP status (None:
        no callback asked for, or nobody there).
        """
        with self.lock:
            moving = [
                message
                for message in self.messages
                if (sid == message.sid or (sid is None and message.status not in _FINAL))
            ]
        report = []
        for message in moving:
            for status in statuses:
                with self.lock:
                    self._move(message, status, error_code)
                    fields = self._receipt(message)
                report.append(
                    {
                        "sid": message.sid,
                        "status": status,
                        "http": self._signed_post(message.status_callback, fields),
                    }
                )
        return report

    def receive(self, from_: str, body: str, url: str, to: str = NUMBER) -> dict[str, Any]:
        """A person texts `body` to our number: the words for STOP and START count, then the webhook is called."""
        word = body.strip().upper()
        with self.lock:
            if word in _STOP_WORDS:
                self.opt_out(from_)
            elif word in _START_WORDS:
                self.opt_in(from_)
            message = self._add(
                Message(
                    _sid("SM"),
                    to,
                    from_,
                    body,
                    "received",
                    "inbound",
                    None,
                    segments(body),
                    self.now(),
                    {},
                )
            )
        fields = {
            "ToCountry": "US",
            "SmsMessageSid": message.sid,
            "NumMedia": "0",
            "SmsSid": message.sid,
            "SmsStatus": "received",
            "Body": body,
            "To": to,
            "NumSegments": str(message.num_segments),
            "MessageSid": message.sid,
            "AccountSid": ACCOUNT_SID,
            "From": from_,
            "ApiVersion": "2010-04-01",
        }
        return {"sid": message.sid, "http": self._signed_post(url, fields)}

    def _move(self, message: Message, status: str, error_code: int | None) -> None:
        message.status = status
        message.updated_at = self.now()
        if message.from_ is None and status != "accepted":
            message.from_ = self.pool[0] if self.pool else None
            message.num_segments = segments(message.body)
        if status in ("sent", "delivered", "undelivered") and message.sent_at is None:
            message.sent_at = self.now()
        if status in ("undelivered", "failed"):
            message.error_code = error_code or 30003

    def _receipt(self, message: Message) -> dict[str, str]:
        fields = {
            "SmsSid": message.sid,
            "SmsStatus": message.status,
            "MessageStatus": message.status,
            "To": message.to,
            "MessageSid": message.sid,
            "AccountSid": ACCOUNT_SID,
            "From": message.from_ or "",
            "ApiVersion": "2010-04-01",
        }
        if message.messaging_service_sid:
            fields["MessagingServiceSid"] = message.messaging_service_sid
        if message.error_code:
            fields["ErrorCode"] = str(message.error_code)
        return fields

    def _signed_post(self, url: str | None, fields: Mapping[str, str]) -> int | None:
        if not url:
            return None
        signature = RequestValidator(AUTH_TOKEN).compute_signature(url, dict(fields))
        try:
            answer = httpx.post(
                url,
                data=dict(fields),
                headers={"X-Twilio-Signature": signature, "User-Agent": "TwilioProxy/1.1"},
                timeout=15,
                trust_env=False,
            )
        except httpx.HTTPError:
            return None
        return answer.status_code

    def _create(self, call: Call) -> Response:
        given = self._form(call, _PARAMETERS)
        to = given.get("To", "")
        body = given.get("Body", "")
        if not to:
            raise _refusal(21604, "A 'To' phone number is required.")
        if not _NUMBER.fullmatch(to):
            raise _refusal(21211, f"Invalid 'To' Phone Number: {to[:4]}XXXX")
        service, sender = given.get("MessagingServiceSid"), given.get("From")
        self._check_sender(service, sender)
        if not body and not given.get("MediaUrl") and not given.get("ContentSid"):
            raise _refusal(21602, "Message body is required.")
        if len(body) > LONGEST_BODY:
            raise _refusal(21617, "The concatenated message body exceeds the 1600 character limit")
        if to == sender:
            raise _refusal(21266, f"'To' and 'From' number cannot be the same: {to[:4]}XXXX")
        self._check_options(given)
        send_at = self._schedule(given) if service else None
        if to in self.opted_out:
            raise _refusal(21610, "Attempt to send to unsubscribed recipient")
        status = "scheduled" if send_at else "accepted" if service else "queued"
        message = self._add(
            Message(
                _sid("MM" if given.get("MediaUrl") else "SM"),
                to,
                sender,
                body,
                status,
                "outbound-api",
                service,
                0 if service else segments(body),
                self.now(),
                given,
                send_at,
                status_callback=given.get("StatusCallback"),
            )
        )
        return JSONResponse(self._json(message), 201)

    def _form(self, call: Call, known: set[str]) -> dict[str, str]:
        pairs = parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True)
        unknown = sorted({name for name, _ in pairs} - known)
        if unknown:
            raise _refusal(20001, f"Unknown parameters: {', '.join(unknown)}")
        names = [name for name, _ in pairs if name not in _REPEATABLE]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise _refusal(20001, f"Repeated parameters: {', '.join(repeated)}")
        return dict(pairs)

    def _check_sender(self, service: str | None, sender: str | None) -> None:
        if not service and not sender:
            raise _refusal(21603, "A 'From' phone number is required.")
        if sender and not _NUMBER.fullmatch(sender):
            raise _refusal(21212, f"Invalid From Number (caller ID): {sender[:4]}XXXX")
        if service:
            if service != SERVICE_SID:
                raise _refusal(21701, "The Messaging Service does not exist", 404)
            if not self.pool:
                raise _refusal(21703, "The Messaging Service contains no phone numbers.")
            if sender and sender not in self.pool:
                raise _refusal(21712, "The 'From' number is not in the pool of the Messaging Service.")
        elif sender not in self.numbers:
            raise _refusal(
                21606, f"The 'From' phone number provided ({sender}) is not owned by your account."
            )

    def _check_options(self, given: Mapping[str, str]) -> None:
        validity = given.get("ValidityPeriod")
        if validity is not None and not (validity.isdecimal() and 1 <= int(validity) <= LONGEST_VALIDITY):
            raise _refusal(21656, "The ValidityPeriod must be a number of seconds from 1 to 36000.")
        for name in ("SmartEncoded", "ShortenUrls", "SendAsMms", "ProvideFeedback", "ForceDelivery"):
            if given.get(name, "true") not in ("true", "false"):
                raise _refusal(20001, f"Parameter '{name}' is not valid: must be true or false")
        if given.get("ShortenUrls") == "true" and not given.get("MessagingServiceSid"):
            raise _refusal(21655, "Link shortening needs a Messaging Service.")
        callback = given.get("StatusCallback")
        if callback is not None and not _is_callback(callback):
            raise _refusal(21609, f"Invalid 'StatusCallback' URL: {callback}")

    def _schedule(self, given: Mapping[str, str]) -> datetime | None:
        """When the text is to go out; without a service Twilio drops these parameters and sends at once."""
        send_at, kind = given.get("SendAt"), given.get("ScheduleType")
        if send_at is None and kind is None:
            return None
        if kind != "fixed":
            raise _refusal(35113, "ScheduleType must be 'fixed' to schedule a message.")
        if send_at is None:
            raise _refusal(35111, "SendAt is required to schedule a message.")
        try:
            instant = datetime.fromisoformat(send_at)
        except ValueError:
            instant = None
        if instant is None or instant.tzinfo is None:
            raise _refusal(35112, "SendAt must be in ISO 8601 format.")
        ahead = instant - self.now()
        if not _EARLIEST_SCHEDULE <= ahead <= _LATEST_SCHEDULE:
            raise _refusal(35114, "SendAt must be between 900 seconds and 35 days in the future.")
        return instant

    def _add(self, message: Message) -> Message:
        if len(self._messages) >= RECORDS_KEPT:
            raise self.full()
        self._messages[message.sid] = message
        return message

    def _list(self, call: Call) -> Response:
        query = call.query
        lag = self.faults.lag(self.name)
        found = [
            message
            for message in reversed(self._messages.values())
            if query.get("To") in (None, message.to)
            and query.get("From") in (None, message.from_)
            and (self.now() - message.created_at).total_seconds() >= lag
            and _sent_on(message, query)
        ]
        size, page = int(query.get("PageSize", 50)), int(query.get("Page", 0))
        if not 1 <= size <= 1000:
            raise _refusal(20001, "PageSize must be from 1 to 1000")
        after = query.get("PageToken", "").removeprefix("PA")
        sids = [message.sid for message in found]
        start = sids.index(after) + 1 if after in sids else 0
        shown = found[start : start + size]
        more = start + size < len(found)
        kept = [(k, v) for k, v in query.multi_items() if k not in ("Page", "PageToken", "PageSize")]
        path = call.path

        def uri(number: int, token: str | None) -> str:
            extra = [("PageSize", str(size)), ("Page", str(number))]
            return f"{path}?{urlencode(kept + extra + ([('PageToken', token)] if token else []), quote_via=quote)}"

        return JSONResponse(
            {
                "messages": [self._json(message) for message in shown],
                "page": page,
                "page_size": size,
                "start": start,
                "end": start + max(len(shown) - 1, 0),
                "uri": uri(page, query.get("PageToken")),
                "first_page_uri": uri(0, None),
                "previous_page_uri": uri(page - 1, None) if page == 1 else None,
                "next_page_uri": uri(page + 1, f"PA{shown[-1].sid}") if more else None,
            }
        )

    def _fetch(self, call: Call) -> Response:
        return JSONResponse(self._json(self._find(call)))

    def _update(self, call: Call) -> Response:
        message = self._find(call)
        given = self._form(call, {"Body", "Status"})
        if given.get("Status") not in (None, "canceled"):
            raise _refusal(20001, "Status can only be set to 'canceled'")
        if given.get("Body"):
            raise _refusal(20001, "Body can only be removed")
        if "Status" in given:
            if message.status != "scheduled":
                raise _refusal(30409, "Only a scheduled message can be canceled")
            self._move(message, "canceled", None)
        if "Body" in given:
            message.body = ""
        return JSONResponse(self._json(message))

    def _delete(self, call: Call) -> Response:
        del self._messages[self._find(call).sid]
        return Response(status_code=204)

    def _account(self, call: Call) -> Response:
        return JSONResponse(
            {
                "sid": ACCOUNT_SID,
                "friendly_name": "Sandbox",
                "status": "active",
                "type": "Full",
                "owner_account_sid": ACCOUNT_SID,
                "auth_token": "",
                "date_created": format_datetime(self.now()),
                "date_updated": format_datetime(self.now()),
                "uri": call.path,
                "subresource_uris": {},
            }
        )

    def _numbers(self, call: Call) -> Response:
        wanted = call.query.get("PhoneNumber", "").replace("*", "")
        numbers = [self._number_json(number) for number in self.numbers if wanted in number]
        return JSONResponse(
            {
                "incoming_phone_numbers": numbers,
                "page": 0,
                "page_size": 50,
                "start": 0,
                "end": max(len(numbers) - 1, 0),
                "uri": call.path,
                "first_page_uri": call.path,
                "previous_page_uri": None,
                "next_page_uri": None,
            }
        )

    def _number_json(self, number: str) -> dict[str, Any]:
        return {
            "sid": _sid("PN", number),
            "account_sid": ACCOUNT_SID,
            "phone_number": number,
            "friendly_name": number,
            "capabilities": {"sms": True, "mms": True, "voice": True, "fax": False},
            "status": "in-use",
            "sms_url": "",
            "sms_method": "POST",
        }

    def _service(self, call: Call) -> Response:
        self._known_service(call)
        return JSONResponse(
            {
                "sid": SERVICE_SID,
                "account_sid": ACCOUNT_SID,
                "friendly_name": "Sandbox",
                "inbound_request_url": None,
                "status_callback": None,
                "sticky_sender": True,
                "smart_encoding": True,
                "validity_period": 36_000,
                "date_created": self.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
                "date_updated": self.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
                "use_inbound_webhook_on_number": False,
                "url": f"https://messaging.twilio.com{call.path}",
                "links": {},
            }
        )

    def _service_numbers(self, call: Call) -> Response:
        self._known_service(call)
        numbers = [
            {
                "sid": _sid("PN", number),
                "account_sid": ACCOUNT_SID,
                "service_sid": SERVICE_SID,
                "phone_number": number,
                "country_code": "US",
                "capabilities": ["SMS", "MMS", "Voice"],
            }
            for number in self.pool
        ]
        meta = {
            "page": 0,
            "page_size": 50,
            "first_page_url": call.path,
            "previous_page_url": None,
            "next_page_url": None,
            "url": call.path,
            "key": "phone_numbers",
        }
        return JSONResponse({"phone_numbers": numbers, "meta": meta})

    def _known_service(self, call: Call) -> None:
        if call.args["service"] != SERVICE_SID:
            raise self._not_found(call)

    def _find(self, call: Call) -> Message:
        found = self._messages.get(call.args["sid"])
        if found is None:
            raise self._not_found(call)
        return found

    def _not_found(self, call: Call) -> Refusal:
        return Refusal(self.failure(404, f"The requested resource {call.path} was not found"))

    def _json(self, message: Message) -> dict[str, Any]:
        uri = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{message.sid}"
        return {
            "sid": message.sid,
            "account_sid": ACCOUNT_SID,
            "messaging_service_sid": message.messaging_service_sid,
            "to": message.to,
            "from": message.from_,
            "body": message.body,
            "status": message.status,
            "direction": message.direction,
            "num_segments": str(message.num_segments),
            "num_media": "0",
            "price": None,
            "price_unit": "USD",
            "error_code": message.error_code,
            "error_message": None,
            "api_version": "2010-04-01",
            "date_created": format_datetime(message.created_at),
            "date_updated": format_datetime(message.updated_at),
            "date_sent": format_datetime(message.sent_at) if message.sent_at else None,
            "uri": uri + ".json",
            "subresource_uris": {"media": uri + "/Media.json"},
        }


def _sid(prefix: str, seed: str | None = None) -> str:
    return prefix + (seed.encode().hex().rjust(32, "0")[-32:] if seed else secrets.token_hex(16))


def _error(status: int, code: int, message: str) -> Response:
    return JSONResponse(
        {
            "code": code,
            "message": message,
            "more_info": f"https://www.twilio.com/docs/errors/{code}",
            "status": status,
        },
        status,
    )


def _refusal(code: int, message: str, status: int = 400) -> Refusal:
    return Refusal(_error(status, code, message))


def _is_callback(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    host = parts.hostname or ""
    return parts.scheme in ("http", "https") and bool(re.fullmatch(r"[a-z0-9.-]+|\[?[0-9a-f:]+\]?", host))


def _sent_on(message: Message, query: QueryParams) -> bool:
    """Twilio's only date filter: days of the sending, which a queued text does not have yet."""
    for name in ("DateSent", "DateSent<", "DateSent>"):
        if name not in query:
            continue
        try:
            wanted = date.fromisoformat(query[name][:10])
        except ValueError:
            raise _refusal(20001, f"{name} is not a date") from None
        if message.sent_at is None:
            return False
        sent = message.sent_at.date()
        if not {"DateSent": sent == wanted, "DateSent<": sent <= wanted, "DateSent>": sent >= wanted}[name]:
            return False
    return True
