"""Mock Twilio account: its HTTP API and the webhooks it sends."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

import httpx
from starlette.responses import JSONResponse, Response
from twilio.request_validator import RequestValidator

from bridge.clock import Clock
from bridge.sandbox.faults import Faults
from bridge.sandbox.provider import (
    MAX_RECORDS,
    Handler,
    MockProvider,
    ProviderError,
    ProviderRequest,
    parse_whole_number,
)
from bridge.sandbox.twilio.errors import api_error, error_response
from bridge.sandbox.twilio.messages import (
    ACCOUNT_SID,
    FINAL_STATUSES,
    PARAMETERS,
    STATUSES,
    Message,
    check_message,
    matches_date_sent,
    new_sid,
    parse_form,
    parse_send_at,
)

__all__ = ["ACCOUNT_SID", "AUTH_TOKEN", "NUMBER", "SERVICE_SID", "Twilio"]

AUTH_TOKEN = "3f2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d"  # noqa: S105 - valid only in this sandbox
NUMBER = "+12125550100"
SERVICE_SID = "MG0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e"
MAX_PAGE_SIZE = 1000
CALLBACK_TIMEOUT_SECONDS = 15.0
_ROOT = "/2010-04-01/Accounts/{account}"
_STOP_WORDS = {"STOP", "STOPALL", "UNSUBSCRIBE", "END", "QUIT", "CANCEL", "REVOKE", "OPTOUT"}
_START_WORDS = {"START", "YES", "UNSTOP"}
_HELP_WORDS = {"HELP", "INFO"}
RCS = "rcs:"
WHATSAPP = "whatsapp:"


class Twilio(MockProvider):
    """An account with one phone number and one messaging service that sends from it.

    `numbers` are the account's phone numbers, `pool` is the sender pool of the messaging service, and
    `inbound_url` is the webhook for inbound messages, configured for all of them. With `advanced_opt_out`, it gets the
    kind of each keyword as `OptOutType`, and `more_stop_words` count as well, such as `ARRET`.
    """

    name = "twilio"

    def __init__(self, clock: Clock, faults: Faults) -> None:
        super().__init__(clock, faults)
        self.reset()

    def reset(self) -> None:
        """Remove all messages and opt-outs, and restore the sender pool."""
        with self.lock:
            self._messages: dict[str, Message] = {}
            self._opted_out: set[str] = set()
            self._landlines: set[str] = set()
            self.numbers = [NUMBER]
            self.pool = [NUMBER]
            self.inbound_url = ""
            self.advanced_opt_out = False
            self.more_stop_words: set[str] = set()

    @property
    def messages(self) -> list[Message]:
        """The outbound messages, oldest first."""
        with self.lock:
            return [message for message in self._messages.values() if message.direction != "inbound"]

    @property
    def inbound(self) -> list[Message]:
        """The inbound messages, oldest first."""
        with self.lock:
            return [message for message in self._messages.values() if message.direction == "inbound"]

    @property
    def opted_out(self) -> set[str]:
        """The numbers that Twilio rejects messages to."""
        with self.lock:
            return set(self._opted_out)

    def opt_out(self, number: str) -> None:
        """Reject further messages to `number` with error 21610, as after a STOP reply."""
        with self.lock:
            self._opted_out.add(number)

    def opt_in(self, number: str) -> None:
        """Undo `opt_out`, as after a START reply."""
        with self.lock:
            self._opted_out.discard(number)

    def add_landline(self, number: str) -> None:
        """Reject messages to `number` with error 21614, as for a landline."""
        with self.lock:
            self._landlines.add(number)

    def send_status_callbacks(
        self,
        sid: str | None = None,
        statuses: Iterable[str] = ("sent", "delivered"),
        error_code: int | None = None,
    ) -> list[dict[str, Any]]:
        """Set messages to each of `statuses` in turn and send their signed status callbacks.

        Without `sid`, this applies to every message without a final status. Return the HTTP status of each
        callback (None: no callback URL, or no response). Raise ValueError for an unknown message status.
        """
        unknown = sorted(set(statuses) - STATUSES)
        if unknown:
            raise ValueError(f"unknown message status: {', '.join(unknown)}")
        with self.lock:
            affected = [
                message
                for message in self.messages
                if sid == message.sid or (sid is None and message.status not in FINAL_STATUSES)
            ]
        report = []
        for message in affected:
            for status in statuses:
                with self.lock:
                    message.set_status(status, self.now(), next(iter(self.pool), None), error_code)
                    fields = message.status_callback_fields()
                http = self._signed_post(message.status_callback, fields)
                report.append({"sid": message.sid, "status": status, "http": http})
        return report

    def receive(
        self, from_: str, body: str, url: str | None = None, to: str = NUMBER, media: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Receive a message from a person, apply a keyword in it, then call the webhook at `url` or `inbound_url`.

        Like at Twilio, only a text that is nothing but a keyword counts, also from RCS (`rcs:+1...`), and none from
        WhatsApp (`whatsapp:+1...`).
        """
        keyword = None if from_.startswith(WHATSAPP) else self._kind_of_keyword(body)
        with self.lock:
            if keyword == "STOP":
                self.opt_out(from_.removeprefix(RCS))
            elif keyword == "START":
                self.opt_in(from_.removeprefix(RCS))
            sid = new_sid("MM" if media else "SM")
            message = Message(sid, to, from_, body, "received", "inbound", self.now(), media=tuple(media))
            self._store(message)
        fields = message.inbound_fields()
        if keyword and self.advanced_opt_out:
            fields["OptOutType"] = keyword
        return {"sid": message.sid, "http": self._signed_post(url or self.inbound_url, fields)}

    def _kind_of_keyword(self, body: str) -> str | None:
        word = body.strip().upper()
        if word in _STOP_WORDS or (self.advanced_opt_out and word in self.more_stop_words):
            return "STOP"
        if word in _START_WORDS:
            return "START"
        return "HELP" if word in _HELP_WORDS else None

    def configure(
        self,
        inbound_url: str | None = None,
        advanced_opt_out: bool | None = None,
        more_stop_words: Sequence[str] | None = None,
    ) -> None:
        """Change the settings of the account that are given."""
        with self.lock:
            if inbound_url is not None:
                self.inbound_url = inbound_url
            if advanced_opt_out is not None:
                self.advanced_opt_out = advanced_opt_out
            if more_stop_words is not None:
                self.more_stop_words = {word.upper() for word in more_stop_words}

    def _signed_post(self, url: str | None, fields: Mapping[str, str]) -> int | None:
        if not url:
            return None
        signature = RequestValidator(AUTH_TOKEN).compute_signature(url, dict(fields))
        headers = {"X-Twilio-Signature": signature, "User-Agent": "TwilioProxy/1.1"}
        try:
            response = httpx.post(
                url, data=dict(fields), headers=headers, timeout=CALLBACK_TIMEOUT_SECONDS, trust_env=False
            )
        except httpx.HTTPError:
            return None
        return response.status_code

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the endpoints of the 2010 API and of messaging services."""
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
            ("GET", "/v1/Services/{service}/ShortCodes", self._other_senders),
            ("GET", "/v1/Services/{service}/AlphaSenders", self._other_senders),
        ]

    def commands(self) -> Iterable[tuple[str, Callable[[Any], Any]]]:
        """Return the commands that make Twilio call a webhook."""
        return [
            ("callbacks", lambda body: self.send_status_callbacks(**body)),
            (
                "inbound",
                lambda body: self.receive(
                    body["from"], body["body"], body.get("url"), body.get("to", NUMBER), body.get("media", ())
                ),
            ),
            ("configure", lambda body: self.configure(**body)),
        ]

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Return the messages in both directions, and the opted-out numbers."""
        with self.lock:
            return {
                "messages": [message.as_json() for message in self._messages.values()],
                "opted_out": [{"number": number} for number in sorted(self._opted_out)],
            }

    def error_response(self, status: int, message: str | None = None) -> Response:
        """Return Twilio's error response."""
        return error_response(status, message)

    def quota_error_response(self) -> Response:
        """Return the response to too many concurrent requests. The request is not processed."""
        return error_response(429)

    def authorize(self, request: ProviderRequest) -> None:
        """Check the account's SID and token, sent as Basic authentication. Other accounts do not exist."""
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            credentials = base64.b64decode(encoded, validate=True).decode()
        except ValueError:
            credentials = ""
        if scheme.lower() != "basic" or credentials != f"{ACCOUNT_SID}:{AUTH_TOKEN}":
            raise ProviderError(error_response(401))
        if request.path_params.get("account", ACCOUNT_SID) != ACCOUNT_SID:
            raise _not_found(request)

    def _create(self, request: ProviderRequest) -> Response:
        parameters = parse_form(request.body, PARAMETERS)
        service, sender = parameters.get("MessagingServiceSid"), parameters.get("From")
        if not service and not sender and parameters.get("To"):
            raise api_error(21603, "A 'From' phone number is required.")
        check_message(parameters)
        self._check_sender(service, sender)
        send_at = parse_send_at(parameters, self.now())
        if parameters["To"] in self._opted_out:
            raise api_error(21610, "Attempt to send to unsubscribed recipient")
        if parameters["To"] in self._landlines:
            raise api_error(21614, "'To' number is not a valid mobile number")
        message = Message(
            new_sid("MM" if parameters.get("MediaUrl") else "SM"),
            parameters["To"],
            sender,
            parameters.get("Body", ""),
            "scheduled" if send_at else "accepted" if service else "queued",
            "outbound-api",
            self.now(),
            service,
            parameters,
            send_at,
        )
        self._store(message)
        return JSONResponse(message.as_json(), 201)

    def _check_sender(self, service: str | None, sender: str | None) -> None:
        if not service:
            if sender not in self.numbers:
                raise api_error(21606, f"The 'From' phone number provided ({sender}) is not yours.")
            return
        if service != SERVICE_SID:
            raise api_error(21701, "The Messaging Service does not exist", 404)
        if not self.pool:
            raise api_error(21703, "The Messaging Service contains no phone numbers.")
        if sender and sender not in self.pool:
            raise api_error(21712, "The 'From' number is not in the pool of the Messaging Service.")

    def _store(self, message: Message) -> None:
        if len(self._messages) >= MAX_RECORDS:
            raise self.storage_full_error()
        self._messages[message.sid] = message

    def _list(self, request: ProviderRequest) -> Response:
        query = request.query
        size = parse_whole_number(query.get("PageSize", "50"), 1, MAX_PAGE_SIZE)
        page = parse_whole_number(query.get("Page", "0"), 0, MAX_RECORDS)
        if size is None or page is None:
            raise api_error(20001, f"PageSize must be from 1 to {MAX_PAGE_SIZE}, Page a number")
        lag = self.faults.lag(self.name)
        messages = [
            message
            for message in reversed(self._messages.values())
            if query.get("To") in (None, message.to)
            and query.get("From") in (None, message.from_)
            and (self.now() - message.created_at).total_seconds() >= lag
            and matches_date_sent(message, query)
        ]
        after = query.get("PageToken", "").removeprefix("PA")
        sids = [message.sid for message in messages]
        start = sids.index(after) + 1 if after in sids else 0
        page_messages = messages[start : start + size]
        filters = [pair for pair in query.multi_items() if pair[0] not in ("Page", "PageToken", "PageSize")]

        def uri(number: int, token: str | None = None) -> str:
            paging = [("PageSize", str(size)), ("Page", str(number))]
            return f"{request.path}?{urlencode(filters + paging + ([('PageToken', token)] if token else []))}"

        has_more = start + size < len(messages)
        return JSONResponse(
            {
                "messages": [message.as_json() for message in page_messages],
                "page": page,
                "page_size": size,
                "start": start,
                "end": start + max(len(page_messages) - 1, 0),
                "uri": uri(page),
                "first_page_uri": uri(0),
                "previous_page_uri": None,
                "next_page_uri": uri(page + 1, f"PA{page_messages[-1].sid}") if has_more else None,
            }
        )

    def _fetch(self, request: ProviderRequest) -> Response:
        return JSONResponse(self._find(request).as_json())

    def _update(self, request: ProviderRequest) -> Response:
        message = self._find(request)
        parameters = parse_form(request.body, {"Body", "Status"})
        if parameters.get("Status") not in (None, "canceled"):
            raise api_error(20001, "Status can only be set to 'canceled'")
        if parameters.get("Body"):
            raise api_error(20001, "Body can only be removed")
        if "Status" in parameters:
            if message.status != "scheduled":
                raise api_error(30409, "Only a scheduled message can be canceled")
            message.set_status("canceled", self.now())
        if "Body" in parameters:
            message.body = ""
        return JSONResponse(message.as_json())

    def _delete(self, request: ProviderRequest) -> Response:
        del self._messages[self._find(request).sid]
        return Response(status_code=204)

    def _find(self, request: ProviderRequest) -> Message:
        message = self._messages.get(request.path_params["sid"])
        if message is None:
            raise _not_found(request)
        return message

    def _account(self, request: ProviderRequest) -> Response:
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
                "uri": request.path,
                "subresource_uris": {},
            }
        )

    def _numbers(self, request: ProviderRequest) -> Response:
        number_filter = request.query.get("PhoneNumber", "").replace("*", "")
        numbers = [
            {
                "sid": _number_sid(number),
                "account_sid": ACCOUNT_SID,
                "phone_number": number,
                "friendly_name": number,
                "capabilities": {"sms": True, "mms": True, "voice": True, "fax": False},
                "status": "in-use",
                "sms_url": self.inbound_url,
                "sms_method": "POST",
            }
            for number in self.numbers
            if number_filter in number
        ]
        return JSONResponse(
            {
                "incoming_phone_numbers": numbers,
                "page": 0,
                "page_size": 50,
                "start": 0,
                "end": max(len(numbers) - 1, 0),
                "uri": request.path,
                "first_page_uri": request.path,
                "previous_page_uri": None,
                "next_page_uri": None,
            }
        )

    def _service(self, request: ProviderRequest) -> Response:
        _check_service(request)
        now = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        return JSONResponse(
            {
                "sid": SERVICE_SID,
                "account_sid": ACCOUNT_SID,
                "friendly_name": "Sandbox",
                "inbound_request_url": self.inbound_url or None,
                "status_callback": None,
                "sticky_sender": True,
                "smart_encoding": True,
                "validity_period": 36_000,
                "date_created": now,
                "date_updated": now,
                "use_inbound_webhook_on_number": False,
                "url": f"https://messaging.twilio.com{request.path}",
                "links": {},
            }
        )

    def _service_numbers(self, request: ProviderRequest) -> Response:
        _check_service(request)
        numbers = [
            {
                "sid": _number_sid(number),
                "account_sid": ACCOUNT_SID,
                "service_sid": SERVICE_SID,
                "phone_number": number,
                "country_code": "US",
                "capabilities": ["SMS", "MMS", "Voice"],
            }
            for number in self.pool
        ]
        return _service_list(request, "phone_numbers", numbers)

    def _other_senders(self, request: ProviderRequest) -> Response:
        """Return an empty list: the pool has only phone numbers."""
        _check_service(request)
        return _service_list(
            request, "short_codes" if request.path.endswith("ShortCodes") else "alpha_senders", []
        )


def _service_list(request: ProviderRequest, key: str, items: list[dict[str, Any]]) -> Response:
    """Return a list as the messaging services API shows it, on a single page."""
    meta = {
        "page": 0,
        "page_size": 50,
        "first_page_url": request.path,
        "previous_page_url": None,
        "next_page_url": None,
        "url": request.path,
        "key": key,
    }
    return JSONResponse({key: items, "meta": meta})


def _not_found(request: ProviderRequest) -> ProviderError:
    return ProviderError(error_response(404, f"The requested resource {request.path} was not found"))


def _check_service(request: ProviderRequest) -> None:
    if request.path_params["service"] != SERVICE_SID:
        raise _not_found(request)


def _number_sid(number: str) -> str:
    return "PN" + number.encode().hex().rjust(32, "0")[-32:]
