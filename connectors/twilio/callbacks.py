"""Callbacks: message statuses, and messages that people send."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Literal

from twilio.request_validator import RequestValidator, get_signature_algorithm

from bridge.connector import (
    CallbackReply,
    CallbackRequest,
    InboundMessage,
    OptOut,
    StatusUpdate,
)
from bridge.errors import AccountError, DeliveryError, PermanentError, Refused

from .errors import OPTED_OUT_CODE, error_from_code
from .messages import MESSAGE_STATUS
from .settings import Settings, connector

MAX_MEDIA = 10
"""Files of one message, by Twilio's limit."""

_EMPTY_TWIML = CallbackReply(body='<?xml version="1.0" encoding="UTF-8"?><Response/>', media_type="text/xml")

_KEYWORDS: Mapping[str, Literal["stop", "start", "help"]] = {"STOP": "stop", "START": "start", "HELP": "help"}
"""Values of `OptOutType`: with Advanced Opt-Out, Twilio names the kind of keyword, in whatever language it is."""
_SIGNATURE_HEADER = "X-Twilio-Signature"
_CHANNEL_PREFIX = re.compile(r"(whatsapp|rcs):", re.IGNORECASE)


@connector.callback("status", signature_header=_SIGNATURE_HEADER)
def status(settings: Settings, request: CallbackRequest) -> CallbackReply:
    """Report a message's status. Twilio repeats and reorders callbacks; the store keeps the furthest status."""
    form = _verified_form(settings, request)
    state = MESSAGE_STATUS.get(form.get("MessageStatus", ""))
    updates: list[StatusUpdate | OptOut] = []
    error: DeliveryError | None = None
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
    if code == str(OPTED_OUT_CODE):
        channel, number = _address(form.get("To", ""))
        if re.fullmatch(r"\+[1-9]\d{1,14}", number):
            updates.append(OptOut(channel, number))
        else:
            problem = "the recipient opted out, but `To` is not a phone number"
    return CallbackReply(
        updates,
        _EMPTY_TWIML.body,
        _EMPTY_TWIML.media_type,
        problem,
        error if isinstance(error, AccountError) else None,
    )


@connector.callback("inbound", signature_header=_SIGNATURE_HEADER)
def inbound(settings: Settings, request: CallbackRequest) -> CallbackReply:
    """Report a text that a person sent. Twilio itself answers STOP, START and HELP."""
    form = _verified_form(settings, request)
    channel, sender = _address(form.get("From", ""))
    message = InboundMessage(
        id=form.get("MessageSid") or hashlib.sha256(request.body).hexdigest(),
        channel=channel,
        sender=sender,
        to=_address(form.get("To", ""))[1],
        text=form.get("Body") or _place(form),
        media=_media_urls(form),
        sender_name=form.get("ProfileName"),
        button=form.get("ButtonPayload"),
        keyword=_KEYWORDS.get(form.get("OptOutType", "").upper()),
    )
    return CallbackReply([message], _EMPTY_TWIML.body, _EMPTY_TWIML.media_type)


def _media_urls(form: Mapping[str, str]) -> tuple[str, ...]:
    """Return the URLs of the pictures and files of a message: `MediaUrl0`, `MediaUrl1`, ..."""
    urls = (form.get(f"MediaUrl{number}", "") for number in range(MAX_MEDIA))
    return tuple(url for url in urls if url)


def _place(form: Mapping[str, str]) -> str:
    """Return the place that a person shared by WhatsApp: its name, address and coordinates."""
    coordinates = " ".join(form[name] for name in ("Latitude", "Longitude") if form.get(name))
    return ", ".join(filter(None, [form.get("Label"), form.get("Address"), coordinates]))


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
