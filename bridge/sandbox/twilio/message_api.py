"""Mock Messages resource of a Twilio account: sends, lists and changes messages."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from urllib.parse import urlencode

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import MAX_RECORDS, Handler, ProviderRequest, parse_whole_number
from bridge.sandbox.twilio.content_api import MAX_WHATSAPP_TEMPLATE, ContentApi
from bridge.sandbox.twilio.errors import api_error
from bridge.sandbox.twilio.messages import (
    PARAMETERS,
    WHATSAPP,
    Message,
    check_message,
    matches_date_sent,
    new_sid,
    parse_form,
    parse_send_at,
)
from bridge.sandbox.twilio.state import SERVICE_SID, not_found
from bridge.sandbox.twilio.templates import ContentTemplate

MAX_PAGE_SIZE = 1000
ROOT = "/2010-04-01/Accounts/{account}"
_WHATSAPP_WINDOW = timedelta(hours=24)


class MessageApi(ContentApi):
    """The part of the account's API that is about messages."""

    def message_routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the endpoints of the 2010 API."""
        return [
            ("POST", ROOT + "/Messages.json", self._create),
            ("GET", ROOT + "/Messages.json", self._list),
            ("GET", ROOT + "/Messages/{sid}.json", self._fetch),
            ("POST", ROOT + "/Messages/{sid}.json", self._update),
            ("DELETE", ROOT + "/Messages/{sid}.json", self._delete),
        ]

    def _create(self, request: ProviderRequest) -> Response:
        parameters = parse_form(request.body, PARAMETERS)
        service, sender = parameters.get("MessagingServiceSid"), parameters.get("From")
        if not service and not sender and parameters.get("To"):
            raise api_error(21603, "A 'From' phone number is required.")
        if self.status != "active":
            raise api_error(20005, "Account not active", 403)
        check_message(parameters)
        to = parameters["To"]
        if to.startswith(WHATSAPP):
            self._check_whatsapp_sender(service, sender)
        else:
            self._check_sender(service, sender)
        content = self.rendered_content(parameters)
        if self.type == "Trial" and to.removeprefix(WHATSAPP) not in self.verified:
            raise api_error(
                21608, "The number is unverified. Trial accounts cannot message unverified numbers"
            )
        send_at = parse_send_at(parameters, self.now())
        if to in self._opted_out:
            raise api_error(21610, "Attempt to send to unsubscribed recipient")
        if to in self._landlines:
            raise api_error(21614, "'To' number is not a valid mobile number")
        message = Message(
            new_sid("MM" if parameters.get("MediaUrl") else "SM"),
            to,
            sender,
            content[1] if content else parameters.get("Body", ""),
            "scheduled" if send_at else "accepted" if service else "queued",
            "outbound-api",
            self.now(),
            service,
            parameters,
            send_at,
            refusal=self._whatsapp_refusal(to, sender, content) if to.startswith(WHATSAPP) else None,
        )
        self.store(message)
        return JSONResponse(message.as_json(), 201)

    def _check_sender(self, service: str | None, sender: str | None) -> None:
        if not service:
            if sender in self.voice_only:
                raise api_error(21661, "The 'From' number is not SMS-capable")
            if sender not in (*self.numbers, *self.short_codes):
                raise api_error(21606, f"The 'From' phone number provided ({sender}) is not yours.")
            return
        if service != SERVICE_SID:
            raise api_error(21701, "The Messaging Service does not exist", 404)
        if not self.pool:
            raise api_error(21703, "The Messaging Service contains no phone numbers.")
        if sender and sender not in self.pool:
            raise api_error(21712, "The 'From' number is not in the pool of the Messaging Service.")

    def _check_whatsapp_sender(self, service: str | None, sender: str | None) -> None:
        if service and service != SERVICE_SID:
            raise api_error(21701, "The Messaging Service does not exist", 404)
        if sender is None and not self.whatsapp_senders:
            raise api_error(21703, "The Messaging Service contains no WhatsApp senders.")
        status = self.whatsapp_senders.get(sender.removeprefix(WHATSAPP)) if sender else "ONLINE"
        if status is None or not status.startswith("ONLINE"):
            raise api_error(63007, "Twilio could not find a Channel with the specified From address")

    def _whatsapp_refusal(
        self, to: str, sender: str | None, content: tuple[ContentTemplate, str] | None
    ) -> int | None:
        """Return the code with which WhatsApp refuses a message that Twilio has accepted."""
        if to.removeprefix(WHATSAPP) in self.no_whatsapp:
            return 63003
        since = self.now() - _WHATSAPP_WINDOW
        in_window = any(
            message.from_ == to and sender in (None, message.to) and message.created_at > since
            for message in self.inbound
        )
        if not in_window and (content is None or content[0].status != "approved"):
            return 63016
        if content and len(content[1]) > MAX_WHATSAPP_TEMPLATE:
            return 63021
        return None

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
            raise not_found(request)
        return message
