"""Schema: what all tables share: their `MetaData`, the type of instants, indexes, and descriptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Connection, Dialect, Index, MetaData, TypeDecorator, event, text
from sqlalchemy.sql.elements import TextClause

metadata = MetaData()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(instant: datetime) -> int:
    """Return an instant as the tables store it; raise TypeError for a naive datetime, which is a bug."""
    return (instant - _EPOCH) // _MICROSECOND


class Instant(TypeDecorator[datetime]):
    """An aware datetime, stored as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        """Convert a datetime to the stored integer."""
        return None if value is None else microseconds(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:  # noqa: ARG002
        """Return the conversion from the stored integer. It is a plain function, because a row has many instants."""
        return _instant


def _instant(value: int | None) -> datetime | None:
    """Return a stored instant as a datetime in UTC."""
    return None if value is None else _EPOCH + timedelta(microseconds=value)


def index(
    name: str,
    *columns: str | TextClause,
    where: str | None = None,
    prefixes_of: Sequence[str] = (),
    unique: bool = False,
) -> Index:
    """Return an index of the rows that meet the condition `where`, or of all rows.

    On PostgreSQL, it also finds prefixes of the columns `prefixes_of`, whatever the collation, as it does on SQLite.
    """
    condition = None if where is None else text(where)
    postgresql = {"where": condition, "ops": dict.fromkeys(prefixes_of, "text_pattern_ops")}
    return Index(name, *columns, unique=unique, sqlite_where=condition, info={"postgresql": postgresql})


@event.listens_for(metadata, "before_create")
def _add_postgresql_options(_: MetaData, conn: Connection, **__: object) -> None:
    """Set the options of the indexes on PostgreSQL. If they named them, they would load its dialect on SQLite, too."""
    if conn.dialect.name == "postgresql":
        for created in (created for table in metadata.tables.values() for created in table.indexes):
            for option, value in created.info["postgresql"].items():
                created.dialect_kwargs[f"postgresql_{option}"] = value


def doc(text: str) -> dict[str, str]:
    """Return the `info` of a table or column with this description."""
    return {"doc": text}
