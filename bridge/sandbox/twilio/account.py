"""Mock Twilio account: its HTTP API and the webhooks it sends."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from email.utils import format_datetime
from typing import Any

import httpx
from starlette.responses import JSONResponse, Response
from twilio.request_validator import RequestValidator

from bridge.sandbox.provider import Handler, ProviderError, ProviderRequest
from bridge.sandbox.twilio.errors import error_response
from bridge.sandbox.twilio.message_api import ROOT, MessageApi
from bridge.sandbox.twilio.messages import (
    ACCOUNT_SID,
    FINAL_STATUSES,
    STATUSES,
    WHATSAPP,
    Message,
    new_sid,
)
from bridge.sandbox.twilio.sender_api import SenderApi
from bridge.sandbox.twilio.state import (
    API_KEY_SECRET,
    API_KEY_SID,
    AUTH_TOKEN,
    NUMBER,
    SERVICE_SID,
    WHATSAPP_NUMBER,
    not_found,
)
from bridge.sandbox.twilio.templates import ContentTemplate

__all__ = [
    "ACCOUNT_SID",
    "API_KEY_SECRET",
    "API_KEY_SID",
    "AUTH_TOKEN",
    "NUMBER",
    "SERVICE_SID",
    "WHATSAPP_NUMBER",
    "Twilio",
]

CALLBACK_TIMEOUT_SECONDS = 15.0
_STOP_WORDS = {"STOP", "STOPALL", "UNSUBSCRIBE", "END", "QUIT", "CANCEL", "REVOKE", "OPTOUT"}
_START_WORDS = {"START", "YES", "UNSTOP"}
_HELP_WORDS = {"HELP", "INFO"}
_SETTINGS = {
    "inbound_url", "advanced_opt_out", "more_stop_words", "status", "type", "verified", "voice_only", "numbers",
    "short_codes", "pool", "a2p_registered", "whatsapp_senders", "no_whatsapp", "templates",
}  # fmt: skip
_SETTINGS_READERS: Mapping[str, Callable[[Any], Any]] = {
    "verified": set,
    "voice_only": set,
    "no_whatsapp": set,
    "templates": lambda items: {item["sid"]: ContentTemplate(**item) for item in items},
}
RCS = "rcs:"


class Twilio(MessageApi, SenderApi):
    """The whole account."""

    def send_status_callbacks(
        self,
        sid: str | None = None,
        statuses: Iterable[str] = ("sent", "delivered"),
        error_code: int | None = None,
    ) -> list[dict[str, Any]]:
        """Set messages to each of `statuses` in turn and send their signed status callbacks.

        Without `sid`, this applies to every message without a final status. A message that WhatsApp refuses fails
        instead. Return the HTTP status of each callback (None: no callback URL, or no response). Raise ValueError for
        an unknown message status.
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
            refused = message.refusal is not None
            for status in ("failed",) if refused else statuses:
                with self.lock:
                    message.set_status(
                        status,
                        self.now(),
                        self._sender_for(message),
                        message.refusal if refused else error_code,
                    )
                    fields = message.status_callback_fields()
                http = self._signed_post(message.status_callback, fields)
                report.append({"sid": message.sid, "status": status, "http": http})
        return report

    def _sender_for(self, message: Message) -> str | None:
        """Return the sender that a messaging service chooses."""
        if message.to.startswith(WHATSAPP):
            return next((f"{WHATSAPP}{number}" for number in self.whatsapp_senders), None)
        return next(iter(self.pool), None)

    def receive(
        self,
        from_: str,
        body: str,
        url: str | None = None,
        to: str | None = None,
        media: Sequence[str] = (),
        fields: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Receive a message from a person, apply a keyword in it, then call the webhook at `url` or `inbound_url`.

        `fields` are further fields of the webhook, such as `ButtonPayload`.

        Like at Twilio, only a text that is nothing but a keyword counts, also from RCS (`rcs:+1...`), and none from
        WhatsApp (`whatsapp:+1...`).
        """
        keyword = None if from_.startswith(WHATSAPP) else self._kind_of_keyword(body)
        with self.lock:
            if keyword == "STOP":
                self.opt_out(from_.removeprefix(RCS))
            elif keyword == "START":
                self.opt_in(from_.removeprefix(RCS))
            more = dict(fields or {})
            if from_.startswith(WHATSAPP):
                more = {"WaId": from_.removeprefix(f"{WHATSAPP}+")} | more
            if keyword and self.advanced_opt_out:
                more["OptOutType"] = keyword
            message = Message(
                new_sid("MM" if media else "SM"),
                to or (f"{WHATSAPP}{WHATSAPP_NUMBER}" if from_.startswith(WHATSAPP) else NUMBER),
                from_,
                body,
                "received",
                "inbound",
                self.now(),
                media=tuple(media),
                more_fields=more,
            )
            self.store(message)
        http = self._signed_post(url or self.inbound_url, message.inbound_fields())
        return {"sid": message.sid, "http": http}

    def _kind_of_keyword(self, body: str) -> str | None:
        word = body.strip().upper()
        if word in _STOP_WORDS or (self.advanced_opt_out and word in self.more_stop_words):
            return "STOP"
        if word in _START_WORDS:
            return "START"
        return "HELP" if word in _HELP_WORDS else None

    def configure(self, **changes: Any) -> None:
        """Change settings of the account, such as `type` or `pool`. Raise ValueError for an unknown one."""
        unknown = sorted(changes.keys() - _SETTINGS)
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(unknown)}")
        with self.lock:
            for name, value in changes.items():
                setattr(self, name, _SETTINGS_READERS.get(name, lambda value: value)(value))
            self.more_stop_words = {word.upper() for word in self.more_stop_words}

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
        """Return the endpoints of the 2010 API, of messaging services and of the Content API."""
        return [
            ("GET", ROOT + ".json", self._account),
            *self.message_routes(),
            *self.sender_routes(),
            *self.content_routes(),
        ]

    def commands(self) -> Iterable[tuple[str, Callable[[Any], Any]]]:
        """Return the commands that make Twilio call a webhook."""
        return [
            ("callbacks", lambda body: self.send_status_callbacks(**body)),
            (
                "inbound",
                lambda body: self.receive(
                    body["from"],
                    body["body"],
                    body.get("url"),
                    body.get("to"),
                    body.get("media", ()),
                    body.get("fields"),
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
        """Check the credentials, sent as Basic authentication: the account's token, or an API key and its secret.

        A Standard key may not read the account itself. Other accounts do not exist.
        """
        scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except ValueError:
            user = password = ""
        by_token = (user, password) == (ACCOUNT_SID, AUTH_TOKEN)
        by_key = password != "" and self.standard_keys.get(user) == password
        if scheme.lower() != "basic" or not (by_token or by_key):
            raise ProviderError(error_response(401))
        if request.path_params.get("account", ACCOUNT_SID) != ACCOUNT_SID:
            raise not_found(request)
        if by_key and request.path == ROOT.format(account=ACCOUNT_SID) + ".json":
            raise ProviderError(error_response(401))

    def _account(self, request: ProviderRequest) -> Response:
        return JSONResponse(
            {
                "sid": ACCOUNT_SID,
                "friendly_name": "Sandbox",
                "status": self.status,
                "type": self.type,
                "owner_account_sid": ACCOUNT_SID,
                "auth_token": "",
                "date_created": format_datetime(self.now()),
                "date_updated": format_datetime(self.now()),
                "uri": request.path,
                "subresource_uris": {},
            }
        )
