"""Twilio over HTTP: which path does what to the account, and the callbacks it makes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

import httpx
from starlette.responses import JSONResponse, Response
from twilio.request_validator import RequestValidator

from bridge.clock import Clock
from bridge.sandbox.faults import Faults
from bridge.sandbox.provider import RECORDS_KEPT, Call, Handler, Partner, Refusal, whole_number
from bridge.sandbox.twilio.errors import error_body, refuse
from bridge.sandbox.twilio.messages import (
    ACCOUNT_SID,
    FINAL,
    PARAMETERS,
    STATUSES,
    Message,
    check_text,
    form,
    new_sid,
    schedule,
    sent_on,
)

__all__ = ["ACCOUNT_SID", "AUTH_TOKEN", "NUMBER", "SERVICE_SID", "Twilio"]

AUTH_TOKEN = "3f2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d"  # noqa: S105 - opens nothing but this sandbox
NUMBER = "+12125550100"
SERVICE_SID = "MG0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d5e"
LARGEST_PAGE = 1000
CALLBACK_SECONDS = 15.0
_ROOT = "/2010-04-01/Accounts/{account}"
_STOP_WORDS = {"STOP", "STOPALL", "UNSUBSCRIBE", "END", "QUIT", "CANCEL", "REVOKE", "OPTOUT"}
_START_WORDS = {"START", "YES", "UNSTOP"}


class Twilio(Partner):
    """One account with one number and one messaging service that sends from it.

    `numbers` are the account's numbers, `pool` those that the messaging service may send from, `inbound_url` the
    webhook for incoming messages that is set for all of them.
    """

    name = "twilio"

    def __init__(self, clock: Clock, faults: Faults) -> None:
        super().__init__(clock, faults)
        self.reset()

    def reset(self) -> None:
        """No texts, nobody opted out, one number in the service's pool."""
        with self.lock:
            self._messages: dict[str, Message] = {}
            self._opted_out: set[str] = set()
            self.numbers = [NUMBER]
            self.pool = [NUMBER]
            self.inbound_url = ""

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

    @property
    def opted_out(self) -> set[str]:
        """The numbers that texts are refused to."""
        with self.lock:
            return set(self._opted_out)

    def opt_out(self, number: str) -> None:
        """From now on, texts to `number` are refused with 21610, as after a STOP."""
        with self.lock:
            self._opted_out.add(number)

    def opt_in(self, number: str) -> None:
        """Undo `opt_out`, as after a START."""
        with self.lock:
            self._opted_out.discard(number)

    def send_receipts(
        self,
        sid: str | None = None,
        statuses: Iterable[str] = ("sent", "delivered"),
        error_code: int | None = None,
    ) -> list[dict[str, Any]]:
        """Move texts on to each of `statuses` and send the signed callbacks that they asked for.

        Without `sid`, every text that is not final moves. Answers which callback got which HTTP status (None:
        no callback asked for, or nobody there); raises ValueError for a status that Twilio does not have.
        """
        unknown = sorted(set(statuses) - STATUSES)
        if unknown:
            raise ValueError(f"no status of a message: {', '.join(unknown)}")
        with self.lock:
            moving = [
                message
                for message in self.messages
                if sid == message.sid or (sid is None and message.status not in FINAL)
            ]
        report = []
        for message in moving:
            for status in statuses:
                with self.lock:
                    message.move(status, self.now(), next(iter(self.pool), None), error_code)
                    fields = message.receipt()
                http = self._signed_post(message.status_callback, fields)
                report.append({"sid": message.sid, "status": status, "http": http})
        return report

    def receive(self, from_: str, body: str, url: str, to: str = NUMBER) -> dict[str, Any]:
        """A person texts `body` to our number: STOP and START words count, then the webhook at `url` is called."""
        word = body.strip().upper()
        with self.lock:
            if word in _STOP_WORDS:
                self.opt_out(from_)
            elif word in _START_WORDS:
                self.opt_in(from_)
            message = Message(new_sid("SM"), to, from_, body, "received", "inbound", self.now())
            self._keep(message)
        return {"sid": message.sid, "http": self._signed_post(url, message.reply())}

    def _signed_post(self, url: str | None, fields: Mapping[str, str]) -> int | None:
        if not url:
            return None
        signature = RequestValidator(AUTH_TOKEN).compute_signature(url, dict(fields))
        headers = {"X-Twilio-Signature": signature, "User-Agent": "TwilioProxy/1.1"}
        try:
            answer = httpx.post(
                url, data=dict(fields), headers=headers, timeout=CALLBACK_SECONDS, trust_env=False
            )
        except httpx.HTTPError:
            return None
        return answer.status_code

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
            ("GET", "/v1/Services/{service}/ShortCodes", self._other_senders),
            ("GET", "/v1/Services/{service}/AlphaSenders", self._other_senders),
        ]

    def controls(self) -> Iterable[tuple[str, Callable[[Any], Any]]]:
        """Receipts and replies, which the partner sends by itself."""
        return [
            ("callbacks", lambda body: self.send_receipts(**body)),
            (
                "inbound",
                lambda body: self.receive(body["from"], body["body"], body["url"], body.get("to", NUMBER)),
            ),
        ]

    def records(self) -> dict[str, list[dict[str, Any]]]:
        """Texts in both directions, and the numbers that opted out."""
        with self.lock:
            return {
                "messages": [message.as_json() for message in self._messages.values()],
                "opted_out": [{"number": number} for number in sorted(self._opted_out)],
            }

    def failure(self, status: int, message: str | None = None) -> Response:
        """Twilio's error body."""
        return error_body(status, message)

    def quota_exhausted(self) -> Response:
        """Too many requests at once: this one was not processed."""
        return error_body(429)

    def authorize(self, call: Call) -> None:
        """Basic authentication with the account's SID and token; other accounts do not exist."""
        scheme, _, encoded = call.headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True).decode()
        except ValueError:
            given = ""
        if scheme.lower() != "basic" or given != f"{ACCOUNT_SID}:{AUTH_TOKEN}":
            raise Refusal(error_body(401))
        if call.args.get("account", ACCOUNT_SID) != ACCOUNT_SID:
            raise _not_found(call)

    def _create(self, call: Call) -> Response:
        given = form(call.body, PARAMETERS)
        service, sender = given.get("MessagingServiceSid"), given.get("From")
        if not service and not sender and given.get("To"):
            raise refuse(21603, "A 'From' phone number is required.")
        check_text(given)
        self._check_sender(service, sender)
        send_at = schedule(given, self.now())
        if given["To"] in self._opted_out:
            raise refuse(21610, "Attempt to send to unsubscribed recipient")
        message = Message(
            new_sid("MM" if given.get("MediaUrl") else "SM"),
            given["To"],
            sender,
            given.get("Body", ""),
            "scheduled" if send_at else "accepted" if service else "queued",
            "outbound-api",
            self.now(),
            service,
            given,
            send_at,
        )
        self._keep(message)
        return JSONResponse(message.as_json(), 201)

    def _check_sender(self, service: str | None, sender: str | None) -> None:
        if not service:
            if sender not in self.numbers:
                raise refuse(21606, f"The 'From' phone number provided ({sender}) is not yours.")
            return
        if service != SERVICE_SID:
            raise refuse(21701, "The Messaging Service does not exist", 404)
        if not self.pool:
            raise refuse(21703, "The Messaging Service contains no phone numbers.")
        if sender and sender not in self.pool:
            raise refuse(21712, "The 'From' number is not in the pool of the Messaging Service.")

    def _keep(self, message: Message) -> None:
        if len(self._messages) >= RECORDS_KEPT:
            raise self.full()
        self._messages[message.sid] = message

    def _list(self, call: Call) -> Response:
        query = call.query
        size = whole_number(query.get("PageSize", "50"), 1, LARGEST_PAGE)
        page = whole_number(query.get("Page", "0"), 0, RECORDS_KEPT)
        if size is None or page is None:
            raise refuse(20001, f"PageSize must be from 1 to {LARGEST_PAGE}, Page a number")
        lag = self.faults.lag(self.name)
        found = [
            message
            for message in reversed(self._messages.values())
            if query.get("To") in (None, message.to)
            and query.get("From") in (None, message.from_)
            and (self.now() - message.created_at).total_seconds() >= lag
            and sent_on(message, query)
        ]
        after = query.get("PageToken", "").removeprefix("PA")
        sids = [message.sid for message in found]
        start = sids.index(after) + 1 if after in sids else 0
        shown = found[start : start + size]
        kept = [pair for pair in query.multi_items() if pair[0] not in ("Page", "PageToken", "PageSize")]

        def uri(number: int, token: str | None = None) -> str:
            paging = [("PageSize", str(size)), ("Page", str(number))]
            return f"{call.path}?{urlencode(kept + paging + ([('PageToken', token)] if token else []))}"

        more = start + size < len(found)
        return JSONResponse(
            {
                "messages": [message.as_json() for message in shown],
                "page": page,
                "page_size": size,
                "start": start,
                "end": start + max(len(shown) - 1, 0),
                "uri": uri(page),
                "first_page_uri": uri(0),
                "previous_page_uri": None,
                "next_page_uri": uri(page + 1, f"PA{shown[-1].sid}") if more else None,
            }
        )

    def _fetch(self, call: Call) -> Response:
        return JSONResponse(self._find(call).as_json())

    def _update(self, call: Call) -> Response:
        message = self._find(call)
        given = form(call.body, {"Body", "Status"})
        if given.get("Status") not in (None, "canceled"):
            raise refuse(20001, "Status can only be set to 'canceled'")
        if given.get("Body"):
            raise refuse(20001, "Body can only be removed")
        if "Status" in given:
            if message.status != "scheduled":
                raise refuse(30409, "Only a scheduled message can be canceled")
            message.move("canceled", self.now())
        if "Body" in given:
            message.body = ""
        return JSONResponse(message.as_json())

    def _delete(self, call: Call) -> Response:
        del self._messages[self._find(call).sid]
        return Response(status_code=204)

    def _find(self, call: Call) -> Message:
        found = self._messages.get(call.args["sid"])
        if found is None:
            raise _not_found(call)
        return found

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
            if wanted in number
        ]
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

    def _service(self, call: Call) -> Response:
        _known_service(call)
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
                "url": f"https://messaging.twilio.com{call.path}",
                "links": {},
            }
        )

    def _service_numbers(self, call: Call) -> Response:
        _known_service(call)
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
        return _page(call, "phone_numbers", numbers)

    def _other_senders(self, call: Call) -> Response:
        """The pool has numbers alone."""
        _known_service(call)
        return _page(call, "short_codes" if call.path.endswith("ShortCodes") else "alpha_senders", [])


def _page(call: Call, key: str, items: list[dict[str, Any]]) -> Response:
    """A list as messaging services show it, all on one page."""
    meta = {
        "page": 0,
        "page_size": 50,
        "first_page_url": call.path,
        "previous_page_url": None,
        "next_page_url": None,
        "url": call.path,
        "key": key,
    }
    return JSONResponse({key: items, "meta": meta})


def _not_found(call: Call) -> Refusal:
    return Refusal(error_body(404, f"The requested resource {call.path} was not found"))


def _known_service(call: Call) -> None:
    if call.args["service"] != SERVICE_SID:
        raise _not_found(call)


def _number_sid(number: str) -> str:
    return "PN" + number.encode().hex().rjust(32, "0")[-32:]
