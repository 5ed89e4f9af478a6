"""Schema: what all tables share: their `MetaData`, the type of instants, and descriptions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Dialect, MetaData, TypeDecorator

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


def doc(text: str) -> dict[str, str]:
    """Return the `info` of a table or column with this description."""
    return {"doc": text}
