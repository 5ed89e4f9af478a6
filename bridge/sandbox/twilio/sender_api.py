"""Mock senders of a Twilio account: phone numbers, short codes and the messaging service with its sender pool."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.responses import JSONResponse, Response

from bridge.sandbox.provider import Handler, ProviderRequest
from bridge.sandbox.twilio.errors import api_error
from bridge.sandbox.twilio.messages import ACCOUNT_SID, WHATSAPP
from bridge.sandbox.twilio.state import SERVICE_SID, AccountState, not_found

_ROOT = "/2010-04-01/Accounts/{account}"


class SenderApi(AccountState):
    """The part of the account's API that is about senders."""

    def sender_routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Return the endpoints of numbers, short codes, messaging services and WhatsApp senders."""
        return [
            ("GET", _ROOT + "/IncomingPhoneNumbers.json", self._numbers),
            ("GET", _ROOT + "/SMS/ShortCodes.json", self._short_codes),
            ("GET", "/v1/Services/{service}", self._service),
            ("GET", "/v1/Services/{service}/PhoneNumbers", self._service_numbers),
            ("GET", "/v1/Services/{service}/ShortCodes", self._other_senders),
            ("GET", "/v1/Services/{service}/AlphaSenders", self._other_senders),
            ("GET", "/v2/Channels/Senders", self._channel_senders),
        ]

    def _numbers(self, request: ProviderRequest) -> Response:
        number_filter = request.query.get("PhoneNumber", "").replace("*", "")
        numbers = [
            {
                "sid": _number_sid(number),
                "account_sid": ACCOUNT_SID,
                "phone_number": number,
                "friendly_name": number,
                "capabilities": {
                    "sms": number not in self.voice_only,
                    "mms": number not in self.voice_only,
                    "voice": True,
                    "fax": False,
                },
                "status": "in-use",
                "sms_url": self.inbound_url,
                "sms_method": "POST",
            }
            for number in self.numbers
            if number_filter in number
        ]
        return _list_page(request, "incoming_phone_numbers", numbers)

    def _short_codes(self, request: ProviderRequest) -> Response:
        wanted = request.query.get("ShortCode", "")
        codes = [
            {
                "sid": "SC" + code.encode().hex().rjust(32, "0")[-32:],
                "account_sid": ACCOUNT_SID,
                "short_code": code,
                "friendly_name": code,
                "sms_url": self.inbound_url,
                "sms_method": "POST",
            }
            for code in self.short_codes
            if wanted in code
        ]
        return _list_page(request, "short_codes", codes)

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
                "us_app_to_person_registered": self.a2p_registered,
                "usecase": "notifications",
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

    def _channel_senders(self, request: ProviderRequest) -> Response:
        if request.query.get("Channel") not in ("whatsapp", "rcs"):
            raise api_error(20001, "Channel must be whatsapp or rcs")
        senders = [
            {
                "sid": "XE" + number.encode().hex().rjust(32, "0")[-32:],
                "status": status,
                "sender_id": f"{WHATSAPP}{number}",
                "configuration": {"waba_id": "102290129340398"},
                "webhook": {"callback_url": self.inbound_url or None, "callback_method": "POST"},
                "profile": {"name": "Harbour Light"},
                "properties": {"quality_rating": "HIGH", "messaging_limit": "10K Customers/24hr"},
                "offline_reasons": None,
                "url": f"https://messaging.twilio.com{request.path}",
            }
            for number, status in self.whatsapp_senders.items()
            if request.query["Channel"] == "whatsapp"
        ]
        return _service_list(request, "senders", senders)


def _list_page(request: ProviderRequest, key: str, items: list[dict[str, Any]]) -> Response:
    """Return a list as the 2010 API shows it, on a single page."""
    return JSONResponse(
        {
            key: items,
            "page": 0,
            "page_size": 50,
            "start": 0,
            "end": max(len(items) - 1, 0),
            "uri": request.path,
            "first_page_uri": request.path,
            "previous_page_uri": None,
            "next_page_uri": None,
        }
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


def _check_service(request: ProviderRequest) -> None:
    if request.path_params["service"] != SERVICE_SID:
        raise not_found(request)


def _number_sid(number: str) -> str:
    return "PN" + number.encode().hex().rjust(32, "0")[-32:]
