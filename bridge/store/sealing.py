"""Sealing: encrypts columns with personal content at rest, if BRIDGE_ENCRYPTION_KEYS is set.

A column type encrypts what is written and decrypts what is read, so no other module knows of it. Encrypted values have
a prefix: those from before the keys were set stay readable, and `bridge db reencrypt` rewrites them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Dialect, LargeBinary, Text, TypeDecorator

from bridge.errors import ConfigError
from bridge.store.compression import compress, decompress

PREFIX: Final = b"sealed:"
_TEXT_PREFIX: Final = PREFIX.decode()


class MissingKey(ConfigError):
    """A stored value is encrypted with a key that is not configured."""


class Sealer:
    """Encrypts with the first key, and decrypts with any of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        # Imported here, because most installations do not encrypt.
        from cryptography.fernet import Fernet, MultiFernet

        ciphers = [Fernet(_fernet_key(key)) for key in keys]
        self._current, self._any = ciphers[0], MultiFernet(ciphers)
        self.writes = True
        """False while everything is decrypted: what is written stays in clear."""

    def seal(self, value: bytes) -> bytes:
        """Return a value as it is stored."""
        return PREFIX + self._current.encrypt(value) if self.writes else value

    def open(self, stored: bytes) -> bytes:
        """Return the value of a stored one. Raise MissingKey."""
        from cryptography.fernet import InvalidToken

        try:
            return self._any.decrypt(stored[len(PREFIX) :])
        except InvalidToken:
            raise MissingKey(
                "a stored value is encrypted with a key that BRIDGE_ENCRYPTION_KEYS does not contain: add the earlier "
                "key after the current one"
            ) from None

    def is_current(self, stored: bytes) -> bool:
        """Return whether a stored value is as a new one would be."""
        from cryptography.fernet import InvalidToken

        if not self.writes or not stored.startswith(PREFIX):
            return self.writes is stored.startswith(PREFIX)
        try:
            self._current.decrypt(stored[len(PREFIX) :])
        except InvalidToken:
            return False
        return True


def sealer_of(dialect: Any) -> Sealer | None:
    """Return the sealer of a database; `Database` attaches it to the dialect of its engine."""
    sealer: Sealer | None = getattr(dialect, "bridge_sealer", None)
    return sealer


class SealedBytes(TypeDecorator[bytes]):
    """Bytes that are encrypted at rest if there are keys."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        """Encrypt a value."""
        sealer = sealer_of(dialect)
        return value if value is None or sealer is None else sealer.seal(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        """Decrypt a value. Raise MissingKey."""
        return value if value is None or not value.startswith(PREFIX) else _open(value, dialect)


class SealedBody(SealedBytes):
    """The body of an event: compressed, and then encrypted if there are keys."""

    cache_ok = True

    def process_bind_param(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        """Compress and encrypt a body."""
        return None if value is None else super().process_bind_param(compress(value), dialect)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> bytes | None:
        """Decrypt and decompress a body; return a damaged one as it is. Raise MissingKey.

        A damaged body cannot be parsed, which is an error of its event. An error here would be one of the whole query.
        """
        opened = super().process_result_value(value, dialect)
        try:
            return None if opened is None else decompress(opened)
        except ValueError:
            return opened


class SealedText(TypeDecorator[str]):
    """Text that is encrypted at rest if there are keys."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Encrypt a value."""
        sealer = sealer_of(dialect)
        return value if value is None or sealer is None else sealer.seal(value.encode()).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Decrypt a value. Raise MissingKey."""
        if value is None or not value.startswith(_TEXT_PREFIX):
            return value
        return _open(value.encode(), dialect).decode()


def _open(stored: bytes, dialect: Dialect) -> bytes:
    sealer = sealer_of(dialect)
    if sealer is None:
        raise MissingKey(
            "stored values are encrypted: set BRIDGE_ENCRYPTION_KEYS to the keys they were encrypted with"
        )
    return sealer.open(stored)


def _fernet_key(secret: str) -> bytes:
    """Return a Fernet key that is derived from a secret of any form."""
    return base64.urlsafe_b64encode(hashlib.sha256(b"bridge encryption at rest:" + secret.encode()).digest())
