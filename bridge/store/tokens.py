"""Tokens of connections: shared by all processes, refreshed by one of them, and never stored in clear.

They are encrypted with BRIDGE_SECRET_KEY, whether or not the bodies of events are encrypted. Without that key, a token
is not stored at all.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Update, or_, select, update

from bridge.connector.tokens import StoredToken, Token
from bridge.errors import AccountError, StoreUnavailable
from bridge.store import schema
from bridge.store.database import Database
from bridge.store.sealing import MissingKey, Sealer
from bridge.telemetry import log

_TABLE = schema.connection_tokens


class StoredTokens:
    """The `bridge.connector.TokenStore` of one connection, in the database."""

    def __init__(
        self, database: Database, connection: str, fingerprint: str, keys: Sequence[str], *, required: bool
    ) -> None:
        """`fingerprint` is that of the settings: with other settings, the stored token counts as absent.

        With `required`, the credentials in the settings do not replace a token that cannot be read.
        """
        self._database = database
        self._connection = connection
        self._fingerprint = fingerprint
        self._keys = keys
        self._required = required
        self._claim = uuid.uuid4().hex
        self._replaced: str | None = None
        """The stored value at the time of the last claim."""

    @cached_property
    def _sealer(self) -> Sealer:
        """Created on first use, because it loads cryptography."""
        return Sealer(self._keys)

    def read(self) -> StoredToken | None:
        """Return the last token; None if there is none for these settings. Raise AccountError if the key is missing."""
        with self._database.read() as conn:
            query = select(_TABLE.c.value, _TABLE.c.settings_fingerprint)
            row = conn.execute(query.where(_TABLE.c.connection == self._connection)).first()
        if row is None or row.value is None or row.settings_fingerprint != self._fingerprint:
            return None
        try:
            return _from_json(json.loads(self._sealer.open(row.value.encode())))
        except MissingKey as error:
            if self._required:
                raise AccountError(
                    "the stored token is encrypted with a key that is not configured",
                    fix="add the earlier value of BRIDGE_SECRET_KEY after the current one, separated by a comma",
                ) from error
            log.warning("stored token ignored, because its key is missing", connection=self._connection)
            return None

    def claim(self, seconds: float) -> bool:
        """Return whether this process may refresh for `seconds`."""
        with self._database.write() as conn:
            now = self._database.now(conn)
            claim = {"claimed_by": self._claim, "claimed_until": now + timedelta(seconds=seconds)}
            statement = (
                self._database.insert(_TABLE)
                .values(connection=self._connection, **claim)
                .on_conflict_do_update(
                    index_elements=["connection"],
                    set_=claim,
                    where=or_(_TABLE.c.claimed_until.is_(None), _TABLE.c.claimed_until <= now),
                )
                .returning(_TABLE.c.value)
            )
            row = conn.execute(statement).first()
        if row is not None:
            self._replaced = row.value
        return row is not None

    def save(self, stored: StoredToken) -> None:
        """Replace the token, unless another process has replaced it since the claim, and end the claim.

        The token is kept even if the claim has ended: it may have the only valid refresh token.
        """
        value = self._sealer.seal(json.dumps(_to_json(stored)).encode()).decode()
        is_first = or_(
            _TABLE.c.claimed_by == self._claim, _TABLE.c.value.is_not_distinct_from(self._replaced)
        )
        statement = update(_TABLE).where(_TABLE.c.connection == self._connection, is_first)
        try:
            with self._database.write() as conn:
                changed = conn.execute(statement.values(value=value, settings_fingerprint=self._fingerprint))
                conn.execute(self._end_of_claim())
        except StoreUnavailable as error:
            log.error(
                "token not stored yet",
                connection=self._connection,
                error=str(error),
                advice="make the database writable before this process ends: it stores the token with its next use",
            )
            raise
        if changed.rowcount:
            log.info("token stored", connection=self._connection)
        else:
            log.warning(
                "token not stored, because another process has stored one", connection=self._connection
            )

    def release(self) -> None:
        """End the claim. If the database is not available, it ends by itself."""
        try:
            with self._database.write() as conn:
                conn.execute(self._end_of_claim())
        except StoreUnavailable as error:
            log.warning("claim of a token not ended", connection=self._connection, error=str(error))

    def _end_of_claim(self) -> Update:
        own = (_TABLE.c.connection == self._connection, _TABLE.c.claimed_by == self._claim)
        return update(_TABLE).where(*own).values(claimed_by=None, claimed_until=None)


def _to_json(stored: StoredToken) -> dict[str, Any]:
    token = stored.token
    return {
        "access": token.access.get_secret_value(),
        "expires_at": token.expires_at and token.expires_at.isoformat(),
        "refresh": token.refresh and token.refresh.get_secret_value(),
        "url": token.url,
        "issued_at": stored.issued_at.isoformat(),
    }


def _from_json(value: dict[str, Any]) -> StoredToken:
    token = Token(
        SecretStr(value["access"]),
        datetime.fromisoformat(value["expires_at"]) if value["expires_at"] else None,
        SecretStr(value["refresh"]) if value["refresh"] else None,
        value["url"],
    )
    return StoredToken(token, datetime.fromisoformat(value["issued_at"]))
