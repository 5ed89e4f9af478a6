"""Unsubscribe links: URLs that let the recipient of an email opt out.

A link contains a token with the channel and the address. The token is encrypted, because links end up in the logs of
proxies and mail scanners. It never expires, because a link in an old email must work.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

_PURPOSE = b"unsubscribe link"


def unsubscribe_link(public_url: str | None, keys: Sequence[str]) -> Callable[[str, str], str | None]:
    """Return a function that builds the link for a channel and an address, with the first of `keys`.

    The function returns None if BRIDGE_PUBLIC_URL or BRIDGE_SECRET_KEY is not set.
    """
    if not public_url or not keys:
        return lambda _channel, _address: None
    root = public_url.rstrip("/")
    cipher = cache(partial(_cipher, keys))  # with the first link: cryptography takes 3 MB

    def link(channel: str, address: str) -> str:
        token = cipher().encrypt(json.dumps([channel, address]).encode()).decode()
        return f"{root}/unsubscribe/{token.rstrip('=')}"

    return link


def read_unsubscribe_token(keys: Sequence[str], token: str) -> tuple[str, str] | None:
    """Return the channel and the address in a token, or None if it was made with none of `keys`."""
    from cryptography.fernet import InvalidToken

    if not keys:
        return None
    try:
        content = json.loads(_cipher(keys).decrypt(token + "=" * (-len(token) % 4)))
    except (InvalidToken, ValueError):
        return None
    match content:
        case [str(channel), str(address)]:
            return channel, address
    return None


def _cipher(keys: Sequence[str]) -> MultiFernet:
    """Return the cipher that encrypts with the first key and decrypts with any."""
    from cryptography.fernet import Fernet, MultiFernet

    digests = [hashlib.blake2b(key.encode(), digest_size=32, person=_PURPOSE).digest() for key in keys]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(digest)) for digest in digests])
