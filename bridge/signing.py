"""Raw bytes and headers in, a verified event out, or one kind of error.

Heppu signs the raw body alone (`X-Webhook-Signature-256: sha256=<hex of HMAC-SHA256>`). The timestamp header is
not signed, so checking it keeps stale requests out but stops no attacker: what stops a replay is the permanent
identity of the signed body. Nothing a stranger can send raises anything but `Refused`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from bridge.errors import Refused
from bridge.events import Event, dedupe_key_of, parse_body
from bridge.ids import new_id

SIGNATURE_HEADER: Final = "x-webhook-signature-256"
TIMESTAMP_HEADER: Final = "x-webhook-timestamp"
MAX_BODY: Final = 1024 * 1024
"""Bytes; a larger body is answered 413."""
MAX_NAME: Final = 100
"""Characters of an event's name."""
MAX_IDENTITY: Final = 500
"""Characters of the ids in a body that become keys of our tables."""

_SIGNATURE = re.compile(r"sha256=([0-9a-fA-F]{64})")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class SignedRefusal(Refused):
    """Refused although the signature is right; the body is kept, so that a person can accept it later."""


def sign(body: bytes, secret: bytes) -> str:
    """The signature header's value for `body`, as Heppu makes it."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def verify(
    body: bytes, headers: Mapping[str, str], secrets: Sequence[bytes], now: datetime, tolerance: int
) -> Event:
    """The event in `body`, when one of `secrets` signed it and it is fresh; raises Refused.

    `headers` has lower-case names. `tolerance` is how many seconds the timestamp may be off, either way.
    No `secrets` means that nothing is verified (`bridge serve --insecure`).
    """
    if secrets:
        verify_signature(body, headers.get(SIGNATURE_HEADER), secrets)
        verify_timestamp(headers.get(TIMESTAMP_HEADER), now, tolerance)
    return read_event(body, now)


def verify_signature(body: bytes, header: str | None, secrets: Sequence[bytes]) -> None:
    """Raise Refused unless one of `secrets` signed `body`; takes the same time whichever it is."""
    if header is None:
        raise Refused("signature_missing", "the request is not signed", 401)
    match = _SIGNATURE.fullmatch(header.strip())
    if match is None:
        raise Refused("signature_malformed", "the signature header is not `sha256=` and 64 hex digits", 401)
    given = bytes.fromhex(match[1])
    matches = [hmac.compare_digest(hmac.digest(secret, body, "sha256"), given) for secret in secrets]
    if not any(matches):
        raise Refused("signature_wrong", "no configured secret made this signature", 401)


def verify_timestamp(header: str | None, now: datetime, tolerance: int) -> None:
    """Raise SignedRefusal unless the header is Unix seconds within `tolerance` of `now`."""
    if header is None or not _TIMESTAMP.fullmatch(header.strip()):
        raise SignedRefusal("timestamp_missing", "the timestamp header is missing or no number", 401)
    away = int(header) - int(now.timestamp())
    if abs(away) > tolerance:
        raise SignedRefusal("timestamp_off", f"the timestamp is {away:+d} s away from this clock", 401)


def read_event(body: bytes, now: datetime) -> Event:
    """The event in a body that is taken as genuine; raises SignedRefusal when it is not one."""
    try:
        payload = parse_body(body)
    except ValueError as error:
        raise SignedRefusal("not_json", f"the body is no JSON object: {_kind(error)}", 400) from None
    name = payload.get("event")
    if not isinstance(name, str) or not 0 < len(name.strip()) <= MAX_NAME:
        raise SignedRefusal("no_event", "the body has no event name", 400)
    event = Event(payload, dedupe_key_of(payload, body), now, new_id("evt"))
    for value in (name, event.dedupe_key, event.fallback_dedupe_key or "", event.conversation.id):
        if len(value) > MAX_IDENTITY or not value.isprintable():
            raise SignedRefusal(
                "bad_identity", "an id in the body is too long or has control characters", 400
            )
    return event


def _kind(error: ValueError) -> str:
    """What is wrong, without quoting the body."""
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else type(error).__name__
