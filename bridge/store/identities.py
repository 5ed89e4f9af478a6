"""What a connection remembers about people: phone or e-mail -> the partner's id, for a while."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from sqlalchemy import delete, select

from bridge.store import schema
from bridge.store.database import Database

_TABLE = schema.identities


class StoredIdentities:
    """`bridge.connector.Identities`, kept in the database and so shared by all replicas."""

    def __init__(self, database: Database, connection: str) -> None:
        self._database = database
        self._connection = connection

    def get(self, keys: Iterable[str]) -> Mapping[str, str]:
        """The remembered ids of those `keys` that are known and not expired; an empty id means nobody."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(_TABLE.c.key, _TABLE.c.partner_id).where(
                    _TABLE.c.connection == self._connection,
                    _TABLE.c.key.in_(list(keys)),
                    _TABLE.c.expires_at > self._database.now(connection),
                )
            )
            return {row.key: row.partner_id for row in rows}

    def remember(self, ids: Mapping[str, str], ttl: timedelta = timedelta(days=7)) -> None:
        """Keep these ids for `ttl`; what was remembered before under the same keys is replaced."""
        if not ids:
            return
        with self._database.write() as connection:
            expires_at = self._database.now(connection) + ttl
            statement = self._database.insert(_TABLE)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["connection", "key"],
                    set_={
                        "partner_id": statement.excluded.partner_id,
                        "expires_at": statement.excluded.expires_at,
                    },
                ),
                [
                    {
                        "connection": self._connection,
                        "key": key,
                        "partner_id": ident,
                        "expires_at": expires_at,
                    }
                    for key, ident in sorted(ids.items())
                ],
            )

    def forget(self, keys: Iterable[str]) -> None:
        """Drop ids that turned out deleted, merged or converted."""
        with self._database.write() as connection:
            connection.execute(
                delete(_TABLE).where(_TABLE.c.connection == self._connection, _TABLE.c.key.in_(list(keys)))
            )
