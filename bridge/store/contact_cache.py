"""Contact cache: external IDs and time zones of contacts by address, and the empty fields of their records."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, or_, select, tuple_

from bridge.connector.contact_profile import ContactProfile
from bridge.connector.related_records import related_records_key
from bridge.contacts.address import address_key
from bridge.contacts.time_zone import residence_time_zone
from bridge.store import schema
from bridge.store.batches import in_batches
from bridge.store.database import Database

_TABLE = schema.contact_cache
_ALL_CONNECTIONS = ""
"""The connection of cached time zones: a zone that one CRM reports applies to messages over every connection."""
_TTL = timedelta(days=7)


@dataclass(frozen=True)
class CrmRecord:
    """A record of a CRM that the bridge found for one of a person's addresses."""

    connection: str
    external_id: str
    addresses: Sequence[str]


class StoredContactCache:
    """The `bridge.connector.ContactCache` of one connection, stored in the database and shared by all workers."""

    def __init__(self, database: Database, connection: str) -> None:
        self._database = database
        self._connection = connection

    def get(self, keys: Iterable[str]) -> Mapping[str, str]:
        """Return the cached IDs of those `keys` that are present and not expired. An empty ID means "not found"."""
        with self._database.read() as conn:
            rows = conn.execute(
                select(_TABLE.c.lookup_key, _TABLE.c.value).where(
                    _TABLE.c.connection == self._connection,
                    _TABLE.c.lookup_key.in_(list(keys)),
                    _TABLE.c.expires_at > self._database.now(conn),
                )
            )
            return {row.lookup_key: row.value for row in rows}

    def remember(self, ids: Mapping[str, str], ttl: timedelta = _TTL) -> None:
        """Store these IDs for `ttl`, replacing earlier values."""
        self._store(self._connection, ids, ttl)

    def remember_zones(self, zones: Mapping[str, str]) -> None:
        """Store contacts' time zones by phone number or email address; the latest value of any CRM counts."""
        self._store(_ALL_CONNECTIONS, {_zone_key(address): zone for address, zone in zones.items()}, _TTL)

    def profiles(self, ids: Iterable[str]) -> Mapping[str, ContactProfile]:
        """Return the cached profiles of those records that have one, by external ID."""
        keys = {_profile_key(record_id): record_id for record_id in ids}
        return {keys[key]: _read_profile(value) for key, value in self.get(keys).items()} if keys else {}

    def remember_profiles(self, profiles: Mapping[str, ContactProfile]) -> None:
        """Store the profiles of records by external ID, for as long as IDs."""
        values = {
            _profile_key(record_id): json.dumps({"name": profile.name, "empty": sorted(profile.empty)})
            for record_id, profile in profiles.items()
        }
        self._store(self._connection, values, _TTL)

    def _store(self, connection: str, values: Mapping[str, str], ttl: timedelta) -> None:
        if not values:
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
                        "connection": connection,
                        "lookup_key": key,
                        "value": value,
                        "expires_at": expires_at,
                    }
                    for key, value in sorted(values.items())
                ],
            )

    def forget(self, keys: Iterable[str]) -> None:
        """Remove IDs whose records have been deleted, merged or converted."""
        with self._database.write() as conn:
            conn.execute(
                delete(_TABLE).where(
                    _TABLE.c.connection == self._connection, _TABLE.c.lookup_key.in_(list(keys))
                )
            )


def cached_crm_records(conn: Connection, keys: Collection[str], now: datetime) -> list[CrmRecord]:
    """Return the cached records of these addresses, each as `address_key` returns it, of all connections."""
    lookup_keys = {f"{'email' if '@' in key else 'phone'}:{key}": key for key in keys}
    rows = conn.execute(
        select(*_TABLE.c["connection", "lookup_key", "value"])
        # Naming the connections lets the primary key find the rows.
        .where(_TABLE.c.connection.in_(select(schema.connections.c.name)))
        .where(_TABLE.c.lookup_key.in_(lookup_keys), _TABLE.c.expires_at > now, _TABLE.c.value != "")
        .order_by(_TABLE.c.connection, _TABLE.c.value)
    )
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        found.setdefault((row.connection, row.value), []).append(lookup_keys[row.lookup_key])
    return [CrmRecord(*record, sorted(addresses)) for record, addresses in found.items()]


def cached_time_zones(conn: Connection, addresses: Collection[str], now: datetime) -> Mapping[str, str]:
    """Return the time zones that CRMs reported for these `addresses`, by `address_key`.

    A zone that does not say where a person lives is skipped: a connector, or an older version, may have stored one.
    """
    keys = {_zone_key(address): address_key(address) for address in addresses}
    rows = conn.execute(
        select(_TABLE.c.lookup_key, _TABLE.c.value).where(
            _TABLE.c.connection == _ALL_CONNECTIONS,
            _TABLE.c.lookup_key.in_(list(keys)),
            _TABLE.c.expires_at > now,
        )
    )
    return {
        keys[row.lookup_key]: zone for row in rows if (zone := residence_time_zone(row.value)) is not None
    }


def delete_cached_contacts(database: Database, address: str) -> int:
    """Delete everything cached about an address, and about the records that it led to, in short transactions.

    Return the number of entries of the address.
    """
    lookup_key = func.lower(_TABLE.c.lookup_key)
    matches = or_(
        lookup_key.endswith(f":{address_key(address)}", autoescape=True),
        lookup_key.contains(f"pair:{address_key(address)}:", autoescape=True),
    )
    with database.read() as conn:
        rows = conn.execute(select(*_TABLE.c["connection", "lookup_key", "value"]).where(matches)).all()
    keys = [(row.connection, row.lookup_key) for row in rows]
    records = [
        (row.connection, key)
        for row in rows
        if row.connection != _ALL_CONNECTIONS and row.value
        for key in (_profile_key(row.value), related_records_key(row.value))
    ]

    def change(part: Sequence[tuple[str, str]]) -> None:
        with database.write() as conn:
            conn.execute(delete(_TABLE).where(tuple_(_TABLE.c.connection, _TABLE.c.lookup_key).in_(part)))

    in_batches([*keys, *records], change)
    return len(keys)


def _profile_key(record_id: str) -> str:
    return f"record:{record_id}"


def _read_profile(value: str) -> ContactProfile:
    fields = json.loads(value)
    return ContactProfile(fields["name"], frozenset(fields["empty"]))


def _zone_key(address: str) -> str:
    return f"zone:{address_key(address)}"
