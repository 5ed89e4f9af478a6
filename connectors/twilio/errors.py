"""Twilio's error codes, mapped to exceptions with advice."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bridge.connector import (
    failure_from_status,
)
from bridge.errors import (
    AuthenticationError,
    DeliveryError,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
)

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

OPTED_OUT_CODE = 21610
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
            opted_out=code == OPTED_OUT_CODE,
            undeliverable=code in _UNDELIVERABLE_CODES,
        )
    return error_type(message)
