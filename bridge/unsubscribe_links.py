"""Unsubscribe links: URLs that let the recipient of an email opt out.

A link contains a token with the channel and the address. The token is encrypted, because links end up in the logs of
proxies and mail scanners. It never expires, because a link in an old email must work.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_PURPOSE = b"unsubscribe link"


def unsubscribe_link(public_url: str | None, secret: str | None) -> Callable[[str, str], str | None]:
    """Return a function that builds the link for a channel and an address.

    The function returns None if BRIDGE_PUBLIC_URL or BRIDGE_SECRET_KEY is not set.
    """
    if not public_url or not secret:
        return lambda _channel, _address: None
    root, cipher = public_url.rstrip("/"), _cipher(secret)

    def link(channel: str, address: str) -> str:
        token = cipher.encrypt(json.dumps([channel, address]).encode()).decode()
        return f"{root}/unsubscribe/{token.rstrip('=')}"

    return link


def read_unsubscribe_token(secret: str, token: str) -> tuple[str, str] | None:
    """Return the channel and the address in a token, or None if it was not made with this secret."""
    from cryptography.fernet import InvalidToken

    try:
        content = json.loads(_cipher(secret).decrypt(token + "=" * (-len(token) % 4)))
    except (InvalidToken, ValueError):
        return None
    match content:
        case [str(channel), str(address)]:
            return channel, address
    return None


def _cipher(secret: str) -> Fernet:
    from cryptography.fernet import Fernet

    key = hashlib.blake2b(secret.encode(), digest_size=32, person=_PURPOSE).digest()
    return Fernet(base64.urlsafe_b64encode(key))
