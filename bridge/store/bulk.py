"""Writing a group of rows with one statement.

SQLAlchemy and the drivers take longer over the parameters of a row than a database over the row, and while one
statement after the other is stepped through, a busy interpreter changes hands at each. So a group is one statement
on either database: rows of VALUES on SQLite, on PostgreSQL an array for each column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql

from bridge.store.schema import Instant, microseconds

_MOST_VARIABLES = 32_000
"""SQLite's own limit is 32,766 for one statement, where the system's does not allow more."""
_POSTGRES = postgresql.dialect()  # type: ignore[no-untyped-call]


def bulk_insert(
    conn: Connection, table: Table, rows: Sequence[Mapping[str, Any]], on_conflict: str = ""
) -> int:
    """Insert rows that all have the same columns; returns how many were written.

    `on_conflict` is the clause of that name, for what is there already.
    """
    if _is_sqlite(conn) and len(rows) > (most := _MOST_VARIABLES // len(rows[0])):
        return sum(bulk_insert(conn, table, part, on_conflict) for part in _parts(rows, most))
    names = tuple(rows[0])
    into = f"INSERT INTO {table.name} ({', '.join(names)})"
    if _is_sqlite(conn):
        return _execute(conn, f"{into} {_values(names, rows)} {on_conflict}", _flat(table, names, rows))
    given = f"SELECT * FROM {_unnested(table, names)}"  # noqa: S608
    return _execute(conn, f"{into} {given} {on_conflict}", _columns(table, names, rows))


def bulk_update(
    conn: Connection,
    table: Table,
    keys: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    only_if: str = "true",
) -> None:
    """Give rows their values: in each mapping, the `keys` say which row it is, the rest are its new values.

    `only_if` is one more condition, in which a mapping is called `given`.
    """
    if _is_sqlite(conn) and len(rows) > (most := _MOST_VARIABLES // len(rows[0])):
        for part in _parts(rows, most):
            bulk_update(conn, table, keys, part, only_if)
        return
    names = tuple(rows[0])
    if _is_sqlite(conn):
        given = f"given ({', '.join(names)}) AS ({_values(names, rows)})"
        parameters = _flat(table, names, rows)
    else:
        given = f"given AS (SELECT * FROM {_unnested(table, names)})"  # noqa: S608
        parameters = _columns(table, names, rows)
    changes = ", ".join(f"{name} = given.{name}" for name in names if name not in keys)
    same = " AND ".join(f"{table.name}.{key} = given.{key}" for key in keys)
    update = f"UPDATE {table.name} SET {changes} FROM given WHERE {same} AND {only_if}"  # noqa: S608
    _execute(conn, f"WITH {given} {update}", parameters)


def _parts(rows: Sequence[Mapping[str, Any]], most: int) -> Iterator[Sequence[Mapping[str, Any]]]:
    return (rows[start : start + most] for start in range(0, len(rows), most))


def _is_sqlite(conn: Connection) -> bool:
    return conn.dialect.name == "sqlite"


def _execute(conn: Connection, statement: str, parameters: tuple[Any, ...]) -> int:
    return conn.exec_driver_sql(statement, parameters).rowcount


def _values(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    row = f"({', '.join('?' * len(names))})"
    return f"VALUES {', '.join([row] * len(rows))}"


def _flat(table: Table, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    of = itemgetter(*names)
    values = [value for row in rows for value in of(row)]
    for number, name in enumerate(names):
        if isinstance(table.c[name].type, Instant):
            column = slice(number, None, len(names))
            values[column] = [at and microseconds(at) for at in values[column]]
    return tuple(values)


def _columns(table: Table, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> tuple[list[Any], ...]:
    columns = tuple([row[name] for row in rows] for name in names)
    for name, column in zip(names, columns, strict=True):
        if isinstance(table.c[name].type, Instant):
            column[:] = [at and microseconds(at) for at in column]
    return columns


@lru_cache(maxsize=64)
def _unnested(table: Table, names: tuple[str, ...]) -> str:
    """The arrays as rows; `%b` sends them in the binary format, in which bytes are just bytes."""
    arrays = ", ".join(f"%b::{table.c[name].type.compile(_POSTGRES)}[]" for name in names)
    return f"unnest({arrays}) AS fields ({', '.join(names)})"
