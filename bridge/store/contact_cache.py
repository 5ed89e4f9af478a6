"""What a connection remembers about people: phone or e-mail -> the partner's id, for a while."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from bridge.store import schema
from bridge.store.database import Database

_TABLE = schema.contact_cache
_SHARED = ""
"""Stands for a connection where zones are kept: whichever CRM knows one, it holds for messages over all of them."""
_KEPT_FOR = timedelta(days=7)


class StoredContactCache:
    """`bridge.connector.ContactCache`, kept in the database and so shared by all replicas."""

    def __init__(self, database: Database, connection: str) -> None:
        self._database = database
        self._connection = connection

    def get(self, keys: Iterable[str]) -> Mapping[str, str]:
        """The remembered ids of those `keys` that are known and not expired; an empty id means nobody."""
        with self._database.read() as conn:
            rows = conn.execute(
                select(_TABLE.c.lookup_key, _TABLE.c.value).where(
                    _TABLE.c.connection == self._connection,
                    _TABLE.c.lookup_key.in_(list(keys)),
                    _TABLE.c.expires_at > self._database.now(conn),
                )
            )
            return {row.lookup_key: row.value for row in rows}

    def remember(self, ids: Mapping[str, str], ttl: timedelta = _KEPT_FOR) -> None:
        """Keep these ids for `ttl`; what was remembered before under the same keys is replaced."""
        self._remember(self._connection, ids, ttl)

    def remember_zones(self, zones: Mapping[str, str]) -> None:
        """Keep the time zones in which people live, by phone or e-mail; the newest word of any CRM counts."""
        self._remember(_SHARED, {_zone_key(address): zone for address, zone in zones.items()}, _KEPT_FOR)

    def _remember(self, owner: str, ids: Mapping[str, str], ttl: timedelta) -> None:
        if not ids:
            return
        with self._database.write() as conn:
            expires_at = self._database.now(conn) + ttl
            statement = self._database.insert(_TABLE)
            conn.execute(
                statement.on_conflict_do_update(
                    index_elements=["connection", "lookup_key"],
                    set_={
                        "value": statement.excluded.value,
                        "expires_at": statement.excluded.expires_at,
                    },
                ),
                [
                    {
                        "connection": owner,
                        "lookup_key": key,
                        "value": value,
                        "expires_at": expires_at,
                    }
                    for key, value in sorted(ids.items())
                ],
            )

    def forget(self, keys: Iterable[str]) -> None:
        """Drop ids that turned out deleted, merged or converted."""
        with self._database.write() as conn:
            conn.execute(
                delete(_TABLE).where(
                    _TABLE.c.connection == self._connection, _TABLE.c.lookup_key.in_(list(keys))
                )
            )


def cached_time_zones(conn: Connection, addresses: Collection[str], now: datetime) -> Mapping[str, str]:
    """The time zones that CRMs know of people, by those of their `addresses` (in small letters) that are known."""
    keys = {_zone_key(address): address.lower() for address in addresses}
    rows = conn.execute(
        select(_TABLE.c.lookup_key, _TABLE.c.value).where(
            _TABLE.c.connection == _SHARED, _TABLE.c.lookup_key.in_(list(keys)), _TABLE.c.expires_at > now
        )
    )
    return {keys[row.lookup_key]: row.value for row in rows}


def _zone_key(address: str) -> str:
    return f"zone:{address}".lower()
