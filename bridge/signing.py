"""Webhook signatures: verify raw bytes and headers, and read the event; there is one kind of error.

Heppu signs only the raw body (`X-Webhook-Signature-256: sha256=<hex of HMAC-SHA256>`). The timestamp header is not
signed: checking it keeps stale requests out, but does not stop an attacker. Replay attacks are stopped by the
permanent dedupe key of the signed body. No input from a sender raises anything but `Refused`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from bridge.errors import Refused
from bridge.events import Event, dedupe_key_of
from bridge.ids import new_id
from bridge.json_values import parse_body

SIGNATURE_HEADER: Final = "x-webhook-signature-256"
TIMESTAMP_HEADER: Final = "x-webhook-timestamp"
MAX_BODY: Final = 1024 * 1024
"""Maximum bytes of a body; a larger one gets a 413."""
MAX_EVENT_TYPE: Final = 100
"""Maximum characters of an event type."""
MAX_KEY: Final = 500
"""Maximum characters of the IDs in a body that become keys in the database."""

_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class SignedRequestRejected(Refused):
    """A request with a valid signature that is rejected. The body is stored, so that an operator can accept it."""


def sign(body: bytes, secret: bytes) -> str:
    """Return the value of the signature header for `body`, in Heppu's format."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


@dataclass(slots=True)
class SignedHeaders:
    """The signature and timestamp of a request, read from its headers before the body arrives."""

    signature: bytes
    timestamp_error: SignedRequestRejected | None
    """The reason to reject the timestamp, if any. `verify` raises it only if the signature is correct."""


def read_headers(headers: Mapping[str, str], now: datetime, tolerance: int) -> SignedHeaders:
    """Read the signature and check the timestamp. Raise Refused if there is no valid signature header.

    The names in `headers` are lowercase. `tolerance` is the maximum difference of the timestamp in seconds, in either
    direction.
    """
    signature = read_signature(headers.get(SIGNATURE_HEADER))
    return SignedHeaders(signature, _reject_timestamp(headers.get(TIMESTAMP_HEADER), now, tolerance))


def verify(body: bytes, signed: SignedHeaders, secrets: Sequence[bytes]) -> None:
    """Raise Refused unless one of `secrets` signed `body` and the request is recent."""
    verify_signature(body, signed.signature, secrets)
    if signed.timestamp_error is not None:
        raise signed.timestamp_error


def verify_signature(body: bytes, signature: bytes, secrets: Sequence[bytes]) -> None:
    """Raise Refused unless one of `secrets` signed `body`. The time taken does not depend on which one."""
    matches = [hmac.compare_digest(hmac.digest(secret, body, "sha256"), signature) for secret in secrets]
    if not any(matches):
        raise Refused("signature_wrong", "the signature does not match any configured secret", 401)


def read_signature(header: str | None) -> bytes:
    """Return the signature in a header. Raise Refused if there is none, which needs no body to be known."""
    if header is None:
        raise Refused("signature_missing", "the request is not signed", 401)
    match = _SIGNATURE.fullmatch(header.strip())
    if match is None:
        raise Refused(
            "signature_malformed", "the signature header is not `sha256=` followed by 64 hex digits", 401
        )
    return bytes.fromhex(match[1])


def _reject_timestamp(header: str | None, now: datetime, tolerance: int) -> SignedRequestRejected | None:
    """Return why a timestamp is rejected: it has to be Unix seconds within `tolerance` of `now`."""
    if header is None or not _TIMESTAMP.fullmatch(header.strip()):
        return SignedRequestRejected(
            "timestamp_missing", "the timestamp header is missing or not a number", 401
        )
    offset = int(header) - int(now.timestamp())
    if abs(offset) > tolerance:
        return SignedRequestRejected(
            "timestamp_off", f"the timestamp differs from this clock by {offset:+d} s", 401
        )
    return None


def read_event(body: bytes, now: datetime, default_country: str | None = None) -> Event:
    """Return the event in a body that is assumed to be genuine. Raise SignedRequestRejected if it is invalid."""
    try:
        payload = parse_body(body)
    except ValueError as error:
        raise SignedRequestRejected(
            "not_json", f"the body is not a JSON object: {_describe(error)}", 400
        ) from None
    event_type = payload.get("event")
    if not isinstance(event_type, str) or not 0 < len(event_type.strip()) <= MAX_EVENT_TYPE:
        raise SignedRequestRejected("no_event", "the body has no valid event type", 400)
    event = Event(payload, dedupe_key_of(payload, body), now, new_id("evt"), default_country)
    for value in (event_type, event.dedupe_key, event.fallback_dedupe_key or "", event.conversation.id):
        if len(value) > MAX_KEY or not value.isprintable():
            raise SignedRequestRejected(
                "bad_identity", "an ID in the body is too long or contains control characters", 400
            )
    return event


def _describe(error: ValueError) -> str:
    """Return the kind of error without quoting the body."""
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else type(error).__name__
