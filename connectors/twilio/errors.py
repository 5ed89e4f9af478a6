"""Twilio's error codes, mapped to exceptions with advice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bridge.connector import failure_from_status
from bridge.errors import (
    AccountError,
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    QuotaExhausted,
    RateLimited,
)

OPTED_OUT_CODE = 21610
RATE_LIMIT_CODE = 20429
DAILY_LIMIT_CODE = 63038

_INVALID_NUMBER = "the number cannot receive text messages"
_SET_SENDER = (
    "set TWILIO_FROM, or `sender` in the rule, to a number of this account that can send texts, or set "
    "TWILIO_MESSAGING_SERVICE_SID"
)
_SET_SERVICE = "set TWILIO_MESSAGING_SERVICE_SID to a messaging service of this account"
_ADD_SENDER = "add a number to the sender pool of the messaging service in Twilio's console"
_REGISTER_A2P = (
    "register the brand and the campaign for A2P 10DLC in Twilio's console, with the number in the campaign"
)
_CREDENTIALS = (
    "check TWILIO_ACCOUNT_SID and the API key or auth token: each belongs to one account and one region"
)
_WHATSAPP_SENDER = "set TWILIO_WHATSAPP_FROM to a WhatsApp sender of this account that is online"
_META = "resolve what Meta's Business Manager shows about the WhatsApp Business account"
_REACTIVATE = "reactivate the account in Twilio's console: it may need a payment"


@dataclass(frozen=True)
class Meaning:
    """What an error code means.

    `recipient`: this message fails and the next one may not. `undeliverable`: the number never gets a text, since it is
    invalid, a short code or a landline. `account` and `login`: no message gets through until an operator has done what
    `fix` says. `quota` and `rate`: later messages get through.
    """

    kind: Literal["recipient", "undeliverable", "account", "login", "quota", "rate", "unknown"]
    text: str
    fix: str = ""


def _account(text: str, fix: str) -> Meaning:
    return Meaning("account", text, fix)


def _recipient(text: str) -> Meaning:
    return Meaning("recipient", text)


ERRORS: Mapping[int, Meaning] = {
    20003: Meaning("login", "Twilio does not accept the credentials", _CREDENTIALS),
    20005: _account("the Twilio account is not active", _REACTIVATE),
    20006: Meaning("login", "Twilio denies access with these credentials", _CREDENTIALS),
    20008: Meaning("login", "these are Twilio's test credentials", "use the live credentials"),
    20403: Meaning("login", "Twilio denies access with these credentials", _CREDENTIALS),
    20404: _account("Twilio does not find the account with these credentials", _CREDENTIALS),
    RATE_LIMIT_CODE: Meaning("rate", "Twilio asks for fewer concurrent requests"),
    21211: Meaning("undeliverable", _INVALID_NUMBER),
    21212: _account("the sender is not a valid number", _SET_SENDER),
    21217: Meaning("undeliverable", _INVALID_NUMBER),
    21265: Meaning("undeliverable", _INVALID_NUMBER),
    21266: _recipient("the recipient's number is the sender's own"),
    21408: _recipient("text messages to this country are disabled in Twilio's geo permissions"),
    21602: _recipient("the message body is empty"),
    21603: _account("the message has no sender", _SET_SENDER),
    21606: _account("the account may not send texts from this number", _SET_SENDER),
    21608: _account(
        "a trial account can text verified numbers only",
        "upgrade the account, or verify the number and list it in BRIDGE_RECIPIENT_ALLOWLIST while testing",
    ),
    21609: _account(
        "Twilio cannot use BRIDGE_PUBLIC_URL for callbacks",
        "set BRIDGE_PUBLIC_URL to a public address, without `_` in the host name",
    ),
    OPTED_OUT_CODE: _recipient("the recipient has replied STOP"),
    21611: Meaning("rate", "the sender's queue at Twilio is full"),
    21612: _recipient("Twilio has no route from the sender to this number"),
    21614: Meaning("undeliverable", "the number is not a mobile number"),
    21617: _recipient("the message body is longer than 1600 characters"),
    21635: Meaning("undeliverable", "the number is a landline"),
    21654: _recipient("the variables have no template"),
    21655: _recipient("the template does not exist in this account"),
    21656: _recipient("the template does not accept its variables: each needs a value of one line"),
    21659: _account("the sender is not a Twilio number of this account", _SET_SENDER),
    21660: _account("the sender belongs to another Twilio account", _SET_SENDER),
    21661: _account("the sender cannot send text messages", _SET_SENDER),
    21701: _account("the messaging service does not exist", _SET_SERVICE),
    21702: _account("the messaging service cannot be used", _SET_SERVICE),
    21703: _account("the messaging service has no sender", _ADD_SENDER),
    21704: _account("the messaging service has no sender", _ADD_SENDER),
    21705: _account("TWILIO_MESSAGING_SERVICE_SID is invalid", _SET_SERVICE),
    **{
        code: _account("the messaging service is not set up completely", _ADD_SENDER)
        for code in range(21706, 21712)
    },
    21712: _account("the sender is not in the sender pool of the messaging service", _ADD_SENDER),
    21910: _account("the sender is not a WhatsApp sender", _WHATSAPP_SENDER),
    30001: _recipient("Twilio's queue was full"),
    30002: _account("the Twilio account is suspended", _REACTIVATE),
    30003: _recipient("the phone was off or out of reach"),
    30004: _recipient("the recipient or the carrier blocks the sender"),
    30005: _recipient("the number is unknown to its carrier"),
    30006: Meaning("undeliverable", "the number is a landline, or its carrier does not accept text messages"),
    30007: _recipient("the carrier filtered the message"),
    30008: _recipient("the carrier gave no reason"),
    30032: _account(
        "the toll-free number is not verified", "verify the toll-free number in Twilio's console"
    ),
    30033: _account("the A2P 10DLC campaign is suspended", "resolve what Twilio wrote about the campaign"),
    30034: _account("US carriers block the sender, which is in no A2P 10DLC campaign", _REGISTER_A2P),
    30035: _account(
        "US carriers block the sender, whose registration is pending", "wait until it is registered"
    ),
    30036: _recipient("the message could not be delivered within its validity period"),
    30410: Meaning("unknown", "the carrier did not answer Twilio in time"),
    63001: _account(
        "the channel does not accept Twilio's login", "connect the sender again in Twilio's console"
    ),
    63003: Meaning("undeliverable", "the number cannot receive WhatsApp messages"),
    63007: _account("the account has no such WhatsApp sender", _WHATSAPP_SENDER),
    63013: _recipient("the message violates a policy of WhatsApp"),
    63014: _recipient("the person has blocked the sender on WhatsApp"),
    63016: _recipient(
        "the person has not written in the last 24 hours, so WhatsApp accepts an approved template only"
    ),
    63018: Meaning("rate", "WhatsApp asks for fewer messages, or the limit of new conversations is reached"),
    63020: _account(
        "WhatsApp refuses the business account",
        "resolve its payment or verification in Meta's Business Manager",
    ),
    63021: _recipient(
        "WhatsApp refuses the content: a template with its variables has up to 1024 characters"
    ),
    63024: _recipient(
        "WhatsApp cannot deliver to the person, for example because of an old version of the app"
    ),
    63027: _recipient("WhatsApp has no such template in this language for the sender"),
    63028: _recipient("the number of variables is not that of the template"),
    63032: _recipient("WhatsApp does not deliver marketing to this person at present"),
    63049: _recipient("WhatsApp does not deliver this marketing template to the person"),
    63051: _account("Meta has locked the WhatsApp sender", _META),
    63112: _account("Meta has disabled the WhatsApp Business account", _META),
    DAILY_LIMIT_CODE: Meaning("quota", "the account has sent as many messages as it may in a day"),
}
"""Error code -> meaning. Twilio adds and splits codes: an unlisted code is mapped by its range and the HTTP status."""


def error_from_code(code: int, status: int = 400) -> DeliveryError:
    """Map a Twilio error code to an exception with advice of our own: Twilio's messages repeat the phone number."""
    if code < 10_000:  # the SDK substitutes the HTTP status if the response has no code
        return failure_from_status(status, f"Twilio answered {status}")
    meaning = ERRORS.get(code)
    advice = meaning.text if meaning else f"see https://www.twilio.com/docs/errors/{code}"
    message = f"Twilio error {code}: {advice}"
    if status >= 500 or (meaning is None and code < 21_000):
        return failure_from_status(status, message)
    kind = meaning.kind if meaning else "recipient"
    fix = meaning.fix if meaning else ""
    match kind:
        case "login":
            return AuthenticationError(message, fix=fix)
        case "account":
            return AccountError(message, fix=fix)
        case "quota":
            return QuotaExhausted(message)
        case "rate":
            return RateLimited(message)
        case "unknown":
            return OutcomeUnknown(message)
        case _:
            return PermanentError(
                message,
                code=str(code),
                opted_out=code == OPTED_OUT_CODE,
                undeliverable=kind == "undeliverable",
            )


def error_code(text: str) -> int:
    """Return the error code in the body of a response; 0 if there is none."""
    code = (json_object(text) or {}).get("code")
    return code if isinstance(code, int) else 0


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object in the body of a response; None if it is anything else, such as the page of a proxy."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
